#include "winograd_product.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// One tile in registers: M rows of V registers. kTransposed: a's rows are columns; b is a block.
template <class T, int M, int V, bool kTransposed>
void tile(const T* a, int64_t a_block, const T* b, int64_t depth, bool first, T* c) {
    constexpr int64_t kRow = kWinogradBlock, kStep = kTransposed ? kRow : kPanel<T>;
    Vec<T> sum[M][V];
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            sum[m][v] = first ? Vec<T>{} : load(c + m * kRow + v * kLanes<T>);
        }
    }
    const int64_t most = kTransposed ? depth : kRow;
    for (; depth > 0; depth -= most, a += a_block) {
        const int64_t count = std::min(depth, most);
        const T* value = a;
        for (int64_t k = 0; k < count; ++k, b += kStep, value += kTransposed ? kRow : 1) {
            Vec<T> lanes[V];
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) lanes[v] = load(b + v * kLanes<T>);
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) {
                const Vec<T> each = broadcast(value[kTransposed ? m : m * kRow]);
                CONVKIT_UNROLL
                for (int v = 0; v < V; ++v) sum[m][v] += each * lanes[v];
            }
        }
    }
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) store(c + m * kRow + v * kLanes<T>, sum[m][v]);
    }
}

template <class T>
using Tile = void (*)(const T*, int64_t, const T*, int64_t, bool, T*);

template <class T, int V, bool kTransposed, size_t... M>
Tile<T> pick(int64_t rows, std::index_sequence<M...>) {
    static constexpr Tile<T> table[] = {tile<T, static_cast<int>(M) + 1, V, kTransposed>...};
    return table[rows - 1];
}

template <class T, bool kTransposed>
Tile<T> get_tile(int64_t rows, bool both) {
    constexpr auto all = std::make_index_sequence<kTileRows>();
    return both ? pick<T, 2, kTransposed>(rows, all) : pick<T, 1, kTransposed>(rows, all);
}

template <class T, bool kTransposed>
void multiply_block(const T* a, int64_t a_block, const T* b, int64_t b_panel, int64_t rows,
                    int64_t columns, int64_t depth, bool first, T* c) {
    const int64_t tiles = divide_up(rows, kTileRows);
    for (int64_t j = 0; j < columns; j += kPanel<T>, b += b_panel) {
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t m = cut(rows, tiles, i), count = cut(rows, tiles, i + 1) - m;
            get_tile<T, kTransposed>(count, columns - j > kLanes<T>)(
                a + m * (kTransposed ? 1 : kWinogradBlock), a_block, b, depth, first,
                c + m * kWinogradBlock + j);
        }
    }
}

}  // namespace

template <class T>
void winograd_multiply(const T* a, int64_t a_block, const T* b, int64_t b_panel, int64_t rows,
                       int64_t columns, int64_t depth, bool first, T* c) {
    multiply_block<T, false>(a, a_block, b, b_panel, rows, columns, depth, first, c);
}

template <class T>
void winograd_correlate(const T* a, const T* b, int64_t rows, int64_t columns, int64_t depth,
                        bool first, T* c) {
    multiply_block<T, true>(a, 0, b, kPanel<T>, rows, columns, depth, first, c);
}

#define INSTANTIATE_FOR(T)                                                                     \
    template void winograd_multiply<T>(const T*, int64_t, const T*, int64_t, int64_t, int64_t, \
                                       int64_t, bool, T*);                                     \
    template void winograd_correlate<T>(const T*, const T*, int64_t, int64_t, int64_t, bool, T*);
INSTANTIATE_FOR(float)
INSTANTIATE_FOR(double)

}  // namespace CONVKIT_ISA
}  // namespace convkit
