// Products of plain matrices with few columns: y (rows, columns) = max(x kernel + bias, floor).
//
// There every value as one chain over the depth would leave a processor waiting for the sum before,
// at least for a single row. So the depth is cut into segments, and in each a value is a few
// chains: of the depths whose remainders by the number of chains are equal, in ascending order. The
// chains of the segments are added in order, at last the chains in pairs. How the depth is cut
// follows from the sizes of the kernel alone, so the bits of a value depend on no other row and on
// no threads.
#pragma once

#include "gemm.h"
#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {

// Rows of which the segments are shared out to threads; of more rows the rows are.
constexpr int64_t kSegmentedRows = 8;

// Equal parts of the depth, a multiple of all numbers of chains: short enough for what a thread
// multiplies to stay in its first cache.
template <class T>
struct Segments {
    explicit Segments(int64_t whole) : depth(whole) {
        constexpr int64_t kMost = 512;
        size = round_up(divide_up(depth, divide_up(depth, kMost)), 16);
        count = divide_up(depth, size);
    }
    Range range(int64_t i) const { return {i * size, std::min(depth, (i + 1) * size)}; }

    int64_t depth, size, count;
};

// Calls multiply(first row, rows, depths, whether to store or to add, sums), where sums of `width`
// values a row begin with the first row, for all rows and segments, and finish(first row, rows,
// sums) for all rows. Sums have room behind them for those of `spare` rows and kLanes registers.
// `cost` is that of all, for parallel_for.
template <class T, class Multiply, class Finish>
static void multiply_segments(const Context& context, int64_t rows, int64_t depth, int64_t width,
                              int64_t spare, double cost, Multiply multiply, Finish finish) {
    const Segments<T> segments(depth);
    const int64_t room = spare * width + kLanes<T> * kLanes<T>;
    if (rows <= kSegmentedRows) {
        const int64_t slot = (rows + spare) * width;
        T* sums = scratch<T>(kShared, segments.count * slot + room);
        parallel_for(context, segments.count, cost / static_cast<double>(segments.count),
                     [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                             multiply(0, rows, segments.range(i), true, sums + i * slot);
                         }
                     });
        for (int64_t i = 1; i < segments.count; ++i) {
            for (int64_t j = 0; j < rows * width; j += kLanes<T>) {
                store(sums + j, load(sums + j) + load(sums + i * slot + j));
            }
        }
        return finish(0, rows, sums);
    }
    // A few tasks for threads where these are worth waking, and no more rows in one than stay near.
    constexpr int64_t kLeast = 8, kMost = 48;
    const int64_t wanted = cost < 2e4 ? 1 : std::min<int64_t>(4, rows / kLeast);
    const int64_t task = round_up(divide_up(rows, std::max(wanted, divide_up(rows, kMost))), 4);
    const int64_t tasks = divide_up(rows, task);
    parallel_for(context, tasks, cost / static_cast<double>(tasks),
                 [&](int64_t begin, int64_t end) {
                     T* sums = scratch<T>(kLocal, task * width + room);
                     for (int64_t i = begin; i < end; ++i) {
                         const int64_t first = i * task, count = std::min(task, rows - first);
                         for (int64_t j = 0; j < segments.count; ++j) {
                             multiply(first, count, segments.range(j), j == 0, sums);
                         }
                         finish(first, count, sums);
                     }
                 });
}

// y = max(sum + bias, floor) for up to kLanes columns.
template <class T>
static inline void put_columns(Vec<T> sum, const T* bias, T floor, int64_t columns, T* y) {
    const bool whole = columns == kLanes<T>;
    Vec<T> shift{};
    if (bias) shift = whole ? load(bias) : load_partial(bias, columns);
    const Vec<T> value = larger<T>(sum + shift, floor);
    whole ? store(y, value) : store_partial(y, value, columns);
}

// The sum of N chains, added up in pairs, `step` values apart.
template <class T, int N>
static inline Vec<T> sum_of_chains(const T* sums, int64_t step) {
    Vec<T> chain[N];
    CONVKIT_UNROLL
    for (int i = 0; i < N; ++i) chain[i] = load(sums + i * step);
    CONVKIT_UNROLL
    for (int half = N / 2; half > 0; half /= 2) {
        CONVKIT_UNROLL
        for (int i = 0; i < half; ++i) chain[i] += chain[i + half];
    }
    return chain[0];
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
