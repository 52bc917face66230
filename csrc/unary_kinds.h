// What the processor's and the GPU's versions of Unary share besides specs.h.
#pragma once

#include "specs.h"

namespace convkit {

// Klambauer, Unterthiner, Mayr, Hochreiter: Self-normalizing neural networks, 2017.
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;
constexpr double kSeluScale = 1.0507009873554804934193349852946;

// gelu's approximation is x (1 + tanh(sqrt(2 / pi) (x + kGeluCubic x^3))) / 2 (Hendrycks, Gimpel,
// 2016); beyond kGeluBound that is 0 or x.
constexpr double kSqrtTwoOverPi = 0.79788456080286535587989211986876;
constexpr double kGeluCubic = 0.044715;
constexpr int kGeluBound = 24;

// a and b of a function: numbers of the spec, or constants.
struct UnaryBounds {
    double a, b;
};

static inline UnaryBounds unary_bounds(const Unary& s) {
    if (s.kind == kElu) return {s.a, 1};
    if (s.kind == kSelu) return {kSeluScale * kSeluAlpha, kSeluScale};
    if (s.kind == kRelu6) return {0, 6};
    return {s.a, s.b};
}

template <int64_t kValue>
struct UnaryConstant {
    static constexpr int64_t value = kValue;
};

// Calls f(UnaryConstant<kind>), so that loops in it need not ask which it is.
template <class F>
static inline void with_unary(int64_t kind, F f) {
    switch (kind) {
        case kElu:
            return f(UnaryConstant<kElu>{});
        case kSelu:
            return f(UnaryConstant<kSelu>{});
        case kSoftplus:
            return f(UnaryConstant<kSoftplus>{});
        case kSoftsign:
            return f(UnaryConstant<kSoftsign>{});
        case kSilu:
            return f(UnaryConstant<kSilu>{});
        case kGelu:
            return f(UnaryConstant<kGelu>{});
        case kGeluTanh:
            return f(UnaryConstant<kGeluTanh>{});
        case kHardSigmoid:
            return f(UnaryConstant<kHardSigmoid>{});
        case kHardSwish:
            return f(UnaryConstant<kHardSwish>{});
        case kMish:
            return f(UnaryConstant<kMish>{});
        case kClip:
            return f(UnaryConstant<kClip>{});
        case kAbs:
            return f(UnaryConstant<kAbs>{});
        case kSquare:
            return f(UnaryConstant<kSquare>{});
        case kSqrt:
            return f(UnaryConstant<kSqrt>{});
        case kLog:
            return f(UnaryConstant<kLog>{});
        default:
            return f(UnaryConstant<kRelu6>{});
    }
}

}  // namespace convkit
