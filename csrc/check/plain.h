// Patches and features of a call, and the way back through them: written from the formulas as plain loops in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "configuration.h"

namespace check {

// A value, and how much was added up, by magnitude, to make it: rounding errors are small relative to that.
struct Number {
  double value = 0.0, size = 0.0;

  Number() = default;
  Number(double v) : value(v), size(std::fabs(v)) {}
  Number(double v, double s) : value(v), size(s) {}
  Number& operator+=(const Number& other) {
    value += other.value;
    size += other.size;
    return *this;
  }
};
inline Number operator+(const Number& a, const Number& b) { return {a.value + b.value, a.size + b.size}; }
inline Number operator-(const Number& a, const Number& b) { return {a.value - b.value, a.size + b.size}; }
inline Number operator*(const Number& a, const Number& b) { return {a.value * b.value, a.size * b.size}; }

typedef std::vector<Number> Numbers;

// What is known from the gradients of the features.
struct FeatureGradients {
  Numbers grad_x;      // [B, C, H, W]
  Numbers sum, outer;  // S [C, T] and D [C, T, T]
};

// Everything of each tap of each pixel is kept, [C, T, pixels], pixels being [B, h, w].
class Plain {
 public:
  const Configuration& k;
  const rfa::Shape& s;
  const int64_t channels, taps, pixels;
  std::vector<double> patch, feature;

  explicit Plain(const Configuration& configuration)
      : k(configuration), s(k.shape), channels(s.channels), taps(s.taps()), pixels(s.pixels()) {
    gather();
    generate();
  }

  // ---- Where things lie

  int64_t index(int64_t c, int64_t t, int64_t p) const { return (c * taps + t) * pixels + p; }
  int64_t image(int64_t p) const { return p / (s.out_height * s.out_width); }
  int64_t row(int64_t p) const { return p / s.out_width % s.out_height; }
  int64_t column(int64_t p) const { return p % s.out_width; }
  // In [B, C].
  int64_t image_channel(int64_t c, int64_t p) const { return image(p) * channels + c; }
  // In [B, T, h, w].
  int64_t place(int64_t t, int64_t p) const {
    return ((image(p) * taps + t) * s.out_height + row(p)) * s.out_width + column(p);
  }
  // In [B, C, kh, h] and in [B, C, kw, w]: the row and the column of the map of taps that tap t of pixel p is in.
  int64_t row_line(int64_t c, int64_t t, int64_t p) const {
    return (image_channel(c, p) * s.kernel_h + t / s.kernel_w) * s.out_height + row(p);
  }
  int64_t column_line(int64_t c, int64_t t, int64_t p) const {
    return (image_channel(c, p) * s.kernel_w + t % s.kernel_w) * s.out_width + column(p);
  }
  int64_t places() const { return pixels * taps; }
  int64_t row_lines() const { return s.batch * channels * s.kernel_h * s.out_height; }
  int64_t column_lines() const { return s.batch * channels * s.kernel_w * s.out_width; }

  // visit(c, t)
  template <class Visit>
  void each_feature(Visit visit) const {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t t = 0; t < taps; ++t) visit(c, t);
  }

  // visit(c, t, p, index)
  template <class Visit>
  void each(Visit visit) const {
    each_feature([&](int64_t c, int64_t t) {
      for (int64_t p = 0; p < pixels; ++p) visit(c, t, p, index(c, t, p));
    });
  }

  double mean_of_patch(int64_t c, int64_t p) const {
    double sum = 0.0;
    for (int64_t t = 0; t < taps; ++t) sum += patch[index(c, t, p)];
    return sum / double(taps);
  }

  // ---- Statistics of patches

  // [C, T + T*T]
  Numbers moments() const {
    Numbers result(channels * (taps + taps * taps));
    each_feature([&](int64_t c, int64_t t) {
      Number* to = &result[c * (taps + taps * taps)];
      for (int64_t p = 0; p < pixels; ++p) to[t] += patch[index(c, t, p)];
      for (int64_t u = 0; u < taps; ++u)
        for (int64_t p = 0; p < pixels; ++p) to[taps + t * taps + u] += patch[index(c, t, p)] * patch[index(c, u, p)];
    });
    return result;
  }

