// exp, log, tanh, sigmoid and square root of a vector: exp and log to within 1 unit in the last
// place, the others to within 3. NaN, infinities, signed zeros, overflow and subnormal numbers are
// as in libm.
//
// exp: x = k ln 2 + r, |r| <= ln 2 / 2, and the Taylor series of exp(r), cut where the next term is
// below a tenth of a unit. log: x = 2^k m, m in [sqrt(1/2), sqrt(2)), and the series of
// 2 atanh(s), s = (m - 1) / (m + 1), in the arrangement of fdlibm's e_log.c (Sun, 1993).
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "simd.h"

namespace convkit {
namespace CONVKIT_ISA {

// Signed integers of the lanes' width: comparisons' results, and the bits of T.
template <class T>
using Ints = decltype(Vec<T>{} < Vec<T>{});

template <class T>
struct Format;

template <>
struct Format<float> {
    static constexpr int kMantissa = 23, kBias = 127, kSignBit = 31;
    static constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer in the low bits
    static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    static constexpr float kExpLow = -104, kExpHigh = 89;  // below: 0; above: infinity
    static constexpr int kExpTerms = 7, kLogTerms = 5;
    static constexpr float kSubnormalScale = 0x1p24f;
    static constexpr int kSubnormalShift = 24;
    static constexpr int kSqrtHalfBits = 0x3f3504f3;
};

template <>
struct Format<double> {
    static constexpr int kMantissa = 52, kBias = 1023, kSignBit = 63;
    static constexpr double kRound = 0x1.8p52;
    static constexpr double kLn2High = 6.93147180369123816490e-01;
    static constexpr double kLn2Low = 1.90821492927058770002e-10;
    static constexpr double kExpLow = -746, kExpHigh = 710;
    static constexpr int kExpTerms = 13, kLogTerms = 11;
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

template <class T>
static inline Vec<T> smaller(Vec<T> v, T bound) {  // a NaN in v stays
    return v > broadcast(bound) ? broadcast(bound) : v;
}

template <class T>
static inline Vec<T> larger(Vec<T> v, T bound) {
    return v < broadcast(bound) ? broadcast(bound) : v;
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

// k in the bits of the exponent; unsigned, since a NaN's k may overflow.
template <class T>
static inline Ints<T> exponent_bits(Ints<T> k) {
    using Unsigned = Vec<std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
    return reinterpret_cast<Ints<T>>(reinterpret_cast<Unsigned>(k) << Format<T>::kMantissa);
}

// 2^k, for k in the range of normal numbers.
template <class T>
static inline Vec<T> power_of_two(Ints<T> k) {
    return from_bits<T>(exponent_bits<T>(k + Format<T>::kBias));
}

// exp(x) = 2^k (1 + fraction).
template <class T>
struct ExpParts {
    Vec<T> fraction;
    Ints<T> k;
};

template <class T>
static inline ExpParts<T> exp_parts(Vec<T> x) {
    using F = Format<T>;
    constexpr double kInverseFactorial[] = {1.0,
                                            1.0,
                                            1.0 / 2,
                                            1.0 / 6,
                                            1.0 / 24,
                                            1.0 / 120,
                                            1.0 / 720,
                                            1.0 / 5040,
                                            1.0 / 40320,
                                            1.0 / 362880,
                                            1.0 / 3628800,
                                            1.0 / 39916800,
                                            1.0 / 479001600,
                                            1.0 / 6227020800};
    x = larger<T>(smaller<T>(x, F::kExpHigh), F::kExpLow);
    const Vec<T> rounded = x * static_cast<T>(1.44269504088896340736) + F::kRound;
    const Vec<T> k = rounded - F::kRound;
    const Vec<T> r = x - k * F::kLn2High - k * F::kLn2Low;
    Vec<T> p = broadcast(static_cast<T>(kInverseFactorial[F::kExpTerms]));
    for (int i = F::kExpTerms - 1; i >= 2; --i) p = p * r + static_cast<T>(kInverseFactorial[i]);
    return {p * (r * r) + r, bits<T>(rounded) - bits<T>(broadcast(F::kRound))};
}

template <class T>
static inline Vec<T> exp(Vec<T> x) {
    const ExpParts<T> e = exp_parts<T>(x);
    // In two steps, since 2^k may lie outside the normal numbers where the result does not.
    const Ints<T> half = e.k >> 1;
    return (e.fraction + 1) * power_of_two<T>(half) * power_of_two<T>(e.k - half);
}

template <class T>
static inline Vec<T> log(Vec<T> x) {
    using F = Format<T>;
    using Limits = std::numeric_limits<T>;
    const Vec<T> size = absolute<T>(x);
    const Ints<T> subnormal = size < broadcast(Limits::min());
    const Vec<T> normal = subnormal ? size * F::kSubnormalScale : size;
    const Ints<T> k = (bits<T>(normal) - F::kSqrtHalfBits) >> F::kMantissa;
    const Vec<T> f = from_bits<T>(bits<T>(normal) - exponent_bits<T>(k)) - 1;
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

// -expm1(-2|x|) / (2 + expm1(-2|x|)), with the sign of x: no cancellation near 0.
template <class T>
static inline Vec<T> tanh(Vec<T> x) {
    const ExpParts<T> e = exp_parts<T>(larger<T>(absolute<T>(x) * static_cast<T>(-2), -64));
    const Vec<T> scale = power_of_two<T>(e.k);
    const Vec<T> expm1 = scale * e.fraction + (scale - 1);
    return from_bits<T>(bits<T>((Vec<T>{} - expm1) / (expm1 + 2)) | sign_bit<T>(x));
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
