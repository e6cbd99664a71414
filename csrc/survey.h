// A first pass over the features for attentions that look at the whole map: nothing is contracted, nothing kept.
#pragma once

#include "generate.h"

namespace rfa {
namespace RFA_ISA {

struct Survey {
  const SurveyArgs& args;
  const Shape& shape;
  const int taps;
  float *first, *second, *rows_buffer;

  Survey(const SurveyArgs& a, float* scratch) : args(a), shape(a.shape), taps(a.shape.taps()) {
    first = scratch;
    second = first + taps * panel_stride(TILE_PIXELS);
    rows_buffer = second + taps * panel_stride(TILE_PIXELS);
  }

  static int64_t scratch(const Shape& s) {
    return 2 * s.taps() * panel_stride(TILE_PIXELS) + Rows::floats(s, CHANNELS);
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
            // The new value second: where it is NaN, so is the result; where the old one is, the sum tells.
            store(one + t * stride, c ? max_or_nan(load(one + t * stride), feature[t]) : feature[t]);
            store(other + t * stride, c ? load(other + t * stride) + feature[t] : feature[t]);
          }
        });
      }
      write_places(tile);
    });
  }

  static RFA_INLINE Vec max_or_nan(Vec old, Vec value) { return old == old ? max(old, value) : old; }

  void write_places(const Tile& tile) {
    const int64_t stride = panel_stride(TILE_PIXELS), plane = shape.out_height * shape.out_width;
    const float share = 1.0f / float(shape.channels);
    for (int n = 0; n < tile.parts_count; ++n) {
      const Tile::Part& part = tile.parts[n];
      for (int t = 0, T = taps; t < T; ++t) {
        const int64_t at = (part.image * taps + t) * plane + part.place;
        std::memcpy(args.first + at, first + t * stride + part.pixel, sizeof(float) * part.pixels);
        for (int p = 0; p < part.pixels; ++p) args.second[at + p] = second[t * stride + part.pixel + p] * share;
      }
    }
  }

  // For each channel, the means over each row and over each column of the map of taps. Images [from, to).
  template <int TAPS>
  void lines(int64_t from, int64_t to) {
    Tile tile;
    Rows rows(args.x, rows_buffer);
    const int64_t plane = shape.out_height * shape.out_width;
    for (int64_t image = from; image < to; ++image) {
      for_each_tile(image * plane, (image + 1) * plane, TILE_PIXELS, [&](int64_t pixel, int count) {
        tile.cover(shape, pixel, count);
        for (int64_t c = 0; c < shape.channels; ++c) {
          if (c % CHANNELS == 0)
            rows.start(tile, c, int(shape.channels - c < CHANNELS ? shape.channels - c : CHANNELS));
          channel_lines<TAPS>(tile, rows.channel(c), image * shape.channels + c);
        }
      });
      const int64_t begin = image * shape.channels, end = begin + shape.channels;
      const float row = 1.0f / float(shape.kernel_w * shape.out_width), column = 1.0f / float(shape.kernel_h * shape.out_height);
      for (int64_t n = begin * shape.kernel_h * shape.out_height; n < end * shape.kernel_h * shape.out_height; ++n)
        args.first[n] *= row;
      for (int64_t n = begin * shape.kernel_w * shape.out_width; n < end * shape.kernel_w * shape.out_width; ++n)
        args.second[n] *= column;
    }
  }

  template <int TAPS>
  void channel_lines(const Tile& tile, const float* rows, int64_t image_channel) {
    const int64_t stride = panel_stride(TILE_PIXELS);
    const int kernel_h = shape.kernel_h, kernel_w = shape.kernel_w;
    each<TAPS>(tile, rows, image_channel % shape.channels, [&](float* one, float* other, const Vec* feature) {
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
    const Tile::Part& part = tile.parts[0];
    float* row_sums = args.first + image_channel * kernel_h * shape.out_height;
    float* column_sums = args.second + image_channel * kernel_w * shape.out_width;
    int64_t column = part.place % shape.out_width, row = part.first_row;
    for (int done = 0; done < part.pixels; ++row, column = 0) {
      int length = part.pixels - done;
      length = shape.out_width - column < length ? int(shape.out_width - column) : length;
      for (int i = 0; i < kernel_h; ++i) row_sums[i * shape.out_height + row] += sum_of_row(first + i * stride + done, length);
      for (int j = 0; j < kernel_w; ++j) {
        float* to = column_sums + j * shape.out_width + column;
        for (int p = 0; p < length; ++p) to[p] += second[j * stride + done + p];
      }
      done += length;
    }
  }

  static RFA_INLINE float sum_of_row(const float* from, int count) {
    Vec sum = {};
    for (; count >= LANES; from += LANES, count -= LANES) sum += load(from);
    if (count) sum += load_lanes(Vec{}, first_lanes(count), from);
    return sum_lanes(sum);
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
  if (args.kind == Attention::lines)
    return survey.lines<TAPS>(args.shape.batch * task / tasks, args.shape.batch * (task + 1) / tasks);
  const int64_t pixels = args.shape.pixels(), vectors = (pixels + LANES - 1) / LANES;
  const int64_t first = vectors * task / tasks * LANES, last = vectors * (task + 1) / tasks * LANES;
  survey.places<TAPS>(first, last < pixels ? last : pixels);
}

// For lines, the results must be zero at the start.
static void survey(const SurveyArgs& args, float* scratch, int64_t task, int64_t tasks) {
  args.shape.taps() == 9 ? survey_as<9>(args, scratch, task, tasks) : survey_as<0>(args, scratch, task, tasks);
}

}  // namespace RFA_ISA
}  // namespace rfa
