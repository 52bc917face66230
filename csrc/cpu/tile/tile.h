// A value of a tile: kTile samples, in as many registers as that takes.
#pragma once

#include "lanes.h"
#include "math.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
constexpr int kParts = static_cast<int>(kTile) / kLanes<T>;

// y = f(y) for an activation; kLinear leaves it.
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

}  // namespace CONVKIT_ISA
}  // namespace convkit
