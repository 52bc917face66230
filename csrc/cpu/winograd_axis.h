// One axis of Winograd's transforms: kOutputs neighbouring outputs of a kernel of kTaps, from a
// patch of kOutputs + kTaps - 1 values, by as many products (Toom and Cook: polynomials are
// evaluated at so many places, multiplied there, and interpolated).
//
//   patch    B': values to places        taps     G: weights to places
//   outputs  A': places to outputs       spread   A: outputs to places (the gradient's way back)
//                                        gather   G': places to weights (likewise)
//
// F(2, 3) evaluates at 0, 1, -1, infinity: nothing but 0, 1, -1 and halves.
// The others evaluate at 0, a, -a, b, -b, infinity, with a and b such that A and B are exact in
// binary and errors small (Barabasz and others, Error Analysis and Improving the Accuracy of
// Winograd Convolution for Deep Neural Networks, 2020). Measured on normal numbers, 64 channels,
// F(4 x 4, 3 x 3), errors in units of those of the sums: 1, 2: 3.8; 1/2, 3/2: 2.2; 3/4, 3/2: 2.0;
// 5/8, 3/2: 1.8.
#pragma once

#include "gemm.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {

template <int kOutputs, int kTaps>
struct FastAxis;

template <>
struct FastAxis<2, 3> {
    template <class T>
    static CONVKIT_INLINE void patch(const Vec<T> (&d)[4], Vec<T> (&to)[4]) {
        to[0] = d[0] - d[2];
        to[1] = d[1] + d[2];
        to[2] = d[2] - d[1];
        to[3] = d[1] - d[3];
    }
    template <class T>
    static CONVKIT_INLINE void taps(const Vec<T> (&w)[3], Vec<T> (&to)[4]) {
        to[0] = w[0];
        to[1] = T(0.5) * (w[0] + w[2] + w[1]);
        to[2] = T(0.5) * (w[0] + w[2] - w[1]);
        to[3] = w[2];
    }
    template <class T>
    static CONVKIT_INLINE void outputs(const Vec<T> (&m)[4], Vec<T> (&z)[2]) {
        z[0] = m[0] + m[1] + m[2];
        z[1] = m[1] - m[2] - m[3];
    }
    template <class T>
    static CONVKIT_INLINE void spread(const Vec<T> (&z)[2], Vec<T> (&to)[4]) {
        to[0] = z[0];
        to[1] = z[0] + z[1];
        to[2] = z[0] - z[1];
        to[3] = -z[1];
    }
    template <class T>
    static CONVKIT_INLINE void gather(const Vec<T> (&u)[4], Vec<T> (&w)[3]) {
        const Vec<T> sum = T(0.5) * (u[1] + u[2]);
        w[0] = u[0] + sum;
        w[1] = T(0.5) * (u[1] - u[2]);
        w[2] = u[3] + sum;
    }
};

template <int kTaps>
constexpr double kFirstPlace = kTaps == 3 ? 0.625 : 0.75;

// Six places.
template <int kOutputs, int kTaps>
struct FastAxis {
    static_assert(kOutputs + kTaps == 7, "six places");
    static constexpr double kA = kFirstPlace<kTaps>, kB = 1.5, kAA = kA * kA, kBB = kB * kB;
    static constexpr double kSum = kAA + kBB, kProduct = kAA * kBB;
    static constexpr double kScaleA = 1 / (2 * kAA * (kAA - kBB));
    static constexpr double kScaleB = 1 / (2 * kBB * (kBB - kAA));

