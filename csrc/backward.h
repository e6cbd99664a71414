// The backward pass. Nothing of the forward pass is kept: features and attention are generated again, tile by tile.
//
// With A the gradient of a weighed feature, e its share and y the feature, for each pixel and tap:
//   q = e*y*A, dot = sum q, dl = q - e*dot (gradient of the logit), dy = A*e where y > 0.
// With gates, known beforehand, in place of shares: dy = A*gate where y > 0, and the gates' gradients from q = y*A.
// A task owns some channels of some images: it makes all their sums, in a fixed order, and no one else writes them.
#pragma once

#include "filters.h"
#include "gates.h"
#include "matmul.h"

namespace rfa {
namespace RFA_ISA {

// Where the channels of block `index` begin; blocks lie within a group and are of about equal size.
struct Block {
  int64_t group, first;  // first channel, counted in the group
  int channels;

  Block(const Shape& s, int64_t blocks_a_group, int64_t index) {
    const int64_t channels_a_group = s.channels / s.groups, n = index % blocks_a_group;
    group = index / blocks_a_group;
    first = channels_a_group * n / blocks_a_group;
    channels = int(channels_a_group * (n + 1) / blocks_a_group - first);
  }
};

template <int TAPS, Attention KIND>
struct Backward {
  const BackwardArgs& args;
  const Shape& shape;
  const TapCount<TAPS> taps;
  const int64_t outputs, group_channels, tile_pixels, stride, outputs_stride;
  float *grad, *grad_t, *panel, *packed, *grad_weight_t, *rows_buffer, *gates_buffer;
  float *attention_totals, *filter_totals;  // of each channel, as vectors
  FilterGradient<TAPS> filters;

  Backward(const BackwardArgs& a, float* scratch)
      : args(a), shape(a.shape), taps(a.shape.taps()), outputs(shape.out_channels / shape.groups),
        group_channels(shape.channels / shape.groups), tile_pixels(pixels_of_tiles(shape)),
        stride(panel_stride(tile_pixels)), outputs_stride(panel_stride(outputs)),
        filters(shape, tile_pixels, scratch) {
    lay_out(scratch);
  }

  // Fewer pixels where there are many outputs, so that a tile's gradients, both ways round, stay in the second cache.
  static int64_t pixels_of_tiles(const Shape& s) { return s.out_channels / s.groups > 256 ? TILE_PIXELS / 2 : TILE_PIXELS; }

  static int64_t scratch(const Shape& s) {
    BackwardArgs args{};
    args.shape = s;
    return Backward(args, nullptr).lay_out(nullptr);
  }

  int64_t lay_out(float* scratch) {
    const int64_t rows = int64_t(block_channels(taps)) * taps;
    int64_t at = FilterGradient<TAPS>::scratch(shape, tile_pixels);
    const auto take = [&](int64_t floats) {
      float* start = scratch ? scratch + at : nullptr;
      at += round_up(floats, 16);
      return start;
    };
    grad = take(outputs * stride);
    grad_t = take(tile_pixels * outputs_stride);
    panel = take(rows * stride);
    packed = take((rows + BLOCK_ROWS) * outputs);
    grad_weight_t = take(rows * outputs_stride);
    attention_totals = take(int64_t(block_channels(taps)) * taps * LANES);
    filter_totals = take(block_channels(taps) * filters.totals(taps));
    gates_buffer = take(TileGates<KIND>::floats(shape));
    rows_buffer = take(Rows::floats(shape, block_channels(taps), tile_pixels));
    return at;
  }

