// Receptive-field features as the kernels make them: relu(weight . (patch - center) + bias), the batch norm folded in.
#pragma once

#include <cmath>

#include "instruction_sets.h"
#include "tensors.h"

namespace rfa {

// weight [C*T, 1, kh, kw], bias [C*T], and center [C, T] or none [0, T], all in double precision; center is near the mean
// of the patches, so that filters and bias do not cancel each other.
struct Features {
  Shape shape;
  Tensor weight, bias, center;
  Tensor coefficients;  // as the kernels read them

  Features(const Tensor& x, const Tensor& weight_, const Tensor& bias_, const Tensor& center_, const Pair& stride,
           const Pair& padding, const Pair& dilation, int64_t out_channels, int64_t groups, const float* tap_weight = nullptr)
      : shape(shape_of(x, window_of(weight_, stride, padding, dilation), out_channels, groups)),
        weight(dense(weight_, "feature_weight", {shape.channels * shape.taps(), 1, shape.kernel_h, shape.kernel_w},
                     ScalarType::Double)),
        bias(dense(bias_, "feature_bias", {shape.channels * shape.taps()}, ScalarType::Double)),
        center(dense(center_, "center", {center_.dim() > 0 && center_.size(0) == 0 ? 0 : shape.channels, shape.taps()},
                     ScalarType::Double)),
        coefficients(empty({shape.channels * chosen->coefficients(shape.taps())})) {
    const int64_t taps = shape.taps(), count = shape.channels * taps;
    std::vector<float> filters(count * taps);
    for (int64_t n = 0; n < count * taps; ++n) filters[n] = float(doubles(weight)[n]);
    std::vector<double> ones(count, 1.0), offset(doubles(bias), doubles(bias) + count);
    // What is added to the filters at 0, where the bias is what is added at the center.
    for (int64_t n = 0; centred() && n < count; ++n)
      for (int64_t s = 0; s < taps; ++s) offset[n] -= filters[n * taps + s] * doubles(center)[n / taps * taps + s];
    chosen->fold(filters.data(), tap_weight, ones.data(), offset.data(), centred() ? doubles(center) : nullptr,
                 shape.channels, int(taps), mutable_floats(coefficients));
  }

  bool centred() const { return center.size(0) > 0; }

  // The kernels take a rounded center off the patches: D as if it were the exact one; and the gradient of the center.
  Tensor center_gradient(const Tensor& sum, const Tensor& outer) const {
    const int64_t c = shape.channels, t = shape.taps();
    if (!centred()) return empty({0, t}, ScalarType::Double);
    const Tensor grad = zeros({c, t}, ScalarType::Double);
    for (int64_t n = 0; n < c * t; ++n)
      for (int64_t s = 0; s < t; ++s) {
        const double at = doubles(center)[n / t * t + s];
        mutable_doubles(outer)[n * t + s] -= doubles(sum)[n] * (at - double(float(at)));
        mutable_doubles(grad)[n / t * t + s] -= doubles(weight)[n * t + s] * doubles(sum)[n];
      }
    return grad;
  }

 private:
  static Window window_of(const Tensor& weight, const Pair& stride, const Pair& padding, const Pair& dilation) {
    STD_TORCH_CHECK(weight.dim() == 4, "feature_weight must have 4 dimensions, has ", weight.dim());
    return {{weight.size(2), weight.size(3)}, stride, padding, dilation};
  }
};

}  // namespace rfa