    template <class T>
    static CONVKIT_INLINE void patch(const Vec<T> (&d)[6], Vec<T> (&to)[6]) {
        const Vec<T> even_a = d[4] - T(kBB) * d[2], odd_a = d[3] - T(kBB) * d[1];
        const Vec<T> even_b = d[4] - T(kAA) * d[2], odd_b = d[3] - T(kAA) * d[1];
        to[0] = T(kProduct) * d[0] + (d[4] - T(kSum) * d[2]);
        to[1] = even_a + T(kA) * odd_a;
        to[2] = even_a - T(kA) * odd_a;
        to[3] = even_b + T(kB) * odd_b;
        to[4] = even_b - T(kB) * odd_b;
        to[5] = T(kProduct) * d[1] + (d[5] - T(kSum) * d[3]);
    }
    template <class T>
    static CONVKIT_INLINE void taps(const Vec<T> (&w)[kTaps], Vec<T> (&to)[6]) {
        const auto at = [&](double place, double square, double scale, Vec<T>& plus, Vec<T>& minus)
                            CONVKIT_INLINE {
                                Vec<T> even = w[0] + T(square) * w[2], odd = w[1];
                                if constexpr (kTaps == 5) {
                                    even = w[0] + T(square) * (w[2] + T(square) * w[4]);
                                    odd = w[1] + T(square) * w[3];
                                }
                                even *= T(scale);
                                plus = even + T(scale * place) * odd;
                                minus = even - T(scale * place) * odd;
                            };
        to[0] = T(1 / kProduct) * w[0];
        at(kA, kAA, kScaleA, to[1], to[2]);
        at(kB, kBB, kScaleB, to[3], to[4]);
        to[5] = w[kTaps - 1];
    }
    template <class T>
    static CONVKIT_INLINE void outputs(const Vec<T> (&m)[6], Vec<T> (&z)[kOutputs]) {
        const Vec<T> sum_a = m[1] + m[2], sum_b = m[3] + m[4];
        const Vec<T> odd_a = m[1] - m[2], odd_b = m[3] - m[4];
        z[0] = (m[0] + sum_a) + sum_b;
        if constexpr (kOutputs == 2) {
            z[1] = (m[5] + T(kA) * odd_a) + T(kB) * odd_b;
        } else {
            z[1] = T(kA) * odd_a + T(kB) * odd_b;
            z[2] = T(kAA) * sum_a + T(kBB) * sum_b;
            z[3] = (m[5] + T(kA * kAA) * odd_a) + T(kB * kBB) * odd_b;
        }
    }
    template <class T>
    static CONVKIT_INLINE void spread(const Vec<T> (&z)[kOutputs], Vec<T> (&to)[6]) {
        const auto at = [&](double place, double square, Vec<T>& plus, Vec<T>& minus)
                            CONVKIT_INLINE {
                                Vec<T> even = z[0], odd = z[1];
                                if constexpr (kOutputs == 4) {
                                    even = z[0] + T(square) * z[2];
                                    odd = z[1] + T(square) * z[3];
                                }
                                plus = even + T(place) * odd;
                                minus = even - T(place) * odd;
                            };
        to[0] = z[0];
        at(kA, kAA, to[1], to[2]);
        at(kB, kBB, to[3], to[4]);
        to[5] = z[kOutputs - 1];
    }
    template <class T>
    static CONVKIT_INLINE void gather(const Vec<T> (&u)[6], Vec<T> (&w)[kTaps]) {
        const Vec<T> even_a = T(kScaleA) * (u[1] + u[2]), even_b = T(kScaleB) * (u[3] + u[4]);
        const Vec<T> odd_a = T(kScaleA * kA) * (u[1] - u[2]);
        const Vec<T> odd_b = T(kScaleB * kB) * (u[3] - u[4]);
        w[0] = (T(1 / kProduct) * u[0] + even_a) + even_b;
        w[1] = odd_a + odd_b;
        if constexpr (kTaps == 3) {
            w[2] = (u[5] + T(kAA) * even_a) + T(kBB) * even_b;
        } else {
            w[2] = T(kAA) * even_a + T(kBB) * even_b;
            w[3] = T(kAA) * odd_a + T(kBB) * odd_b;
            w[4] = (u[5] + T(kAA * kAA) * even_a) + T(kBB * kBB) * even_b;
        }
    }
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
