// The backward pass. Nothing of the forward pass is kept: features and attention are generated again, tile by tile.
//
// With A the gradient of a weighed feature, e its share and y the feature, for each pixel and tap:
//   q = e*y*A, dot = sum q, dl = q - e*dot (gradient of the logit), dy = A*e where y > 0.
// A task owns some channels of some images: it makes all their sums, in a fixed order, and no one else writes them.
#pragma once

#include "generate.h"
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

template <int TAPS>
struct Backward {
  const BackwardArgs& args;
  const Shape& shape;
  const TapCount<TAPS> taps;
  const int64_t outputs, group_channels, tile_pixels, stride, outputs_stride;
  float *grad, *grad_t, *panel, *packed, *grad_weight_t, *patches, *dy, *mean_grad, *rows_buffer, *back_buffer;
  float* totals;  // for each channel, as vectors: attention [T], sum [T], outer [T, T]

  Backward(const BackwardArgs& a, float* scratch)
      : args(a), shape(a.shape), taps(a.shape.taps()), outputs(shape.out_channels / shape.groups),
        group_channels(shape.channels / shape.groups), tile_pixels(pixels_of_tiles(shape)),
        stride(panel_stride(tile_pixels)), outputs_stride(panel_stride(outputs)) {
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
    int64_t at = 0;
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
    patches = take(taps * stride);
    dy = take(taps * stride);
    mean_grad = take(stride);
    totals = take(int64_t(block_channels(taps)) * (2 * taps + taps * taps) * LANES);
    back_buffer = take(Tile::largest_size(shape, tile_pixels));
    rows_buffer = take(Rows::floats(shape, block_channels(taps), tile_pixels));
    return at;
  }