  // `share` is that of the channels.
  void run(const Block& block, int64_t split, int64_t share) {
    Tile tile;
    Rows rows(args.x, rows_buffer);
    TileGates<KIND> gates(args.gates, gates_buffer);
    GateGradients gate_grads = args.gate_grads;
    if (KIND == Attention::gates) gate_grads.second += share * shape.batch * taps * shape.out_height * shape.out_width;
    const int64_t plane = shape.out_height * shape.out_width;
    const int64_t first = shape.batch * split / args.splits, last = shape.batch * (split + 1) / args.splits;
    const int64_t channel = block.group * group_channels + block.first, depth = int64_t(block.channels) * taps;
    pack_weight(block);
    std::memset(attention_totals, 0, sizeof(float) * block.channels * taps * LANES);
    std::memset(filter_totals, 0, sizeof(float) * block.channels * filters.totals(taps));
    std::memset(grad_weight_t, 0, sizeof(float) * depth * outputs_stride);
    for_each_tile(first * plane, last * plane, tile_pixels, [&](int64_t pixel, int count) {
      tile.cover(shape, pixel, count);
      load_grad(tile, block.group);
      multiply(depth, tile.vectors, BLOCK_ROWS * outputs,
               {packed, 1, BLOCK_ROWS, grad, stride, panel, stride, outputs, false});
      rows.start(tile, channel, block.channels);
      gates.start(tile, shape);
      for (int n = 0; n < block.channels; ++n) {
        const int64_t c = channel + n;
        const Coefficients k(args.coefficients, c, taps);
        gates.channel(tile, shape, c);
        weigh(tile, k, rows.channel(c), gates, panel + n * taps * stride, attention_totals + n * taps * LANES);
        gates.add_channel(tile, shape, c, gate_grads);
        filters.correlate(tile.vectors, filter_totals + n * filters.totals(taps));
        if (args.grad_x.data) filters.spread(tile, k, args.grad_x, c);
      }
      gates.add_tile(tile, shape, gate_grads);
      multiply(depth, (outputs + LANES - 1) / LANES, BLOCK_ROWS * stride,
               {panel, stride, 1, grad_t, outputs_stride, grad_weight_t, outputs_stride, tile.pixels, true});
    });
    write(block, split);
  }

  // weight^T of the block's channels, in groups of BLOCK_ROWS rows: [row / BLOCK_ROWS, output, row % BLOCK_ROWS].
  void pack_weight(const Block& block) {
    const int64_t depth = group_channels * taps;
    const float* from = args.weight + block.group * outputs * depth + block.first * taps;
    const int rows = block.channels * taps;
    for (int64_t o = 0; o < outputs; ++o)
      for (int r = 0; r < rows; ++r)
        packed[r / BLOCK_ROWS * BLOCK_ROWS * outputs + o * BLOCK_ROWS + r % BLOCK_ROWS] = from[o * depth + r];
  }

  // The tile's part of grad_out as [output, pixel] and as [pixel, output]; what pads them is 0.
  void load_grad(const Tile& tile, int64_t group) {
    const ConstMap& map = args.grad_out;
    const bool interleaved = map.column != 1;
    if (outputs % LANES) std::memset(grad_t, 0, sizeof(float) * tile.pixels * outputs_stride);
    if (tile.pixels % LANES)
      for (int64_t o = 0; o < outputs; ++o) store(grad + o * stride + (tile.vectors - 1) * LANES, Vec{});
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      const float* from = map.data + part.image * map.batch + group * outputs * map.channel + part.place * map.column;
      if (interleaved) {
        for (int p = 0; p < part.pixels; ++p)
          std::memcpy(grad_t + (part.pixel + p) * outputs_stride, from + p * map.column, sizeof(float) * outputs);
        transpose(from, map.column, grad + part.pixel, stride, part.pixels, int(outputs));
      } else {
        for (int64_t o = 0; o < outputs; ++o)
          std::memcpy(grad + o * stride + part.pixel, from + o * map.channel, sizeof(float) * part.pixels);
      }
    }
    if (!interleaved) transpose(grad, stride, grad_t, outputs_stride, int(outputs), tile.pixels);
  }

