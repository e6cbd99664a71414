// Memory for the operands of a kernel: of exactly the size they need, in any layout that a caller may hand in.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <utility>

#include "../problem.h"

namespace check {

// Memory of exactly `count` numbers; NaN at first, so that what a kernel reads unwritten or leaves unwritten shows.
//
// On the heap AddressSanitizer sees what is before and after. It does not see masked loads and stores, so `guarded`
// memory ends where a page without access begins: that stops them too, and leaves the numbers at odd addresses.
template <class Number>
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t count, bool guarded) : count_(count) {
    const size_t bytes = sizeof(Number) * count, page = size_t(sysconf(_SC_PAGESIZE));
    if (guarded) {
      const size_t usable = (bytes + page - 1) / page * page;
      mapped_ = usable + page;
      memory_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory_ == MAP_FAILED || mprotect(static_cast<char*>(memory_) + usable, page, PROT_NONE)) std::abort();
      data_ = reinterpret_cast<Number*>(static_cast<char*>(memory_) + usable - bytes);
    } else {
      if (posix_memalign(&memory_, 64, bytes)) std::abort();
      data_ = static_cast<Number*>(memory_);
    }
    fill(std::numeric_limits<Number>::quiet_NaN());
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (mapped_)
      munmap(memory_, mapped_);
    else
      std::free(memory_);
  }

  void fill(Number value) {
    for (int64_t n = 0; n < count_; ++n) data_[n] = value;
  }
  template <class Draw>
  void draw(Draw draw) {
    for (int64_t n = 0; n < count_; ++n) data_[n] = Number(draw());
  }
  Number* data() const { return data_; }
  int64_t count() const { return count_; }
  Number& operator[](int64_t n) const { return data_[n]; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    std::swap(memory_, other.memory_);
    std::swap(mapped_, other.mapped_);
  }

  Number* data_ = nullptr;
  int64_t count_ = 0;
  void* memory_ = nullptr;
  size_t mapped_ = 0;
};

// How a map lies in memory. The `loose` ones have gaps between images and channels (between pixels); the last three are
// only read or added to. See `even` in ops/tensors.h for what a gradient may be.
enum class Layout { planes, channels_last, loose_planes, loose_channels_last, spread, transposed, expanded };

struct Sizes {
  int64_t batch, channels, height, width;
};

// The strides of a layout; data is left out.
inline rfa::Map strides_of(Layout layout, const Sizes& s) {
  const int64_t c = s.channels, h = s.height, w = s.width, loose = h * w + 3, column = c + 3;
  switch (layout) {
    case Layout::channels_last: return {nullptr, h * w * c, 1, w * c, c};
    case Layout::loose_planes: return {nullptr, c * loose + 1, loose, w, 1};
    case Layout::loose_channels_last: return {nullptr, h * w * column + 5, 1, w * column, column};
    case Layout::spread: return {nullptr, c * h * (2 * w + 1), h * (2 * w + 1), 2 * w + 1, 2};
    case Layout::transposed: return {nullptr, c * h * w, h * w, 1, h};
    case Layout::expanded: return {nullptr, 0, h * w, w, 1};
    default: return {nullptr, c * h * w, h * w, w, 1};
  }
}

// A map in a buffer that ends with its last element.
struct MapBuffer {
  Buffer<float> buffer;
  rfa::Map map{};

  MapBuffer() = default;
  MapBuffer(Layout layout, const Sizes& s, bool guarded) : map(strides_of(layout, s)) {
    buffer = Buffer<float>(1 + (s.batch - 1) * map.batch + (s.channels - 1) * map.channel + (s.height - 1) * map.row +
                               (s.width - 1) * map.column,
                           guarded);
    map.data = buffer.data();
  }
  rfa::ConstMap view() const { return {map.data, map.batch, map.channel, map.row, map.column}; }
  float& at(int64_t b, int64_t c, int64_t y, int64_t x) const {
    return map.data[b * map.batch + c * map.channel + y * map.row + x * map.column];
  }
};

}  // namespace check
