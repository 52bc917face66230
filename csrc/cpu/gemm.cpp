// The inner loops of the matrix product of gemm.h: tiles of c in registers.
#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Into the second-level cache, from which it is still near.
template <class T>
inline void fetch(const T* p) {
    __builtin_prefetch(p, 0, 2);
}

// Where a and b lie: Rows with step 0 and Lanes, transposed Rows and Lanes, transposed Rows and
// shifted planes.
enum Operands { kPlain, kTransposed, kShifted };

// One tile: M rows of V registers. Whole registers of c and bias are read and written.
template <class T, int M, int V, Operands kOperands>
void tile(const T* a, int64_t a_step, const T* b, int64_t b_step, const int64_t* offsets,
          int64_t depth, bool first, const T* bias, T* const* c, bool streamed) {
    Vec<T> sum[M][V];
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            sum[m][v] = first ? Vec<T>{} : load(c[m] + v * kLanes<T>);
        }
    }
    for (int64_t k = 0; k < depth; ++k) {
        Vec<T> lanes[V];
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            lanes[v] = load(b + (kOperands == kShifted ? offsets[k] : 0) + v * kLanes<T>);
        }
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m) {
            const Vec<T> value = broadcast(a[kOperands == kPlain ? m * kStride<T> : m]);
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) sum[m][v] += value * lanes[v];
        }
        a += kOperands == kPlain ? 1 : a_step;
        if (kOperands != kShifted) b += b_step;
    }
    CONVKIT_UNROLL
    for (int v = 0; v < V; ++v) {
        const Vec<T> shift = bias ? load(bias + v * kLanes<T>) : Vec<T>{};
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m) {
            const Vec<T> value = bias ? sum[m][v] + shift : sum[m][v];
            T* target = c[m] + v * kLanes<T>;
            streamed ? store_past(target, value) : store(target, value);
        }
    }
}

template <class T>
using Tile = void (*)(const T*, int64_t, const T*, int64_t, const int64_t*, int64_t, bool, const T*,
                      T* const*, bool);

// Tiles of V registers and 1 .. count rows; at most 2 * kTileRows registers hold sums.
template <class T, int V>
struct Tiles {
    static constexpr int kCount = std::min(kTileRows, 2 * kTileRows / V);

    template <Operands kOperands, size_t... M>
    static Tile<T> pick(int64_t rows, std::index_sequence<M...>) {
        static constexpr Tile<T> table[] = {tile<T, static_cast<int>(M) + 1, V, kOperands>...};
        return table[rows - 1];
    }
    static Tile<T> get(int64_t rows, Operands operands) {
        constexpr auto all = std::make_index_sequence<kCount>();
        switch (operands) {
            case kPlain:
                return pick<kPlain>(rows, all);
            case kTransposed:
                return pick<kTransposed>(rows, all);
            default:
                return pick<kShifted>(rows, all);
        }
    }
};

template <class T>
Tile<T> get_tile(int vectors, int64_t rows, Operands operands) {
    switch (vectors) {
        case 1:
            return Tiles<T, 1>::get(rows, operands);
        case 2:
            return Tiles<T, 2>::get(rows, operands);
        case 4:
            return Tiles<T, 4>::get(rows, operands);
        default:
            return Tiles<T, 8>::get(rows, operands);
    }
}

// A plain tile of two registers that moves memory on its way. kPacking: rows of b, b_step apart,
// are copied to `panel`, and rows ahead are fetched. Else b is packed, and every kRun steps fetch
// as many cache lines from `ahead`, which then moves on by `ahead_step`.
constexpr int64_t kRun = 16;

