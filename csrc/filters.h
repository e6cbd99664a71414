// The gradients of filters and input from those of the features: the part that all backward passes share.
#pragma once

#include "generate.h"

namespace rfa {
namespace RFA_ISA {

template <int TAPS>
struct FilterGradient {
  const TapCount<TAPS> taps;
  const int64_t stride;
  // [T, stride]: patches as the filters see them, and the gradients of the features before the ReLU.
  float *patches, *dy;
  float* every_tap;  // [stride]: what each tap of a patch gains besides
  float* back_buffer;

  FilterGradient(const Shape& s, int64_t tile_pixels, float* scratch)
      : taps(s.taps()), stride(panel_stride(tile_pixels)), patches(scratch), dy(patches + taps * stride),
        every_tap(dy + taps * stride), back_buffer(every_tap + stride) {}

  static int64_t scratch(const Shape& s, int64_t tile_pixels) {
    return round_up((2 * s.taps() + 1) * panel_stride(tile_pixels) + Tile::largest_size(s, tile_pixels), 16);
  }

  // Of a channel: S [T] and D [T, T], as vectors.
  static int64_t totals(int taps) { return int64_t(taps + taps * taps) * LANES; }

  // total [T] += sums of dy, then [T, T] += sums of dy[t] * patch[s].
  void correlate(int vectors, float* total) {
    constexpr int WIDE = TAPS ? TAPS : 4, HIGH = TAPS ? 3 : 4;
    const auto at_most = [](int a, int b) { return a < b ? a : b; };
    for (int t0 = 0; t0 < taps; t0 += HIGH) {
      const int high = TAPS ? HIGH : at_most(HIGH, taps - t0);
      for (int s0 = 0; s0 < taps; s0 += WIDE) {
        const int wide = TAPS ? WIDE : at_most(WIDE, taps - s0);
        Vec outer[HIGH][WIDE] = {}, sum[HIGH] = {};
        for (int v = 0; v < vectors; ++v) {
          Vec gradient[HIGH];
#pragma GCC unroll 4
          for (int t = 0; t < high; ++t) {
            gradient[t] = load(dy + (t0 + t) * stride + v * LANES);
            sum[t] += gradient[t];
          }
#pragma GCC unroll 9
          for (int s = 0; s < wide; ++s) {
            const Vec patch = load(patches + (s0 + s) * stride + v * LANES);
#pragma GCC unroll 4
            for (int t = 0; t < high; ++t) outer[t][s] = fma(gradient[t], patch, outer[t][s]);
          }
        }
#pragma GCC unroll 4
        for (int t = 0; t < high; ++t) {
          if (s0 == 0) store(total + (t0 + t) * LANES, load(total + (t0 + t) * LANES) + sum[t]);
          float* to = total + (taps + (t0 + t) * taps + s0) * LANES;
#pragma GCC unroll 9
          for (int s = 0; s < wide; ++s) store(to + s * LANES, load(to + s * LANES) + outer[t][s]);
        }
      }
    }
  }

  // The gradient of the patches, added up in the tile's rows and from there in grad_x.
  void spread(const Tile& tile, const Coefficients& k, const Map& grad_x, int64_t c) {
    static const float none[MAX_TAPS] = {};
    for (int v = 0; v < tile.vectors; ++v) {
      Vec gradient[most_taps<TAPS>], patch[most_taps<TAPS>];
#pragma GCC unroll 9
      for (int t = 0, T = taps; t < T; ++t) gradient[t] = load(dy + t * stride + v * LANES);
      apply<TAPS>(k.by_feature, none, taps, gradient, patch);
      const Vec back = load(every_tap + v * LANES);
#pragma GCC unroll 9
      for (int s = 0, T = taps; s < T; ++s) store(patches + s * stride + v * LANES, patch[s] + back);
    }
    tile.clear(back_buffer);
    // Tap by tap, so that what is added to was stored a while ago.
    for (int s = 0, T = taps; s < T; ++s)
      for (int v = 0; v < tile.vectors; ++v) tile.add_tap(back_buffer, v, s, load(patches + s * stride + v * LANES));
    tile.add_to(grad_x.data + c * grad_x.channel, grad_x, back_buffer);
  }

  void write(const float* total, double* sum, double* outer) const {
    for (int t = 0; t < taps; ++t) {
      sum[t] = sum_lanes(load(total + t * LANES));
      for (int s = 0; s < taps; ++s) outer[t * taps + s] = sum_lanes(load(total + (taps + t * taps + s) * LANES));
    }
  }
};

}  // namespace RFA_ISA
}  // namespace rfa