  // What grad_x_before gains: fold(alpha - Q patch), [B, C, H, W].
  Numbers correction() const {
    Numbers change(patch.size());
    each_feature([&](int64_t c, int64_t t) {
      for (int64_t p = 0; p < pixels; ++p) change[index(c, t, p)] = k.alpha[c * taps + t];
      for (int64_t u = 0; u < taps; ++u) {
        const Number factor = -double(k.q[(c * taps + t) * taps + u]);
        for (int64_t p = 0; p < pixels; ++p) change[index(c, t, p)] += factor * patch[index(c, u, p)];
      }
    });
    return fold(change);
  }

  // ---- The way back

  // From the gradients of the features after the ReLU, [C, T, pixels], and of the means of the patches, [C, pixels].
  FeatureGradients differentiate(const Numbers& grad_feature, const Numbers& grad_mean) const {
    Numbers dy(feature.size());  // before the ReLU
    for (size_t n = 0; n < dy.size(); ++n)
      if (feature[n] > 0.0) dy[n] = grad_feature[n];
    FeatureGradients g;
    correlate(dy, g);
    g.grad_x = fold(patch_gradient(dy, grad_mean));
    return g;
  }

 private:
  // visit(b, c, y, x, index) for the elements of x that the taps read, not for padding.
  template <class Visit>
  void each_read(Visit visit) const {
    each([&](int64_t c, int64_t t, int64_t p, int64_t n) {
      const int64_t y = row(p) * s.stride_h - s.pad_h + t / s.kernel_w * s.dilation_h;
      const int64_t x = column(p) * s.stride_w - s.pad_w + t % s.kernel_w * s.dilation_w;
      if (y >= 0 && y < s.height && x >= 0 && x < s.width) visit(image(p), c, y, x, n);
    });
  }

  void gather() {
    patch.assign(channels * taps * pixels, 0.0);
    each_read([&](int64_t b, int64_t c, int64_t y, int64_t x, int64_t n) { patch[n] = k.x.at(b, c, y, x); });
  }

  Numbers fold(const Numbers& patches) const {
    Numbers map(s.batch * channels * s.height * s.width);
    each_read([&](int64_t b, int64_t c, int64_t y, int64_t x, int64_t n) {
      map[((b * channels + c) * s.height + y) * s.width + x] += patches[n];
    });
    return map;
  }

  // A filter with the batch norm's scale.
  double scaled(int64_t c, int64_t t, int64_t u) const {
    return k.feature_weight[(c * taps + t) * taps + u] * k.scale[c * taps + t];
  }

  void generate() {
    feature.assign(patch.size(), 0.0);
    each_feature([&](int64_t c, int64_t t) {
      double* to = &feature[index(c, t, 0)];
      for (int64_t u = 0; u < taps; ++u)
        for (int64_t p = 0; p < pixels; ++p) to[p] += scaled(c, t, u) * patch[index(c, u, p)];
      for (int64_t p = 0; p < pixels; ++p) to[p] = std::max(0.0, to[p] + k.offset[c * taps + t]);
    });
  }

  // Sums over the pixels of dy and of dy times the patch, centred if that is asked for.
  void correlate(const Numbers& dy, FeatureGradients& g) const {
    g.sum.resize(channels * taps);
    g.outer.resize(channels * taps * taps);
    each_feature([&](int64_t c, int64_t t) {
      for (int64_t p = 0; p < pixels; ++p) g.sum[c * taps + t] += dy[index(c, t, p)];
      for (int64_t u = 0; u < taps; ++u) {
        const Number centre = k.centred ? k.centre[c * taps + u] : 0.0;
        for (int64_t p = 0; p < pixels; ++p)
          g.outer[(c * taps + t) * taps + u] += dy[index(c, t, p)] * (patch[index(c, u, p)] - centre);
      }
    });
  }

  // [C, T, pixels]: what dy and the gradient of the mean give each tap.
  Numbers patch_gradient(const Numbers& dy, const Numbers& grad_mean) const {
    Numbers grad(dy.size());
    each_feature([&](int64_t c, int64_t u) {
      for (int64_t p = 0; p < pixels; ++p) grad[index(c, u, p)] = grad_mean[c * pixels + p] * (1.0 / double(taps));
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t p = 0; p < pixels; ++p) grad[index(c, u, p)] += dy[index(c, t, p)] * scaled(c, t, u);
    });
    return grad;
  }
};

}  // namespace check
