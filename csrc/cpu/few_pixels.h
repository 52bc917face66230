// c (rows, columns) = a b + bias for few rows and a large b, which is read once where it lies, wide
// rows at a time: at the speed of memory. Sums stay in the first cache meanwhile.
//
// As in gemm.h, every value of c is one chain over the depth in ascending order: the bits are those
// of the other products.
#pragma once

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

// Rows in registers: one register each.
constexpr int64_t kStreamRows = kTileRows >= 12 ? 16 : kTileRows >= 6 ? 8 : 4;
// Rows of b that are added to sums together.
constexpr int64_t kStreamDepth = 8;
constexpr int64_t kStreamColumns = 256;  // of a task
constexpr double kReadCost = 0.05;       // nanoseconds for a byte that comes out of memory

// Adds to M rows of sums (columns / kLanes, M, kLanes).
template <class T, int M>
static void add_stream(const T* a, const T* b, int64_t b_step, int64_t columns, int64_t depth,
                       T* sums) {
    for (int64_t k = 0; k < depth; k += kStreamDepth) {
        const int64_t count = std::min(kStreamDepth, depth - k);
        // Where rows are not aligned, the last register of those that follow ends in one more line.
        for (int64_t i = k; i < k + kStreamDepth; ++i) {
            __builtin_prefetch(b + (kStreamDepth + i) * b_step + columns - 1, 0, 2);
        }
        for (int64_t j = 0; j < columns; j += kLanes<T>) {
            T* to = sums + j * M;
            Vec<T> sum[M];
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) sum[m] = load(to + m * kLanes<T>);
            const T* from = b + k * b_step + j;
            const T* value = a + k;
            for (int64_t i = 0; i < count; ++i, from += b_step, ++value) {
                const Vec<T> lanes = load(from);
                __builtin_prefetch(from + kStreamDepth * b_step, 0, 2);
                CONVKIT_UNROLL
                for (int m = 0; m < M; ++m) sum[m] += broadcast(value[m * kStride<T>]) * lanes;
            }
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) store(to + m * kLanes<T>, sum[m]);
        }
    }
}

template <class T>
using AddStream = void (*)(const T*, const T*, int64_t, int64_t, int64_t, T*);

template <class T, size_t... M>
static AddStream<T> get_stream(int64_t rows, std::index_sequence<M...>) {
    static constexpr AddStream<T> table[] = {add_stream<T, static_cast<int>(M) + 1>...};
    return table[rows - 1];
}

// Whether so few rows gain by it: one tile of them, and whole registers of columns.
template <class T>
static inline bool is_stream(int64_t rows, int64_t columns) {
    return rows <= kStreamRows && columns % kLanes<T> == 0;
}

// `a` is a functor as that of multiply_rows(); b (depth, columns), c (rows, columns) lie row by
// row, bias may be null.
template <class T, class Source>
static void multiply_stream(const Context& context, const Source& a, int64_t rows, const T* b,
                            int64_t columns, const T* bias, T* c) {
    const Range range = a.depth(0, rows);
    const int64_t width = std::min(kStreamColumns, round_up(divide_up(columns, 4), kLanes<T>));
    const double values = static_cast<double>(width * (range.end - range.begin));
    const double cost = multiply_cost<T>(rows * values) + kReadCost * sizeof(T) * values;
    parallel_for(context, divide_up(columns, width), cost, [&](int64_t begin, int64_t end) {
        const auto add = get_stream<T>(rows, std::make_index_sequence<kStreamRows>());
        T* packed = scratch<T>(kPackA, rows * kStride<T>);
        T* sums = scratch<T>(kLocal, rows * width);
        for (int64_t j = begin * width; j < std::min(columns, end * width); j += width) {
            const int64_t count = std::min(width, columns - j);
            fill_zero(sums, rows * count);
            for (int64_t k = range.begin; k < range.end; k += kDepth) {
                const int64_t depth = std::min(kDepth, range.end - k);
                a.pack(0, rows, k, k + depth, packed);
                add(packed, b + k * columns + j, columns, count, depth, sums);
            }
            for (int64_t m = 0; m < rows; ++m) {
                T* to = c + m * columns + j;
                for (int64_t q = 0; q < count; q += kLanes<T>) {
                    const Vec<T> sum = load(sums + q * rows + m * kLanes<T>);
                    store(to + q, bias ? sum + load(bias + j + q) : sum);
                }
            }
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
