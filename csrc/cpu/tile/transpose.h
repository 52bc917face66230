// Square transposes in registers: lane j of vector i <-> lane i of vector j, for kLanes vectors.
#pragma once

#include "lanes.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace convkit {
namespace CONVKIT_ISA {

// (a0 a1 .., b0 b1 ..) -> (a0 b0 a1 b1 ..), in two vectors.
template <class T>
static inline CONVKIT_INLINE void interleave(Vec<T> a, Vec<T> b, Vec<T>& low, Vec<T>& high) {
    if constexpr (kLanes<T> == 2) {
        low = Vec<T>{a[0], b[0]};
        high = Vec<T>{a[1], b[1]};
    } else if constexpr (kLanes<T> == 4) {
        low = Vec<T>{a[0], b[0], a[1], b[1]};
        high = Vec<T>{a[2], b[2], a[3], b[3]};
    } else {
        static_assert(kLanes<T> == 8, "wider vectors have a transpose of their own");
        low = Vec<T>{a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
        high = Vec<T>{a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
    }
}

template <class T>
struct Square {
    Vec<T> row[kLanes<T>];
};

// Each round interleaves vectors that lie half of them apart: that takes one bit of the lane's
// number into the vector's and the other way round.
template <class T>
static inline CONVKIT_INLINE void transpose_square(Square<T>& square) {
    Vec<T>(&v)[kLanes<T>] = square.row;
    constexpr int kHalf = kLanes<T> / 2;
#pragma GCC unroll 3
    for (int round = 1; round < kLanes<T>; round *= 2) {
        Vec<T> next[kLanes<T>];
#pragma GCC unroll 4
        for (int i = 0; i < kHalf; ++i) {
            interleave<T>(v[i], v[i + kHalf], next[2 * i], next[2 * i + 1]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kLanes<T>; ++i) v[i] = next[i];
    }
}

// x86 is fastest within blocks of four floats: first 4 x 4 values in each block, then the blocks.
#if defined(__AVX512F__)
static inline CONVKIT_INLINE void transpose_square(Square<float>& square) {
    Vec<float>(&v)[16] = square.row;
    // All lanes: the forms without a mask draw a false warning from GCC.
    constexpr __mmask16 kAll = 0xffff;
    constexpr __mmask8 kAllPairs = 0xff;
    Vec<float> r[16];
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        const __m512d a = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(kAll, v[i], v[i + 1]));
        const __m512d b = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(kAll, v[i], v[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(kAll, v[i + 2], v[i + 3]));
        const __m512d d = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(kAll, v[i + 2], v[i + 3]));
        r[i] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(kAllPairs, a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(kAllPairs, a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(kAllPairs, b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(kAllPairs, b, d));
    }
    constexpr int kEven = 0x88, kOdd = 0xdd;  // blocks 0 and 2, 1 and 3, of two vectors
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m512 a = _mm512_maskz_shuffle_f32x4(kAll, r[i], r[i + 4], kEven);
        const __m512 b = _mm512_maskz_shuffle_f32x4(kAll, r[i], r[i + 4], kOdd);
        const __m512 c = _mm512_maskz_shuffle_f32x4(kAll, r[i + 8], r[i + 12], kEven);
        const __m512 d = _mm512_maskz_shuffle_f32x4(kAll, r[i + 8], r[i + 12], kOdd);
        v[i] = _mm512_maskz_shuffle_f32x4(kAll, a, c, kEven);
        v[i + 4] = _mm512_maskz_shuffle_f32x4(kAll, b, d, kEven);
        v[i + 8] = _mm512_maskz_shuffle_f32x4(kAll, a, c, kOdd);
        v[i + 12] = _mm512_maskz_shuffle_f32x4(kAll, b, d, kOdd);
    }
}
#elif defined(__AVX2__)
static inline CONVKIT_INLINE void transpose_square(Square<float>& square) {
    Vec<float>(&v)[8] = square.row;
    Vec<float> r[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(v[i], v[i + 1]));
        const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(v[i], v[i + 1]));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(v[i + 2], v[i + 3]));
        const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(v[i + 2], v[i + 3]));
        r[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        r[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        r[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        r[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        v[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
}
#endif

}  // namespace CONVKIT_ISA
}  // namespace convkit
