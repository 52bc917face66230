// Dense layers of a tile: x (rows, inputs, kTile), kernel (inputs, units), bias (units) -> y (rows,
// units, kTile). Gradients of kernel and bias are added to what dkernel and dbias hold, or stored
// there where context.fresh.
//
// Rows of all tiles adjoin, so several tiles are more rows. y and dx have samples in the lanes, a
// weight is broadcast; dkernel has units in the lanes, a value of x is broadcast.
#include "cpu_kernels.h"
#include "gemm.h"
#include "tile/tile.h"
#include "tile/transpose.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// ---- y and dx: one product, whose weights lie differently ---------------------------------------

// y (rows, outputs, kTile) = x (rows, depth, kTile) times weights + bias. Weights are (depth,
// outputs), or (outputs, depth) if transposed; their rows lie `step` apart.
template <class T>
struct Product {
    int64_t rows, depth, outputs, step;
    const T* x;
    const T* weights;
    const T* bias;
    T* y;
};

// Rows hold kParts registers per value; all registers of all rows are counted through, as columns.
template <class T>
static inline int64_t column_offset(int64_t column, int64_t values) {
    return column / kParts<T> * values * kTile + column % kParts<T> * kLanes<T>;
}

// A pointer for each of 24 rows of weights would be more than there are general registers, so every
// kWalkers-th is reached by an index from the same pointer. The compiler must not see through that:
// it would work out an index for each row, and fetch most from memory again and again.
constexpr int kWalkers = 8;

template <class Value>
static inline CONVKIT_INLINE void hide(Value& value) {
    asm("" : "+r"(value));
}

// Outputs m .. m + M of V columns.
template <class T, bool kTransposed, int M, int V>
void multiply_block(const Product<T>& p, int64_t m, int64_t column) {
    Vec<T> sum[M][V];
    CONVKIT_UNROLL_SUMS
    for (int i = 0; i < M; ++i) {
        const Vec<T> start = broadcast(!kTransposed && p.bias ? p.bias[m + i] : T(0));
        CONVKIT_UNROLL_SUMS
        for (int v = 0; v < V; ++v) sum[i][v] = start;
    }
    const T* x[V];
    CONVKIT_UNROLL_SUMS
    for (int v = 0; v < V; ++v) x[v] = p.x + column_offset<T>(column + v, p.depth);
    constexpr int kRows = kTransposed ? std::min(M, kWalkers) : 1;
    const T* weights[kRows];
    CONVKIT_UNROLL_SUMS
    for (int i = 0; i < kRows; ++i) weights[i] = p.weights + (kTransposed ? (m + i) * p.step : m);
    int64_t next = kWalkers * p.step, after = 2 * next;
    hide(next);
    hide(after);
    for (int64_t k = 0; k < p.depth; ++k) {
        Vec<T> values[V];
        CONVKIT_UNROLL_SUMS
        for (int v = 0; v < V; ++v) values[v] = load(x[v] + k * kTile);
        CONVKIT_UNROLL_SUMS
        for (int i = 0; i < M; ++i) {
            const T* from = weights[i % kRows] + (kTransposed ? 0 : i);
            if (kTransposed && i >= kWalkers) from += i < 2 * kWalkers ? next : after;
            const Vec<T> weight = broadcast(*from);
            CONVKIT_UNROLL_SUMS
            for (int v = 0; v < V; ++v) sum[i][v] += weight * values[v];
        }
        CONVKIT_UNROLL_SUMS
        for (int i = 0; i < kRows; ++i) {
            weights[i] += kTransposed ? 1 : p.step;
            hide(weights[i]);
        }
    }
    CONVKIT_UNROLL_SUMS
    for (int v = 0; v < V; ++v) {
        T* y = p.y + column_offset<T>(column + v, p.outputs) + m * kTile;
        CONVKIT_UNROLL_SUMS
        for (int i = 0; i < M; ++i) store(y + i * kTile, sum[i][v]);
    }
}

template <class T>
using MultiplyBlock = void (*)(const Product<T>&, int64_t m, int64_t column);

template <class T, bool kTransposed, int V, size_t... M>
MultiplyBlock<T> get_multiply_block(int64_t outputs, std::index_sequence<M...>) {
    static constexpr MultiplyBlock<T> table[] = {
        multiply_block<T, kTransposed, static_cast<int>(M) + 1, V>...};
    return table[outputs - 1];
}

