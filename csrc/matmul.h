// Products of small matrices whose right-hand side lies in the caches.
#pragma once

#include "simd.h"

namespace rfa {
namespace RFA_ISA {

// Rows and vectors of the block of sums that stays in registers.
#if defined(__AVX512F__)
constexpr int BLOCK_ROWS = 8, BLOCK_VECTORS = 3;
#elif defined(__AVX2__)
constexpr int BLOCK_ROWS = 6, BLOCK_VECTORS = 2;
#else
constexpr int BLOCK_ROWS = 4, BLOCK_VECTORS = 2;
#endif

// c[r][n] = or += the sum over k of a[r*row + k*step] * b[k*b_stride + n].
//
// The sums over k are made apart and added at the end, so that the rounding error does not grow with all that came before.
struct Operands {
  const float* a;
  ptrdiff_t row, step;
  const float* b;
  ptrdiff_t b_stride;
  float* c;
  ptrdiff_t c_stride;
  int64_t depth;
  bool add;
};

template <int M, int N>
static void block(const Operands& o) {
  Vec sum[M][N] = {};
  const float* a[M];
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) a[r] = o.a + r * o.row;
  const float* b = o.b;
  ptrdiff_t at = 0;
  for (int64_t k = 0; k < o.depth; ++k, at += o.step, b += o.b_stride) {
    Vec right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) right[n] = load(b + n * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) {
      const Vec left = splat(a[r][at]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[r][n] = fma(left, right[n], sum[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      float* c = o.c + r * o.c_stride + n * LANES;
      store(c, o.add ? load(c) + sum[r][n] : sum[r][n]);
    }
}

template <int N>
static RFA_INLINE void block_of_rows(int rows, const Operands& o) {
  switch (rows) {
#if defined(__AVX512F__)
    case 8: return block<8, N>(o);
    case 7: return block<7, N>(o);
#endif
#if defined(__AVX512F__) || defined(__AVX2__)
    case 6: return block<6, N>(o);
    case 5: return block<5, N>(o);
#endif
    case 4: return block<4, N>(o);
    case 3: return block<3, N>(o);
    case 2: return block<2, N>(o);
    case 1: return block<1, N>(o);
  }
}

// All of `rows` x `vectors`; where a's rows come in packed groups of BLOCK_ROWS, `group` is the distance of those groups.
static void multiply(int64_t rows, int64_t vectors, ptrdiff_t group, const Operands& all) {
  const int64_t slices = (vectors + BLOCK_VECTORS - 1) / BLOCK_VECTORS;
  for (int64_t n = 0; n < slices; ++n) {
    const int64_t first = vectors * n / slices, width = vectors * (n + 1) / slices - first;
    for (int64_t r = 0; r < rows; r += BLOCK_ROWS) {
      Operands o = all;
      o.a += r / BLOCK_ROWS * group;
      o.b += first * LANES;
      o.c += r * o.c_stride + first * LANES;
      const int count = rows - r < BLOCK_ROWS ? int(rows - r) : BLOCK_ROWS;
      switch (width) {
#if defined(__AVX512F__)
        case 3: block_of_rows<3>(count, o); break;
#endif
        case 2: block_of_rows<2>(count, o); break;
        case 1: block_of_rows<1>(count, o); break;
      }
    }
  }
}

}  // namespace RFA_ISA
}  // namespace rfa
