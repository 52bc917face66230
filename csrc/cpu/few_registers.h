// Products with columns that fill one or two registers: as many chains (segments.h) as make four
// sums of a row.
#pragma once

#include "lanes.h"
#include "segments.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int kRowSums = 4;
// Rows in registers.
constexpr int kSumRows = 2 * kTileRows / kRowSums;

// Whether so few columns of such a depth gain by it.
template <class T>
static inline bool fits_two_registers(int64_t columns, int64_t depth) {
    return columns <= 2 * kLanes<T> && depth >= 128;
}

// sums (R, kRowSums, kLanes) = or, not `first`, += products of R rows of x, `step` apart, and V
// registers of columns. `end` is that of the kernel's memory.
template <class T, int V, int R>
static void multiply_registers(const T* x, int64_t step, const T* kernel, const T* end,
                               int64_t columns, int64_t depth, bool first, T* sums) {
    constexpr int kChains = kRowSums / V;
    constexpr int64_t kLast = (V - 1) * kLanes<T>;
    const T* lines[R];
    for (int64_t r = 0; r < R; ++r) lines[r] = x + r * step;
    Vec<T> sum[R][kRowSums] = {};
    const auto add = [&](int64_t k, int chain) CONVKIT_INLINE {
        Vec<T> weights[V];
        CONVKIT_UNROLL
        for (int v = 0; v < V - 1; ++v) weights[v] = load(kernel + v * kLanes<T>);
        weights[V - 1] = load_run(kernel + kLast, end, columns - kLast);
        kernel += columns;
        CONVKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vec<T> value = broadcast(lines[r][k]);
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) sum[r][chain * V + v] += value * weights[v];
        }
    };
    int64_t k = 0;
    for (; k + kChains <= depth; k += kChains) {
        CONVKIT_UNROLL
        for (int i = 0; i < kChains; ++i) add(k + i, i);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < kChains; ++i) {
        if (k + i < depth) add(k + i, i);
    }
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        CONVKIT_UNROLL
        for (int i = 0; i < kRowSums; ++i, sums += kLanes<T>) {
            store(sums, first ? sum[r][i] : load(sums) + sum[r][i]);
        }
    }
}

template <class T>
using MultiplyRegisters = void (*)(const T*, int64_t, const T*, const T*, int64_t, int64_t, bool,
                                   T*);

template <class T, int V, size_t... R>
static MultiplyRegisters<T> get_multiply_registers(int64_t rows, std::index_sequence<R...>) {
    static constexpr MultiplyRegisters<T> table[] = {
        multiply_registers<T, V, static_cast<int>(R) + 1>...};
    return table[rows - 1];
}

template <class T, int V>
static void multiply_registers(const Context& context, int64_t rows, int64_t depth, int64_t columns,
                               const T* x, const T* kernel, const T* bias, T floor, T* y) {
    constexpr int64_t kRow = kRowSums * kLanes<T>;
    const double cost = 2 * multiply_cost<T>(static_cast<double>(rows * depth * V * kLanes<T>));
    multiply_segments<T>(
        context, rows, depth, kRow, 0, cost,
        [&](int64_t first, int64_t count, Range k, bool fresh, T* sums) {
            const int64_t tiles = divide_up(count, kSumRows);
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t row = cut(count, tiles, i), end = cut(count, tiles, i + 1);
                get_multiply_registers<T, V>(end - row, std::make_index_sequence<kSumRows>())(
                    x + (first + row) * depth + k.begin, depth, kernel + k.begin * columns,
                    kernel + depth * columns, columns, k.end - k.begin, fresh, sums + row * kRow);
            }
        },
        [&](int64_t first, int64_t count, const T* sums) {
            for (int64_t row = 0; row < count; ++row) {
                for (int64_t v = 0; v < V; ++v) {
                    const int64_t j = v * kLanes<T>;
                    put_columns(
                        sum_of_chains<T, kRowSums / V>(sums + row * kRow + j, V * kLanes<T>),
                        bias ? bias + j : nullptr, floor, std::min<int64_t>(kLanes<T>, columns - j),
                        y + (first + row) * columns + j);
                }
            }
        });
}

template <class T>
static void multiply_two_registers(const Context& context, int64_t rows, int64_t depth,
                                   int64_t columns, const T* x, const T* kernel, const T* bias,
                                   T floor, T* y) {
    const auto multiply =
        columns <= kLanes<T> ? multiply_registers<T, 1> : multiply_registers<T, 2>;
    multiply(context, rows, depth, columns, x, kernel, bias, floor, y);
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
