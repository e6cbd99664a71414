// The forward pass: generate weighed features for a tile of pixels and some channels, contract them at once.
#pragma once

#include "gates.h"
#include "generate.h"
#include "matmul.h"

namespace rfa {
namespace RFA_ISA {

template <int TAPS, Attention KIND>
struct Forward {
  const ForwardArgs& args;
  const Shape& shape;
  const TapCount<TAPS> taps;
  const int64_t group_channels, group_outputs;
  float *sums, *panel, *rows_buffer, *gates_buffer;

  Forward(const ForwardArgs& a, float* scratch)
      : args(a), shape(a.shape), taps(a.shape.taps()), group_channels(shape.channels / shape.groups),
        group_outputs(shape.out_channels / shape.groups) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    sums = scratch;
    panel = sums + shape.out_channels * stride;
    gates_buffer = panel + block_channels(taps) * taps * stride;
    rows_buffer = gates_buffer + TileGates<KIND>::floats(shape);
  }

  static int64_t scratch(const Shape& s) {
    return (s.out_channels + block_channels(s.taps()) * s.taps()) * panel_stride(TILE_PIXELS) +
           TileGates<KIND>::floats(s) + Rows::floats(s, block_channels(s.taps()));
  }

  void run(int64_t first, int64_t last) {
    Tile tile;
    Rows rows(args.x, rows_buffer);
    TileGates<KIND> gates(args.gates, gates_buffer);
    for_each_tile(first, last, TILE_PIXELS, [&](int64_t pixel, int count) {
      tile.cover(shape, pixel, count);
      gates.start(tile, shape);
      for (int64_t group = 0; group < shape.groups; ++group)
        for (int64_t done = 0; done < group_channels;) {
          const int64_t left = group_channels - done;
          const int channels = int(left < block_channels(taps) ? left : block_channels(taps));
          const int64_t c = group * group_channels + done;
          rows.start(tile, c, channels);
          for (int n = 0; n < channels; ++n)
            generate(tile, rows.channel(c + n), c + n, gates, panel + n * taps * panel_stride(TILE_PIXELS));
          contract(tile, group, done, channels);
          done += channels;
        }
      write(tile);
    });
  }

  void generate(const Tile& tile, const float* rows, int64_t c, TileGates<KIND>& gates, float* to) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const Coefficients k(args.coefficients, c, taps);
    gates.channel(tile, shape, c);
    for (int v = 0; v < tile.vectors; ++v) {
      Vec patch[most_taps<TAPS>], feature[most_taps<TAPS>], share[most_taps<TAPS>];
      load_patch<TAPS>(tile, rows, v, taps, patch);
      const Vec sum = KIND == Attention::softmax ? sum_of<TAPS>(taps, patch) : Vec{};
      features<TAPS>(k, taps, patch, feature);
      if constexpr (KIND == Attention::softmax)
        softmax<TAPS>(k, taps, sum, share);
      else
        gates.template weights<TAPS>(v, taps, shape.kernel_w, share);
#pragma GCC unroll 9
      for (int t = 0, T = taps; t < T; ++t) store(to + t * stride + v * LANES, feature[t] * share[t]);
    }
  }

  void contract(const Tile& tile, int64_t group, int64_t done, int channels) {
    const int64_t depth = group_channels * taps, stride = panel_stride(TILE_PIXELS);
    const float* weight = args.weight + group * group_outputs * depth + done * taps;
    const Operands o = {weight, depth,  1, panel, stride, sums + group * group_outputs * stride,
                        stride, int64_t(channels) * taps, done > 0};
    multiply(group_outputs, tile.vectors, BLOCK_ROWS * depth, o);
  }

  void write(const Tile& tile) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const bool interleaved = args.out.column != 1;
    for (int64_t o = 0; o < shape.out_channels; ++o) {
      float* from = sums + o * stride;
      finish(from, tile.vectors, o);
      if (interleaved) continue;
      for (int n = 0; n < tile.parts_count; ++n) {
        const Tile::Part& part = tile.parts[n];
        std::memcpy(args.out.data + part.image * args.out.batch + o * args.out.channel + part.place, from + part.pixel,
                    sizeof(float) * part.pixels);
      }
    }
    if (!interleaved) return;
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      transpose(sums + part.pixel, stride, args.out.data + part.image * args.out.batch + part.place * args.out.column,
                args.out.column, int(shape.out_channels), part.pixels);
    }
  }

  void finish(float* row, int vectors, int64_t o) const {
    const Epilogue& e = args.epilogue;
    const float scale = e.scale ? e.scale[o] : 1.0f;
    const float shift = (e.bias ? e.bias[o] * scale : 0.0f) + (e.shift ? e.shift[o] : 0.0f);
    for (int v = 0; v < vectors; ++v) {
      Vec value = fma(scale, load(row + v * LANES), splat(shift));
      if (e.act == Act::relu) value = relu(value);
      if (e.act == Act::silu) value = value / (1.0f + exp2(max(splat(-126.0f), value * -LOG2_E)));
      store(row + v * LANES, value);
    }
  }
};

// Pixels are shared out by whole vectors.
template <Attention KIND>
static void forward_as(const ForwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  const int64_t pixels = args.shape.pixels(), vectors = (pixels + LANES - 1) / LANES;
  const int64_t first = vectors * task / tasks * LANES, last = vectors * (task + 1) / tasks * LANES;
  if (args.shape.taps() == 9)
    Forward<9, KIND>(args, scratch).run(first, last < pixels ? last : pixels);
  else
    Forward<0, KIND>(args, scratch).run(first, last < pixels ? last : pixels);
}

static void forward(const ForwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  switch (args.gates.kind) {
    case Attention::softmax: return forward_as<Attention::softmax>(args, scratch, task, tasks);
    case Attention::gates: return forward_as<Attention::gates>(args, scratch, task, tasks);
    case Attention::lines: return forward_as<Attention::lines>(args, scratch, task, tasks);
  }
}

static int64_t forward_scratch(const Shape& s) {
  return Forward<0, Attention::lines>::scratch(s) + TileGates<Attention::gates>::floats(s);
}

}  // namespace RFA_ISA
}  // namespace rfa
