// Normalisation of rows side by side, one in each lane: those of a tile lie so, short ones of a
// batch are laid so first.
#pragma once

#include "lanes.h"
#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {

// first and second += what terms(i, first, second) adds, for i < size, in blocks, so that rounding
// errors grow slowly with the size.
template <class T, class Terms>
static inline void sum_both(int64_t size, Vec<T>& first, Vec<T>& second, Terms terms) {
    constexpr int64_t kBlock = 32;
    for (int64_t begin = 0; begin < size; begin += kBlock) {
        const int64_t end = begin + kBlock < size ? begin + kBlock : size;
        Vec<T> a{}, b{};
        for (int64_t i = begin; i < end; ++i) terms(i, a, b);
        first += a;
        second += b;
    }
}

// Value i of the rows lies at first + i * step.
template <class T>
struct RowMoments {
    Vec<T> mean, inverse;  // 1 / sqrt(variance + epsilon)

    RowMoments(const T* first, int64_t size, int64_t step, double epsilon) {
        const T count = static_cast<T>(size);
        const Vec<T> rough =
            blocked_sum<T>(size, [&](int64_t i) { return load(first + i * step); }) / count;
        // What rounding left in the mean is taken out again (the two-pass algorithm, corrected;
        // Chan, Golub and LeVeque, 1983).
        Vec<T> rest{}, squares{};
        sum_both<T>(size, rest, squares, [&](int64_t i, Vec<T>& sum, Vec<T>& sum_of_squares) {
            const Vec<T> d = load(first + i * step) - rough;
            sum += d;
            sum_of_squares += d * d;
        });
        mean = rough + rest / count;
        const Vec<T> variance = (squares - rest * rest / count) / count;
        inverse = 1 / square_root<T>(larger<T>(variance, 0) + static_cast<T>(epsilon));
    }
};

// gamma and beta may be null; y may be x.
template <class T>
static inline void normalise_lanes(const T* x, int64_t size, int64_t step, double epsilon,
                                   const T* gamma, const T* beta, T* y) {
    const RowMoments<T> row(x, size, step, epsilon);
    for (int64_t i = 0; i < size; ++i) {
        Vec<T> v = (load(x + i * step) - row.mean) * row.inverse;
        if (gamma) v *= gamma[i];
        if (beta) v += beta[i];
        store(y + i * step, v);
    }
}

// dx may be null, and may be dy. Of the first `count` lanes, gradients of gamma and beta are added
// to `gamma_sums` and `beta_sums` (size, kLanes), or neither.
template <class T>
static inline void normalise_lanes_backward(const T* dy, const T* x, int64_t size, int64_t step,
                                            int64_t count, double epsilon, const T* gamma, T* dx,
                                            T* gamma_sums, T* beta_sums) {
    RowMoments<T> row(x, size, step, epsilon);
    row.inverse = first_lanes<T>(row.inverse, count);
    const auto normal = [&](int64_t i) { return (load(x + i * step) - row.mean) * row.inverse; };
    const auto scaled = [&](int64_t i) {
        const Vec<T> g = load(dy + i * step);
        return gamma ? g * gamma[i] : g;
    };
    if (gamma_sums) {
        for (int64_t i = 0; i < size; ++i) {
            const Vec<T> g = load(dy + i * step);
            store(gamma_sums + i * kLanes<T>, load(gamma_sums + i * kLanes<T>) + g * normal(i));
            store(beta_sums + i * kLanes<T>, load(beta_sums + i * kLanes<T>) + g);
        }
    }
    if (!dx) return;
    Vec<T> mean{}, slope{};
    sum_both<T>(size, mean, slope, [&](int64_t i, Vec<T>& sum, Vec<T>& products) {
        const Vec<T> g = scaled(i);
        sum += g;
        products += g * normal(i);
    });
    mean /= static_cast<T>(size);
    slope /= static_cast<T>(size);
    for (int64_t i = 0; i < size; ++i) {
        store(dx + i * step, (scaled(i) - mean - normal(i) * slope) * row.inverse);
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
