// Features, weighed by an attention, contracted with the weight: the output, and the gradients of everything.
#pragma once

#include "plain_attention.h"

namespace check {

struct Gradients {
  FeatureGradients features;
  AttentionGradients attention;
  Numbers weight;  // [O, C/groups * T]
};

// visit(output, row of the weighed features, index of the weight between them)
template <class Visit>
void each_connection(const Plain& plain, Visit visit) {
  const rfa::Shape& s = plain.s;
  const int64_t depth = s.channels / s.groups * plain.taps;
  for (int64_t o = 0; o < s.out_channels; ++o)
    for (int64_t d = 0; d < depth; ++d) visit(o, o / (s.out_channels / s.groups) * depth + d, o * depth + d);
}

// [O, pixels]
inline Numbers grad_out_of(const Plain& plain) {
  Numbers grad(plain.s.out_channels * plain.pixels);
  for (size_t n = 0; n < grad.size(); ++n) {
    const int64_t o = n / plain.pixels, p = n % plain.pixels;
    grad[n] = plain.k.grad_out.at(plain.image(p), o, plain.row(p), plain.column(p));
  }
  return grad;
}

// The gradient of the weighed features, [C, T, pixels]: the same for every attention.
inline Numbers grad_weighed_of(const Plain& plain, const Numbers& grad_out) {
  Numbers grad(plain.patch.size());
  each_connection(plain, [&](int64_t o, int64_t row, int64_t at) {
    const Number weight = plain.k.weight[at];
    for (int64_t p = 0; p < plain.pixels; ++p) grad[row * plain.pixels + p] += weight * grad_out[o * plain.pixels + p];
  });
  return grad;
}

class Contraction {
 public:
  Contraction(const Plain& plain, rfa::Attention kind)
      : plain_(plain), kind_(kind),
        share_(kind == rfa::Attention::softmax ? softmax(plain) : gated(plain, kind)), weighed_(share_.size()) {
    for (size_t n = 0; n < weighed_.size(); ++n) weighed_[n] = share_[n] * plain.feature[n];
  }

  // [O, pixels]
  Numbers forward() const {
    const int64_t pixels = plain_.pixels;
    Numbers out(plain_.s.out_channels * pixels);
    each_connection(plain_, [&](int64_t o, int64_t row, int64_t at) {
      const Number weight = plain_.k.weight[at];
      for (int64_t p = 0; p < pixels; ++p) out[o * pixels + p] += weight * weighed_[row * pixels + p];
    });
    for (size_t n = 0; n < out.size(); ++n) out[n] = finish(out[n], n / pixels);
    return out;
  }

  Gradients backward(const Numbers& grad_out, const Numbers& grad_weighed) const {
    const int64_t pixels = plain_.pixels;
    Gradients grads;
    grads.weight.resize(plain_.k.weight.count());
    each_connection(plain_, [&](int64_t o, int64_t row, int64_t at) {
      for (int64_t p = 0; p < pixels; ++p) grads.weight[at] += grad_out[o * pixels + p] * weighed_[row * pixels + p];
    });
    Numbers grad_share(share_.size()), grad_feature(share_.size());
    for (size_t n = 0; n < share_.size(); ++n) {
      grad_share[n] = grad_weighed[n] * plain_.feature[n];
      grad_feature[n] = grad_weighed[n] * share_[n];
    }
    grads.attention = kind_ == rfa::Attention::softmax ? softmax_backward(plain_, share_, grad_share)
                                                       : gated_backward(plain_, kind_, grad_share);
    grads.features = plain_.differentiate(grad_feature, grads.attention.mean);
    return grads;
  }

 private:
  const Plain& plain_;
  const rfa::Attention kind_;
  Numbers share_, weighed_;

  Number finish(Number value, int64_t o) const {
    const Configuration& k = plain_.k;
    if (k.has_bias) value += Number(k.bias[o]);
    if (k.has_scale) value = value * Number(k.out_scale[o]);
    if (k.has_shift) value += Number(k.out_shift[o]);
    if (k.act == rfa::Act::relu) value.value = std::max(0.0, value.value);
    if (k.act == rfa::Act::silu) value.value /= 1.0 + std::exp(-value.value);
    return value;
  }
};

}  // namespace check
