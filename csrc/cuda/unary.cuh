// The functions of Unary (specs.h) of one value, and their gradients: what csrc/cpu/unary.h is for
// a register. A NaN stays a NaN; at infinities the results are the limits.
#pragma once

#include <cfloat>

#include "activate.cuh"
#include "unary_kinds.h"

namespace convkit {
namespace cuda {

__device__ inline float expm1_of(float v) { return ::expm1f(v); }
__device__ inline double expm1_of(double v) { return ::expm1(v); }
__device__ inline float erfc_of(float v) { return ::erfcf(v); }
__device__ inline double erfc_of(double v) { return ::erfc(v); }
__device__ inline float size_of(float v) { return ::fabsf(v); }
__device__ inline double size_of(double v) { return ::fabs(v); }

// v, but not below `low`; held: nor above `high`. A NaN stays.
template <class T>
__device__ inline T at_least(T v, T low) {
    return v < low ? low : v;
}

template <class T>
__device__ inline T held(T v, T low, T high) {
    v = at_least(v, low);
    return v > high ? high : v;
}

// Where a function has come to its limit: no infinity is to meet a zero.
template <class T>
constexpr T kFar = sizeof(T) == 4 ? T(150) : T(800);

template <class T>
constexpr T kLargest = sizeof(T) == 4 ? T(FLT_MAX) : T(DBL_MAX);

// 1 / (1 + exp(-v)) and its derivative, in which nothing cancels.
template <class T>
struct Logistic {
    T value, slope;

    __device__ explicit Logistic(T v) {
        const T e = exp_of(-size_of(v)), share = T(1) / (e + T(1));
        value = (v < T(0) ? e : T(1)) * share;
        slope = e * share * share;
    }
};

// tanh(softplus(v)) is top / (top + gap) of these: with e = exp(-|v|) it is
// (e^2 + 2 e) / (e^2 + 2 e + 2) below 0, (1 + 2 e) / (1 + 2 e + 2 e^2) above.
template <class T>
struct TanhSoftplus {
    T e, top, gap;

    __device__ explicit TanhSoftplus(T v) {
        e = exp_of(-size_of(v));
        top = v < T(0) ? e * (e + T(2)) : e * T(2) + T(1);
        gap = v < T(0) ? T(2) : e * e * T(2);
    }
};

// The share of a normal distribution that lies below v.
template <class T>
__device__ inline T normal_below(T v) {
    return T(0.5) * erfc_of(v * T(-0.70710678118654752440084436210485));
}

// Twice the argument of tanh in gelu's approximation: (1 + tanh(u)) / 2 = logistic(2 u).
template <class T>
__device__ inline T gelu_argument(T v) {
    return v * (v * v * T(2 * kSqrtTwoOverPi * kGeluCubic) + T(2 * kSqrtTwoOverPi));
}

// f(v), with a and b of unary_bounds.
template <int64_t kKind, class T>
__device__ inline T unary_of(T a, T b, T v) {
    if constexpr (kKind == kElu || kKind == kSelu) {
        return v > T(0) ? v * b : expm1_of(v) * a;
    } else if constexpr (kKind == kSoftplus) {
        return at_least(v, T(0)) + log1p_of(exp_of(-size_of(v)));
    } else if constexpr (kKind == kSoftsign) {
        const T finite = held(v, -kLargest<T>, kLargest<T>);
        return finite / (size_of(finite) + T(1));
    } else if constexpr (kKind == kSilu) {
        return at_least(v, -kFar<T>) * sigmoid(v);
    } else if constexpr (kKind == kGelu) {
        return at_least(v, -kFar<T>) * normal_below(v);
    } else if constexpr (kKind == kGeluTanh) {
        const T bound = T(kGeluBound);
        return at_least(v, -bound) * sigmoid(gelu_argument(held(v, -bound, bound)));
    } else if constexpr (kKind == kHardSigmoid) {
        return held(v * T(1.0 / 6) + T(0.5), T(0), T(1));
    } else if constexpr (kKind == kHardSwish) {
        return v <= T(-3) ? T(0) : v >= T(3) ? v : v * (v * T(1.0 / 6) + T(0.5));
    } else if constexpr (kKind == kMish) {
        const TanhSoftplus<T> t(v);
        return at_least(v, -kFar<T>) * (t.top / (t.top + t.gap));
    } else if constexpr (kKind == kClip || kKind == kRelu6) {
        return held(v, a, b);
    } else if constexpr (kKind == kAbs) {
        return size_of(v);
    } else if constexpr (kKind == kSquare) {
        return v * v;
    } else if constexpr (kKind == kSqrt) {
        return sqrt_of(v);
    } else {
        static_assert(kKind == kLog);
        return log_of(v);
    }
}

// dy f'(v).
template <int64_t kKind, class T>
__device__ inline T unary_backward_of(T a, T b, T dy, T v) {
    if constexpr (kKind == kElu) {
        return v > T(0) ? dy * b : dy * (exp_of(v) * a);
    } else if constexpr (kKind == kSelu) {
        return v >= T(0) ? dy * b : dy * (exp_of(v) * a);
    } else if constexpr (kKind == kSoftplus) {
        return dy * sigmoid(v);
    } else if constexpr (kKind == kSoftsign) {
        const T d = size_of(v) + T(1);
        return dy / (d * d);
    } else if constexpr (kKind == kSilu) {
        const Logistic<T> s(v);
        return dy * (held(v, -kFar<T>, kFar<T>) * s.slope + s.value);
    } else if constexpr (kKind == kGelu) {
        const T far = held(v, -kFar<T>, kFar<T>);
        const T density = exp_of(far * far * T(-0.5)) * T(0.39894228040143267793994605993438);
        return dy * (far * density + normal_below(v));
    } else if constexpr (kKind == kGeluTanh) {
        const T bound = T(kGeluBound), near = held(v, -bound, bound);
        const Logistic<T> s(gelu_argument(near));
        const T inner = near * near * T(6 * kSqrtTwoOverPi * kGeluCubic) + T(2 * kSqrtTwoOverPi);
        return dy * (near * inner * s.slope + s.value);
    } else if constexpr (kKind == kHardSigmoid) {
        return v <= T(-3) || v >= T(3) ? T(0) : dy * T(1.0 / 6);
    } else if constexpr (kKind == kHardSwish) {
        return v <= T(-3) ? T(0) : v >= T(3) ? dy : dy * (v * T(1.0 / 3) + T(0.5));
    } else if constexpr (kKind == kMish) {
        const TanhSoftplus<T> t(v);
        const T share = T(1) / (t.top + t.gap), value = t.top * share;
        // 1 - tanh^2, and the derivative of softplus.
        const T slope = t.gap * share * (value + T(1));
        const T logistic = (v < T(0) ? t.e : T(1)) / (t.e + T(1));
        return dy * (held(v, -kFar<T>, kFar<T>) * logistic * slope + value);
    } else if constexpr (kKind == kClip) {
        return v < a || v > b ? T(0) : dy;
    } else if constexpr (kKind == kRelu6) {
        return v <= a || v >= b ? T(0) : dy;
    } else if constexpr (kKind == kAbs) {
        return v == T(0) ? T(0) : v < T(0) ? -dy : dy;
    } else if constexpr (kKind == kSquare) {
        return dy * (v + v);
    } else if constexpr (kKind == kSqrt) {
        return dy / (sqrt_of(v) * T(2));
    } else {
        static_assert(kKind == kLog);
        return dy / v;
    }
}

}  // namespace cuda
}  // namespace convkit
