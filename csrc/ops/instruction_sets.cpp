#include "instruction_sets.h"

#include <cstring>
#include <initializer_list>

namespace rfa {
namespace {

// Those of that name, if this machine has them; the best for no name.
const Kernels* find_kernels(const char* name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  for (const Kernels* kernels : {avx512 ? &avx512_kernels() : nullptr, avx2 ? &avx2_kernels() : nullptr})
    if (kernels && (!name || !std::strcmp(name, kernels->name))) return kernels;
#endif
  return !name || !std::strcmp(name, baseline_kernels().name) ? &baseline_kernels() : nullptr;
}

}  // namespace

const Kernels* chosen = find_kernels(nullptr);

}  // namespace rfa

// For Python, by ctypes: the name of the kernels in use; another set's, if this machine has it (0 if not).
extern "C" __attribute__((visibility("default"))) const char* rfaconv_instruction_set() { return rfa::chosen->name; }
// For which operators this was written: rfaconv.ops.operators.definition.fingerprint(), to be changed with the schemas.
extern "C" __attribute__((visibility("default"))) const char* rfaconv_operators() { return "rfaconv operators 55f90ab910ad"; }
extern "C" __attribute__((visibility("default"))) int rfaconv_use_instruction_set(const char* name) {
  const rfa::Kernels* kernels = rfa::find_kernels(name);
  if (kernels) rfa::chosen = kernels;
  return kernels != nullptr;
}
