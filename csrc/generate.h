// From patches to weighed features: the operand of the contraction, made in registers.
//
// TAPS is the number of taps where it is known when this is compiled (9), so that all of them stay in registers; 0 stands
// for any number, in chunks of 8.
#pragma once

#include "simd.h"
#include "tile.h"

namespace rfa {
namespace RFA_ISA {

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

template <int TAPS>
constexpr int chunk = TAPS ? TAPS : 8;
template <int TAPS>
constexpr int most_taps = TAPS ? TAPS : MAX_TAPS;

// How many taps there are, as a type: a constant where it is one.
template <int TAPS>
struct TapCount {
  TapCount(int) {}
  constexpr operator int() const { return TAPS; }
};
template <>
struct TapCount<0> {
  int taps;
  TapCount(int count) : taps(count) {}
  operator int() const { return taps; }
};

static RFA_INLINE int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
static RFA_INLINE int padded_taps(int taps) { return taps == 9 ? 9 : int(round_up(taps, 8)); }

// The constants of one channel, prepared once a call: the batch norm is folded into the depthwise filters, and the
// attention weight takes log2(e) / T, so that 2^x of it times the sum of the patch is exp of it times the mean.
struct Coefficients {
  const float* bias;       // [T]
  const float* attention;  // [T]
  const float* centre;     // [T]: taken from the patch before the filters see it, where `centred`
  const float* by_input;   // [input tap, feature tap]
  const float* by_feature; // [feature tap, input tap]
  float largest, least;    // of `attention`
  bool centred;

  Coefficients(const float* all, int64_t channel, int taps) {
    const int padded = padded_taps(taps);
    const float* at = all + channel * floats(taps);
    largest = at[0];
    least = at[1];
    centred = at[2] != 0.0f;
    bias = at + HEAD;
    attention = bias + padded;
    centre = attention + padded;
    by_input = centre + padded;
    by_feature = by_input + taps * padded;
  }

  static int64_t floats(int taps) { return round_up(HEAD + padded_taps(taps) * (3 + 2 * taps), 16); }

  // `centre` [C, T] or null: near the mean of the patches, so that filters and offset do not cancel each other.
  static void fold(const float* feature_weight, const float* attention_weight, const double* scale,
                   const double* offset, const double* centre, int64_t channels, int taps, float* all) {
    const int padded = padded_taps(taps);
    std::memset(all, 0, sizeof(float) * channels * floats(taps));
    for (int64_t c = 0; c < channels; ++c) {
      float* at = all + c * floats(taps);
      float *bias = at + HEAD, *attention = bias + padded, *centres = attention + padded;
      float *by_input = centres + padded, *by_feature = by_input + taps * padded;
      at[2] = centre != nullptr;
      for (int s = 0; centre && s < taps; ++s) centres[s] = float(centre[c * taps + s]);
      for (int t = 0; t < taps; ++t) {
        if (attention_weight) {
          attention[t] = float(attention_weight[c * taps + t] * (1.4426950408889634 / taps));
          if (t == 0 || attention[t] > at[0]) at[0] = attention[t];
          if (t == 0 || attention[t] < at[1]) at[1] = attention[t];
        }
        const float* filter = feature_weight + (c * taps + t) * taps;
        double at_centre = 0.0;
        for (int s = 0; s < taps; ++s) {
          const float weight = float(filter[s] * scale[c * taps + t]);
          by_input[s * padded + t] = weight;
          by_feature[t * padded + s] = weight;
          if (centre) at_centre += double(filter[s]) * centres[s];  // else not even 0, which infinity makes NaN
        }
        bias[t] = float(offset[c * taps + t] + scale[c * taps + t] * at_centre);
      }
    }
  }

 private:
  static constexpr int HEAD = 3;
};

// result[t] = start[t] + the sum over s of matrix[s, t] * input[s], for all t.
//
// Of many inputs, eight at a time are added up apart, so that the rounding error grows less.
template <int TAPS>
static RFA_INLINE void apply(const float* matrix, const float* start, TapCount<TAPS> taps, const Vec* input, Vec* result) {
  constexpr int CHUNK = chunk<TAPS>;
  const int padded = padded_taps(taps);
  for (int first = 0; first < padded; first += CHUNK) {
    Vec total[CHUNK];
#pragma GCC unroll 9
    for (int t = 0; t < CHUNK; ++t) total[t] = splat(start[first + t]);
    for (int begin = 0; begin < taps; begin += CHUNK) {
      Vec part[CHUNK];
#pragma GCC unroll 9
      for (int t = 0; t < CHUNK; ++t) part[t] = TAPS ? total[t] : Vec{};
      const int end = TAPS || taps - begin < CHUNK ? int(taps) : begin + CHUNK;
#pragma GCC unroll 9
      for (int s = begin; s < end; ++s) {
        const float* row = matrix + s * padded + first;
#pragma GCC unroll 9
        for (int t = 0; t < CHUNK; ++t) part[t] = fma(row[t], input[s], part[t]);
      }
#pragma GCC unroll 9
      for (int t = 0; t < CHUNK; ++t) total[t] = TAPS ? part[t] : total[t] + part[t];
    }
#pragma GCC unroll 9
    for (int t = 0; t < CHUNK; ++t) result[first + t] = total[t];
  }
}

template <int TAPS>
static RFA_INLINE Vec sum_of(TapCount<TAPS> taps, const Vec* patch) {
  Vec sum = patch[0];
#pragma GCC unroll 9
  for (int s = 1, T = taps; s < T; ++s) sum += patch[s];
  return sum;
}

// The features of a vector of pixels, after the ReLU. Centres the patch, where that is asked for.
template <int TAPS>
static RFA_INLINE void features(const Coefficients& k, TapCount<TAPS> taps, Vec* patch, Vec* feature) {
  if (k.centred) {
#pragma GCC unroll 9
    for (int s = 0, T = taps; s < T; ++s) patch[s] -= splat(k.centre[s]);
  }
  apply<TAPS>(k.by_input, k.bias, taps, patch, feature);
#pragma GCC unroll 9
  for (int t = 0, T = taps; t < T; ++t) feature[t] = relu(feature[t]);
}

// share[t] = softmax over t of attention_weight[t] * mean. The largest logit is at one end of the weights: no search.
template <int TAPS>
static RFA_INLINE void softmax(const Coefficients& k, TapCount<TAPS> taps, Vec sum, Vec* share) {
  const Vec top = max(sum * k.largest, sum * k.least);
  Vec total = {};
#pragma GCC unroll 9
  for (int t = 0, T = taps; t < T; ++t) {
    share[t] = exp2(fma(k.attention[t], sum, -top));
    total += share[t];
  }
  const Vec inverse = 1.0f / total;
#pragma GCC unroll 9
  for (int t = 0, T = taps; t < T; ++t) share[t] *= inverse;
}

template <int TAPS>
static RFA_INLINE void load_patch(const Tile& tile, const float* rows, int v, TapCount<TAPS> taps, Vec* patch) {
  const Tile::Span* span = tile.spans + tile.span_begin[v];
  if (span->lanes == ALL_LANES) {
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t) patch[t] = load(rows + tile.tap_offset[t] + span->base);
    return;
  }
#pragma GCC unroll 9
  for (int t = 0, T = taps; t < T; ++t) patch[t] = Vec{};
  for (const Tile::Span* end = tile.spans + tile.span_begin[v + 1]; span < end; ++span)
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t)
      patch[t] = load_lanes(patch[t], span->lanes, rows + tile.tap_offset[t] + span->base);
}

}  // namespace RFA_ISA
}  // namespace rfa