template <class T, int M, bool kPacking>
void panel_tile(const T* a, const T* b, int64_t b_step, T* panel, const T* ahead,
                int64_t ahead_step, int64_t depth, bool first, const T* bias, T* const* c) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T)), kRowsAhead = 48;
    Vec<T> sum[M][2];
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < 2; ++v) sum[m][v] = first ? Vec<T>{} : load(c[m] + v * kLanes<T>);
    }
    for (int64_t begin = 0; begin < depth; begin += kAheadLines, ahead += ahead_step) {
        const T* next = ahead;
        for (int64_t k = begin; k < std::min(depth, begin + kAheadLines); ++k) {
            Vec<T> lanes[2];
            CONVKIT_UNROLL
            for (int v = 0; v < 2; ++v) lanes[v] = load(b + v * kLanes<T>);
            if (kPacking) {
                CONVKIT_UNROLL
                for (int v = 0; v < 2; ++v) store(panel + v * kLanes<T>, lanes[v]);
                panel += kPanel<T>;
                for (int64_t i = 0; i <= kPanel<T>; i += kLine) {  // one more: b may lie askew
                    fetch(b + kRowsAhead * b_step + std::min(i, kPanel<T> - 1));
                }
                b += b_step;
            } else {
                fetch(next);
                next += kLine;
                b += kPanel<T>;
            }
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) {
                const Vec<T> value = broadcast(a[m * kStride<T>]);
                CONVKIT_UNROLL
                for (int v = 0; v < 2; ++v) sum[m][v] += value * lanes[v];
            }
            ++a;
        }
    }
    CONVKIT_UNROLL
    for (int v = 0; v < 2; ++v) {
        const Vec<T> shift = bias ? load(bias + v * kLanes<T>) : Vec<T>{};
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m) {
            store(c[m] + v * kLanes<T>, bias ? sum[m][v] + shift : sum[m][v]);
        }
    }
}

template <class T>
using PanelTile = void (*)(const T*, const T*, int64_t, T*, const T*, int64_t, int64_t, bool,
                           const T*, T* const*);

template <class T, bool kPacking, size_t... M>
PanelTile<T> get_panel_tile(int64_t rows, std::index_sequence<M...>) {
    static constexpr PanelTile<T> table[] = {panel_tile<T, static_cast<int>(M) + 1, kPacking>...};
    return table[rows - 1];
}

// A panel whose first tile, if b is given, fills it.
template <class T>
void multiply_tiles(const Rows<T>& a, const T* b, int64_t b_step, T* panel, const Ahead<T>& ahead,
                    int64_t rows, int64_t depth, bool first, const T* bias, T* const* c) {
    constexpr auto all = std::make_index_sequence<kTileRows>();
    const int64_t tiles = divide_up(rows, kTileRows), runs = divide_up(depth, kAheadLines);
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t m = cut(rows, tiles, i), count = cut(rows, tiles, i + 1) - m;
        const T* values = a.data + m * kStride<T>;
        if (b && i == 0) {
            get_panel_tile<T, true>(count, all)(values, b, b_step, panel, b, 0, depth, first, bias,
                                                c);
            continue;
        }
        // What is in the cache already costs nothing.
        const bool more = i * runs < ahead.count;
        get_panel_tile<T, false>(count, all)(values, panel, 0, nullptr,
                                             more ? ahead.data + i * runs * ahead.step : panel,
                                             more ? ahead.step : 0, depth, first, bias, c + m);
    }
}