  // One channel of a tile: its part of the panel goes from gradients to weighed features; patches and dy are left.
  void weigh(const Tile& tile, const Coefficients& k, const float* rows, TileGates<KIND>& gates, float* part,
             float* attention_total) {
    Vec attention_grad[most_taps<TAPS>];
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t) attention_grad[t] = Vec{};
    for (int v = 0; v < tile.vectors; ++v) {
      Vec patch[most_taps<TAPS>], feature[most_taps<TAPS>], share[most_taps<TAPS>];
      load_patch<TAPS>(tile, rows, v, taps, patch);
      const Vec sum = KIND == Attention::softmax ? sum_of<TAPS>(taps, patch) : Vec{};
      features<TAPS>(k, taps, patch, feature);
#pragma GCC unroll 9
      for (int s = 0, T = taps; s < T; ++s) store(filters.patches + s * stride + v * LANES, patch[s]);
      if constexpr (KIND == Attention::softmax)
        softmax<TAPS>(k, taps, sum, share);
      else
        gates.template weights<TAPS>(v, taps, shape.kernel_w, share);
      Vec dot = {};
#pragma GCC unroll 9
      for (int t = 0, T = taps; t < T; ++t) {
        float* at = part + t * stride + v * LANES;
        const Vec weighed = share[t] * feature[t], incoming = load(at);
        store(filters.dy + t * stride + v * LANES, where_positive(feature[t], incoming * share[t]));
        store(at, weighed);
        feature[t] = (KIND == Attention::softmax ? weighed : feature[t]) * incoming;
        if (KIND == Attention::softmax) dot += feature[t];
      }
      Vec back = {};
      if constexpr (KIND == Attention::softmax) {
#pragma GCC unroll 9
        for (int t = 0, T = taps; t < T; ++t) {
          const Vec logit_grad = feature[t] - share[t] * dot;
          attention_grad[t] = fma(logit_grad, sum, attention_grad[t]);
          back = fma(k.attention[t], logit_grad, back);
        }
      } else {
        gates.template differentiate<TAPS>(v, taps, shape.kernel_w, feature);
      }
      store(filters.every_tap + v * LANES, back * LN_2);
    }
    if (KIND != Attention::softmax) return;
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t)
      store(attention_total + t * LANES, load(attention_total + t * LANES) + attention_grad[t]);
  }

  void write(const Block& block, int64_t split) {
    const int64_t depth = group_channels * taps, channel = block.group * group_channels + block.first;
    float* to = args.grad_weight + (split * shape.out_channels + block.group * outputs) * depth + block.first * taps;
    transpose(grad_weight_t, outputs_stride, to, depth, block.channels * taps, int(outputs));
    for (int n = 0; n < block.channels; ++n) {
      const int64_t at = (split * shape.channels + channel + n) * taps;
      filters.write(filter_totals + n * filters.totals(taps), args.sum + at, args.outer + at * taps);
      if (KIND != Attention::softmax) continue;
      for (int t = 0; t < taps; ++t)
        args.gate_grads.first[at + t] = sum_lanes(load(attention_totals + (n * taps + t) * LANES)) / taps;
    }
  }
};

template <int TAPS, Attention KIND>
static void backward_as(const BackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  const int64_t blocks = args.blocks_a_group * args.shape.groups, shares = tasks / args.splits;
  const int64_t split = task / shares, share = task % shares;
  Backward<TAPS, KIND> backward(args, scratch);
  for (int64_t index = blocks * share / shares; index < blocks * (share + 1) / shares; ++index)
    backward.run(Block(args.shape, args.blocks_a_group, index), split, share);
}

template <Attention KIND>
static void backward_of(const BackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  args.shape.taps() == 9 ? backward_as<9, KIND>(args, scratch, task, tasks)
                         : backward_as<0, KIND>(args, scratch, task, tasks);
}

// `tasks` is a multiple of args.splits.
static void backward(const BackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  switch (args.gates.kind) {
    case Attention::softmax: return backward_of<Attention::softmax>(args, scratch, task, tasks);
    case Attention::gates: return backward_of<Attention::gates>(args, scratch, task, tasks);
    case Attention::lines: return backward_of<Attention::lines>(args, scratch, task, tasks);
  }
}

static int64_t backward_scratch(const Shape& s) {
  return Backward<0, Attention::lines>::scratch(s) + TileGates<Attention::gates>::floats(s);
}

}  // namespace RFA_ISA
}  // namespace rfa
