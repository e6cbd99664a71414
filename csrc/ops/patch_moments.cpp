// How many patches an input has, the sums of their taps and of their products: batch statistics without features.
#include "instruction_sets.h"
#include "tensors.h"

namespace rfa {
namespace {

// [C, 1 + T + T*T] in double precision.
Tensor patch_moments(const Tensor& x, Pair kernel_size, Pair stride, Pair padding, Pair dilation) {
  const Shape s = shape_of(x, {kernel_size, stride, padding, dilation}, 1, 1);
  const int64_t each = s.taps() + s.taps() * s.taps();
  const Tensor sums = zeros({s.channels, each}, ScalarType::Double), result = empty({s.channels, 1 + each}, ScalarType::Double);
  if (s.pixels() > 0) {
    const MomentsArgs args = {s, map_of(x), mutable_doubles(sums)};
    const int64_t tasks = at_most(threads(), s.channels);
    run(tasks, chosen->rows_scratch(s), [&](int64_t n, float* scratch) { chosen->moments(args, scratch, n, tasks); });
  }
  for (int64_t c = 0; c < s.channels; ++c) {
    mutable_doubles(result)[c * (1 + each)] = double(s.pixels());
    std::memcpy(mutable_doubles(result) + c * (1 + each) + 1, doubles(sums) + c * each, sizeof(double) * each);
  }
  return result;
}

// The gradient of x from that of its moments: fold(alpha - q patch). A product's share goes to both its factors.
Tensor patch_moments_backward(const Tensor& grad_, const Tensor& x, Pair kernel_size, Pair stride, Pair padding,
                              Pair dilation) {
  const Shape s = shape_of(x, {kernel_size, stride, padding, dilation}, 1, 1);
  const int64_t c = s.channels, t = s.taps();
  const Tensor grad = dense(grad_, "grad", {c, 1 + t + t * t}, ScalarType::Double);
  const Tensor grad_x = empty_map(s.batch, c, s.height, s.width, channels_last(x));
  std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  if (s.pixels() == 0) return grad_x;
  const Tensor alpha = empty({c, t}), q = empty({c, t, t});
  for (int64_t channel = 0; channel < c; ++channel) {
    const double *first = doubles(grad) + channel * (1 + t + t * t) + 1, *second = first + t;
    for (int64_t r = 0; r < t; ++r) {
      mutable_floats(alpha)[channel * t + r] = float(first[r]);
      for (int64_t u = 0; u < t; ++u)
        mutable_floats(q)[(channel * t + r) * t + u] = float(-second[r * t + u] - second[u * t + r]);
    }
  }
  const CorrectionArgs args = {s, map_of(x), mutable_map_of(grad_x), floats(alpha), floats(q)};
  const int64_t tasks = at_most(threads(), c);
  run(tasks, chosen->rows_scratch(s), [&](int64_t n, float* scratch) { chosen->correct(args, scratch, n, tasks); });
  return grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("patch_moments", TORCH_BOX(&patch_moments));
  m.impl("patch_moments_backward", TORCH_BOX(&patch_moments_backward));
}

}  // namespace
}  // namespace rfa
