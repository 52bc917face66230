// Activations of one value, and the math functions that both types have: what csrc/cpu/activate.h
// is for a register. A NaN stays in each of them.
#pragma once

#include "launch.cuh"
#include "specs.h"

namespace convkit {
namespace cuda {

__device__ inline float exp_of(float v) { return ::expf(v); }
__device__ inline double exp_of(double v) { return ::exp(v); }
__device__ inline float log_of(float v) { return ::logf(v); }
__device__ inline double log_of(double v) { return ::log(v); }
// log(1 + v).
__device__ inline float log1p_of(float v) { return ::log1pf(v); }
__device__ inline double log1p_of(double v) { return ::log1p(v); }
__device__ inline float tanh_of(float v) { return ::tanhf(v); }
__device__ inline double tanh_of(double v) { return ::tanh(v); }
__device__ inline float sqrt_of(float v) { return ::sqrtf(v); }
__device__ inline double sqrt_of(double v) { return ::sqrt(v); }

// 1 / (1 + exp(-v)), from exp(-|v|), which cannot overflow.
template <class T>
__device__ inline T sigmoid(T v) {
    const T e = exp_of(v < T(0) ? v : -v);
    return (v < T(0) ? e : T(1)) / (e + T(1));
}

// f(v); kLinear leaves it.
template <class T>
__device__ inline T activate(int64_t kind, T slope, T v) {
    switch (kind) {
        case kRelu:
            return v < T(0) ? T(0) : v;
        case kLeakyRelu:
            return v < T(0) ? v * slope : v;
        case kSigmoid:
            return sigmoid(v);
        case kTanh:
            return tanh_of(v);
        case kExp:
            return exp_of(v);
        default:
            return v;
    }
}

// The gradient before an activation, from that behind it and the value y behind it. Where y is NaN,
// relu and leaky_relu pass the gradient.
template <class T>
__device__ inline T activate_backward(int64_t kind, T slope, T dy, T y) {
    switch (kind) {
        case kRelu:
            return y <= T(0) ? T(0) : dy;
        case kLeakyRelu:
            return y <= T(0) ? dy * slope : dy;
        case kSigmoid:
            return dy * (y * (T(1) - y));
        case kTanh:
            return dy * (T(1) - y * y);
        case kExp:
            return dy * y;
        default:
            return dy;
    }
}

// The larger of two: the first if they are equal, NaN if either is.
template <class T>
__device__ inline T larger_or_nan(T best, T v) {
    return best >= v || best != best ? best : v;
}

}  // namespace cuda
}  // namespace convkit
