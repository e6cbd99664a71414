// What batch statistics need: moments of the patches forward, and the gradient that goes through them backward.
#pragma once

#include "generate.h"

namespace rfa {
namespace RFA_ISA {

constexpr int DOUBLE_LANES = LANES / 2;
typedef double DoubleVec __attribute__((vector_size(DOUBLE_LANES * sizeof(double))));
typedef DoubleVec LooseDoubleVec __attribute__((aligned(8), may_alias));
typedef float HalfVec __attribute__((vector_size(DOUBLE_LANES * sizeof(float)), aligned(4), may_alias));

constexpr int64_t CHANNELS_AT_ONCE = 16;

static RFA_INLINE DoubleVec load_double(const double* from) { return *reinterpret_cast<const LooseDoubleVec*>(from); }
static RFA_INLINE void store_double(double* to, DoubleVec value) { *reinterpret_cast<LooseDoubleVec*>(to) = value; }
static RFA_INLINE double sum_lanes(DoubleVec a) {
  double total = 0.0;
  for (int lane = 0; lane < DOUBLE_LANES; ++lane) total += a[lane];
  return total;
}

// Visits the channels and tiles of a task: channels are shared out, `visit(tile, rows, channel)` is called for each pair,
// `begin(first, last)` and `end(first, last)` around each few channels.
template <class Begin, class Visit, class End>
static RFA_INLINE void for_channels(const Shape& s, const ConstMap& x, float* rows_buffer, int64_t task, int64_t tasks,
                                    Begin begin, Visit visit, End end) {
  Tile tile;
  Rows rows(x, rows_buffer);
  const int64_t last = s.channels * (task + 1) / tasks;
  for (int64_t first = s.channels * task / tasks; first < last; first += CHANNELS_AT_ONCE) {
    const int64_t stop = first + CHANNELS_AT_ONCE < last ? first + CHANNELS_AT_ONCE : last;
    begin(first, stop);
    for_each_tile(0, s.pixels(), TILE_PIXELS, [&](int64_t pixel, int count) {
      tile.cover(s, pixel, count);
      rows.start(tile, first, int(stop - first));
      for (int64_t c = first; c < stop; ++c) visit(tile, rows.channel(c), c);
    });
    end(first, stop);
  }
}

// Sums of the patches and of their products, in double: in float the variance of smooth images would be lost.
struct Moments {
  const MomentsArgs& args;
  const int taps;
  double *patches, *totals;  // [T, TILE_PIXELS]; for each channel, as vectors, [T + T*T], of which s >= t is used
  float* rows_buffer;

  Moments(const MomentsArgs& a, float* scratch) : args(a), taps(a.shape.taps()) {
    patches = reinterpret_cast<double*>(scratch);
    totals = patches + taps * panel_stride(TILE_PIXELS);
    rows_buffer = reinterpret_cast<float*>(totals + CHANNELS_AT_ONCE * (taps + taps * taps) * DOUBLE_LANES);
  }

  static int64_t scratch(const Shape& s) {
    const int64_t taps = s.taps();
    return 2 * (taps * panel_stride(TILE_PIXELS) + CHANNELS_AT_ONCE * (taps + taps * taps) * DOUBLE_LANES) +
           Rows::floats(s, CHANNELS_AT_ONCE);
  }

  void run(int64_t task, int64_t tasks) {
    const int64_t moments = taps + taps * taps;
    int64_t origin = 0;
    for_channels(
        args.shape, args.x, rows_buffer, task, tasks,
        [&](int64_t first, int64_t) {
          origin = first;
          std::memset(totals, 0, sizeof(double) * CHANNELS_AT_ONCE * moments * DOUBLE_LANES);
        },
        [&](const Tile& tile, const float* rows, int64_t c) {
          widen(tile, rows);
          add(tile.vectors * 2, totals + (c - origin) * moments * DOUBLE_LANES);
        },
        [&](int64_t first, int64_t last) {
          for (int64_t c = first; c < last; ++c)
            write(totals + (c - origin) * moments * DOUBLE_LANES, args.moments + c * moments);
        });
  }

  void widen(const Tile& tile, const float* rows) {
    for (int t = 0, T = taps; t < T; ++t) {
      double* to = patches + t * panel_stride(TILE_PIXELS);
      for (int v = 0; v < tile.vectors; ++v) {
        float lanes[LANES];
        store(lanes, tile.tap(rows, v, t));
        for (int half = 0; half < 2; ++half)
          store_double(to + v * LANES + half * DOUBLE_LANES,
                       __builtin_convertvector(*reinterpret_cast<const HalfVec*>(lanes + half * DOUBLE_LANES), DoubleVec));
      }
    }
  }

  void add(int vectors, double* total) {
    for (int t0 = 0; t0 < taps; t0 += 3)
      for (int s0 = t0; s0 < taps; s0 += 3) add_block(t0, s0, vectors, total);
  }

