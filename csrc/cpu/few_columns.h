// Products with a few columns, which would leave many lanes empty: the lanes hold neighbouring
// values of the depth, so there are kLanes chains (segments.h).
//
// The kernel is a stream of values, kLanes rows of which (a group) fill as many registers as there
// are columns. A few rows of x are multiplied with these as they lie, and a permutation gives each
// lane its value of x. For more rows the kernel is turned first, each group in its place: then
// register u holds column u, and the values of x serve as they lie. Bits are the same. A single
// column lies as if turned.
#pragma once

#include "segments.h"

namespace convkit {
namespace CONVKIT_ISA {

// As many as registers hold sums for.
constexpr int kFewColumns = kVectorBytes == 64 ? 15 : 12;
// So few that sums of several rows are as many as lanes.
template <class T>
constexpr int kSquareColumns = std::min(4, kLanes<T>);

// Whether so few columns of such a depth gain by it.
template <class T>
static inline bool is_narrow(int64_t columns, int64_t depth) {
    return columns <= kFewColumns && depth >= (columns <= 4    ? 2 * kLanes<T>
                                               : columns <= 10 ? 64
                                                               : 256);
}

// Of kLanes values of x those that belong to register I of a group as it was given.
template <class T, int U, int I, size_t... L>
static inline CONVKIT_INLINE Vec<T> spread(Vec<T> x, std::index_sequence<L...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(x, x, ((I * kLanes<T> + static_cast<int>(L)) / U)...);
#else
    using Index = decltype(x < x);
    return __builtin_shuffle(x, Index{((I * kLanes<T> + static_cast<int>(L)) / U)...});
#endif
}

// Adds a group's products to the sums of R rows; weights(i) is register i of the group.
template <class T, int U, int R, bool kTurned, class Weights, size_t... I>
static inline CONVKIT_INLINE void add_group(const Vec<T>* values, Weights weights, Vec<T> (*sum)[U],
                                            std::index_sequence<I...>) {
    constexpr auto lanes = std::make_index_sequence<kLanes<T>>();
    const auto add = [&](auto i) CONVKIT_INLINE {
        constexpr int kI = decltype(i)::value;
        const Vec<T> weight = weights(kI);
        CONVKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            sum[r][kI] += (kTurned ? values[r] : spread<T, U, kI>(values[r], lanes)) * weight;
        }
    };
    (add(std::integral_constant<int, I>()), ...);
}

// Adds to sums of R rows of x, `step` apart, of which the last repeat where there are fewer. A
// turned kernel ends with a whole group, unless it is a column.
template <class T, int U, int R, bool kTurned>
static inline CONVKIT_INLINE void add_columns(const T* x, int64_t step, int64_t rows,
                                              const T* kernel, int64_t depth, Vec<T> (*sum)[U]) {
    constexpr auto all = std::make_index_sequence<U>();
    const T* lines[R];
    for (int64_t r = 0; r < R; ++r) lines[r] = x + std::min(r, rows - 1) * step;
    Vec<T> values[R];
    int64_t k = 0;
    for (; k + kLanes<T> <= depth; k += kLanes<T>, kernel += U * kLanes<T>) {
        CONVKIT_UNROLL
        for (int r = 0; r < R; ++r) values[r] = load(lines[r] + k);
        add_group<T, U, R, kTurned>(
            values, [&](int i) CONVKIT_INLINE { return load(kernel + i * kLanes<T>); }, sum, all);
    }
    if (k == depth) return;
    const int64_t left = depth - k;
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) values[r] = load_partial(lines[r] + k, left);
    add_group<T, U, R, kTurned>(
        values,
        [&](int i) CONVKIT_INLINE {
            if (kTurned && U > 1) return load(kernel + i * kLanes<T>);
            const int64_t given = U * left - i * kLanes<T>;
            return given >= kLanes<T> ? load(kernel + i * kLanes<T>)
                   : given > 0        ? load_partial(kernel + i * kLanes<T>, given)
                                      : Vec<T>{};
        },
        sum, all);
}

