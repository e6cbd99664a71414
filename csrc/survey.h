// A first pass over the features for attentions that look at the whole map: nothing is contracted, nothing kept.
#pragma once

#include "filters.h"
#include "gates.h"
#include "statistics.h"

namespace rfa {
namespace RFA_ISA {

struct Survey {
  const SurveyArgs& args;
  const Shape& shape;
  const int taps;
  float *first, *second, *ties, *rows_buffer;

  Survey(const SurveyArgs& a, float* scratch) : args(a), shape(a.shape), taps(a.shape.taps()) {
    first = scratch;
    second = first + taps * panel_stride(TILE_PIXELS);
    ties = second + taps * panel_stride(TILE_PIXELS);
    rows_buffer = ties + taps * panel_stride(TILE_PIXELS);
  }

  static int64_t scratch(const Shape& s) {
    return 3 * s.taps() * panel_stride(TILE_PIXELS) + Rows::floats(s, CHANNELS);
  }

  // For each place and tap, the largest and the mean feature over the channels.
  template <int TAPS>
  void places(int64_t from, int64_t to) {
    const TapCount<TAPS> taps(this->taps);
    Tile tile;
    Rows rows(args.x, rows_buffer);
    for_each_tile(from, to, TILE_PIXELS, [&](int64_t pixel, int count) {
      tile.cover(shape, pixel, count);
      for (int64_t c = 0; c < shape.channels; ++c) {
        if (c % CHANNELS == 0)
          rows.start(tile, c, int(shape.channels - c < CHANNELS ? shape.channels - c : CHANNELS));
        each<TAPS>(tile, rows.channel(c), c, [&](float* one, float* other, const Vec* feature) {
          const int64_t stride = panel_stride(TILE_PIXELS);
#pragma GCC unroll 9
          for (int t = 0, T = taps; t < T; ++t) {
            const Vec before = load(one + t * stride), now = c ? max_or_nan(before, feature[t]) : feature[t];
            store(one + t * stride, now);
            if (args.ties) count_ties(one + (ties - first) + t * stride, c > 0, before, feature[t], now);
            store(other + t * stride, c ? load(other + t * stride) + feature[t] : feature[t]);
          }
        });
      }
      write_places(tile);
    });
  }

  static RFA_INLINE void count_ties(float* count, bool any, Vec before, Vec value, Vec now) {
    const Vec kept = any ? (before == now ? load(count) : Vec{}) : Vec{};
    store(count, value == now ? kept + 1.0f : kept);
  }

  // `max` gives its second operand where one is NaN: a new NaN is kept by that, an old one by this.
  static RFA_INLINE Vec max_or_nan(Vec old, Vec value) { return old == old ? max(old, value) : old; }

  void write_places(const Tile& tile) {
    const int64_t stride = panel_stride(TILE_PIXELS), plane = shape.out_height * shape.out_width;
    const float share = 1.0f / float(shape.channels);
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      for (int t = 0, T = taps; t < T; ++t) {
        const int64_t at = (part.image * taps + t) * plane + part.place;
        std::memcpy(args.first + at, first + t * stride + part.pixel, sizeof(float) * part.pixels);
        if (args.ties) std::memcpy(args.ties + at, ties + t * stride + part.pixel, sizeof(float) * part.pixels);
        for (int p = 0; p < part.pixels; ++p) args.second[at + p] = second[t * stride + part.pixel + p] * share;
      }
    }
  }

  // For each channel, the means over each row and over each column of the map of taps.
  template <int TAPS>
  void lines(int64_t task, int64_t tasks) {
    for_channels(
        shape, args.x, rows_buffer, task, tasks, [](int64_t, int64_t) {},
        [&](const Tile& tile, const float* rows, int64_t c) { channel_lines<TAPS>(tile, rows, c); },
        [&](int64_t from, int64_t to) {
          divide(args.first, shape.kernel_h * shape.out_height, from, to, shape.kernel_w * shape.out_width);
          divide(args.second, shape.kernel_w * shape.out_width, from, to, shape.kernel_h * shape.out_height);
        });
  }

