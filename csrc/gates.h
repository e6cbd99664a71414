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
  template <int TAPS>
  RFA_INLINE void weights(int, TapCount<TAPS>, int, Vec*) const {}
};

// A factor a channel and a factor a place: channel [B, C], place [B, T, h, w].
template <>
struct TileGates<Attention::gates> {
  const Gates& gates;
  float *place, *channel_row;

  TileGates(const Gates& g, float* buffer)
      : gates(g), place(buffer + panel_stride(TILE_PIXELS)), channel_row(buffer) {}

  static int64_t floats(const Shape& s) { return (s.taps() + 1) * panel_stride(TILE_PIXELS); }

  void start(const Tile& tile, const Shape& s) {
    const int64_t plane = s.out_height * s.out_width, stride = panel_stride(TILE_PIXELS);
    std::memset(channel_row, 0, sizeof(float) * floats(s));
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
};

// A factor a row and a factor a column of the map of taps: rows [B, C, kh, h], columns [B, C, kw, w].
template <>
struct TileGates<Attention::lines> {
  const Gates& gates;
  float* buffer;
  int kernel_h = 0;

  TileGates(const Gates& g, float* b) : gates(g), buffer(b) {}

  static int64_t floats(const Shape& s) { return (s.kernel_h + s.kernel_w) * panel_stride(TILE_PIXELS); }

  void start(const Tile&, const Shape& s) {
    kernel_h = s.kernel_h;
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
};

}  // namespace RFA_ISA
}  // namespace rfa