// All outputs of V columns, in blocks of nearly the same size.
template <class T, bool kTransposed, int V>
void multiply_columns(const Product<T>& p, int64_t column) {
    constexpr int kMost = kSums / V;
    // Rows that lie such a power of two apart compete for few places of the first-level cache.
    const bool collide = kTransposed && p.step * static_cast<int64_t>(sizeof(T)) % 2048 == 0;
    const int64_t blocks = divide_up(p.outputs, collide ? std::min(kMost, 12) : kMost);
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t begin = cut(p.outputs, blocks, i), end = cut(p.outputs, blocks, i + 1);
        get_multiply_block<T, kTransposed, V>(end - begin, std::make_index_sequence<kMost>())(
            p, begin, column);
    }
}

// Several columns at a time where there are as many, so that weights are read less often.
template <class T, bool kTransposed>
void multiply_tiles(const Product<T>& p) {
    constexpr int kMany = kManyRegisters ? 4 : 2, kFew = std::min(kParts<T>, kMany);
    const int64_t end = p.rows * kParts<T>;
    int64_t column = 0;
    for (; column + kMany <= end; column += kMany)
        multiply_columns<T, kTransposed, kMany>(p, column);
    for (; column < end; column += kFew) multiply_columns<T, kTransposed, kFew>(p, column);
}

// ---- dkernel ------------------------------------------------------------------------------------

// dy is transposed to (kTile * rows, units) a few tiles at a time, in panels of neighbouring units,
// the last of which is filled up with zeros.
constexpr int64_t kPanelRows = 4;
constexpr int kPanelRegisters = kManyRegisters ? 4 : 3;

// dkernel (inputs, units) += x (rows, inputs, kTile) times a panel (rows, kTile, registers *
// kLanes). Pointers stand at the first unit of the panel; of its last register, `last` units are
// real. Where dkernel is fresh, its sums start at zero, and what it holds is not read.
template <class T>
struct PanelProduct {
    bool fresh;
    int64_t rows, inputs, units, last;
    const T* x;
    const T* panel;
    T* dkernel;
};

// Inputs i .. i + M against a panel of V registers.
template <class T, int M, int V>
void add_products(const PanelProduct<T>& p, int64_t i) {
    const bool whole = p.last == kLanes<T>;
    T* dkernel[M];
    Vec<T> sum[M][V] = {};
    CONVKIT_UNROLL_SUMS
    for (int m = 0; m < M; ++m) dkernel[m] = p.dkernel + (i + m) * p.units;
    if (!p.fresh) {
        CONVKIT_UNROLL_SUMS
        for (int m = 0; m < M; ++m) {
            CONVKIT_UNROLL_SUMS
            for (int v = 0; v + 1 < V; ++v) sum[m][v] = load(dkernel[m] + v * kLanes<T>);
            const T* end = dkernel[m] + (V - 1) * kLanes<T>;
            sum[m][V - 1] = whole ? load(end) : load_partial(end, p.last);
        }
    }
    const T* x = p.x + i * kTile;
    const T* panel = p.panel;
    int64_t row = 0;
    do {  // at least once: for no rows at all the compiler would keep copies of the sums
        for (int64_t sample = 0; sample < kTile; ++sample, panel += V * kLanes<T>) {
            Vec<T> gradients[V];
            CONVKIT_UNROLL_SUMS
            for (int v = 0; v < V; ++v) gradients[v] = load(panel + v * kLanes<T>);
            CONVKIT_UNROLL_SUMS
            for (int m = 0; m < M; ++m) {
                const Vec<T> value = broadcast(x[m * kTile + sample]);
                CONVKIT_UNROLL_SUMS
                for (int v = 0; v < V; ++v) sum[m][v] += value * gradients[v];
            }
        }
        x += p.inputs * kTile;
    } while (++row < p.rows);
    CONVKIT_UNROLL_SUMS
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL_SUMS
        for (int v = 0; v + 1 < V; ++v) store(dkernel[m] + v * kLanes<T>, sum[m][v]);
        T* end = dkernel[m] + (V - 1) * kLanes<T>;
        if (whole) {
            store(end, sum[m][V - 1]);
        } else {
            store_partial(end, sum[m][V - 1], p.last);
        }
    }
}

// Inputs from i, in blocks of M, and the rest in blocks of half that, and so on.
template <class T, int M, int V>
void multiply_blocks(const PanelProduct<T>& p, int64_t i) {
    for (; i + M <= p.inputs; i += M) add_products<T, M, V>(p, i);
    if constexpr (M > 1) multiply_blocks<T, M / 2, V>(p, i);
}

template <class T, int V>
void add_panel(const PanelProduct<T>& p) {
    multiply_blocks<T, kSums / V, V>(p, 0);
}

template <class T>
using AddPanel = void (*)(const PanelProduct<T>&);

template <class T, size_t... V>
AddPanel<T> get_add_panel(int64_t registers, std::index_sequence<V...>) {
    static constexpr AddPanel<T> table[] = {add_panel<T, static_cast<int>(V) + 1>...};
    return table[registers - 1];
}

