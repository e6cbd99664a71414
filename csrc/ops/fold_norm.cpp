// The batch norm of the features, by given statistics or by those of the batch, folded into the filters; and back.
#include <cmath>
#include <tuple>

#include "tensors.h"

namespace rfa {
namespace {

// Mean and covariance of the patches, from their moments [C, 1 + T + T*T]: count, sums, sums of products.
struct PatchStatistics {
  int64_t taps;
  const double* moments;

  const double* of(int64_t channel) const { return moments + channel * (1 + taps + taps * taps); }
  double count(int64_t channel) const { return of(channel)[0]; }
  double mean(int64_t channel, int64_t s) const { return of(channel)[1 + s] / count(channel); }
  double covariance(int64_t channel, int64_t s, int64_t r) const {
    return of(channel)[1 + taps + s * taps + r] / count(channel) - mean(channel, s) * mean(channel, r);
  }

  // [T, T] of one channel.
  void covariance_of(int64_t channel, double* matrix) const {
    for (int64_t s = 0; s < taps; ++s)
      for (int64_t r = 0; r < taps; ++r) matrix[s * taps + r] = covariance(channel, s, r);
  }
};

// product[s] = sum over r of filter[r] * matrix[r, s].
void multiply(const float* filter, const double* matrix, int64_t taps, double* product) {
  for (int64_t s = 0; s < taps; ++s) product[s] = 0.0;
  for (int64_t r = 0; r < taps; ++r)
    for (int64_t s = 0; s < taps; ++s) product[s] += filter[r] * matrix[r * taps + s];
}

template <class Number>
double dot(const float* filter, const Number* values, int64_t taps) {
  double sum = 0.0;
  for (int64_t s = 0; s < taps; ++s) sum += filter[s] * values[s];
  return sum;
}

struct Arguments {
  int64_t channels, taps;
  Tensor weight;
  MaybeTensor norm_weight, norm_bias, mean, var, moments;

  Arguments(const Tensor& weight_, const MaybeTensor& norm_weight_, const MaybeTensor& norm_bias_, const MaybeTensor& mean_,
            const MaybeTensor& var_, const MaybeTensor& moments_) {
    check(weight_, "weight", ScalarType::Float, {-1, 1, -1, -1});
    for (int n = 0; n < 4; ++n) STD_TORCH_CHECK(weight_.size(n) >= 1 && weight_.size(n) < MOST, "weight is of a wrong size");
    taps = product({weight_.size(2), weight_.size(3)});
    STD_TORCH_CHECK(taps <= 128 && weight_.size(0) % taps == 0, "weight must be [C*T, 1, kh, kw], T = kh*kw at most 128");
    const int64_t features = weight_.size(0);
    channels = features / taps;
    weight = dense(weight_, "weight", {features, 1, weight_.size(2), weight_.size(3)});
    if (norm_weight_) norm_weight = dense(*norm_weight_, "norm_weight", {features});
    if (norm_bias_) norm_bias = dense(*norm_bias_, "norm_bias", {features});
    if (moments_) {
      moments = dense(*moments_, "moments", {channels, 1 + taps + taps * taps}, ScalarType::Double);
      STD_TORCH_CHECK(doubles(*moments)[0] >= 1, "the moments are of no patch");
    } else {
      STD_TORCH_CHECK(mean_ && var_, "mean and var, or moments, must be given");
      mean = dense(*mean_, "mean", {features}), var = dense(*var_, "var", {features});
    }
  }

  const float* filter(int64_t n) const { return floats(weight) + n * taps; }
  double gamma(int64_t n) const { return norm_weight ? floats(*norm_weight)[n] : 1.0; }
  PatchStatistics statistics() const { return {taps, moments ? doubles(*moments) : nullptr}; }

