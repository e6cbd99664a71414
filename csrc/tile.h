// A tile: some hundred output pixels, and the rows of the input that their receptive fields touch.
//
// The rows are copied, channel by channel, into a small padded buffer in which every tap of every pixel lies at a fixed
// distance from the pixel's own place. So 16 neighbouring pixels read tap t with one load, whatever the stride, the
// padding and the dilation: columns are sorted by their remainder modulo the stride, and padding is zeros that stay.
#pragma once

#include "problem.h"
#include "simd.h"

namespace rfa {
namespace RFA_ISA {

constexpr int TILE_PIXELS = 208;
constexpr int TILE_VECTORS = TILE_PIXELS / LANES;
constexpr int MAX_TAPS = 128;    // ops/cpu.py declines more
constexpr int MAX_PHASES = 32;   // and a larger stride

// Rows of panels: an odd multiple of 64 bytes, so that equal columns of successive rows fall into all sets of the cache.
static RFA_INLINE int64_t panel_stride(int64_t columns) { return (columns + 15) / 16 * 16 + ((columns + 15) / 16 % 2 ? 0 : 16); }

struct Tile {
  // The pixels of the tile in one image, all of them in output rows first_row ... first_row + rows - 1.
  struct Part {
    int64_t image, first_row;
    int rows, slot;
    int pixel, pixels;       // which pixels of the tile they are
    int64_t place;           // the first one's index in the output plane
  };
  // Some lanes of a vector whose pixels are neighbours in a row: lane l reads tap t at base + l + tap_offset[t].
  struct Span {
    int base;
    Mask lanes;
  };
  // Columns of the buffer that hold input: `count` from column `first` on, the first being input column `source`.
  struct Phase {
    int first, count;
    int64_t source;
  };

  int pixels, vectors;
  int size;  // floats a channel's buffer takes
  int parts_count;
  int tap_offset[MAX_TAPS];
  int span_begin[TILE_VECTORS + 1];
  Part parts[TILE_PIXELS];
  Span spans[TILE_VECTORS + TILE_PIXELS + 1];

  void cover(const Shape& s, int64_t first, int count) {
    shape_ = &s;
    pixels = count;
    vectors = (count + LANES - 1) / LANES;
    find_parts(first);
    lay_out_columns(first);
    lay_out_rows();
    find_spans();
  }

  // Floats a buffer may take for any tile of `count` pixels or fewer of this shape.
  static int64_t largest_size(const Shape& s, int64_t count) {
    const int64_t plane_rows = s.pixels() / (s.out_width > 0 ? s.out_width : 1);
    int64_t rows = count / (s.out_width > 0 ? s.out_width : 1) + 2;
    rows = rows < plane_rows ? rows : plane_rows;
    // Whole rows as soon as a tile may touch two, however short its part of each is.
    const int64_t wide = plane_rows == 1 && count < s.out_width ? count : s.out_width;
    const int64_t columns = wide + int64_t(s.kernel_w - 1) * s.dilation_w / s.stride_w;
    return s.kernel_h * rows * columns * phases(s) + LANES;
  }