// Units u .. u + registers * kLanes of `rows` tiles, samples first.
template <class T>
void transpose_panel(const T* dy, int64_t units, int64_t u, int64_t rows, int64_t registers,
                     T* panel) {
    for (int64_t row = 0; row < rows; ++row, dy += units * kTile) {
        for (int64_t v = 0; v < registers; ++v) {
            for (int part = 0; part < kParts<T>; ++part) {
                const int64_t first = u + v * kLanes<T>;
                Square<T> square;
                CONVKIT_UNROLL_SUMS
                for (int i = 0; i < kLanes<T>; ++i) {
                    square.row[i] = first + i < units
                                        ? load(dy + (first + i) * kTile + part * kLanes<T>)
                                        : Vec<T>{};
                }
                transpose_square(square);
                T* to = panel + ((row * kTile + part * kLanes<T>)*registers + v) * kLanes<T>;
                CONVKIT_UNROLL_SUMS
                for (int i = 0; i < kLanes<T>; ++i) {
                    store(to + i * registers * kLanes<T>, square.row[i]);
                }
            }
        }
    }
}

// dbias += the sum over the samples of a panel of dy, or = where it is fresh.
template <class T>
void add_bias(bool fresh, const T* panel, int64_t samples, int64_t registers, int64_t units,
              T* dbias) {
    for (int64_t v = 0; v < registers; ++v, panel += kLanes<T>) {
        const int64_t count = std::min<int64_t>(kLanes<T>, units - v * kLanes<T>);
        T* to = dbias + v * kLanes<T>;
        Vec<T> sum{};
        if (!fresh) sum = count == kLanes<T> ? load(to) : load_partial(to, count);
        for (int64_t sample = 0; sample < samples; ++sample) {
            sum += load(panel + sample * registers * kLanes<T>);
        }
        if (count == kLanes<T>) {
            store(to, sum);
        } else {
            store_partial(to, sum, count);
        }
    }
}

}  // namespace

template <class T>
void tile_dense(const Context&, const FusedDense& s, int64_t n, const T* x, const T* kernel,
                const T* bias, T* y) {
    const Dense& d = s.dense;
    const int64_t rows = in_tiles(n) / kTile * d.rows;
    multiply_tiles<T, false>({rows, d.inputs, d.units, d.units, x, kernel, bias, y});
    activate_values<T>(s.activation, static_cast<T>(s.slope), rows * d.units * kTile, y);
}

template <class T>
void tile_dense_backward_input(const Context&, const Dense& s, int64_t n, const T* dy,
                               const T* kernel, T* dx) {
    const int64_t rows = in_tiles(n) / kTile * s.rows;
    multiply_tiles<T, true>({rows, s.units, s.inputs, s.units, dy, kernel, nullptr, dx});
}

template <class T>
void tile_dense_backward_kernel(const Context& context, const Dense& s, int64_t n, const T* dy,
                                const T* x, T* dkernel, T* dbias) {
    const int64_t rows = in_tiles(n) / kTile * s.rows;
    if (context.fresh && rows == 0) {
        fill_zero(dkernel, s.kernel_size());
        if (dbias) fill_zero(dbias, s.units);
    }
    const int64_t registers = divide_up(s.units, kLanes<T>);
    const int64_t panels = divide_up(registers, kPanelRegisters);
    T* panel = scratch<T>(kLocal, kPanelRows * kTile * kPanelRegisters * kLanes<T>);
    for (int64_t row = 0; row < rows; row += kPanelRows) {
        const int64_t count = std::min(kPanelRows, rows - row);
        const bool fresh = context.fresh && row == 0;
        for (int64_t i = 0; i < panels; ++i) {
            const int64_t begin = cut(registers, panels, i), end = cut(registers, panels, i + 1);
            const int64_t u = begin * kLanes<T>, width = std::min(s.units, end * kLanes<T>) - u;
            transpose_panel(dy, s.units, u, count, end - begin, panel);
            get_add_panel<T>(end - begin, std::make_index_sequence<kPanelRegisters>())(
                {fresh, count, s.inputs, s.units, width - (end - begin - 1) * kLanes<T>, x, panel,
                 dkernel + u});
            if (dbias) add_bias(fresh, panel, count * kTile, end - begin, width, dbias + u);
        }
        dy += count * s.units * kTile;
        x += count * s.inputs * kTile;
    }
}

INSTANTIATE(tile_dense)
INSTANTIATE(tile_dense_backward_input)
INSTANTIATE(tile_dense_backward_kernel)

}  // namespace CONVKIT_ISA
}  // namespace convkit
