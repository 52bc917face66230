// Activations of a register: the one place where their formulas stand.
#pragma once

#include "math.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// f(v); kLinear leaves it. relu keeps a NaN.
template <class T>
static inline Vec<T> activate(int64_t kind, T slope, Vec<T> v) {
    switch (kind) {
        case kRelu:
            return larger<T>(v, 0);
        case kLeakyRelu:
            return v < Vec<T>{} ? v * slope : v;
        case kSigmoid:
            return sigmoid<T>(v);
        case kTanh:
            return tanh<T>(v);
        case kExp:
            return exp<T>(v);
        default:
            return v;
    }
}

// The gradient before an activation, from that behind it and the value y behind it.
template <class T>
static inline Vec<T> activate_backward(int64_t kind, T slope, Vec<T> dy, Vec<T> y) {
    switch (kind) {
        case kRelu:
            return y <= Vec<T>{} ? Vec<T>{} : dy;
        case kLeakyRelu:
            return y <= Vec<T>{} ? dy * slope : dy;
        case kSigmoid:
            return dy * (y * (1 - y));
        case kTanh:
            return dy * (1 - y * y);
        case kExp:
            return dy * y;
        default:
            return dy;
    }
}

template <int64_t kValue>
struct Kind {
    static constexpr int64_t value = kValue;
};

// Calls f(Kind<kind>), so that loops in it need not ask which it is.
template <class F>
static inline void with_kind(int64_t kind, F f) {
    switch (kind) {
        case kRelu:
            return f(Kind<kRelu>{});
        case kLeakyRelu:
            return f(Kind<kLeakyRelu>{});
        case kSigmoid:
            return f(Kind<kSigmoid>{});
        case kTanh:
            return f(Kind<kTanh>{});
        case kExp:
            return f(Kind<kExp>{});
        default:
            return f(Kind<kLinear>{});
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
