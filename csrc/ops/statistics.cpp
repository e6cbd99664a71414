// Batch statistics: moments of the patches, and the gradient that goes through them.
#include <tuple>

#include "norm.h"

namespace rfa {
namespace {

// grad_x gains fold(alpha - q patch).
void add_correction(const Tensor& x, const Shape& s, const Tensor& alpha, const Tensor& q, const Tensor& grad_x) {
  const CorrectionArgs args = {s, map_of(x), mutable_map_of(grad_x), floats(alpha), floats(q)};
  const int64_t tasks = at_most(threads(), s.channels);
  run(tasks, chosen->rows_scratch(s), [&](int64_t n, float* scratch) { chosen->correct(args, scratch, n, tasks); });
}

// Sums over all patches of x of the taps and of their products, [C, T + T*T] in double.
Tensor patch_moments(const Tensor& x, std::vector<int64_t> window) {
  const Shape s = shape_of(x, window, 1, 1);
  const Tensor result = zeros({s.channels, s.taps() + s.taps() * s.taps()}, ScalarType::Double);
  const MomentsArgs args = {s, map_of(x), mutable_doubles(result)};
  const int64_t tasks = at_most(threads(), s.channels);
  if (s.pixels() == 0) return result;
  run(tasks, chosen->rows_scratch(s), [&](int64_t n, float* scratch) { chosen->moments(args, scratch, n, tasks); });
  return result;
}

// The gradient of x from that of its moments. A product's share goes to both its factors.
Tensor patch_moments_backward(const Tensor& grad_, const Tensor& x, std::vector<int64_t> window) {
  const Shape s = shape_of(x, window, 1, 1);
  const int64_t c = s.channels, t = s.taps();
  const Tensor grad = dense(grad_, "grad", {c, t + t * t}, ScalarType::Double);
  const Tensor grad_x = empty_map(s.batch, c, s.height, s.width, channels_last(x));
  std::memset(grad_x.data_ptr(), 0, sizeof(float) * grad_x.numel());
  if (s.pixels() == 0) return grad_x;
  const Tensor alpha = empty({c, t}), q = empty({c, t, t});
  for (int64_t channel = 0; channel < c; ++channel) {
    const double *first = doubles(grad) + channel * (t + t * t), *second = first + t;
    for (int64_t r = 0; r < t; ++r) {
      mutable_floats(alpha)[channel * t + r] = float(first[r]);
      for (int64_t u = 0; u < t; ++u)
        mutable_floats(q)[(channel * t + r) * t + u] = float(-second[r * t + u] - second[u * t + r]);
    }
  }
  add_correction(x, s, alpha, q, grad_x);
  return grad_x;
}

// From S and D: the gradients of feature_weight, norm_weight and norm_bias; grad_x gains what goes through the statistics.
std::tuple<Tensor, Tensor, Tensor> norm_backward(Tensor grad_x, const Tensor& x, const Tensor& feature_weight,
                                                 MaybeTensor norm_weight, MaybeTensor mean, MaybeTensor var,
                                                 MaybeTensor moments, const Tensor& sum_, const Tensor& outer_,
                                                 int64_t count, double eps, std::vector<int64_t> window) {
  const Parameters p(x, feature_weight, norm_weight, std::nullopt, mean, var, moments, count, eps, window, 1, 1);
  const Shape& s = p.shape;
  const int64_t channels = s.channels, taps = s.taps();
  const Tensor sum_tensor = dense(sum_, "sum", {channels, taps}, ScalarType::Double);
  const Tensor outer_tensor = dense(outer_, "outer", {channels, taps, taps}, ScalarType::Double);
  const double *sums = doubles(sum_tensor), *outers = doubles(outer_tensor);
  const bool input_too = grad_x.numel() > 0;
  if (input_too) check(grad_x, "grad_x", ScalarType::Float, {s.batch, channels, s.height, s.width});
  const auto statistics = p.statistics();
  const Norm norm = p.norm(statistics);

  const Tensor grad_filter = empty({channels * taps, 1, s.kernel_h, s.kernel_w});
  const Tensor grad_scale = empty({channels * taps}), grad_bias = empty({channels * taps});
  const bool corrects = statistics && input_too && s.pixels() > 0;
  const Tensor alpha = empty({corrects ? channels : 0, taps}), q = empty({corrects ? channels : 0, taps, taps});
  torch::stable::parallel_for(0, channels, 32, [&](int64_t begin, int64_t end) {
    std::vector<double> through(taps * taps), d(taps * taps), weight(taps);
    for (int64_t c = begin; c < end; ++c) {
      const float* filter = floats(p.feature_weight) + c * taps * taps;
      const double *sum = sums + c * taps, *outer = outers + c * taps * taps;
      const double *inverse = &norm.inverse[c * taps], *scale = &norm.scale[c * taps];
      if (statistics) statistics->times_covariance(filter, c, through.data());
      for (int64_t t = 0; t < taps; ++t) {
        double along = 0.0;
        for (int64_t r = 0; r < taps; ++r) {
          double value = outer[t * taps + r];
          if (statistics) {  // centred by the rounded mean so far
            const double m = statistics->mean[c * taps + r];
            value -= sum[t] * (m - double(float(m)));
          }
          d[t * taps + r] = value;
          along += filter[t * taps + r] * value;
        }
        const double grad = inverse[t] * (statistics ? along : along - norm.mean[c * taps + t] * sum[t]);
        mutable_floats(grad_scale)[c * taps + t] = float(grad);
        mutable_floats(grad_bias)[c * taps + t] = float(sum[t]);
        weight[t] = statistics ? grad * inverse[t] : 0.0;
        for (int64_t r = 0; r < taps; ++r)
          mutable_floats(grad_filter)[(c * taps + t) * taps + r] =
              float(scale[t] * (d[t * taps + r] - (statistics ? weight[t] * through[t * taps + r] : 0.0)));
      }
      if (!corrects) continue;
      for (int64_t r = 0; r < taps; ++r) {
        double constant = 0.0;
        for (int64_t t = 0; t < taps; ++t) constant -= scale[t] * filter[t * taps + r] * sum[t] / p.count;
        for (int64_t u = 0; u < taps; ++u) {
          double value = 0.0;
          for (int64_t t = 0; t < taps; ++t)
            value += scale[t] * filter[t * taps + r] * weight[t] / p.count * filter[t * taps + u];
          mutable_floats(q)[(c * taps + r) * taps + u] = float(value);
          constant += value * statistics->mean[c * taps + u];
        }
        mutable_floats(alpha)[c * taps + r] = float(constant);
      }
    }
  });
  if (corrects) add_correction(x, s, alpha, q, grad_x);
  return {grad_filter, grad_scale, grad_bias};
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("patch_moments", TORCH_BOX(&patch_moments));
  m.impl("patch_moments_backward", TORCH_BOX(&patch_moments_backward));
  m.impl("norm_backward", TORCH_BOX(&norm_backward));
}

}  // namespace
}  // namespace rfa