  // Calls task(channel, covariance [T, T] or null) for each channel, on all threads.
  template <class Task>
  void each_channel(Task task) const {
    torch::stable::parallel_for(0, channels, 32, [&](int64_t begin, int64_t end) {
      std::vector<double> covariance(moments ? taps * taps : 0);
      for (int64_t c = begin; c < end; ++c) {
        if (moments) statistics().covariance_of(c, covariance.data());
        task(c, covariance.data());
      }
    });
  }
};

// y = weight . (patch - center) + bias, and the batch's mean and variance of each feature where there are moments.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> fold_norm(const Tensor& weight, MaybeTensor norm_weight,
                                                             MaybeTensor norm_bias, MaybeTensor mean, MaybeTensor var,
                                                             MaybeTensor moments, double eps) {
  const Arguments a(weight, norm_weight, norm_bias, mean, var, moments);
  const int64_t t = a.taps, features = a.channels * t, found = a.moments ? features : 0;
  const Tensor folded = empty({features, 1, weight.size(2), weight.size(3)}, ScalarType::Double);
  const Tensor bias = empty({features}, ScalarType::Double), center = empty({found / t, t}, ScalarType::Double);
  const Tensor batch_mean = empty({found}), batch_var = empty({found});
  a.each_channel([&](int64_t c, const double* covariance) {
    std::vector<double> product(t), at(t);
    for (int64_t s = 0; a.moments && s < t; ++s) mutable_doubles(center)[c * t + s] = at[s] = a.statistics().mean(c, s);
    for (int64_t n = c * t; n < (c + 1) * t; ++n) {
      double variance, offset = a.norm_bias ? floats(*a.norm_bias)[n] : 0.0;
      if (a.moments) {
        multiply(a.filter(n), covariance, t, product.data());
        variance = dot(a.filter(n), product.data(), t);
        variance = variance < 0.0 ? 0.0 : variance;
        mutable_floats(batch_mean)[n] = float(dot(a.filter(n), at.data(), t));
        mutable_floats(batch_var)[n] = float(variance);
      } else {
        variance = floats(*a.var)[n];
      }
      const double scale = a.gamma(n) / std::sqrt(variance + eps);
      if (!a.moments) offset -= floats(*a.mean)[n] * scale;
      mutable_doubles(bias)[n] = offset;
      for (int64_t s = 0; s < t; ++s) mutable_doubles(folded)[n * t + s] = scale * a.filter(n)[s];
    }
  });
  return {folded, bias, center, batch_mean, batch_var};
}

// Gradients of weight, norm_weight, norm_bias and moments, from those of fold_norm's weight, bias and center.
std::tuple<Tensor, Tensor, Tensor, Tensor> fold_norm_backward(const Tensor& grad_weight_, const Tensor& grad_bias_,
                                                              const Tensor& grad_center_, const Tensor& weight,
                                                              MaybeTensor norm_weight, MaybeTensor mean, MaybeTensor var,
                                                              MaybeTensor moments, double eps) {
  const Arguments a(weight, norm_weight, std::nullopt, mean, var, moments);
  const int64_t t = a.taps, features = a.channels * t, found = a.moments ? a.channels : 0;
  const Tensor outer = dense(grad_weight_, "grad_weight", {features, 1, weight.size(2), weight.size(3)}, ScalarType::Double);
  const Tensor sum = dense(grad_bias_, "grad_bias", {features}, ScalarType::Double);
  const Tensor to_center = dense(grad_center_, "grad_center", {found, t}, ScalarType::Double);
  const Tensor grad_filter = empty({features, 1, weight.size(2), weight.size(3)});
  const Tensor grad_scale = empty({features}), grad_bias = empty({features});
  const Tensor grad_moments = empty({found, 1 + t + t * t}, ScalarType::Double);
  a.each_channel([&](int64_t c, const double* covariance) {
    std::vector<double> product(t), to_covariance(a.moments ? t * t : 0);
    for (int64_t n = c * t; n < (c + 1) * t; ++n) {
      const float* filter = a.filter(n);
      const double *d = doubles(outer) + n * t, s = doubles(sum)[n];
      double variance, to_scale = dot(filter, d, t), through = 0.0;
      if (a.moments) {
        multiply(filter, covariance, t, product.data());
        variance = dot(filter, product.data(), t);
        variance = variance < 0.0 ? 0.0 : variance;
      } else {
        variance = floats(*a.var)[n];
        to_scale -= floats(*a.mean)[n] * s;
      }
      const double inverse = 1.0 / std::sqrt(variance + eps), scale = a.gamma(n) * inverse;
      mutable_floats(grad_scale)[n] = float(inverse * to_scale);
      mutable_floats(grad_bias)[n] = float(s);
      if (a.moments) {
        through = -0.5 * to_scale * scale * inverse * inverse;  // of the variance
        for (int64_t r = 0; r < t; ++r)
          for (int64_t u = 0; u < t; ++u) to_covariance[r * t + u] += through * filter[r] * filter[u];
      }
      for (int64_t r = 0; r < t; ++r)
        mutable_floats(grad_filter)[n * t + r] = float(scale * d[r] + (a.moments ? 2.0 * through * product[r] : 0.0));
    }
    if (!a.moments) return;
    const PatchStatistics statistics = a.statistics();
    const double count = statistics.count(c);
    double* to = mutable_doubles(grad_moments) + c * (1 + t + t * t);
    to[0] = 0.0;  // how many there are is no variable
    for (int64_t r = 0; r < t; ++r) {
      double to_mean = doubles(to_center)[c * t + r];
      for (int64_t u = 0; u < t; ++u) {
        to_mean -= 2.0 * to_covariance[r * t + u] * statistics.mean(c, u);
        to[1 + t + r * t + u] = to_covariance[r * t + u] / count;
      }
      to[1 + r] = to_mean / count;
    }
  });
  return {grad_filter, grad_scale, grad_bias, grad_moments};
}

STABLE_TORCH_LIBRARY_IMPL(rfaconv, CPU, m) {
  m.impl("fold_norm", TORCH_BOX(&fold_norm));
  m.impl("fold_norm_backward", TORCH_BOX(&fold_norm_backward));
}

}  // namespace
}  // namespace rfa
