// Tasks may run at the same time, so no two may write to the same place, not even to add to it.
#pragma once

#include <cstring>
#include <vector>

#include "buffer.h"

namespace check {

// The results of a kernel whose tasks run one after the other.
class Results {
 public:
  template <class... Numbers>
  explicit Results(const Buffer<Numbers>&... buffers) {
    (results_.push_back({reinterpret_cast<const char*>(buffers.data()), sizeof(Numbers), buffers.count(),
                         std::vector<char>(sizeof(Numbers) * buffers.count()), std::vector<bool>(buffers.count())}),
     ...);
    for (Result& r : results_)
      if (r.count) std::memcpy(r.before.data(), r.data, r.size * r.count);
  }

  // To be asked after each task: whether it changed a number that an earlier task had changed.
  bool changed_again() {
    for (Result& r : results_)
      for (int64_t n = 0; n < r.count; ++n) {
        const size_t at = n * r.size;
        if (!std::memcmp(r.data + at, &r.before[at], r.size)) continue;
        if (r.changed[n]) return true;
        r.changed[n] = true;
        std::memcpy(&r.before[at], r.data + at, r.size);
      }
    return false;
  }

 private:
  struct Result {
    const char* data;
    size_t size;  // of a number
    int64_t count;
    std::vector<char> before;
    std::vector<bool> changed;
  };
  std::vector<Result> results_;
};

}  // namespace check
