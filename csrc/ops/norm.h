// The batch norm of the features, by fixed statistics or by those of the batch, folded into the filters.
#pragma once

#include <cmath>

#include "instruction_sets.h"
#include "tensors.h"

namespace rfa {

// y = scale * (filter . patch) + offset, the batch norm folded; of all C*T features.
struct Norm {
  std::vector<double> mean, var, inverse, scale, offset;

  void fold(const MaybeTensor& weight, const MaybeTensor& bias, double eps) {
    const size_t count = mean.size();
    inverse.resize(count), scale.resize(count), offset.resize(count);
    for (size_t n = 0; n < count; ++n) {
      inverse[n] = 1.0 / std::sqrt(var[n] + eps);
      scale[n] = inverse[n] * (weight ? floats(*weight)[n] : 1.0);
      offset[n] = (bias ? floats(*bias)[n] : 0.0) - mean[n] * scale[n];
    }
  }
};

// First moments and covariance of the patches, from their sums over `count` patches.
struct PatchStatistics {
  int64_t channels, taps;
  double count;
  std::vector<double> mean, covariance;

  PatchStatistics(const Tensor& moments, int64_t c, int64_t t, double n) : channels(c), taps(t), count(n) {
    mean.resize(c * t), covariance.resize(c * t * t);
    const double* sums = doubles(moments);
    for (int64_t channel = 0; channel < c; ++channel) {
      const double* first = sums + channel * (t + t * t);
      double* m = &mean[channel * t];
      for (int64_t s = 0; s < t; ++s) m[s] = first[s] / n;
      for (int64_t s = 0; s < t; ++s)
        for (int64_t r = 0; r < t; ++r) covariance[(channel * t + s) * t + r] = first[t + s * t + r] / n - m[s] * m[r];
    }
  }

  // product[t, s] = sum over r of filter[t, r] * covariance[r, s], for one channel.
  void times_covariance(const float* filter, int64_t channel, double* product) const {
    const double* matrix = &covariance[channel * taps * taps];
    for (int64_t t = 0; t < taps; ++t) {
      double* row = product + t * taps;
      for (int64_t s = 0; s < taps; ++s) row[s] = 0.0;
      for (int64_t r = 0; r < taps; ++r)
        for (int64_t s = 0; s < taps; ++s) row[s] += filter[t * taps + r] * matrix[r * taps + s];
    }
  }

  Norm norm(const float* filters) const {
    Norm norm;
    norm.mean.resize(channels * taps), norm.var.resize(channels * taps);
    torch::stable::parallel_for(0, channels, 32, [&](int64_t begin, int64_t end) {
      std::vector<double> product(taps * taps);
      for (int64_t c = begin; c < end; ++c) {
        const float* filter = filters + c * taps * taps;
        times_covariance(filter, c, product.data());
        for (int64_t t = 0; t < taps; ++t) {
          double m = 0.0, v = 0.0;
          for (int64_t s = 0; s < taps; ++s) {
            m += filter[t * taps + s] * mean[c * taps + s];
            v += filter[t * taps + s] * product[t * taps + s];
          }
          norm.mean[c * taps + t] = m;
          norm.var[c * taps + t] = v < 0.0 ? 0.0 : v;
        }
      }
    });
    return norm;
  }
};

// What is taken from the patches before the filters see them: their mean where it is known.
inline const double* centre_of(const std::optional<PatchStatistics>& statistics) {
  return statistics ? statistics->mean.data() : nullptr;
}

inline Norm fixed_norm(const Tensor& mean, const Tensor& var) {
  const float *m = floats(mean), *v = floats(var);
  Norm norm;
  norm.mean.assign(m, m + mean.numel());
  norm.var.assign(v, v + var.numel());
  return norm;
}

// That changes nothing, with eps 0.
inline Norm identity_norm(int64_t features) {
  Norm norm;
  norm.mean.assign(features, 0.0);
  norm.var.assign(features, 1.0);
  return norm;
}

// Whether the features have a batch norm, or one that is in the filters already.
enum class Normed { no, yes };

struct Parameters {
  Shape shape;
  Tensor feature_weight;
  MaybeTensor norm_weight, norm_bias, mean, var, moments;
  double eps, count;

  Parameters(const Tensor& x, const Tensor& feature_weight_, MaybeTensor norm_weight_, MaybeTensor norm_bias_,
             MaybeTensor mean_, MaybeTensor var_, MaybeTensor moments_, int64_t count_, double eps_,
             const std::vector<int64_t>& window, int64_t out_channels, int64_t groups, Normed normed = Normed::yes)
      : shape(shape_of(x, window, out_channels, groups)), eps(eps_), count(double(count_)) {
    const int64_t c = shape.channels, t = shape.taps(), features = c * t;
    feature_weight = dense(feature_weight_, "feature_weight", {features, 1, shape.kernel_h, shape.kernel_w});
    if (norm_weight_) norm_weight = dense(*norm_weight_, "norm_weight", {features});
    if (norm_bias_) norm_bias = dense(*norm_bias_, "norm_bias", {features});
    if (moments_) {
      moments = dense(*moments_, "moments", {c, t + t * t}, ScalarType::Double);
      STD_TORCH_CHECK(count_ >= 1, "count must be at least 1");
    } else if (normed == Normed::yes) {
      STD_TORCH_CHECK(mean_ && var_, "mean and var, or moments, must be given");
      mean = dense(*mean_, "mean", {features});
      var = dense(*var_, "var", {features});
    }
  }

  std::optional<PatchStatistics> statistics() const {
    if (!moments) return std::nullopt;
    return PatchStatistics(*moments, shape.channels, shape.taps(), count);
  }

  Norm norm(const std::optional<PatchStatistics>& statistics) const {
    Norm result = statistics ? statistics->norm(floats(feature_weight))
                  : mean     ? fixed_norm(*mean, *var)
                             : identity_norm(shape.channels * shape.taps());
    result.fold(norm_weight, norm_bias, eps);
    return result;
  }

  // `centre` [C, T]: near the mean of the patches, or null.
  Tensor coefficients(const Norm& norm, const Tensor* attention_weight, const double* centre) const {
    const Tensor all = empty({shape.channels * chosen->coefficients(shape.taps())});
    chosen->fold(floats(feature_weight), attention_weight ? floats(*attention_weight) : nullptr, norm.scale.data(),
                 norm.offset.data(), centre, shape.channels, shape.taps(), mutable_floats(all));
    return all;
  }
};

inline Tensor as_floats(const std::vector<double>& values) {
  const Tensor t = empty({int64_t(values.size())});
  for (size_t n = 0; n < values.size(); ++n) mutable_floats(t)[n] = float(values[n]);
  return t;
}

}  // namespace rfa