  // Taps t0 to t0 + 2 with taps s0 to s0 + 2.
  RFA_INLINE void add_block(int t0, int s0, int vectors, double* total) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const double *t[3], *s[3];
    for (int n = 0; n < 3; ++n) {  // past the last tap: the last again, thrown away below
      t[n] = patches + (t0 + n < taps ? t0 + n : taps - 1) * stride;
      s[n] = patches + (s0 + n < taps ? s0 + n : taps - 1) * stride;
    }
    DoubleVec product[3][3] = {}, sum[3] = {};
    for (int v = 0; v < vectors; ++v) {
      DoubleVec left[3], right[3];
#pragma GCC unroll 3
      for (int n = 0; n < 3; ++n) {
        left[n] = load_double(t[n] + v * DOUBLE_LANES);
        right[n] = load_double(s[n] + v * DOUBLE_LANES);
        sum[n] += left[n];
      }
#pragma GCC unroll 3
      for (int n = 0; n < 3; ++n)
#pragma GCC unroll 3
        for (int m = 0; m < 3; ++m) product[n][m] += left[n] * right[m];
    }
#pragma GCC unroll 3
    for (int n = 0; n < 3; ++n) {
      if (t0 + n >= taps) break;
      double* at = total + (t0 + n) * DOUBLE_LANES;
      if (s0 == t0) store_double(at, load_double(at) + sum[n]);
#pragma GCC unroll 3
      for (int m = 0; m < 3; ++m) {
        if (s0 + m >= taps) break;
        double* to = total + (taps + (t0 + n) * taps + s0 + m) * DOUBLE_LANES;
        store_double(to, load_double(to) + product[n][m]);
      }
    }
  }

  void write(const double* total, double* to) const {
    for (int t = 0, T = taps; t < T; ++t) {
      to[t] = sum_lanes(load_double(total + t * DOUBLE_LANES));
      for (int s = t; s < taps; ++s)
        to[taps + t * taps + s] = to[taps + s * taps + t] =
            sum_lanes(load_double(total + (taps + t * taps + s) * DOUBLE_LANES));
    }
  }
};

static void moments(const MomentsArgs& args, float* scratch, int64_t task, int64_t tasks) {
  Moments(args, scratch).run(task, tasks);
}

// x's gradient gains fold(alpha - Q patch), Q symmetric.
template <int TAPS>
struct Correction {
  const CorrectionArgs& args;
  const TapCount<TAPS> taps;
  const int padded;
  float *matrix, *changes, *back_buffer, *rows_buffer;

  Correction(const CorrectionArgs& a, float* scratch)
      : args(a), taps(a.shape.taps()), padded(padded_taps(taps)) {
    matrix = scratch;
    changes = matrix + CHANNELS_AT_ONCE * round_up((taps + 1) * padded, 16);
    back_buffer = changes + taps * panel_stride(TILE_PIXELS);
    rows_buffer = back_buffer + (Tile::largest_size(args.shape, TILE_PIXELS) + 15) / 16 * 16;
  }

  static int64_t scratch(const Shape& s) {
    const int taps = s.taps();
    return CHANNELS_AT_ONCE * round_up((taps + 1) * padded_taps(taps), 16) + taps * panel_stride(TILE_PIXELS) +
           (Tile::largest_size(s, TILE_PIXELS) + 15) / 16 * 16 + Rows::floats(s, CHANNELS_AT_ONCE);
  }

  void run(int64_t task, int64_t tasks) {
    const int64_t each = round_up((taps + 1) * padded, 16);
    int64_t origin = 0;
    for_channels(
        args.shape, args.x, rows_buffer, task, tasks,
        [&](int64_t first, int64_t last) {
          origin = first;
          std::memset(matrix, 0, sizeof(float) * CHANNELS_AT_ONCE * each);
          for (int64_t c = first; c < last; ++c) prepare(c, matrix + (c - origin) * each);
        },
        [&](const Tile& tile, const float* rows, int64_t c) { correct(tile, rows, c, matrix + (c - origin) * each); },
        [](int64_t, int64_t) {});
  }

  void prepare(int64_t c, float* to) const {
    for (int s = 0, T = taps; s < T; ++s) {
      to[s] = args.alpha[c * taps + s];
      for (int t = 0, T = taps; t < T; ++t) to[(1 + s) * padded + t] = -args.q[(c * taps + s) * taps + t];
    }
  }

  void correct(const Tile& tile, const float* rows, int64_t c, const float* k) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    for (int v = 0; v < tile.vectors; ++v) {
      Vec patch[most_taps<TAPS>], change[most_taps<TAPS>];
      load_patch<TAPS>(tile, rows, v, taps, patch);
      apply<TAPS>(k + padded, k, taps, patch, change);
#pragma GCC unroll 9
      for (int s = 0, T = taps; s < T; ++s) store(changes + s * stride + v * LANES, change[s]);
    }
    tile.clear(back_buffer);
    for (int s = 0, T = taps; s < T; ++s)
      for (int v = 0; v < tile.vectors; ++v) tile.add_tap(back_buffer, v, s, load(changes + s * stride + v * LANES));
    tile.add_to(args.grad_x.data + c * args.grad_x.channel, args.grad_x, back_buffer);
  }
};

static void correct(const CorrectionArgs& args, float* scratch, int64_t task, int64_t tasks) {
  args.shape.taps() == 9 ? Correction<9>(args, scratch).run(task, tasks) : Correction<0>(args, scratch).run(task, tasks);
}

static int64_t rows_scratch(const Shape& s) {
  const int64_t moments = Moments::scratch(s), correction = Correction<0>::scratch(s);
  return moments > correction ? moments : correction;
}

}  // namespace RFA_ISA
}  // namespace rfa
