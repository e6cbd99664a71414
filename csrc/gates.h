// Attentions whose factors are known before the features are generated, tile by tile.
#pragma once

#include "generate.h"

namespace rfa {
namespace RFA_ISA {

// The softmax over taps needs none of this.
template <Attention KIND>
struct TileGates {
  TileGates(const Gates&, float*) {}
  static int64_t floats(const Shape&) { return 0; }
  void start(const Tile&, const Shape&) {}
  void channel(const Tile&, const Shape&, int64_t) {}
  void add_channel(const Tile&, const Shape&, int64_t, const GateGradients&) {}
  void add_tile(const Tile&, const Shape&, const GateGradients&) {}
};

// Sums over rows and over columns: `rows` [kh, stride] and `columns` [kw, stride] of a tile's pixels are added to
// row_sums [kh, h] and column_sums [kw, w] of one channel of `part`'s image.
static inline void add_lines(const Tile::Part& part, const Shape& s, const float* rows, const float* columns,
                             int64_t stride, float* row_sums, float* column_sums) {
  int64_t column = part.place % s.out_width, row = part.first_row;
  for (int done = 0; done < part.pixels; ++row, column = 0) {
    int length = part.pixels - done;
    length = s.out_width - column < length ? int(s.out_width - column) : length;
    const int at = part.pixel + done;
    for (int i = 0; i < s.kernel_h; ++i) row_sums[i * s.out_height + row] += sum_of_row(rows + i * stride + at, length);
    for (int j = 0; j < s.kernel_w; ++j) {
      float* to = column_sums + j * s.out_width + column;
      for (int p = 0; p < length; ++p) to[p] += columns[j * stride + at + p];
    }
    done += length;
  }
}

// A factor a channel and a factor a place: channel [B, C], place [B, T, h, w].
template <>
struct TileGates<Attention::gates> {
  const Gates& gates;
  float *channel_row, *channel_grad, *place;
  float* place_grad = nullptr;

  TileGates(const Gates& g, float* buffer)
      : gates(g), channel_row(buffer), channel_grad(buffer + panel_stride(TILE_PIXELS)),
        place(buffer + 2 * panel_stride(TILE_PIXELS)) {}

  static int64_t floats(const Shape& s) { return 2 * (s.taps() + 1) * panel_stride(TILE_PIXELS); }

  void start(const Tile& tile, const Shape& s) {
    const int64_t plane = s.out_height * s.out_width, stride = panel_stride(TILE_PIXELS);
    std::memset(channel_row, 0, sizeof(float) * floats(s));
    place_grad = place + s.taps() * stride;
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      for (int t = 0; t < s.taps(); ++t)
        std::memcpy(place + t * stride + part.pixel, gates.second + (part.image * s.taps() + t) * plane + part.place,
                    sizeof(float) * part.pixels);
    }
  }

  void channel(const Tile& tile, const Shape& s, int64_t c) {
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      const float value = gates.first[part.image * s.channels + c];
      for (int p = 0; p < part.pixels; ++p) channel_row[part.pixel + p] = value;
    }
  }

  template <int TAPS>
  RFA_INLINE void weights(int v, TapCount<TAPS> taps, int, Vec* weight) const {
    const Vec factor = load(channel_row + v * LANES);
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t)
      weight[t] = factor * load(place + t * panel_stride(TILE_PIXELS) + v * LANES);
  }

  // From the gradients of the weights.
  template <int TAPS>
  RFA_INLINE void differentiate(int v, TapCount<TAPS> taps, int, const Vec* grad) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const Vec factor = load(channel_row + v * LANES);
    Vec sum = {};
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t) {
      float* to = place_grad + t * stride + v * LANES;
      sum = fma(grad[t], load(place + t * stride + v * LANES), sum);
      store(to, fma(grad[t], factor, load(to)));
    }
    store(channel_grad + v * LANES, sum);
  }

  void add_channel(const Tile& tile, const Shape& s, int64_t c, const GateGradients& grads) {
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      grads.first[part.image * s.channels + c] += sum_of_row(channel_grad + part.pixel, part.pixels);
    }
  }

  void add_tile(const Tile& tile, const Shape& s, const GateGradients& grads) {
    const int64_t plane = s.out_height * s.out_width, stride = panel_stride(TILE_PIXELS);
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      for (int t = 0; t < s.taps(); ++t) {
        float* to = grads.second + (part.image * s.taps() + t) * plane + part.place;
        for (int p = 0; p < part.pixels; ++p) to[p] += place_grad[t * stride + part.pixel + p];
      }
    }
  }
};