// A tile whose last register is not full: it goes through a copy.
template <class T>
void partial_tile(Tile<T> function, const T* a, int64_t a_step, const T* b, int64_t b_step,
                  int64_t depth, bool first, const T* bias, T* const* c, int64_t rows,
                  int64_t width, int64_t columns) {
    alignas(64) T copy[2 * kTileRows * kLanes<T>];
    alignas(64) T bias_copy[2 * kLanes<T>];
    T* copies[kTileRows] = {};
    const int64_t whole = columns / kLanes<T> * kLanes<T>;
    for (int64_t m = 0; m < rows; ++m) {
        copies[m] = copy + m * width;
        if (first) continue;
        for (int64_t i = 0; i < whole; i += kLanes<T>) store(copies[m] + i, load(c[m] + i));
        store(copies[m] + whole, load_partial(c[m] + whole, columns - whole));
    }
    if (bias) {
        for (int64_t i = 0; i < whole; i += kLanes<T>) store(bias_copy + i, load(bias + i));
        store(bias_copy + whole, load_partial(bias + whole, columns - whole));
    }
    function(a, a_step, b, b_step, nullptr, depth, first, bias ? bias_copy : nullptr, copies,
             false);
    for (int64_t m = 0; m < rows; ++m) {
        for (int64_t i = 0; i < whole; i += kLanes<T>) store(c[m] + i, load(copies[m] + i));
        store_partial(c[m] + whole, load(copies[m] + whole), columns - whole);
    }
}

// Filters M against as many shifts as registers hold sums for.
template <class T, int M>
void correlation(const T* planes, const int64_t* offsets, const T* d, int64_t d_step,
                 int64_t columns, int64_t depth, T* sums) {
    constexpr int kShifts = std::min(8, std::max(1, 2 * kTileRows / M));
    for (int64_t k = 0; k < depth; k += kShifts) {
        const int64_t used = std::min<int64_t>(kShifts, depth - k);
        const T* shifted[kShifts];
        Vec<T> sum[kShifts][M];
        CONVKIT_UNROLL
        for (int i = 0; i < kShifts; ++i) {
            shifted[i] = planes + offsets[k + std::min<int64_t>(i, used - 1)];
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) sum[i][m] = Vec<T>{};
        }
        for (int64_t q = 0; q < columns; q += kLanes<T>) {
            Vec<T> values[kShifts];
            CONVKIT_UNROLL
            for (int i = 0; i < kShifts; ++i) values[i] = load(shifted[i] + q);
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) {
                const Vec<T> factor = load(d + m * d_step + q);
                CONVKIT_UNROLL
                for (int i = 0; i < kShifts; ++i) sum[i][m] += values[i] * factor;
            }
        }
        CONVKIT_UNROLL
        for (int i = 0; i < kShifts; ++i) {
            if (i >= used) break;
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) {
                T* target = sums + ((k + i) * M + m) * kLanes<T>;
                store(target, load(target) + sum[i][m]);
            }
        }
    }
}

template <class T>
using Correlation = void (*)(const T*, const int64_t*, const T*, int64_t, int64_t, int64_t, T*);

template <class T, size_t... M>
Correlation<T> get_correlation(int64_t rows, std::index_sequence<M...>) {
    static constexpr Correlation<T> table[] = {correlation<T, static_cast<int>(M) + 1>...};
    return table[rows - 1];
}

// A tile of M rows of V registers for correlate_plain(), which fetches a line of memory at each
// step.
template <class T, int M, int V>
void plain_tile(Strided<T> a, Strided<T> b, Strided<T> ahead, int64_t depth, bool first, T* c,
                int64_t c_step) {
    Vec<T> sum[M][V];
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            sum[m][v] = first ? Vec<T>{} : load(c + m * c_step + v * kLanes<T>);
        }
    }
    for (int64_t k = 0; k < depth; ++k) {
        Vec<T> lanes[V];
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) lanes[v] = load(b.data + v * kLanes<T>);
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m) {
            const Vec<T> value = broadcast(a.data[m]);
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) sum[m][v] += value * lanes[v];
        }
        fetch(ahead.data);
        a.data += a.step, b.data += b.step, ahead.data += ahead.step;
    }
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) store(c + m * c_step + v * kLanes<T>, sum[m][v]);
    }
}

template <class T>
using PlainTile = void (*)(Strided<T>, Strided<T>, Strided<T>, int64_t, bool, T*, int64_t);

template <class T, int V, size_t... M>
PlainTile<T> pick_plain_tile(int64_t rows, std::index_sequence<M...>) {
    static constexpr PlainTile<T> table[] = {plain_tile<T, static_cast<int>(M) + 1, V>...};
    return table[rows - 1];
}

