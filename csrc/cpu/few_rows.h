// Products for which a large matrix is read or written once, at the speed of memory: gradients of
// dense layers for a few rows.
#pragma once

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int64_t kFewSamples = 4;

// A rough time in nanoseconds in which so many values come out of a cache that is shared, for
// parallel_for.
template <class T>
static inline double read_cost(int64_t values) {
    return 20 + 0.01 * static_cast<double>(values * static_cast<int64_t>(sizeof(T)));
}

// sums[i] = sum over j of row[j] matrix[i * step + j] for up to kLanes i. The lanes of a sum are
// chains of their own, and are then added in pairs.
template <class T>
static void dot_rows(const T* row, const T* matrix, int64_t step, int64_t rows, int64_t columns,
                     T* sums) {
    const T* lines[kLanes<T>];
    for (int64_t i = 0; i < kLanes<T>; ++i) lines[i] = matrix + std::min(i, rows - 1) * step;
    Vec<T> sum[kLanes<T>] = {};
    int64_t j = 0;
    for (; j + kLanes<T> <= columns; j += kLanes<T>) {
        const Vec<T> values = load(row + j);
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<T>; ++i) sum[i] += values * load(lines[i] + j);
    }
    if (j < columns) {
        const Vec<T> values = load_partial(row + j, columns - j);
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<T>; ++i) {
            sum[i] += values * load_partial(lines[i] + j, columns - j);
        }
    }
    const Vec<T> all = sums_of_lanes<T>(sum);
    rows == kLanes<T> ? store(sums, all) : store_partial(sums, all, rows);
}

// c (rows, size) = a (rows, columns) times the transposed matrix (size, columns).
template <class T>
static void multiply_transposed(const Context& context, int64_t rows, int64_t columns, int64_t size,
                                const T* a, const T* matrix, T* c) {
    const double cost = read_cost<T>(rows * columns * kLanes<T>);
    parallel_for(context, divide_up(size, kLanes<T>), cost, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * kLanes<T>; i < std::min(size, end * kLanes<T>); i += kLanes<T>) {
            const int64_t count = std::min<int64_t>(kLanes<T>, size - i);
            for (int64_t row = 0; row < rows; ++row) {
                dot_rows(a + row * columns, matrix + i * columns, columns, count, columns,
                         c + row * size + i);
            }
        }
    });
}

// One row of c (columns) = sum over R rows of value[r] b[r * columns + j].
template <class T, int R, class Store>
static void outer_row(const T* a, int64_t a_step, const T* b, int64_t columns, T* c,
                      Store put_whole) {
    Vec<T> value[R];
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) value[r] = broadcast(a[r * a_step]);
    int64_t j = 0;
    for (; j + kLanes<T> <= columns; j += kLanes<T>) {
        Vec<T> sum{};
        CONVKIT_UNROLL
        for (int r = 0; r < R; ++r) sum += value[r] * load(b + r * columns + j);
        put_whole(c + j, sum);
    }
    if (j == columns) return;
    Vec<T> sum{};
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) sum += value[r] * load_partial(b + r * columns + j, columns - j);
    store_partial(c + j, sum, columns - j);
}

// c (size, columns) = transposed a (R, size) times b (R, columns).
template <class T, int R>
static void outer_product(const Context& context, int64_t size, int64_t columns, const T* a,
                          const T* b, T* c) {
    const bool streamed = streams_rows(size, columns, c);
    const double cost = read_cost<T>(columns);
    parallel_for(context, size, cost, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            if (streamed) {
                outer_row<T, R>(a + i, size, b, columns, c + i * columns,
                                [](T* p, Vec<T> v) { store_past(p, v); });
            } else {
                outer_row<T, R>(a + i, size, b, columns, c + i * columns,
                                [](T* p, Vec<T> v) { store(p, v); });
            }
        }
        if (streamed) finish_stores();
    });
}

// The same for 1 .. kFewSamples rows.
template <class T>
static void multiply_outer(const Context& context, int64_t rows, int64_t size, int64_t columns,
                           const T* a, const T* b, T* c) {
    static_assert(kFewSamples == 4, "one case each");
    switch (rows) {
        case 1:
            return outer_product<T, 1>(context, size, columns, a, b, c);
        case 2:
            return outer_product<T, 2>(context, size, columns, a, b, c);
        case 3:
            return outer_product<T, 3>(context, size, columns, a, b, c);
        default:
            return outer_product<T, 4>(context, size, columns, a, b, c);
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