  template <int TAPS>
  void channel_lines(const Tile& tile, const float* rows, int64_t c) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const int kernel_h = shape.kernel_h, kernel_w = shape.kernel_w;
    each<TAPS>(tile, rows, c, [&](float* one, float* other, const Vec* feature) {
      for (int i = 0; i < kernel_h; ++i) {
        Vec sum = {};
        for (int j = 0; j < kernel_w; ++j) sum += feature[i * kernel_w + j];
        store(one + i * stride, sum);
      }
      for (int j = 0; j < kernel_w; ++j) {
        Vec sum = {};
        for (int i = 0; i < kernel_h; ++i) sum += feature[i * kernel_w + j];
        store(other + j * stride, sum);
      }
    });
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      const int64_t at = part.image * shape.channels + c;
      add_lines(part, shape, first, second, stride, args.first + at * kernel_h * shape.out_height,
                args.second + at * kernel_w * shape.out_width);
    }
  }

  // The sums [B, C, length] of channels [from, to) over `count` values become means.
  void divide(float* sums, int64_t length, int64_t from, int64_t to, int64_t count) const {
    for (int64_t image = 0; image < shape.batch; ++image)
      for (int64_t n = (image * shape.channels + from) * length; n < (image * shape.channels + to) * length; ++n)
        sums[n] *= 1.0f / float(count);
  }

 private:
  static constexpr int CHANNELS = 16;

  template <int TAPS, class Visit>
  RFA_INLINE void each(const Tile& tile, const float* rows, int64_t c, Visit visit) {
    const TapCount<TAPS> taps(this->taps);
    const Coefficients k(args.coefficients, c, taps);
    for (int v = 0; v < tile.vectors; ++v) {
      Vec patch[most_taps<TAPS>], feature[most_taps<TAPS>];
      load_patch<TAPS>(tile, rows, v, taps, patch);
      features<TAPS>(k, taps, patch, feature);
      visit(first + v * LANES, second + v * LANES, feature);
    }
  }
};

template <int TAPS>
static void survey_as(const SurveyArgs& args, float* scratch, int64_t task, int64_t tasks) {
  Survey survey(args, scratch);
  if (args.kind == Attention::lines) return survey.lines<TAPS>(task, tasks);
  const int64_t pixels = args.shape.pixels(), vectors = (pixels + LANES - 1) / LANES;
  const int64_t first = vectors * task / tasks * LANES, last = vectors * (task + 1) / tasks * LANES;
  survey.places<TAPS>(first, last < pixels ? last : pixels);
}

// For lines, the results must be zero at the start.
static void survey(const SurveyArgs& args, float* scratch, int64_t task, int64_t tasks) {
  args.shape.taps() == 9 ? survey_as<9>(args, scratch, task, tasks) : survey_as<0>(args, scratch, task, tasks);
}

// What a feature gains from the gradient of the survey.
template <Attention KIND>
struct SurveyGradient;

template <>
struct SurveyGradient<Attention::lines> {
  Gates gradients;
  TileGates<Attention::lines> lines;

  SurveyGradient(const SurveyBackwardArgs& args, float* buffer)
      : gradients{Attention::lines, args.grad_first, args.grad_second}, lines(gradients, buffer) {}

  static int64_t floats(const Shape& s) { return TileGates<Attention::lines>::floats(s); }
  void start(const Tile& tile, const Shape& s) { lines.start(tile, s); }
  void channel(const Tile& tile, const Shape& s, int64_t c) { lines.channel(tile, s, c); }

  RFA_INLINE Vec at(int v, int t, int kernel_w, Vec) const {
    const int64_t stride = panel_stride(TILE_PIXELS);
    return load(lines.buffer + t / kernel_w * stride + v * LANES) +
           load(lines.buffer + (lines.kernel_h + t % kernel_w) * stride + v * LANES);
  }
};

template <>
struct SurveyGradient<Attention::gates> {
  const SurveyBackwardArgs& args;
  float* buffer;  // largest, grad_first and grad_second of the tile, [T, stride] each
  int taps = 0;

  SurveyGradient(const SurveyBackwardArgs& a, float* b) : args(a), buffer(b) {}

  static int64_t floats(const Shape& s) { return 3 * s.taps() * panel_stride(TILE_PIXELS); }

