// A random call of the kernels: its shape, its operands, and how it is shared out.
#pragma once

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>

#include "buffer.h"

namespace check {

class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : engine_(seed * 1000003 + stream) {}

  int64_t pick(int64_t low, int64_t high) { return low + int64_t(engine_() % uint64_t(high - low + 1)); }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  double real(double low, double high) { return low + (high - low) * double(engine_() >> 11) * 0x1p-53; }
  // Small sizes are as likely as large ones: most corners are there.
  int64_t size(int64_t most) { return pick(1, chance(50) ? std::min<int64_t>(most, 6) : most); }

 private:
  std::mt19937_64 engine_;
};

// Multiply-adds of the plain computation.
inline double cost(const rfa::Shape& s) {
  return double(s.pixels()) * s.channels * s.taps() * (3.0 * s.out_channels / s.groups + 3.0 * s.taps());
}

inline bool derive_out_sizes(rfa::Shape& s) {
  const int64_t height = s.height + 2 * s.pad_h - (s.kernel_h - 1) * s.dilation_h;
  const int64_t width = s.width + 2 * s.pad_w - (s.kernel_w - 1) * s.dilation_w;
  s.out_height = (height - 1) / s.stride_h + 1;
  s.out_width = (width - 1) / s.stride_w + 1;
  return height > 0 && width > 0;
}

inline void draw_window(rfa::Shape& s, Random& r) {
  const auto draw = [&](int& kernel, int& stride, int& pad, int& dilation) {
    kernel = int(r.pick(1, 7));
    stride = r.chance(50) ? 1 : int(r.pick(1, 4));
    pad = int(r.pick(0, 4));
    dilation = r.chance(70) ? 1 : int(r.pick(1, 4));
  };
  draw(s.kernel_h, s.stride_h, s.pad_h, s.dilation_h);
  draw(s.kernel_w, s.stride_w, s.pad_w, s.dilation_w);
  const int64_t kind = r.pick(0, 99);
  if (kind < 45) s.kernel_h = s.kernel_w = 3;  // 9 taps have code of their own
  if (kind >= 45 && kind < 50) s.kernel_h = 1, s.kernel_w = 9;
  if (kind >= 50 && kind < 55) s.kernel_h = 9, s.kernel_w = 1;
  if (kind == 55) s.kernel_h = 8, s.kernel_w = 16, s.dilation_h = s.dilation_w = 1;  // the most taps
  if (kind >= 56 && kind < 59) s.stride_w = 32;  // the largest stride
}

inline void draw_sizes(rfa::Shape& s, Random& r) {
  s.batch = r.pick(1, 3);
  s.groups = r.chance(60) ? 1 : r.pick(2, 3);
  s.channels = s.groups * r.size(40 / s.groups);
  s.out_channels = s.groups * r.size(70 / s.groups);
  s.height = r.size(40);
  s.width = r.size(40);
  const int64_t kind = r.pick(0, 99);
  if (kind < 12) s.height = r.pick(1, 3), s.width = r.pick(200, 450);  // rows longer than a tile
  if (kind >= 12 && kind < 20) s.height = s.width = 1, s.batch = r.pick(1, 250);
  if (kind >= 20 && kind < 24) s.out_channels = s.groups * r.pick(257, 280);  // smaller tiles in the backward pass
}

// A shape whose plain computation takes a fraction of a second: what is too large is made smaller here and there.
inline rfa::Shape draw_shape(Random& r) {
  rfa::Shape s;
  do {
    draw_window(s, r);
    draw_sizes(s, r);
  } while (!derive_out_sizes(s));
  const double budget = r.chance(10) ? 8e7 : 2e7;
  const auto less = [](int64_t size) { return size > 1 ? size - 1 - size / 8 : 1; };
  while (cost(s) > budget) {
    rfa::Shape smaller = s;
    switch (r.pick(0, 4)) {
      case 0: smaller.batch = less(s.batch); break;
      case 1: smaller.channels = s.groups * less(s.channels / s.groups); break;
      case 2: smaller.height = less(s.height); break;
      case 3: smaller.width = less(s.width); break;
      case 4: smaller.out_channels = s.groups * less(s.out_channels / s.groups); break;
    }
    const bool loses_many = s.out_channels / s.groups > 256 && smaller.out_channels < s.out_channels;
    if (!loses_many && derive_out_sizes(smaller)) s = smaller;
  }
  return s;
}

struct Configuration {
  rfa::Shape shape;
  Layout x_layout, grad_layout, grad_x_layout, out_layout;
  bool guarded, coarse, centred, input_too, counts_ties, has_bias, has_scale, has_shift;
  rfa::Act act;
  int64_t tasks, blocks_a_group, splits, backward_tasks;
  bool last_task_first;
  MapBuffer x, grad_out, grad_x_before;
  Buffer<float> feature_weight, attention_weight, weight, bias, out_scale, out_shift;
  Buffer<float> channel_gates, place_gates, row_gates, column_gates, alpha, q;
  Buffer<float> grad_largest, grad_mean, grad_rows, grad_columns;  // of a survey
  Buffer<double> scale, offset, centre;

  Configuration(uint64_t seed, uint64_t index) {
    Random r(seed, index);
    shape = draw_shape(r);
    x_layout = Layout(r.chance(70) ? r.pick(0, 1) : r.pick(2, 6));
    grad_layout = Layout(r.pick(0, 3));
    grad_x_layout = Layout(r.chance(80) ? r.pick(0, 1) : r.pick(2, 5));
    out_layout = Layout(r.pick(0, 1));
    guarded = r.chance(50), coarse = r.chance(30);
    centred = r.chance(50), input_too = r.chance(70), counts_ties = r.chance(70);
    has_bias = r.chance(50), has_scale = r.chance(50), has_shift = r.chance(50);
    act = rfa::Act(r.pick(0, 2));
    share_out(r);
    draw_maps(r);
    draw_operands(r);
  }