// sums (R, U, kLanes) = or, not `first`, += these products.
template <class T, int U, int R, bool kTurned>
static void multiply_columns(const T* x, int64_t step, int64_t rows, const T* kernel, int64_t depth,
                             bool first, T* sums) {
    Vec<T> sum[R][U] = {};
    add_columns<T, U, R, kTurned>(x, step, rows, kernel, depth, sum);
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        CONVKIT_UNROLL
        for (int u = 0; u < U; ++u, sums += kLanes<T>) {
            store(sums, first ? sum[r][u] : load(sums) + sum[r][u]);
        }
    }
}

// ---- a few rows: the kernel as it lies; sums are (rows, kLanes, U) ------------------------------

template <class T, int U>
static void multiply_as_it_lies(const Context& context, int64_t rows, int64_t depth, const T* x,
                                const T* kernel, const T* bias, T floor, T* y) {
    constexpr int kMost = kTileRows >= 12 ? 20 : 10, kRows = std::max(1, std::min(4, kMost / U));
    constexpr int64_t kRow = U * kLanes<T>;
    const double cost = 3 * multiply_cost<T>(static_cast<double>(rows * depth * U));
    multiply_segments<T>(
        context, rows, depth, kRow, 0, cost,
        [&](int64_t first, int64_t count, Range k, bool fresh, T* sums) {
            const T* weights = kernel + k.begin * U;
            const auto multiply = [&](auto tile, int64_t row) CONVKIT_INLINE {
                constexpr int kR = decltype(tile)::value;
                multiply_columns<T, U, kR, false>(x + (first + row) * depth + k.begin, depth, kR,
                                                  weights, k.end - k.begin, fresh,
                                                  sums + row * kRow);
            };
            int64_t row = 0;
            for (; row + kRows <= count; row += kRows) {
                multiply(std::integral_constant<int, kRows>(), row);
            }
            for (; row < count; ++row) multiply(std::integral_constant<int, 1>(), row);
        },
        [&](int64_t first, int64_t count, const T* sums) {
            for (int64_t row = 0; row < count; ++row) {
                for (int u = 0; u < U; u += kLanes<T>) {
                    put_columns(sum_of_chains<T, kLanes<T>>(sums + row * kRow + u, U),
                                bias ? bias + u : nullptr, floor, std::min(kLanes<T>, U - u),
                                y + (first + row) * U + u);
                }
            }
        });
}

// ---- more rows: the kernel turned ---------------------------------------------------------------

template <class T, int U>
static void turn_group(const T* kernel, int64_t depth, T* turned) {
    if (U <= 4) {  // most of a square would be for nothing
        const int64_t count = std::min<int64_t>(kLanes<T>, depth);
        if (count < kLanes<T>) fill_zero(turned, U * kLanes<T>);
        for (int64_t k = 0; k < count; ++k) {
            for (int u = 0; u < U; ++u) turned[u * kLanes<T> + k] = kernel[k * U + u];
        }
        return;
    }
    for (int u = 0; u < U; u += kLanes<T>) {
        Vec<T> square[kLanes<T>];
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<T>; ++i) {
            const int64_t left = (depth - i) * U - u;
            square[i] = left >= kLanes<T> ? load(kernel + i * U + u)
                        : left > 0        ? load_partial(kernel + i * U + u, left)
                                          : Vec<T>{};
        }
        transpose<T>(square);
        for (int i = 0; i < std::min(kLanes<T>, U - u); ++i) {
            store(turned + (u + i) * kLanes<T>, square[i]);
        }
    }
}

template <class T, int U>
static const T* turn(const Context& context, int64_t depth, const T* kernel) {
    if (U == 1) return kernel;
    constexpr int64_t kGroup = U * kLanes<T>;
    const int64_t groups = divide_up(depth, kLanes<T>);
    T* turned = scratch<T>(kShared, groups * kGroup);
    parallel_for(context, groups, 20, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            turn_group<T, U>(kernel + i * kGroup, depth - i * kLanes<T>, turned + i * kGroup);
        }
    });
    return turned;
}

