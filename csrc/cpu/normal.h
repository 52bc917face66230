// The standard normal distribution of a register: Phi(x), to within 6 units in the last place also
// where it is tiny, and the density exp(-x^2 / 2) / sqrt(2 pi).
//
// Phi(-t) = exp(-t^2 / 2) G(t) for t >= 0, where G falls from 1/2 to 0 slowly and is a rational
// function here: the least largest relative error up to kMost, from where on the result is 0, with
// G(0) held (Lawson's iteration in 60 digits; our own coefficients). All of them are positive, so
// that nothing cancels.
#pragma once

#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
struct NormalTail;

template <>
struct NormalTail<float> {
    static constexpr float kMost = 15;
    static constexpr int32_t kHead = ~0xfff;  // of the bits: those whose square is exact
    static constexpr float kP[] = {1, 0x1.c1111cp-1f, 0x1.7795aep-2f, 0x1.4d3baap-4f,
                                   0x1.0e0bcp-7f};
    static constexpr float kQ[] = {
        2, 0x1.accabep+1f, 0x1.340586p+1f, 0x1.e126e2p-1f, 0x1.a1abdap-3f, 0x1.5272d6p-6f};
};

template <>
struct NormalTail<double> {
    static constexpr double kMost = 40;
    static constexpr int64_t kHead = ~INT64_C(0x7ffffff);
    static constexpr double kP[] = {1,
                                    0x1.a8233d6c98f4cp+0,
                                    0x1.5c5507628e16ep+0,
                                    0x1.6e7e012c40963p-1,
                                    0x1.0efca9c5b6a07p-2,
                                    0x1.24f131da51c4ep-4,
                                    0x1.d44205aefd631p-7,
                                    0x1.118f756dfc93fp-9,
                                    0x1.c0ec8cc62e93cp-13,
                                    0x1.d67c060f841d6p-17,
                                    0x1.e4332e04a6324p-22};
    static constexpr double kQ[] = {2,
                                    0x1.3a32b3859d53ap+2,
                                    0x1.68dc1ee6d95bfp+2,
                                    0x1.007dd982d09d8p+2,
                                    0x1.f6a289423a774p+0,
                                    0x1.656d8d706a6c7p-1,
                                    0x1.79b808c141e41p-3,
                                    0x1.29d072ab0c89bp-5,
                                    0x1.5929150466e08p-8,
                                    0x1.19e9fec5e785ep-11,
                                    0x1.26d5194bd1f1cp-15,
                                    0x1.2f6d63bc530f8p-20};
};

template <class T>
struct Normal {
    Vec<T> below;  // Phi
    Vec<T> density;
};

template <class T>
static inline Normal<T> normal(Vec<T> x) {
    using F = NormalTail<T>;
    const Vec<T> t = smaller<T>(absolute<T>(x), F::kMost);
    // t^2 rounded would cost t^2 units in the last place of the result. So it is taken as that of
    // the first half of t's digits, which is exact, and the rest, which is small.
    const Vec<T> head = from_bits<T>(bits<T>(t) & F::kHead);
    const Vec<T> rest = (t - head) * (t + head) * static_cast<T>(-0.5);
    const Vec<T> power =
        exp<T>(head * head * static_cast<T>(-0.5)) *
        (rest * (rest * (rest * (rest * static_cast<T>(1.0 / 24) + static_cast<T>(1.0 / 6)) +
                         static_cast<T>(0.5)) +
                 1) +
         1);
    const Vec<T> tail = power * (polynomial<T>(t, F::kP) / polynomial<T>(t, F::kQ));
    return {x < Vec<T>{} ? tail : 1 - tail,
            power * static_cast<T>(0.39894228040143267793994605993438)};
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
