// The functions of Unary (specs.h) of a register, and their gradients: the one place where their
// formulas stand. A NaN stays a NaN; at infinities the results are the limits. Piecewise functions
// take the gradient of TensorFlow where two pieces meet.
#pragma once

#include <limits>

#include "normal.h"
#include "unary_kinds.h"

namespace convkit {
namespace CONVKIT_ISA {

// exp(x) - 1 for x <= 0: with x = k ln 2 + r as for exp, 2^k (exp(r) - 1) + (2^k - 1), which loses
// no digits near 0.
template <class T>
static inline Vec<T> expm1(Vec<T> x) {
    using F = Format<T>;
    constexpr int kTerms = static_cast<int>(sizeof(F::kExp) / sizeof(T));
    constexpr int kBias = sizeof(T) == 4 ? 127 : 1023;
    x = larger<T>(x, sizeof(T) == 4 ? -80 : -700);  // long -1, and 2^k is still a normal number
    const Vec<T> rounded = x * static_cast<T>(1.44269504088896340736) + F::kRound;
    const Vec<T> k = rounded - F::kRound;
    const Vec<T> r = x - k * F::kLn2High - k * F::kLn2Low;
    Vec<T> p = broadcast(F::kExp[kTerms - 1]);
    for (int i = kTerms - 2; i >= 1; --i) p = p * r + F::kExp[i];
    const Vec<T> power =
        from_bits<T>(exponent_bits<T>(reinterpret_cast<Unsigned<T>>(rounded) - kBias));
    return power * (p * r) + (power - 1);
}

// 1 / (1 + exp(-x)) and its derivative, in which nothing cancels.
template <class T>
struct Logistic {
    Vec<T> value, slope;
};

template <class T>
static inline Logistic<T> logistic(Vec<T> x) {
    const Vec<T> e = exp<T>(-absolute<T>(x)), share = 1 / (e + 1);
    return {(x < Vec<T>{} ? e : broadcast<T>(1)) * share, e * share * share};
}

// tanh(softplus(x)) is top / (top + gap) of these: with e = exp(-|x|) it is
// (e^2 + 2 e) / (e^2 + 2 e + 2) below 0, (1 + 2 e) / (1 + 2 e + 2 e^2) above.
template <class T>
struct TanhSoftplus {
    Vec<T> e, top, gap;
};

template <class T>
static inline TanhSoftplus<T> tanh_softplus(Vec<T> x) {
    const Vec<T> e = exp<T>(-absolute<T>(x));
    const auto below = x < Vec<T>{};
    return {e, below ? e * (e + 2) : e * 2 + 1, below ? broadcast<T>(2) : e * e * 2};
}

// x held to what is far beyond where these functions are 0, x, or constant; so that no infinity
// meets a zero.
template <class T>
static inline Vec<T> held(Vec<T> x, T bound) {
    return larger<T>(smaller<T>(x, bound), -bound);
}

// Twice the argument of tanh in gelu's approximation: (1 + tanh(u)) / 2 = logistic(2 u), which
// keeps its digits where it is close to 0.
template <class T>
static inline Vec<T> gelu_argument(Vec<T> x) {
    return x * (x * x * static_cast<T>(2 * kSqrtTwoOverPi * kGeluCubic) +
                static_cast<T>(2 * kSqrtTwoOverPi));
}

// f(x), with a and b of unary_bounds.
template <int64_t kKind, class T>
static inline Vec<T> unary_of(T a, T b, Vec<T> x) {
    using Limits = std::numeric_limits<T>;
    const Vec<T> zero{};
    if constexpr (kKind == kElu || kKind == kSelu) {
        return x > zero ? x * b : expm1<T>(x) * a;
    } else if constexpr (kKind == kSoftplus) {
        return larger<T>(x, 0) + log1p<T>(exp<T>(-absolute<T>(x)));
    } else if constexpr (kKind == kSoftsign) {
        const Vec<T> finite = held<T>(x, Limits::max());
        return finite / (absolute<T>(finite) + 1);
    } else if constexpr (kKind == kSilu) {
        return larger<T>(x, Format<T>::kExpLow) * sigmoid<T>(x);
    } else if constexpr (kKind == kGelu) {
        return larger<T>(x, -NormalTail<T>::kMost) * normal<T>(x).below;
    } else if constexpr (kKind == kGeluTanh) {
        return larger<T>(x, -kGeluBound) * sigmoid<T>(gelu_argument<T>(held<T>(x, kGeluBound)));
    } else if constexpr (kKind == kHardSigmoid) {
        return smaller<T>(larger<T>(x * static_cast<T>(1.0 / 6) + static_cast<T>(0.5), 0), 1);
    } else if constexpr (kKind == kHardSwish) {
        const Vec<T> between = x * (x * static_cast<T>(1.0 / 6) + static_cast<T>(0.5));
        return x <= broadcast<T>(-3) ? zero : x >= broadcast<T>(3) ? x : between;
    } else if constexpr (kKind == kMish) {
        const auto t = tanh_softplus<T>(x);
        return larger<T>(x, Format<T>::kExpLow) * (t.top / (t.top + t.gap));
    } else if constexpr (kKind == kClip || kKind == kRelu6) {
        return smaller<T>(larger<T>(x, a), b);
    } else if constexpr (kKind == kAbs) {
        return absolute<T>(x);
    } else if constexpr (kKind == kSquare) {
        return x * x;
    } else if constexpr (kKind == kSqrt) {
        return square_root<T>(x);
    } else {
        static_assert(kKind == kLog);
        return log<T>(x);
    }
}

// dy f'(x).
template <int64_t kKind, class T>
static inline Vec<T> unary_backward_of(T a, T b, Vec<T> dy, Vec<T> x) {
    const Vec<T> zero{};
    if constexpr (kKind == kElu) {
        return x > zero ? dy * b : dy * (exp<T>(x) * a);
    } else if constexpr (kKind == kSelu) {
        return x >= zero ? dy * b : dy * (exp<T>(x) * a);
    } else if constexpr (kKind == kSoftplus) {
        return dy * sigmoid<T>(x);
    } else if constexpr (kKind == kSoftsign) {
        const Vec<T> d = absolute<T>(x) + 1;
        return dy / (d * d);
    } else if constexpr (kKind == kSilu) {
        const Logistic<T> s = logistic<T>(x);
        return dy * (held<T>(x, -Format<T>::kExpLow) * s.slope + s.value);
    } else if constexpr (kKind == kGelu) {
        const Normal<T> p = normal<T>(x);
        return dy * (held<T>(x, NormalTail<T>::kMost) * p.density + p.below);
    } else if constexpr (kKind == kGeluTanh) {
        const Vec<T> v = held<T>(x, kGeluBound);
        const Logistic<T> s = logistic<T>(gelu_argument<T>(v));
        const Vec<T> inner = v * v * static_cast<T>(6 * kSqrtTwoOverPi * kGeluCubic) +
                             static_cast<T>(2 * kSqrtTwoOverPi);
        return dy * (v * inner * s.slope + s.value);
    } else if constexpr (kKind == kHardSigmoid) {
        const auto flat = (x <= broadcast<T>(-3)) | (x >= broadcast<T>(3));
        return flat ? zero : dy * static_cast<T>(1.0 / 6);
    } else if constexpr (kKind == kHardSwish) {
        const Vec<T> between = dy * (x * static_cast<T>(1.0 / 3) + static_cast<T>(0.5));
        return x <= broadcast<T>(-3) ? zero : x >= broadcast<T>(3) ? dy : between;
    } else if constexpr (kKind == kMish) {
        const auto t = tanh_softplus<T>(x);
        const Vec<T> share = 1 / (t.top + t.gap), value = t.top * share;
        // 1 - tanh^2, and softplus' = logistic.
        const Vec<T> slope = t.gap * share * (value + 1);
        const Vec<T> logistic = (x < zero ? t.e : broadcast<T>(1)) / (t.e + 1);
        return dy * (held<T>(x, -Format<T>::kExpLow) * logistic * slope + value);
    } else if constexpr (kKind == kClip) {
        return (x < broadcast(a)) | (x > broadcast(b)) ? zero : dy;
    } else if constexpr (kKind == kRelu6) {
        return (x <= broadcast(a)) | (x >= broadcast(b)) ? zero : dy;
    } else if constexpr (kKind == kAbs) {
        return x == zero ? zero : x < zero ? -dy : dy;
    } else if constexpr (kKind == kSquare) {
        return dy * (x + x);
    } else if constexpr (kKind == kSqrt) {
        return dy / (square_root<T>(x) * 2);
    } else {
        static_assert(kKind == kLog);
        return dy / x;
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