  void start(const Tile& tile, const Shape& s) {
    const int64_t plane = s.out_height * s.out_width, stride = panel_stride(TILE_PIXELS);
    taps = s.taps();
    std::memset(buffer, 0, sizeof(float) * floats(s));
    float* to = buffer;
    const float* const sources[] = {args.largest, args.grad_first, args.grad_second};
    for (const float* from : sources)
      for (int t = 0; t < taps; ++t, to += stride)
        for (int n = 0; n < tile.parts_count; ++n) {
          const Tile::Part& part = tile.parts[n];
          std::memcpy(to + part.pixel, from + (part.image * taps + t) * plane + part.place, sizeof(float) * part.pixels);
        }
  }
  void channel(const Tile&, const Shape&, int64_t) {}

  RFA_INLINE Vec at(int v, int t, int, Vec feature) const {
    const int64_t block = taps * panel_stride(TILE_PIXELS);
    const float* from = buffer + t * panel_stride(TILE_PIXELS) + v * LANES;
    const Vec first = load(from + block), second = load(from + 2 * block);
    return feature == load(from) ? first + second : second;
  }
};

template <int TAPS, Attention KIND>
static void survey_backward_as(const SurveyBackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  const Shape& shape = args.shape;
  const TapCount<TAPS> taps(shape.taps());
  FilterGradient<TAPS> filters(shape, TILE_PIXELS, scratch);
  float* totals = scratch + FilterGradient<TAPS>::scratch(shape, TILE_PIXELS);
  float* gradient_buffer = totals + CHANNELS_AT_ONCE * filters.totals(taps);
  SurveyGradient<KIND> gradient(args, gradient_buffer);
  int64_t origin = 0;
  const auto total_of = [&](int64_t c) { return totals + (c - origin) * filters.totals(taps); };
  for_channels(
      shape, args.x, gradient_buffer + round_up(SurveyGradient<KIND>::floats(shape), 16), task, tasks,
      [&](int64_t first, int64_t) {
        origin = first;
        std::memset(totals, 0, sizeof(float) * CHANNELS_AT_ONCE * filters.totals(taps));
      },
      [&](const Tile& tile, const float* rows, int64_t c) {
        const Coefficients k(args.coefficients, c, taps);
        if (c == origin) gradient.start(tile, shape);
        gradient.channel(tile, shape, c);
        for (int v = 0; v < tile.vectors; ++v) {
          Vec patch[most_taps<TAPS>], feature[most_taps<TAPS>];
          load_patch<TAPS>(tile, rows, v, taps, patch);
          features<TAPS>(k, taps, patch, feature);
          const Mask valid = first_lanes(tile.pixels - v * LANES);
#pragma GCC unroll 9
          for (int t = 0, T = taps; t < T; ++t) {
            const Vec gained = where_positive(feature[t], gradient.at(v, t, shape.kernel_w, feature[t]));
            store(filters.patches + t * filters.stride + v * LANES, patch[t]);
            float* to = filters.dy + t * filters.stride + v * LANES;
            if (valid != ALL_LANES) store(to, Vec{});
            store_lanes(to, valid, gained);
          }
          store(filters.every_tap + v * LANES, Vec{});
        }
        filters.correlate(tile.vectors, total_of(c));
        filters.spread(tile, k, args.grad_x, c);
      },
      [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c)
          filters.write(total_of(c), args.sum + c * taps, args.outer + c * taps * taps);
      });
}

static void survey_backward(const SurveyBackwardArgs& args, float* scratch, int64_t task, int64_t tasks) {
  const bool nine = args.shape.taps() == 9;
  if (args.kind == Attention::lines)
    return nine ? survey_backward_as<9, Attention::lines>(args, scratch, task, tasks)
                : survey_backward_as<0, Attention::lines>(args, scratch, task, tasks);
  return nine ? survey_backward_as<9, Attention::gates>(args, scratch, task, tasks)
              : survey_backward_as<0, Attention::gates>(args, scratch, task, tasks);
}

static int64_t survey_backward_scratch(const Shape& s) {
  return FilterGradient<0>::scratch(s, TILE_PIXELS) + CHANNELS_AT_ONCE * FilterGradient<0>::totals(s.taps()) +
         round_up(SurveyGradient<Attention::lines>::floats(s), 16) + SurveyGradient<Attention::gates>::floats(s) + 16 +
         Rows::floats(s, CHANNELS_AT_ONCE);
}

}  // namespace RFA_ISA
}  // namespace rfa