// A factor a row and a factor a column of the map of taps: rows [B, C, kh, h], columns [B, C, kw, w].
template <>
struct TileGates<Attention::lines> {
  const Gates& gates;
  float *buffer, *grad_rows = nullptr, *grad_columns = nullptr;
  int kernel_h = 0;

  TileGates(const Gates& g, float* b) : gates(g), buffer(b) {}

  static int64_t floats(const Shape& s) { return 2 * (s.kernel_h + s.kernel_w) * panel_stride(TILE_PIXELS); }

  void start(const Tile&, const Shape& s) {
    kernel_h = s.kernel_h;
    grad_rows = buffer + (s.kernel_h + s.kernel_w) * panel_stride(TILE_PIXELS);
    grad_columns = grad_rows + s.kernel_h * panel_stride(TILE_PIXELS);
    std::memset(buffer, 0, sizeof(float) * floats(s));
  }

  void channel(const Tile& tile, const Shape& s, int64_t c) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      const float* rows = gates.first + (part.image * s.channels + c) * s.kernel_h * s.out_height;
      const float* columns = gates.second + (part.image * s.channels + c) * s.kernel_w * s.out_width;
      int64_t column = part.place % s.out_width, row = part.first_row;
      for (int done = 0; done < part.pixels; ++row, column = 0) {
        int length = part.pixels - done;
        length = s.out_width - column < length ? int(s.out_width - column) : length;
        float* to = buffer + part.pixel + done;
        for (int i = 0; i < s.kernel_h; ++i)
          for (int p = 0; p < length; ++p) to[i * stride + p] = rows[i * s.out_height + row];
        to += s.kernel_h * stride;
        for (int j = 0; j < s.kernel_w; ++j)
          for (int p = 0; p < length; ++p) to[j * stride + p] = columns[j * s.out_width + column + p];
        done += length;
      }
    }
  }

  template <int TAPS>
  RFA_INLINE void weights(int v, TapCount<TAPS> taps, int kernel_w, Vec* weight) const {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const float* columns = buffer + kernel_h * stride;
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t)
      weight[t] = load(buffer + t / kernel_w * stride + v * LANES) * load(columns + t % kernel_w * stride + v * LANES);
  }

  template <int TAPS>
  RFA_INLINE void differentiate(int v, TapCount<TAPS> taps, int kernel_w, const Vec* grad) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const float *rows = buffer + v * LANES, *columns = rows + kernel_h * stride;
    for (int i = 0; i < kernel_h; ++i) {
      Vec sum = {};
      for (int j = 0; j < kernel_w; ++j) sum = fma(grad[i * kernel_w + j], load(columns + j * stride), sum);
      store(grad_rows + i * stride + v * LANES, sum);
    }
    for (int j = 0; j < kernel_w; ++j) {
      Vec sum = {};
      for (int i = 0; i < kernel_h; ++i) sum = fma(grad[i * kernel_w + j], load(rows + i * stride), sum);
      store(grad_columns + j * stride + v * LANES, sum);
    }
    (void)taps;
  }

  void add_channel(const Tile& tile, const Shape& s, int64_t c, const GateGradients& grads) {
    for (int n = 0; n < tile.parts_count; ++n) {
      const int64_t at = tile.parts[n].image * s.channels + c;
      add_lines(tile.parts[n], s, grad_rows, grad_columns, panel_stride(TILE_PIXELS),
                grads.first + at * s.kernel_h * s.out_height, grads.second + at * s.kernel_w * s.out_width);
    }
  }

  void add_tile(const Tile&, const Shape&, const GateGradients&) {}
};

}  // namespace RFA_ISA
}  // namespace rfa