// For kSquareColumns: the sums stay in registers.
template <class T, int U>
static void multiply_squares(const Context& context, int64_t rows, int64_t depth, const T* x,
                             const T* kernel, const T* bias, T floor, T* y) {
    constexpr int kRows = kLanes<T> / U;
    constexpr int64_t kTask = 4 * kRows;
    const T* turned = turn<T, U>(context, depth, kernel);
    const Segments<T> segments(depth);
    Vec<T> shift{};
    for (int i = 0; bias && i < kRows * U; ++i) shift[i] = bias[i % U];
    const double cost = multiply_cost<T>(static_cast<double>(kTask * depth * U));
    parallel_for(context, divide_up(rows, kTask), cost, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin * kTask; row < std::min(rows, end * kTask); row += kRows) {
            Vec<T> total[kLanes<T>] = {};
            for (int64_t i = 0; i < segments.count; ++i) {
                const Range k = segments.range(i);
                Vec<T> sum[kRows][U] = {};
                add_columns<T, U, kRows, true>(x + row * depth + k.begin, depth, rows - row,
                                               turned + k.begin * U, k.end - k.begin, sum);
                CONVKIT_UNROLL
                for (int j = 0; j < kRows * U; ++j) {
                    total[j] = i == 0 ? sum[j / U][j % U] : total[j] + sum[j / U][j % U];
                }
            }
            const int64_t count = std::min<int64_t>(kRows, rows - row) * U;
            const Vec<T> value = larger<T>(sums_of_lanes<T>(total) + shift, floor);
            count == kLanes<T> ? store(y + row * U, value)
                               : store_partial(y + row * U, value, count);
        }
    });
}

// For more columns: sums are (rows, U, kLanes).
template <class T, int U>
static void multiply_turned(const Context& context, int64_t rows, int64_t depth, const T* x,
                            const T* kernel, const T* bias, T floor, T* y) {
    constexpr int kRows = std::max(1, 2 * kTileRows / U);
    constexpr int64_t kRow = U * kLanes<T>;
    const T* turned = turn<T, U>(context, depth, kernel);
    T shift[U + kLanes<T>];
    for (int i = 0; i < U + kLanes<T>; ++i) shift[i] = bias ? bias[i % U] : T(0);
    const double cost = multiply_cost<T>(static_cast<double>(rows * depth * U));
    multiply_segments<T>(
        context, rows, depth, kRow, kRows, cost,
        [&](int64_t first, int64_t count, Range k, bool fresh, T* sums) {
            for (int64_t row = 0; row < count; row += kRows) {
                multiply_columns<T, U, kRows, true>(x + (first + row) * depth + k.begin, depth,
                                                    count - row, turned + k.begin * U,
                                                    k.end - k.begin, fresh, sums + row * kRow);
            }
        },
        [&](int64_t first, int64_t count, const T* sums) {
            const int64_t values = count * U;
            for (int64_t i = 0; i < values; i += kLanes<T>) {
                Vec<T> sum[kLanes<T>];
                CONVKIT_UNROLL
                for (int j = 0; j < kLanes<T>; ++j) sum[j] = load(sums + (i + j) * kLanes<T>);
                put_columns(sums_of_lanes<T>(sum), shift + i % U, floor,
                            std::min<int64_t>(kLanes<T>, values - i), y + first * U + i);
            }
        });
}

template <class T, int U>
static void multiply_narrow(const Context& context, int64_t rows, int64_t depth, const T* x,
                            const T* kernel, const T* bias, T floor, T* y) {
    if (rows <= kSegmentedRows) {
        multiply_as_it_lies<T, U>(context, rows, depth, x, kernel, bias, floor, y);
    } else if constexpr (U <= kSquareColumns<T>) {
        multiply_squares<T, U>(context, rows, depth, x, kernel, bias, floor, y);
    } else {
        multiply_turned<T, U>(context, rows, depth, x, kernel, bias, floor, y);
    }
}

template <class T, size_t... U>
static void multiply_narrow(const Context& context, int64_t rows, int64_t depth, int64_t columns,
                            const T* x, const T* kernel, const T* bias, T floor, T* y,
                            std::index_sequence<U...>) {
    using Multiply =
        void (*)(const Context&, int64_t, int64_t, const T*, const T*, const T*, T, T*);
    static constexpr Multiply table[] = {multiply_narrow<T, static_cast<int>(U) + 1>...};
    table[columns - 1](context, rows, depth, x, kernel, bias, floor, y);
}

template <class T>
static void multiply_narrow(const Context& context, int64_t rows, int64_t depth, int64_t columns,
                            const T* x, const T* kernel, const T* bias, T floor, T* y) {
    multiply_narrow(context, rows, depth, columns, x, kernel, bias, floor, y,
                    std::make_index_sequence<kFewColumns>());
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
