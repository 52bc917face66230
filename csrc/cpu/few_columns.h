// y (rows, columns) = max(x kernel + bias, floor) for a few columns, which would leave most lanes
// empty: the lanes hold neighbouring values of the depth. The kernel is turned first; some rows
// with all columns make a square of sums, a register each.
//
// Each lane of a sum is a chain in ascending order, and these are added up in pairs: the bits of a
// value depend on the depth alone.
#pragma once

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int64_t kFewColumns = 4;

// Whether so few columns of such a depth gain by it.
template <class T>
static inline bool is_narrow(int64_t columns, int64_t depth) {
    return columns <= std::min<int64_t>(kFewColumns, kLanes<T>) && depth >= 2 * kLanes<T>;
}

// Up to kLanes / U rows; `turned` is (U, pitch), with zeros behind the depth; `bias` repeats that
// of the columns.
template <class T, int U>
static void dot_columns(const T* x, int64_t rows, const T* turned, int64_t pitch, int64_t depth,
                        Vec<T> bias, T floor, T* y) {
    constexpr int kRows = kLanes<T> / U;
    const T* lines[kRows];
    for (int64_t r = 0; r < kRows; ++r) lines[r] = x + std::min(r, rows - 1) * depth;
    Vec<T> sum[kLanes<T>] = {};
    const auto add = [&](int64_t k, auto read) CONVKIT_INLINE {
        Vec<T> weights[U];
        CONVKIT_UNROLL
        for (int u = 0; u < U; ++u) weights[u] = load(turned + u * pitch + k);
        CONVKIT_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const Vec<T> values = read(lines[r] + k);
            CONVKIT_UNROLL
            for (int u = 0; u < U; ++u) sum[r * U + u] += values * weights[u];
        }
    };
    int64_t k = 0;
    for (; k + kLanes<T> <= depth; k += kLanes<T>) add(k, [](const T* p) { return load(p); });
    if (k < depth) add(k, [&](const T* p) { return load_partial(p, depth - k); });
    const Vec<T> value = larger<T>(sums_of_lanes<T>(sum) + bias, floor);
    const int64_t count = rows * U;
    count == kLanes<T> ? store(y, value) : store_partial(y, value, count);
}

template <class T, int U>
static void multiply_narrow(const Context& context, int64_t rows, int64_t depth, const T* x,
                            const T* kernel, const T* bias, T floor, T* y) {
    constexpr int64_t kRows = kLanes<T> / U, kTask = 4 * kRows;
    const int64_t pitch = round_up(depth, kLanes<T>);
    T* turned = scratch<T>(kShared, U * pitch);
    for (int u = 0; u < U; ++u) fill_zero(turned + u * pitch + depth, pitch - depth);
    for (int64_t k = 0; k < depth; ++k) {
        for (int u = 0; u < U; ++u) turned[u * pitch + k] = kernel[k * U + u];
    }
    Vec<T> shift{};
    for (int64_t i = 0; bias && i < kRows * U; ++i) shift[i] = bias[i % U];
    const double cost = multiply_cost<T>(static_cast<double>(kTask * depth * U));
    parallel_for(context, divide_up(rows, kTask), cost, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * kTask; row < std::min(rows, end * kTask); row += kRows) {
            dot_columns<T, U>(x + row * depth, std::min(kRows, rows - row), turned, pitch, depth,
                              shift, floor, y + row * U);
        }
    });
}

template <class T>
static void multiply_narrow(const Context& context, int64_t rows, int64_t depth, int64_t columns,
                            const T* x, const T* kernel, const T* bias, T floor, T* y) {
    static_assert(kFewColumns == 4, "one case each");
    switch (columns) {
        case 1:
            return multiply_narrow<T, 1>(context, rows, depth, x, kernel, bias, floor, y);
        case 2:
            return multiply_narrow<T, 2>(context, rows, depth, x, kernel, bias, floor, y);
        case 3:
            if constexpr (kLanes<T> >= 3)
                return multiply_narrow<T, 3>(context, rows, depth, x, kernel, bias, floor, y);
            break;
        default:
            if constexpr (kLanes<T> >= 4)
                return multiply_narrow<T, 4>(context, rows, depth, x, kernel, bias, floor, y);
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
