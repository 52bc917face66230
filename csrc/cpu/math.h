// exp, log, tanh, sigmoid and square root of a vector: exp, log and tanh to within 2 units in the
// last place, sigmoid to within 3. NaN, infinities, signed zeros, overflow and subnormal numbers
// are as in libm; tanh is odd to the bit and never beyond 1.
//
// exp: x = k ln 2 + r, |r| <= ln 2 / 2, and a polynomial of r. tanh: of the half, u = tanh(x / 2),
// as a rational function, and the formula of the double angle. log: x = 2^k m, m in
// [sqrt(1/2), sqrt(2)), and the series of 2 atanh(s), s = (m - 1) / (m + 1), in the arrangement of
// fdlibm's e_log.c (Sun, 1993).
//
// The coefficients of exp and tanh are our own: the least largest relative error of the result,
// found by Remez's exchange in 60 digits, with the constant terms held at what makes the result
// exact at 0. Those of float32 and of tanh were rounded one at a time, and the others fitted again.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace convkit {
namespace CONVKIT_ISA {

// Signed integers of the lanes' width: comparisons' results, and the bits of T.
template <class T>
using Ints = decltype(Vec<T>{} < Vec<T>{});
template <class T>
using Unsigned = Vec<std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;

// kRound: adding it rounds to an integer k, and leaves 2 bias + k in the low bits.
// kExp: exp(r) = sum kExp[i] r^i. kTanhP, kTanhQ: with z = x^2, p = z sum kTanhP[i] z^i and
// q = z sum kTanhQ[i] z^i, tanh(x / 2) = x (1 + p) / (2 + q). kTanhOne: from here tanh(x) is 1.
template <class T>
struct Format;

template <>
struct Format<float> {
    static constexpr int kMantissa = 23;
    static constexpr float kRound = 0x1.8p23f + 2 * 127;
    static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    static constexpr float kExpLow = -104, kExpHigh = 89;  // below: 0; above: infinity
    static constexpr float kExp[] = {
        1, 1, 0x1.fffffcp-2f, 0x1.55548cp-3f, 0x1.555858p-5f, 0x1.123dep-7f, 0x1.6ac74ap-10f};
    static constexpr float kTanhOne = 9.5f;
    static constexpr float kTanhP[] = {0x1.e7bdd8p-6f, 0x1.decdeep-14f};
    static constexpr float kTanhQ[] = {0x1.cf44c2p-3f, 0x1.3c2adcp-9f, 0x1.49562cp-19f};
    static constexpr int kLogTerms = 5;
    static constexpr float kSubnormalScale = 0x1p24f;
    static constexpr int kSubnormalShift = 24;
    static constexpr int kSqrtHalfBits = 0x3f3504f3;
};

template <>
struct Format<double> {
    static constexpr int kMantissa = 52;
    static constexpr double kRound = 0x1.8p52 + 2 * 1023;
    static constexpr double kLn2High = 6.93147180369123816490e-01;
    static constexpr double kLn2Low = 1.90821492927058770002e-10;
    static constexpr double kExpLow = -746, kExpHigh = 710;
    static constexpr double kExp[] = {1,
                                      1,
                                      0x1.000000000000ap-1,
                                      0x1.55555555554fap-3,
                                      0x1.555555555086ap-5,
                                      0x1.1111111127c4dp-7,
                                      0x1.6c16c1842e5a3p-10,
                                      0x1.a01a012a3c7ccp-13,
                                      0x1.a0199a000775dp-16,
                                      0x1.71df257c41bd4p-19,
                                      0x1.28ad7ed727ceep-22,
                                      0x1.ad7f4b42ebe9fp-26};
    static constexpr double kTanhOne = 19.6;
    static constexpr double kTanhP[] = {0x1.2ae5814ad36ecp-5,  0x1.4f342b23884cap-12,
                                        0x1.07fa84d97a445p-20, 0x1.3662a35faf00ep-30,
                                        0x1.ca6743a73bc52p-42, 0x1.7c5ef069d2f17p-56};
    static constexpr double kTanhQ[] = {0x1.eac815fabf0cbp-3,  0x1.02627bbcd4e91p-8,
                                        0x1.5016dd11f340ep-16, 0x1.45276eb5302acp-25,
                                        0x1.be8b880513028p-36, 0x1.2cbd96a2c23bdp-48};
    static constexpr int kLogTerms = 11;
    static constexpr double kSubnormalScale = 0x1p54;
    static constexpr int kSubnormalShift = 54;
    static constexpr int64_t kSqrtHalfBits = 0x3fe6a09e667f3bcd;
};

template <class T>
static inline Ints<T> bits(Vec<T> v) {
    return reinterpret_cast<Ints<T>>(v);
}

template <class T>
static inline Vec<T> from_bits(Ints<T> v) {
    return reinterpret_cast<Vec<T>>(v);
}

template <class T>
static inline Ints<T> sign_bit(Vec<T> v) {
    return bits<T>(v) & bits<T>(broadcast(static_cast<T>(-0.0)));
}

template <class T>
static inline Vec<T> absolute(Vec<T> v) {
    return from_bits<T>(bits<T>(v) ^ sign_bit<T>(v));
}

// What processors have one instruction for and GCC does not find: the smaller and the larger of
// two, b where either is NaN, and a 2^k. With AVX-512 these are the forms with a mask, since GCC 12
// warns of what its header does in the others.
#if defined(__AVX512F__)
static inline __m512 native_min(__m512 a, __m512 b) { return _mm512_maskz_min_ps(0xffff, a, b); }
static inline __m512 native_max(__m512 a, __m512 b) { return _mm512_maskz_max_ps(0xffff, a, b); }
static inline __m512d native_min(__m512d a, __m512d b) { return _mm512_maskz_min_pd(0xff, a, b); }
static inline __m512d native_max(__m512d a, __m512d b) { return _mm512_maskz_max_pd(0xff, a, b); }
static inline __m512 native_scale(__m512 a, __m512 k) {
    return _mm512_maskz_scalef_ps(0xffff, a, k);
}
static inline __m512d native_scale(__m512d a, __m512d k) {
    return _mm512_maskz_scalef_pd(0xff, a, k);
}
#elif defined(__AVX2__)
static inline __m256 native_min(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
static inline __m256 native_max(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
static inline __m256d native_min(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }
static inline __m256d native_max(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
#elif defined(__SSE2__)
static inline __m128 native_min(__m128 a, __m128 b) { return _mm_min_ps(a, b); }
static inline __m128 native_max(__m128 a, __m128 b) { return _mm_max_ps(a, b); }
static inline __m128d native_min(__m128d a, __m128d b) { return _mm_min_pd(a, b); }
static inline __m128d native_max(__m128d a, __m128d b) { return _mm_max_pd(a, b); }
#else
template <class V>
static inline V native_min(V a, V b) {
    return a < b ? a : b;
}
template <class V>
static inline V native_max(V a, V b) {
    return a > b ? a : b;
}
#endif

template <class T>
static inline Vec<T> smaller(Vec<T> v, T bound) {  // a NaN in v stays
    return native_min(broadcast(bound), v);
}

template <class T>
static inline Vec<T> larger(Vec<T> v, T bound) {
    return native_max(broadcast(bound), v);
}

// The larger of two, NaN where either is NaN.
template <class T>
static inline Vec<T> maximum(Vec<T> a, Vec<T> b) {
    return ((a > b) | (a != a)) ? a : b;
}

template <class T>
static inline Vec<T> square_root(Vec<T> v) {
    for (int i = 0; i < kLanes<T>; ++i) v[i] = std::sqrt(v[i]);
    return v;
}

// k in the bits of the exponent; what does not fit there is lost.
template <class T>
static inline Ints<T> exponent_bits(Unsigned<T> k) {
    return reinterpret_cast<Ints<T>>(k << Format<T>::kMantissa);
}

// coefficients[0] + coefficients[1] x + ...
template <class T, int kCount>
static inline Vec<T> polynomial(Vec<T> x, const T (&coefficients)[kCount]) {
    Vec<T> y = broadcast(coefficients[kCount - 1]);
    for (int i = kCount - 2; i >= 0; --i) y = y * x + coefficients[i];
    return y;
}

template <class T>
static inline Vec<T> exp(Vec<T> x) {
    using F = Format<T>;
    x = larger<T>(smaller<T>(x, F::kExpHigh), F::kExpLow);
    const Vec<T> rounded = x * static_cast<T>(1.44269504088896340736) + F::kRound;
    const Vec<T> k = rounded - F::kRound;
    const Vec<T> y = polynomial<T>(x - k * F::kLn2High - k * F::kLn2Low, F::kExp);
#if defined(__AVX512F__)
    return native_scale(y, k);
#else
    // In two steps, since 2^k may lie outside the normal numbers where the result does not.
    const auto sum = reinterpret_cast<Unsigned<T>>(rounded), half = sum >> 1;
    return y * from_bits<T>(exponent_bits<T>(half)) * from_bits<T>(exponent_bits<T>(sum - half));
#endif
}

template <class T>
static inline Vec<T> log(Vec<T> x) {
    using F = Format<T>;
    using Limits = std::numeric_limits<T>;
    const Vec<T> size = absolute<T>(x);
    const Ints<T> subnormal = size < broadcast(Limits::min());
    const Vec<T> normal = subnormal ? size * F::kSubnormalScale : size;
    const Ints<T> k = (bits<T>(normal) - F::kSqrtHalfBits) >> F::kMantissa;
    const Vec<T> f =
        from_bits<T>(bits<T>(normal) - exponent_bits<T>(reinterpret_cast<Unsigned<T>>(k))) - 1;
    const Vec<T> exponent = __builtin_convertvector(k - (subnormal & F::kSubnormalShift), Vec<T>);
    const Vec<T> s = f / (f + 2), z = s * s;
    Vec<T> p{};
    for (int i = F::kLogTerms; i >= 1; --i) p = p * z + static_cast<T>(2.0 / (2 * i + 1));
    const Vec<T> half_square = f * f * static_cast<T>(0.5);
    const Vec<T> low = s * (half_square + z * p) + exponent * F::kLn2Low;
    Vec<T> result = exponent * F::kLn2High - ((half_square - low) - f);
    result = x > Vec<T>{} ? result : broadcast(Limits::quiet_NaN());
    result = x == Vec<T>{} ? broadcast(-Limits::infinity()) : result;
    return x == broadcast(Limits::infinity()) ? x : result;
}

// log(1 + x) for 0 <= x <= 1, with the rounding of 1 + x put right (Kahan; Higham, Accuracy and
// Stability of Numerical Algorithms, section 1.14.1).
template <class T>
static inline Vec<T> log1p(Vec<T> x) {
    const Vec<T> sum = x + 1;
    return sum == broadcast<T>(1) ? x : log<T>(sum) * (x / (sum - 1));
}

// 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow.
template <class T>
static inline Vec<T> sigmoid(Vec<T> x) {
    const Vec<T> e = exp<T>(-absolute<T>(x));
    return (x < Vec<T>{} ? e : broadcast<T>(1)) / (e + 1);
}

// With u = n / d = tanh(|x| / 2), tanh |x| = 2 u / (1 + u^2). Written as a step down from |x| or
// from 1, whichever is smaller, it loses no digits and cannot pass 1:
//   |x| - |x| (n^2 - d (2p - q)) / (d^2 + n^2),    1 - (d - n)^2 / (d^2 + n^2).
template <class T>
static inline Vec<T> tanh(Vec<T> x) {
    using F = Format<T>;
    const Vec<T> size = smaller<T>(absolute<T>(x), F::kTanhOne), z = size * size;
    const Vec<T> p = z * polynomial<T>(z, F::kTanhP), q = z * polynomial<T>(z, F::kTanhQ);
    const Vec<T> n = size + size * p, d = q + 2, gap = d - n;
    // n * n comes last: what it is added to can then take in its own product and no more.
    const Vec<T> cross = d * (p * 2 - q), dd = d * d, nn = n * n;
    const Vec<T> step = (size < broadcast<T>(1) ? nn - cross : gap * gap) / (dd + nn);
    const Vec<T> start = smaller<T>(size, 1);
    return from_bits<T>(bits<T>(start - start * step) | sign_bit<T>(x));
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