template <class T, int V>
PlainTile<T> pick_plain_tile(int64_t rows) {
    return pick_plain_tile<T, V>(rows, std::make_index_sequence<Tiles<T, V>::kCount>());
}

template <class T>
PlainTile<T> get_plain_tile(int vectors, int64_t rows) {
    return vectors == 4   ? pick_plain_tile<T, 4>(rows)
           : vectors == 2 ? pick_plain_tile<T, 2>(rows)
                          : pick_plain_tile<T, 1>(rows);
}

}  // namespace

template <class T>
void correlate_plain(const Strided<T>& a, const Strided<T>& a_ahead, const Strided<T>& b,
                     int64_t rows, int64_t columns, int64_t depth, bool first, T* c,
                     int64_t c_step) {
    constexpr int kWidest = kTileRows >= 12 ? 4 : 2;
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    T* const panel = scratch<T>(kPackB, kCorrelated * kWidest * kLanes<T>);
    const int64_t a_lines = divide_up(rows, kLine), b_lines = divide_up(columns, kLine);
    int64_t line = 0;
    for (int64_t j = 0; j < columns;) {
        int vectors = kWidest;
        while (vectors * kLanes<T> > columns - j) vectors /= 2;
        const int64_t width = vectors * kLanes<T>;
        Strided<T> lanes = {b.data + j, b.step};
        if (b.step > width) {  // rows far apart get into each other's way in the first cache
            for (int64_t k = 0; k < depth; ++k) {
                const T* from = lanes.data + k * b.step;
                for (int v = 0; v < width; v += kLanes<T>) {
                    store(panel + k * width + v, load(from + v));
                }
            }
            lanes = {panel, width};
        }
        const int64_t most = vectors == 4 ? Tiles<T, 4>::kCount : Tiles<T, 2>::kCount;
        const int64_t tiles = divide_up(rows, most);
        for (int64_t i = 0; i < tiles; ++i, ++line) {
            const int64_t m = cut(rows, tiles, i), count = cut(rows, tiles, i + 1) - m;
            Strided<T> ahead = {b.data, 0};
            if (line < a_lines) {
                ahead = {a_ahead.data + line * kLine, a_ahead.step};
            } else if (line < a_lines + b_lines) {
                ahead = {b.data + depth * b.step + (line - a_lines) * kLine, b.step};
            }
            get_plain_tile<T>(vectors, count)({a.data + m, a.step}, lanes, ahead, depth, first,
                                              c + m * c_step + j, c_step);
        }
        j += width;
    }
}

template <class T>
void multiply_shifted(const T* a, int64_t a_step, const T* planes, const int64_t* offsets,
                      int64_t rows, int64_t columns, int64_t depth, T* c, int64_t c_step) {
    const int64_t tiles = divide_up(rows, kTileRows), most = divide_up(rows, tiles);
    int widest = 1;
    while (widest < 8 && most * 2 * widest <= 2 * kTileRows) widest *= 2;
    for (int64_t q = 0; q < columns;) {
        int vectors = widest;
        while (vectors > 1 && (vectors - 1) * kLanes<T> >= columns - q) vectors /= 2;
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t m0 = cut(rows, tiles, i), count = cut(rows, tiles, i + 1) - m0;
            T* targets[kTileRows];
            for (int64_t m = 0; m < count; ++m) targets[m] = c + (m0 + m) * c_step + q;
            get_tile<T>(vectors, count, kShifted)(a + m0, a_step, planes + q, 0, offsets, depth,
                                                  true, nullptr, targets, false);
        }
        q += vectors * kLanes<T>;
    }
}

template <class T>
void correlate_shifted(const T* planes, const int64_t* offsets, const T* d, int64_t d_step,
                       int64_t rows, int64_t columns, int64_t depth, T* sums) {
    get_correlation<T>(rows, std::make_index_sequence<kFewRows>())(planes, offsets, d, d_step,
                                                                   columns, depth, sums);
}