  void run(const Block& block, int64_t split) {
    Tile tile;
    Rows rows(args.x, rows_buffer);
    const int64_t plane = shape.out_height * shape.out_width;
    const int64_t first = shape.batch * split / args.splits, last = shape.batch * (split + 1) / args.splits;
    const int64_t channel = block.group * group_channels + block.first, depth = int64_t(block.channels) * taps;
    pack_weight(block);
    std::memset(totals, 0, sizeof(float) * block.channels * (2 * taps + taps * taps) * LANES);
    std::memset(grad_weight_t, 0, sizeof(float) * depth * outputs_stride);
    for_each_tile(first * plane, last * plane, tile_pixels, [&](int64_t pixel, int count) {
      tile.cover(shape, pixel, count);
      load_grad(tile, block.group);
      multiply(depth, tile.vectors, BLOCK_ROWS * outputs,
               {packed, 1, BLOCK_ROWS, grad, stride, panel, stride, outputs, false});
      rows.start(tile, channel, block.channels);
      for (int n = 0; n < block.channels; ++n)
        differentiate(tile, rows.channel(channel + n), channel + n, panel + n * taps * stride,
                      totals + int64_t(n) * (2 * taps + taps * taps) * LANES);
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

  // One channel of a tile: its part of the panel goes from gradients to weighed features.
  void differentiate(const Tile& tile, const float* rows, int64_t c, float* part, float* total) {
    const Coefficients k(args.coefficients, c, taps);
    weigh(tile, k, rows, part, total);
    correlate(tile.vectors, total + taps * LANES);
    if (!args.grad_x.data) return;
    spread(tile, k, c);
  }

  // Regenerates the features; leaves the (centred) patches, dy and the gradient of the sum of the patch.
  void weigh(const Tile& tile, const Coefficients& k, const float* rows, float* part, float* total) {
    Vec attention_grad[most_taps<TAPS>];
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t) attention_grad[t] = Vec{};
    for (int v = 0; v < tile.vectors; ++v) {
      Vec patch[most_taps<TAPS>], feature[most_taps<TAPS>], share[most_taps<TAPS>];
      Vec dot = {}, back = {};
      load_patch<TAPS>(tile, rows, v, taps, patch);
      const Vec sum = sum_of<TAPS>(taps, patch);
      features<TAPS>(k, taps, patch, feature);
#pragma GCC unroll 9
      for (int s = 0, T = taps; s < T; ++s) store(patches + s * stride + v * LANES, patch[s]);
      softmax<TAPS>(k, taps, sum, share);
#pragma GCC unroll 9
      for (int t = 0, T = taps; t < T; ++t) {
        float* at = part + t * stride + v * LANES;
        const Vec weighed = share[t] * feature[t], incoming = load(at);
        store(dy + t * stride + v * LANES, where_positive(feature[t], incoming * share[t]));
        store(at, weighed);
        feature[t] = weighed * incoming;
        dot += feature[t];
      }
#pragma GCC unroll 9
      for (int t = 0, T = taps; t < T; ++t) {
        const Vec logit_grad = feature[t] - share[t] * dot;
        attention_grad[t] = fma(logit_grad, sum, attention_grad[t]);
        back = fma(k.attention[t], logit_grad, back);
      }
      store(mean_grad + v * LANES, back * LN_2);
    }
#pragma GCC unroll 9
    for (int t = 0, T = taps; t < T; ++t) store(total + t * LANES, load(total + t * LANES) + attention_grad[t]);
  }

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
  void spread(const Tile& tile, const Coefficients& k, int64_t c) {
    static const float none[MAX_TAPS] = {};
    for (int v = 0; v < tile.vectors; ++v) {
      Vec gradient[most_taps<TAPS>], patch[most_taps<TAPS>];
#pragma GCC unroll 9
      for (int t = 0, T = taps; t < T; ++t) gradient[t] = load(dy + t * stride + v * LANES);
      apply<TAPS>(k.by_feature, none, taps, gradient, patch);
      const Vec back = load(mean_grad + v * LANES);
#pragma GCC unroll 9
      for (int s = 0, T = taps; s < T; ++s) store(patches + s * stride + v * LANES, patch[s] + back);
    }
    tile.clear(back_buffer);
    // Tap by tap, so that what is added to was stored a while ago.
    for (int s = 0, T = taps; s < T; ++s)
      for (int v = 0; v < tile.vectors; ++v) tile.add_tap(back_buffer, v, s, load(patches + s * stride + v * LANES));
    tile.add_to(args.grad_x.data + c * args.grad_x.channel, args.grad_x, back_buffer);
  }

  void write(const Block& block, int64_t split) {
    const int64_t depth = group_channels * taps, channel = block.group * group_channels + block.first;
    float* to = args.grad_weight + (split * shape.out_channels + block.group * outputs) * depth + block.first * taps;
    transpose(grad_weight_t, outputs_stride, to, depth, block.channels * taps, int(outputs));
    for (int n = 0; n < block.channels; ++n) {
      const float* total = totals + int64_t(n) * (2 * taps + taps * taps) * LANES;
      const int64_t at = (split * shape.channels + channel + n) * taps;
      for (int t = 0, T = taps; t < T; ++t) {
        args.grad_attention[at + t] = sum_lanes(load(total + t * LANES)) / taps;
        args.sum[at + t] = sum_lanes(load(total + (taps + t) * LANES));
        for (int s = 0, T = taps; s < T; ++s)
          args.outer[(at + t) * taps + s] = sum_lanes(load(total + (2 * taps + t * taps + s) * LANES));
      }
    }
  }
};

template <int TAPS>
static void backward_as(const BackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  const int64_t blocks = args.blocks_a_group * args.shape.groups, shares = tasks / args.splits;
  const int64_t split = task / shares, share = task % shares;
  Backward<TAPS> backward(args, scratch);
  for (int64_t index = blocks * share / shares; index < blocks * (share + 1) / shares; ++index)
    backward.run(Block(args.shape, args.blocks_a_group, index), split);
}

// `tasks` is a multiple of args.splits.
static void backward(const BackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  args.shape.taps() == 9 ? backward_as<9>(args, scratch, task, tasks) : backward_as<0>(args, scratch, task, tasks);
}

static int64_t backward_scratch(const Shape& s) { return Backward<0>::scratch(s); }

}  // namespace RFA_ISA
}  // namespace rfa
