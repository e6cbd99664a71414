// Vectors of floats, one width an instruction set. Everything here is inside a namespace of its own for each set, because
// the same sources are compiled several times and no two versions of a function may be merged by the linker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define RFA_INLINE inline __attribute__((always_inline))

namespace rfa {
namespace RFA_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef Vec LooseVec __attribute__((aligned(4), may_alias));

static RFA_INLINE Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
static RFA_INLINE void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }
// Minus zero, not plus: that leaves every float as it is, so that the compiler drops it.
static RFA_INLINE Vec splat(float value) { return value - Vec{}; }
// One rounding where the instruction set has it: compiled with -ffp-contract=fast.
static RFA_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
static RFA_INLINE Vec fma(float a, Vec b, Vec c) { return splat(a) * b + c; }

// Bit l of a mask is lane l.
typedef uint32_t Mask;
constexpr Mask ALL_LANES = (1u << LANES) - 1;

#if defined(__AVX512F__)

static RFA_INLINE Vec max(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }
// The instruction gives its second operand if one is NaN, so a NaN stays one.
static RFA_INLINE Vec relu(Vec a) { return (Vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)a); }
// `value` where `gate` is positive, else 0.
static RFA_INLINE Vec where_positive(Vec gate, Vec value) {
  return (Vec)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)gate, _mm512_setzero_ps(), _CMP_GT_OQ), (__m512)value);
}
static RFA_INLINE Vec load_lanes(Vec other, Mask lanes, const float* from) {
  return (Vec)_mm512_mask_loadu_ps((__m512)other, (__mmask16)lanes, from);
}
static RFA_INLINE void store_lanes(float* to, Mask lanes, Vec value) {
  _mm512_mask_storeu_ps(to, (__mmask16)lanes, (__m512)value);
}

#elif defined(__AVX2__)

static RFA_INLINE Vec max(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
static RFA_INLINE Vec relu(Vec a) { return (Vec)_mm256_max_ps(_mm256_setzero_ps(), (__m256)a); }
static RFA_INLINE Vec where_positive(Vec gate, Vec value) {
  return (Vec)_mm256_and_ps(_mm256_cmp_ps((__m256)gate, _mm256_setzero_ps(), _CMP_GT_OQ), (__m256)value);
}
static RFA_INLINE __m256i lane_mask(Mask lanes) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)lanes), bits), bits);
}
static RFA_INLINE Vec load_lanes(Vec other, Mask lanes, const float* from) {
  const __m256i mask = lane_mask(lanes);
  return (Vec)_mm256_blendv_ps((__m256)other, _mm256_maskload_ps(from, mask), _mm256_castsi256_ps(mask));
}
static RFA_INLINE void store_lanes(float* to, Mask lanes, Vec value) {
  _mm256_maskstore_ps(to, lane_mask(lanes), (__m256)value);
}

#else

static RFA_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
static RFA_INLINE Vec relu(Vec a) { return a < 0.0f ? Vec{} : a; }
static RFA_INLINE Vec where_positive(Vec gate, Vec value) { return gate > 0.0f ? value : Vec{}; }
static RFA_INLINE Vec load_lanes(Vec other, Mask lanes, const float* from) {
  for (int lane = 0; lane < LANES; ++lane)
    if (lanes >> lane & 1) other[lane] = from[lane];
  return other;
}
static RFA_INLINE void store_lanes(float* to, Mask lanes, Vec value) {
  for (int lane = 0; lane < LANES; ++lane)
    if (lanes >> lane & 1) to[lane] = value[lane];
}

#endif

static RFA_INLINE Mask first_lanes(int count) { return count >= LANES ? ALL_LANES : (1u << count) - 1; }

static RFA_INLINE float sum_lanes(Vec a) {
  float total = 0.0f;
  for (int lane = 0; lane < LANES; ++lane) total += a[lane];
  return total;
}

static RFA_INLINE float sum_of_row(const float* from, int count) {
  Vec sum = {};
  for (; count >= LANES; from += LANES, count -= LANES) sum += load(from);
  if (count) sum += load_lanes(Vec{}, first_lanes(count), from);
  return sum_lanes(sum);
}

// 2^x to 1e-7 relative: a minimax polynomial of degree 5 over an interval of length 1, then the exponent. x is at most
// 127; below -126 the result may be 2^-126 instead of less, which no sum that holds a 1 notices. NaN stays NaN.
static RFA_INLINE Vec exp2(Vec x) {
#if defined(__AVX512F__)
  const Vec r = (Vec)_mm512_reduce_ps((__m512)x, 0x09);  // x - floor(x)
  Vec p = splat(0.0018775765784084797f);
  p = fma(p, r, splat(0.008989340625703335f));
  p = fma(p, r, splat(0.05582631751894951f));
  p = fma(p, r, splat(0.24015361070632935f));
  p = fma(p, r, splat(0.6931530833244324f));
  p = fma(p, r, splat(0.9999999403953552f));
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
  x = x < -126.0f ? splat(-126.0f) : x;
  x = x > 127.0f ? splat(127.0f) : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const Vec shifted = x + 12582912.0f;
  const Vec r = x - (shifted - 12582912.0f);
  Vec p = splat(0.001327647129073739f);
  p = fma(p, r, splat(0.009675540961325169f));
  p = fma(p, r, splat(0.05550713092088699f));
  p = fma(p, r, splat(0.24022120237350464f));
  p = fma(p, r, splat(0.6931469440460205f));
  p = fma(p, r, splat(1.0000001192092896f));
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
#endif
}

// Transpose: to[column][row] = from[row][column] for `rows` x `columns` floats.
static inline void transpose(const float* from, ptrdiff_t from_stride, float* to, ptrdiff_t to_stride, int rows,
                             int columns) {
  int row = 0;
#if defined(__AVX512F__)
  for (; row + 16 <= rows; row += 16) {
    int column = 0;
    for (; column + 16 <= columns; column += 16) {
      const float* source = from + row * from_stride + column;
      float* target = to + column * to_stride + row;
      __m512 a[16], b[16];
      for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(source + i * from_stride);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m512d p = (__m512d)b[4 * i], q = (__m512d)b[4 * i + 1];
        const __m512d r = (__m512d)b[4 * i + 2], s = (__m512d)b[4 * i + 3];
        a[4 * i] = (__m512)_mm512_unpacklo_pd(p, r);
        a[4 * i + 1] = (__m512)_mm512_unpackhi_pd(p, r);
        a[4 * i + 2] = (__m512)_mm512_unpacklo_pd(q, s);
        a[4 * i + 3] = (__m512)_mm512_unpackhi_pd(q, s);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        b[i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
        b[4 + i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
        b[8 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        b[12 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        _mm512_storeu_ps(target + i * to_stride, _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88));
        _mm512_storeu_ps(target + (8 + i) * to_stride, _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd));
        _mm512_storeu_ps(target + (4 + i) * to_stride, _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0x88));
        _mm512_storeu_ps(target + (12 + i) * to_stride, _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0xdd));
      }
    }
    for (; column < columns; ++column)
      for (int i = 0; i < 16; ++i) to[column * to_stride + row + i] = from[(row + i) * from_stride + column];
  }
#endif
  // By blocks, so that both sides stay in the first cache.
  for (int first = 0; first < columns; first += 16)
    for (int r = row; r < rows; ++r)
      for (int column = first; column < columns && column < first + 16; ++column)
        to[column * to_stride + r] = from[r * from_stride + column];
}

}  // namespace RFA_ISA
}  // namespace rfa
