// Tensors as the kernels want them: checked, dense, allocated by torch; tasks on torch's threads.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <initializer_list>
#include <optional>
#include <vector>

#include "../problem.h"

namespace rfa {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

inline void check(const Tensor& t, const char* name, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  STD_TORCH_CHECK(t.is_cpu(), name, " must be on the CPU");
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, " has the wrong dtype");
  STD_TORCH_CHECK(t.dim() == int64_t(sizes.size()), name, " must have ", sizes.size(), " dimensions, has ", t.dim());
  int64_t n = 0;
  for (int64_t size : sizes) {
    STD_TORCH_CHECK(size < 0 || t.size(n) == size, name, " must have size ", size, " in dimension ", n, ", has ", t.size(n));
    ++n;
  }
}

// A contiguous tensor of floats (doubles) of these sizes; `t` itself if it is one.
inline Tensor dense(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes, ScalarType dtype = ScalarType::Float) {
  check(t, name, dtype, sizes);
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

inline const float* floats(const Tensor& t) { return static_cast<const float*>(t.data_ptr()); }
inline float* mutable_floats(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }
inline const double* doubles(const Tensor& t) { return static_cast<const double*>(t.data_ptr()); }
inline double* mutable_doubles(const Tensor& t) { return static_cast<double*>(t.data_ptr()); }

// Straight from torch's C interface: by its dispatcher an allocation takes longer than a small layer's arithmetic.
inline Tensor empty_strided(const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides, ScalarType dtype) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      int64_t(sizes.size()), sizes.data(), strides.data(),
      dtype == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0,
      &handle));
  return Tensor(handle);
}
inline Tensor empty(const std::vector<int64_t>& sizes, ScalarType dtype = ScalarType::Float) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t n = sizes.size(); n-- > 0; stride *= sizes[n] > 1 ? sizes[n] : 1) strides[n] = stride;
  return empty_strided(sizes, strides, dtype);
}
inline Tensor zeros(std::vector<int64_t> sizes, ScalarType dtype = ScalarType::Float) {
  Tensor t = empty(std::move(sizes), dtype);
  std::memset(t.data_ptr(), 0, t.numel() * (dtype == ScalarType::Double ? sizeof(double) : sizeof(float)));
  return t;
}

constexpr int64_t MOST = int64_t(1) << 31;  // of any size: their products of two then fit

inline int64_t product(std::initializer_list<int64_t> factors) {
  int64_t result = 1;
  for (int64_t factor : factors)
    STD_TORCH_CHECK(!__builtin_mul_overflow(result, factor, &result), "sizes overflow");
  return result;
}

using Pair = std::vector<int64_t>;  // (vertical, horizontal)

// How the kernel moves over the input.
struct Window {
  Pair kernel_size, stride, padding, dilation;

  void check() const {
    const struct { const char* name; const Pair& pair; int64_t least; } parts[] = {
        {"kernel_size", kernel_size, 1}, {"stride", stride, 1}, {"padding", padding, 0}, {"dilation", dilation, 1}};
    for (const auto& part : parts) {
      STD_TORCH_CHECK(part.pair.size() == 2, part.name, " must have 2 numbers, has ", part.pair.size());
      for (int64_t value : part.pair)
        STD_TORCH_CHECK(value >= part.least && value < (1 << 20), part.name, " has ", value);
    }
  }
};

inline Shape shape_of(const Tensor& x, const Window& window, int64_t out_channels, int64_t groups) {
  check(x, "input", ScalarType::Float, {-1, -1, -1, -1});
  window.check();
  for (int n = 0; n < 4; ++n) STD_TORCH_CHECK(x.size(n) < MOST, "input is too large");
  Shape s;
  s.batch = x.size(0), s.channels = x.size(1), s.height = x.size(2), s.width = x.size(3);
  s.out_channels = out_channels, s.groups = groups;
  const auto& [kernel, stride, padding, dilation] = window;
  s.kernel_h = int(kernel[0]), s.kernel_w = int(kernel[1]), s.stride_h = int(stride[0]), s.stride_w = int(stride[1]);
  s.pad_h = int(padding[0]), s.pad_w = int(padding[1]), s.dilation_h = int(dilation[0]), s.dilation_w = int(dilation[1]);
  STD_TORCH_CHECK(kernel[0] * kernel[1] <= 128 && stride[1] <= 32, "the CPU kernel takes at most 128 taps and a stride of 32");
  const int64_t rows = s.height + 2 * padding[0] - dilation[0] * (kernel[0] - 1);
  const int64_t columns = s.width + 2 * padding[1] - dilation[1] * (kernel[1] - 1);
  STD_TORCH_CHECK(rows > 0 && columns > 0, "the kernel is larger than the padded input");
  s.out_height = (rows - 1) / stride[0] + 1, s.out_width = (columns - 1) / stride[1] + 1;
  STD_TORCH_CHECK(groups >= 1 && s.channels >= 1 && out_channels >= 1 && s.channels % groups == 0 && out_channels % groups == 0,
                  "groups must divide the channels");
  STD_TORCH_CHECK(out_channels < MOST, "too many output channels");
  product({s.batch, s.channels, s.height, s.width, 8});
  product({s.batch, out_channels, s.out_height, s.out_width, 8});
  product({s.channels, s.taps(), s.taps(), 8});
  product({out_channels, s.channels, s.taps(), 8});
  // Offsets in a tile's rows are ints: those of 192 pixels.
  STD_TORCH_CHECK(product({s.kernel_h, 194, s.stride_w, s.out_width + product({s.kernel_w, s.dilation_w})}) < MOST,
                  "the input is too wide for the CPU kernel");
  return s;
}

inline ConstMap map_of(const Tensor& x) { return {floats(x), x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }
inline Map mutable_map_of(const Tensor& x) { return {mutable_floats(x), x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

// Whether channels, not columns, are neighbours in memory.
inline bool channels_last(const Tensor& x) { return x.stride(1) == 1 && x.size(1) > 1; }

inline Tensor empty_map(int64_t batch, int64_t channels, int64_t height, int64_t width, bool last) {
  const std::vector<int64_t> sizes = {batch, channels, height, width};
  if (!last) return empty(sizes);
  const auto least = [](int64_t size) { return size > 1 ? size : 1; };
  return empty_strided(sizes, {least(height) * least(width) * least(channels), 1, least(width) * least(channels), least(channels)},
                       ScalarType::Float);
}

// A gradient whose pixels lie evenly: as it is, or a contiguous copy (of one that was expanded, say).
inline Tensor even(const Tensor& grad) {
  const bool planes = grad.stride(3) == 1 && grad.stride(2) == grad.size(3);
  const bool pixels = grad.stride(1) == 1 && grad.stride(2) == grad.size(3) * grad.stride(3) && grad.stride(3) >= grad.size(1);
  return planes || pixels ? grad : torch::stable::contiguous(grad);
}

// Runs task(index, scratch) for all indices below `tasks`, each with scratch of its own.
template <class Task>
void run(int64_t tasks, int64_t scratch_floats, Task task) {
  const int64_t each = (scratch_floats + 31) / 16 * 16;
  const Tensor scratch = empty({tasks * each});
  float* start = mutable_floats(scratch);
  start += (64 - reinterpret_cast<uintptr_t>(start) % 64) % 64 / sizeof(float);
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) task(n, start + n * each);
  });
}

inline int64_t threads() { return torch::stable::get_num_threads(); }
inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t at_least_one(int64_t a) { return a < 1 ? 1 : a; }

}  // namespace rfa
