// Vec<T>: one SIMD register of T, its width from the target of the file that includes this.
//
// GCC and clang vector extensions, so that one source serves SSE2, AVX2, AVX-512 and NEON:
// + - * / and comparisons are per lane, `mask ? a : b` selects per lane, a * b + c contracts to a
// fused multiply-add where the target has one. Everything is static and in the instruction set's
// own namespace: two objects compiled for different sets never share a symbol.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace convkit {
namespace CONVKIT_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VecOf {
    typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
static inline Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
static inline void store(T* p, Vec<T> v) {
    std::memcpy(p, &v, sizeof v);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
template <class T>
static inline __m256i partial_mask(int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count * sizeof(T) / 4)), lane);
}
#endif

// The first `count` lanes (0 < count < kLanes); the others are zero. Never touches more memory than
// these, with a mask where the processor has them.
template <class T>
static inline Vec<T> load_partial(const T* p, int64_t count) {
#if defined(__AVX512F__)
    const auto mask = (1u << count) - 1;
    if constexpr (sizeof(T) == 4) {
        return reinterpret_cast<Vec<T>>(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), p));
    } else {
        return reinterpret_cast<Vec<T>>(_mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask), p));
    }
#elif defined(__AVX2__)
    return reinterpret_cast<Vec<T>>(
        _mm256_maskload_epi32(reinterpret_cast<const int*>(p), partial_mask<T>(count)));
#else
    Vec<T> v{};
    std::memcpy(&v, p, static_cast<size_t>(count) * sizeof(T));
    return v;
#endif
}

template <class T>
static inline void store_partial(T* p, Vec<T> v, int64_t count) {
#if defined(__AVX512F__)
    const auto mask = (1u << count) - 1;
    const auto bits = reinterpret_cast<__m512i>(v);
    if constexpr (sizeof(T) == 4) {
        _mm512_mask_storeu_epi32(p, static_cast<__mmask16>(mask), bits);
    } else {
        _mm512_mask_storeu_epi64(p, static_cast<__mmask8>(mask), bits);
    }
#elif defined(__AVX2__)
    _mm256_maskstore_epi32(reinterpret_cast<int*>(p), partial_mask<T>(count),
                           reinterpret_cast<__m256i>(v));
#else
    std::memcpy(p, &v, static_cast<size_t>(count) * sizeof(T));
#endif
}

template <class T>
static inline Vec<T> broadcast(T value) {
    return value - Vec<T>{};
}

// Lanes added in a fixed order.
template <class T>
static inline T sum(Vec<T> v) {
    T total = v[0];
    for (int i = 1; i < kLanes<T>; ++i) total += v[i];
    return total;
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