  // Calls visit(slot offset, image, input row) for each row of the buffer that holds input.
  template <class Visit>
  RFA_INLINE void for_each_row(Visit visit) const {
    const Shape& s = *shape_;
    for (int n = 0; n < parts_count; ++n) {
      const Part& part = parts[n];
      const int64_t top = part.first_row * s.stride_h - s.pad_h;
      if (shared_) {
        const int slots = (part.rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
        for (int r = 0; r < slots; ++r)
          if (top + r >= 0 && top + r < s.height) visit((part.slot + r) * row_length_, part.image, top + r);
      } else {
        for (int i = 0; i < s.kernel_h; ++i)
          for (int r = 0; r < part.rows; ++r) {
            const int64_t row = top + int64_t(i) * s.dilation_h + int64_t(r) * s.stride_h;
            if (row >= 0 && row < s.height) visit((i * rows_ + part.slot + r) * row_length_, part.image, row);
          }
      }
    }
  }

  void clear(float* buffer) const { std::memset(buffer, 0, sizeof(float) * size); }

  // Copy one channel's rows into a cleared buffer; x points at the channel.
  void fill(const float* x, const ConstMap& map, float* buffer) const {
    const int stride = shape_->stride_w;
    for_each_row([&](int offset, int64_t image, int64_t row) {
      const float* source = x + image * map.batch + row * map.row;
      for (int f = 0; f < phases_; ++f) {
        const Phase& phase = phase_[f];
        copy(source + phase.source * map.column, stride * map.column, buffer + offset + f * columns_ + phase.first,
             phase.count);
      }
    });
  }

  // The same for `channels` successive channels of a map whose channels are neighbours, each into its own buffer.
  void fill_interleaved(const float* x, const ConstMap& map, int channels, float* buffers) const {
    const int stride = shape_->stride_w;
    for_each_row([&](int offset, int64_t image, int64_t row) {
      const float* source = x + image * map.batch + row * map.row;
      for (int f = 0; f < phases_; ++f) {
        const Phase& phase = phase_[f];
        transpose(source + phase.source * map.column, stride * map.column,
                  buffers + offset + f * columns_ + phase.first, size, phase.count, channels);
      }
    });
  }

  // Add a buffer to the rows it stands for: what `fill` copied, the other way round.
  void add_to(float* x, const Map& map, const float* buffer) const {
    const int64_t step = shape_->stride_w * map.column;
    for_each_row([&](int offset, int64_t image, int64_t row) {
      float* target = x + image * map.batch + row * map.row;
      for (int f = 0; f < phases_; ++f) {
        const Phase& phase = phase_[f];
        const float* source = buffer + offset + f * columns_ + phase.first;
        float* to = target + phase.source * map.column;
        if (step == 1) {
          int n = 0;
          for (; n + LANES <= phase.count; n += LANES) store(to + n, load(to + n) + load(source + n));
          for (; n < phase.count; ++n) to[n] += source[n];
        } else {
          for (int n = 0; n < phase.count; ++n) to[n * step] += source[n];
        }
      }
    });
  }

  // The values of tap t at the pixels of vector v; lanes past the last pixel are 0.
  RFA_INLINE Vec tap(const float* buffer, int v, int t) const {
    const Span* span = spans + span_begin[v];
    const float* from = buffer + tap_offset[t];
    if (span->lanes == ALL_LANES) return load(from + span->base);
    Vec value = {};
    for (const Span* end = spans + span_begin[v + 1]; span < end; ++span)
      value = load_lanes(value, span->lanes, from + span->base);
    return value;
  }

  // Add to the buffer what tap t of the pixels of vector v gets.
  RFA_INLINE void add_tap(float* buffer, int v, int t, Vec value) const {
    const Span* span = spans + span_begin[v];
    float* to = buffer + tap_offset[t];
    if (span->lanes == ALL_LANES) {
      store(to + span->base, load(to + span->base) + value);
      return;
    }
    for (const Span* end = spans + span_begin[v + 1]; span < end; ++span)
      store_lanes(to + span->base, span->lanes, load_lanes(Vec{}, span->lanes, to + span->base) + value);
  }

 private:
  const Shape* shape_;
  bool shared_;           // rows of the buffer serve several rows of taps; else each row of taps has its own
  int rows_;              // output rows the tile touches
  int columns_, phases_, row_length_;
  int64_t first_column_;  // of the output, of each row of the buffer
  Phase phase_[MAX_PHASES];

  static int phases(const Shape& s) {
    const int reach = (s.kernel_w - 1) * s.dilation_w + 1;
    return s.stride_w < reach ? s.stride_w : reach;
  }

  void find_parts(int64_t first) {
    const Shape& s = *shape_;
    const int64_t plane = s.out_height * s.out_width;
    parts_count = rows_ = 0;
    for (int pixel = 0; pixel < pixels;) {
      Part& part = parts[parts_count++];
      part.image = (first + pixel) / plane;
      part.place = (first + pixel) % plane;
      part.pixel = pixel;
      part.pixels = plane - part.place < pixels - pixel ? int(plane - part.place) : pixels - pixel;
      part.first_row = part.place / s.out_width;
      part.rows = int((part.place + part.pixels - 1) / s.out_width - part.first_row) + 1;
      rows_ += part.rows;
      pixel += part.pixels;
    }
  }

  void lay_out_columns(int64_t first) {
    const Shape& s = *shape_;
    const bool one_row = rows_ == 1;
    first_column_ = one_row ? first % s.out_width : 0;
    columns_ = int(one_row ? pixels : s.out_width) + (s.kernel_w - 1) * s.dilation_w / s.stride_w;
    phases_ = phases(s);
    row_length_ = phases_ * columns_;
    for (int f = 0; f < phases_; ++f) {
      // Input column of buffer column q: (first_column + q) * stride + f - pad, wanted in [0, width).
      const int64_t origin = first_column_ * s.stride_w + f - s.pad_w;
      const int64_t low = origin >= 0 ? 0 : (-origin + s.stride_w - 1) / s.stride_w;
      int64_t high = origin < s.width ? (s.width - 1 - origin) / s.stride_w + 1 : 0;
      high = high < columns_ ? high : columns_;
      phase_[f].first = int(low);
      phase_[f].count = high > low ? int(high - low) : 0;
      phase_[f].source = phase_[f].count ? origin + low * s.stride_w : 0;
      if (!phase_[f].count) phase_[f].first = 0;
    }
  }

  void lay_out_rows() {
    const Shape& s = *shape_;
    int64_t together = 0;
    for (int n = 0; n < parts_count; ++n)
      together += int64_t(parts[n].rows - 1) * s.stride_h + int64_t(s.kernel_h - 1) * s.dilation_h + 1;
    shared_ = together <= int64_t(s.kernel_h) * rows_;
    int slot = 0;
    for (int n = 0; n < parts_count; ++n) {
      parts[n].slot = slot;
      slot += shared_ ? (parts[n].rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1 : parts[n].rows;
    }
    size = (shared_ ? slot : s.kernel_h * rows_) * row_length_;
    const int tap_row = (shared_ ? s.dilation_h : rows_) * row_length_;
    for (int i = 0; i < s.kernel_h; ++i)
      for (int j = 0; j < s.kernel_w; ++j) {
        const int reach = j * s.dilation_w;
        tap_offset[i * s.kernel_w + j] = i * tap_row + reach % s.stride_w * columns_ + reach / s.stride_w;
      }
  }

  void find_spans() {
    const Shape& s = *shape_;
    int count = 0, vector = 0;
    span_begin[0] = 0;
    for (int n = 0; n < parts_count; ++n) {
      const Part& part = parts[n];
      int64_t column = part.place % s.out_width;
      int row = 0;
      for (int done = 0; done < part.pixels;) {
        const int pixel = part.pixel + done, lane = pixel % LANES;
        int length = part.pixels - done;
        length = s.out_width - column < length ? int(s.out_width - column) : length;
        length = LANES - lane < length ? LANES - lane : length;
        if (pixel / LANES != vector) span_begin[++vector] = count;
        const int slot = part.slot + row * (shared_ ? s.stride_h : 1);
        spans[count++] = {slot * row_length_ + int(column - first_column_) - lane,
                          first_lanes(lane + length) & ~first_lanes(lane)};
        done += length;
        column += length;
        if (column == s.out_width) column = 0, ++row;
      }
    }
    span_begin[vector + 1] = count;
  }

  // to[n] = from[n * step]
  static RFA_INLINE void copy(const float* from, int64_t step, float* to, int count) {
    int n = 0;
    if (step == 1) {
      for (; n + LANES <= count; n += LANES) store(to + n, load(from + n));
      if (n < count) store_lanes(to + n, first_lanes(count - n), load_lanes(Vec{}, first_lanes(count - n), from + n));
      return;
    }
#if defined(__AVX512F__)
    if (step == 2) {
      const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      // The second load ends one past the last element that is wanted: stop where that is still one of ours.
      for (; n + LANES < count; n += LANES)
        store(to + n, (Vec)_mm512_permutex2var_ps(_mm512_loadu_ps(from + 2 * n), even, _mm512_loadu_ps(from + 2 * n + 16)));
    }
#endif
    for (; n < count; ++n) to[n] = from[n * step];
  }
};

// The rows of the channels of a tile, one at a time, or a block at a time where channels are neighbours in memory.
class Rows {
 public:
  Rows(const ConstMap& x, float* buffers) : x_(x), buffers_(buffers), interleaved_(x.channel == 1 && x.column != 1) {}

  static int64_t floats(const Shape& s, int64_t channels, int64_t pixels = TILE_PIXELS) {
    return (Tile::largest_size(s, pixels) + 15) / 16 * 16 * channels;
  }

  // To be called when the tile has changed. At most the channels that `floats` was asked for.
  void start(const Tile& tile, int64_t first_channel, int channels) {
    tile_ = &tile;
    first_ = first_channel;
    std::memset(buffers_, 0, sizeof(float) * tile.size * (interleaved_ ? channels : 1));
    if (interleaved_) tile.fill_interleaved(x_.data + first_channel, x_, channels, buffers_);
  }

  const float* channel(int64_t c) {
    if (interleaved_) return buffers_ + (c - first_) * tile_->size;
    tile_->fill(x_.data + c * x_.channel, x_, buffers_);
    return buffers_;
  }

 private:
  ConstMap x_;
  float* buffers_;
  bool interleaved_;
  const Tile* tile_ = nullptr;
  int64_t first_ = 0;
};

// Pixels [first, last) cut into tiles of about equal size, each a whole number of vectors but the last.
template <class Visit>
static RFA_INLINE void for_each_tile(int64_t first, int64_t last, int64_t most, Visit visit) {
  const int64_t vectors = (last - first + LANES - 1) / LANES, limit = most / LANES;
  const int64_t tiles = (vectors + limit - 1) / limit;
  for (int64_t n = 0; n < tiles; ++n) {
    const int64_t from = first + vectors * n / tiles * LANES, to = first + vectors * (n + 1) / tiles * LANES;
    visit(from, int((to < last ? to : last) - from));
  }
}

}  // namespace RFA_ISA
}  // namespace rfa