template <class T>
void transpose(Vec<T>* rows) {
    transpose_squares<T, kLanes<T>>(rows);
}

template <class T>
void multiply(const Rows<T>& a, const Lanes<T>& b, int64_t rows, int64_t columns, int64_t depth,
              bool first, const T* bias, T* const* c, bool streamed) {
    // Few rows leave registers free for more columns, if these lie side by side.
    int widest = 2;
    while (widest < 8 && b.panel == kPanel<T> && rows * 2 * widest <= 2 * kTileRows) widest *= 2;
    const Operands operands = a.step ? kTransposed : kPlain;
    const int64_t tiles = divide_up(rows, kTileRows);
    for (int64_t j = 0; j < columns;) {
        int vectors = widest;
        while (vectors > 1 && (vectors / 2) * kLanes<T> >= columns - j) vectors /= 2;
        if (vectors > 2 && vectors * kLanes<T> > columns - j) vectors /= 2;
        const int64_t width = vectors * kLanes<T>;
        const int64_t used = std::min(width, columns - j);
        const T* panel = b.data + j / kPanel<T> * b.panel;
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t m0 = cut(rows, tiles, i), count = cut(rows, tiles, i + 1) - m0;
            const Tile<T> function = get_tile<T>(vectors, count, operands);
            const T* values = a.data + m0 * (a.step ? 1 : kStride<T>);
            T* targets[kTileRows];
            for (int64_t m = 0; m < count; ++m) targets[m] = c[m0 + m] + j;
            const T* shift = bias ? bias + j : nullptr;
            if (used == width) {
                function(values, a.step, panel, b.step, nullptr, depth, first, shift, targets,
                         streamed);
            } else {
                partial_tile(function, values, a.step, panel, b.step, depth, first, shift, targets,
                             count, width, used);
            }
        }
        j += width;
    }
}

template <class T>
void multiply_panel(const Rows<T>& a, const T* panel, int64_t rows, int64_t depth, bool first,
                    const T* bias, T* const* c, const Ahead<T>& ahead) {
    multiply_tiles<T>(a, nullptr, 0, const_cast<T*>(panel), ahead, rows, depth, first, bias, c);
}

template <class T>
void multiply_unpacked(const Rows<T>& a, const T* b, int64_t b_step, int64_t rows, int64_t depth,
                       bool first, const T* bias, T* const* c, T* panel) {
    multiply_tiles<T>(a, b, b_step, panel, {}, rows, depth, first, bias, c);
}

#define INSTANTIATE_FOR(T)                                                                        \
    template void transpose<T>(Vec<T>*);                                                          \
    template void multiply<T>(const Rows<T>&, const Lanes<T>&, int64_t, int64_t, int64_t, bool,   \
                              const T*, T* const*, bool);                                         \
    template void multiply_panel<T>(const Rows<T>&, const T*, int64_t, int64_t, bool, const T*,   \
                                    T* const*, const Ahead<T>&);                                  \
    template void multiply_unpacked<T>(const Rows<T>&, const T*, int64_t, int64_t, int64_t, bool, \
                                       const T*, T* const*, T*);                                  \
    template void multiply_shifted<T>(const T*, int64_t, const T*, const int64_t*, int64_t,       \
                                      int64_t, int64_t, T*, int64_t);                             \
    template void correlate_shifted<T>(const T*, const int64_t*, const T*, int64_t, int64_t,      \
                                       int64_t, int64_t, T*);                                     \
    template void correlate_plain<T>(const Strided<T>&, const Strided<T>&, const Strided<T>&,     \
                                     int64_t, int64_t, int64_t, bool, T*, int64_t);
INSTANTIATE_FOR(float)
INSTANTIATE_FOR(double)

}  // namespace CONVKIT_ISA
}  // namespace convkit