  Sizes input() const { return {shape.batch, shape.channels, shape.height, shape.width}; }
  Sizes output() const { return {shape.batch, shape.out_channels, shape.out_height, shape.out_width}; }
  rfa::Epilogue epilogue() const {
    return {has_bias ? bias.data() : nullptr, has_scale ? out_scale.data() : nullptr,
            has_shift ? out_shift.data() : nullptr, act};
  }
  rfa::Gates gates(rfa::Attention kind) const {
    switch (kind) {
      case rfa::Attention::gates: return {kind, channel_gates.data(), place_gates.data()};
      case rfa::Attention::lines: return {kind, row_gates.data(), column_gates.data()};
      default: return {kind, nullptr, nullptr};
    }
  }

  std::string describe() const {
    char line[640];
    const rfa::Shape& s = shape;
    std::snprintf(line, sizeof line,
                  "batch %ld, channels %ld, input %ld x %ld, output %ld x %ld x %ld, groups %ld, kernel %d x %d, "
                  "stride %d x %d, padding %d x %d, dilation %d x %d, layouts x %d grad_out %d grad_x %d out %d, "
                  "tasks %ld, backward %ld blocks %ld splits %ld tasks, %s task first, %s memory, "
                  "%s numbers, %s patches, grad_x %s, act %d",
                  long(s.batch), long(s.channels), long(s.height), long(s.width), long(s.out_channels),
                  long(s.out_height), long(s.out_width), long(s.groups), s.kernel_h, s.kernel_w, s.stride_h, s.stride_w,
                  s.pad_h, s.pad_w, s.dilation_h, s.dilation_w, int(x_layout), int(grad_layout), int(grad_x_layout),
                  int(out_layout), long(tasks), long(blocks_a_group), long(splits), long(backward_tasks),
                  last_task_first ? "last" : "first", guarded ? "guarded" : "heap", coarse ? "coarse" : "fine",
                  centred ? "centred" : "plain", input_too ? "wanted" : "not wanted", int(act));
    return line;
  }

 private:
  // As `Shares` in ops/contraction.h may do it with any number of threads.
  void share_out(Random& r) {
    const int64_t channels = shape.channels / shape.groups, most = rfa::block_channels(shape.taps());
    tasks = r.pick(1, 5);
    const int64_t blocks = (channels + most - 1) / most;
    blocks_a_group = r.chance(50) ? blocks : r.pick(blocks, channels);
    splits = r.chance(50) ? 1 : r.pick(1, std::min<int64_t>(shape.batch, 4));
    backward_tasks = splits * r.pick(1, std::min<int64_t>(blocks_a_group * shape.groups, 4));
    last_task_first = r.chance(50);  // tasks may run at the same time, so their order must not matter
  }

  // Multiples of 1/8 up to `most` of them: every feature is exact in float, so that no ReLU computed another way is on
  // the other side of 0, and equal features are equal; 0 itself occurs. Coarse ones, whole numbers, tie often.
  double draw_step(Random& r, int most) const {
    return coarse ? double(r.pick(-(most / 8), most / 8)) : double(r.pick(-most, most)) / 8.0;
  }

  void draw_maps(Random& r) {
    x = MapBuffer(x_layout, input(), guarded);
    x.buffer.draw([&] { return draw_step(r, 16); });
    grad_out = MapBuffer(grad_layout, output(), guarded);
    grad_out.buffer.draw([&] { return r.real(-1.0, 1.0); });
    grad_x_before = MapBuffer(grad_x_layout, input(), guarded);
    grad_x_before.buffer.draw([&] { return r.real(-1.0, 1.0); });
  }

  void draw_operands(Random& r) {
    const rfa::Shape& s = shape;
    const int64_t c = s.channels, t = s.taps(), o = s.out_channels, images = s.batch * c;
    const auto floats = [&](int64_t count, double most) {
      Buffer<float> buffer(count, guarded);
      buffer.draw([&] { return r.real(-most, most); });
      return buffer;
    };
    const auto steps = [&](auto buffer, int most) {
      buffer.draw([&] { return draw_step(r, most); });
      return buffer;
    };
    feature_weight = steps(Buffer<float>(c * t * t, guarded), 8);
    scale = steps(Buffer<double>(c * t, guarded), 12);
    offset = steps(Buffer<double>(c * t, guarded), 16);
    centre = steps(Buffer<double>(c * t, guarded), 16);
    attention_weight = floats(c * t, r.chance(20) ? 60.0 : 3.0);
    weight = floats(o * (c / s.groups) * t, 1.0);
    bias = floats(o, 1.0), out_scale = floats(o, 2.0), out_shift = floats(o, 1.0);
    channel_gates = floats(images, 1.0), place_gates = floats(s.pixels() * t, 1.0);
    row_gates = floats(images * s.kernel_h * s.out_height, 1.0);
    column_gates = floats(images * s.kernel_w * s.out_width, 1.0);
    grad_largest = floats(place_gates.count(), 1.0), grad_mean = floats(place_gates.count(), 1.0);
    grad_rows = floats(row_gates.count(), 1.0), grad_columns = floats(column_gates.count(), 1.0);
    alpha = floats(c * t, 1.0), q = floats(c * t * t, 1.0);
    for (int64_t channel = 0; channel < c; ++channel)  // Q is symmetric
      for (int64_t i = 0; i < t; ++i)
        for (int64_t j = 0; j < i; ++j) q[(channel * t + i) * t + j] = q[(channel * t + j) * t + i];
  }
};

}  // namespace check
