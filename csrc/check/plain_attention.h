// What weighs the features: a softmax over the taps, or given gates; and the gradients of what it is made of.
#pragma once

#include "plain.h"

namespace check {

// Gradients as GateGradients has them, splits and shares added up; `mean` is that of the means of the patches.
struct AttentionGradients {
  Numbers first, second, mean;
};

// The softmax of attention weight times the mean of the patch. A logit's rounding error is relative to the logit.
inline Numbers softmax(const Plain& plain) {
  Numbers share(plain.patch.size());
  const int64_t taps = plain.taps;
  for (int64_t c = 0; c < plain.channels; ++c)
    for (int64_t p = 0; p < plain.pixels; ++p) {
      const float* weight = &plain.k.attention_weight[c * taps];
      const double mean = plain.mean_of_patch(c, p);
      double top = -INFINITY, total = 0.0;
      for (int64_t t = 0; t < taps; ++t) top = std::max(top, weight[t] * mean);
      for (int64_t t = 0; t < taps; ++t) total += std::exp(weight[t] * mean - top);
      for (int64_t t = 0; t < taps; ++t) {
        const double logit = weight[t] * mean, value = std::exp(logit - top) / total;
        share[plain.index(c, t, p)] = {value, value * (1.0 + std::fabs(logit) + std::fabs(top))};
      }
    }
  return share;
}

inline AttentionGradients softmax_backward(const Plain& plain, const Numbers& share, const Numbers& grad_share) {
  const int64_t taps = plain.taps;
  AttentionGradients grads;
  grads.first.resize(plain.channels * taps);
  grads.mean.resize(plain.channels * plain.pixels);
  for (int64_t c = 0; c < plain.channels; ++c)
    for (int64_t p = 0; p < plain.pixels; ++p) {
      const double mean = plain.mean_of_patch(c, p);
      Number dot;
      for (int64_t t = 0; t < taps; ++t) dot += share[plain.index(c, t, p)] * grad_share[plain.index(c, t, p)];
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t n = plain.index(c, t, p);
        const Number grad_logit = share[n] * (grad_share[n] - dot);
        grads.first[c * taps + t] += grad_logit * mean;
        grads.mean[c * plain.pixels + p] += grad_logit * plain.k.attention_weight[c * taps + t];
      }
    }
  return grads;
}

// visit(index, of the first gate, of the second gate) for each feature.
template <class Visit>
void each_gated(const Plain& plain, rfa::Attention kind, Visit visit) {
  plain.each([&](int64_t c, int64_t t, int64_t p, int64_t n) {
    if (kind == rfa::Attention::gates) visit(n, plain.image_channel(c, p), plain.place(t, p));
    if (kind == rfa::Attention::lines) visit(n, plain.row_line(c, t, p), plain.column_line(c, t, p));
  });
}

inline Numbers gated(const Plain& plain, rfa::Attention kind) {
  const rfa::Gates gates = plain.k.gates(kind);
  Numbers share(plain.patch.size());
  each_gated(plain, kind, [&](int64_t n, int64_t first, int64_t second) {
    share[n] = Number(gates.first[first]) * Number(gates.second[second]);
  });
  return share;
}

inline AttentionGradients gated_backward(const Plain& plain, rfa::Attention kind, const Numbers& grad_share) {
  const rfa::Gates gates = plain.k.gates(kind);
  const bool lines = kind == rfa::Attention::lines;
  AttentionGradients grads;
  grads.first.resize(lines ? plain.row_lines() : plain.s.batch * plain.channels);
  grads.second.resize(lines ? plain.column_lines() : plain.places());
  grads.mean.resize(plain.channels * plain.pixels);
  each_gated(plain, kind, [&](int64_t n, int64_t first, int64_t second) {
    grads.first[first] += grad_share[n] * gates.second[second];
    grads.second[second] += grad_share[n] * gates.first[first];
  });
  return grads;
}

}  // namespace check
