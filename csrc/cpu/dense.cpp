// Fully connected layer, as matrix products (gemm.h).
//
//   y = x kernel + bias      dx = dy transposed(kernel)
//   dkernel = transposed(x) dy      dbias = sum of dy over samples and rows
//
// x, dx (n, rows, inputs); kernel, dkernel (inputs, units); bias, dbias (units), may be null;
// y, dy (n, rows, units). fused_dense is this, then an activation: with one row alone or a few
// units, relu while the sums are in registers, else in a pass of its own.
#include "cpu_kernels.h"
#include "epilogue.h"
#include "few_columns.h"
#include "few_registers.h"
#include "few_rows.h"
#include "lanes.h"
#include "product.h"
#include "weight_gradient.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Whether so many rows are multiplied with the kernel where it lies: packing it would cost more.
bool in_place(const Dense& s, int64_t rows) {
    constexpr int64_t kRows = 64, kSmall = int64_t{1} << 17;
    return rows <= kTileRows || (rows <= kRows && s.kernel_size() <= kSmall);
}

// Rows in one task: whole tiles, and enough tasks for several threads even in a small batch.
int64_t row_block(int64_t rows) {
    const int64_t block = round_up(divide_up(rows, 16), kTileRows);
    return std::min(kBlockRows, std::max<int64_t>(round_up(24, kTileRows), block));
}

// Calls body(first row, rows, first column, columns) for each block of c (rows, columns).
template <class T, class Body>
void for_blocks(const Context& context, int64_t rows, int64_t columns, int64_t depth, Body body) {
    const int64_t down = divide_up(rows, row_block(rows));
    const int64_t across = divide_up(columns, kBlockColumns);
    if (rows == 0) return;
    const double work = static_cast<double>(rows) * columns * depth / (down * across);
    parallel_for(context, down * across, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = cut(rows, down, i / across);
            const int64_t last = cut(rows, down, i / across + 1);
            const int64_t column = i % across * kBlockColumns;
            body(first, last - first, column, std::min(kBlockColumns, columns - column));
        }
    });
}

// y = x kernel + bias for few rows. The last rows of the kernel, behind which whole registers
// would be read beyond its end, come from a padded copy.
template <class T>
void multiply_few(const Context& context, const PlainRows<T>& x, const T* kernel, const T* bias,
                  int64_t units, T* y) {
    const int64_t inputs = x.size;
    const int64_t spare = round_up(units, kLanes<T>) - units;
    const int64_t safe = std::max<int64_t>(0, inputs - divide_up(spare, units));
    T* packed = scratch<T>(kShared, packed_size<T>(inputs - safe, units));
    pack_lanes(
        inputs - safe, units, 0, inputs - safe,
        [&](int64_t k) { return kernel + (safe + k) * units; }, packed);
    const Lanes<T> whole = {kernel, kPanel<T>, units};
    const Lanes<T> last = packed_lanes<T>(packed, inputs - safe, units);
    for_blocks<T>(context, x.rows, units, inputs,
                  [&](int64_t first, int64_t rows, int64_t column, int64_t columns) {
                      T* values = scratch<T>(kPackA, kBlockRows * kStride<T>);
                      T* c[kBlockRows];
                      for (int64_t m = 0; m < rows; ++m) c[m] = y + (first + m) * units + column;
                      for (int64_t begin = 0; begin < safe; begin += kDepth) {
                          const int64_t end = std::min(safe, begin + kDepth);
                          x.pack(first, rows, begin, end, values);
                          multiply<T>({values, 0}, whole.from(begin, column), rows, columns,
                                      end - begin, begin == 0, nullptr, c);
                      }
                      x.pack(first, rows, safe, inputs, values);
                      multiply<T>({values, 0}, last.from(0, column), rows, columns, inputs - safe,
                                  safe == 0, bias ? bias + column : nullptr, c);
                  });
}

// V registers of a row of y, `columns` values that are at least `floor`, in one pass over the
// kernel where it lies. `end` is that of the kernel's memory.
template <class T, int V>
void multiply_strip(const Dense& s, const T* x, const T* kernel, const T* end, const T* bias,
                    T floor, int64_t columns, T* y) {
    constexpr int64_t kLast = (V - 1) * kLanes<T>;
    const int64_t rest = columns - kLast;
    Vec<T> sum[V] = {};
    for (int64_t k = 0; k < s.inputs; ++k, kernel += s.units) {
        const Vec<T> value = broadcast(x[k]);
        CONVKIT_UNROLL
        for (int v = 0; v < V - 1; ++v) sum[v] += value * load(kernel + v * kLanes<T>);
        sum[V - 1] += value * load_run(kernel + kLast, end, rest);
    }
    CONVKIT_UNROLL
    for (int v = 0; v < V - 1; ++v) {
        const int64_t j = v * kLanes<T>;
        store(y + j, larger<T>(bias ? sum[v] + load(bias + j) : sum[v], floor));
    }
    if (rest == kLanes<T>) {
        store(y + kLast, larger<T>(bias ? sum[V - 1] + load(bias + kLast) : sum[V - 1], floor));
    } else {
        const Vec<T> shift = bias ? load_partial(bias + kLast, rest) : Vec<T>{};
        store_partial(y + kLast, larger<T>(bias ? sum[V - 1] + shift : sum[V - 1], floor), rest);
    }
}

template <class T>
using Strip = void (*)(const Dense&, const T*, const T*, const T*, const T*, T, int64_t, T*);

template <class T, size_t... V>
Strip<T> get_strip(int64_t vectors, std::index_sequence<V...>) {
    static constexpr Strip<T> table[] = {multiply_strip<T, static_cast<int>(V) + 1>...};
    return table[vectors - 1];
}

// Adds R rows of the kernel, `units` apart, to columns of a row of y.
template <class T, int R>
void add_kernel_rows(const T* x, const T* kernel, int64_t units, int64_t columns, T* y) {
    Vec<T> value[R];
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) value[r] = broadcast(x[r]);
    for_each_vector(y, 0, columns, [&](int64_t j, auto part) CONVKIT_INLINE {
        Vec<T> sum = get(y + j, part);
        CONVKIT_UNROLL
        for (int r = 0; r < R; ++r) sum += value[r] * get(kernel + r * units + j, part);
        put(y + j, sum, part);
    });
}

// Whether a kernel does not fit the caches, and its rows are so long that they are read fastest a
// few at a time.
constexpr int64_t kLongRow = 512;
template <class T>
bool is_far(const Dense& s) {
    return s.units >= kLongRow &&
           s.kernel_size() * static_cast<int64_t>(sizeof(T)) >= 2 * kStreamedBytes;
}

// y = max(x kernel + bias, floor) for one row and such a kernel, with the sums in the first cache.
// Every sum is the same chain as below, wherever columns are cut.
template <class T>
void multiply_one_far(const Context& context, const Dense& s, const T* x, const T* kernel,
                      const T* bias, T floor, T* y) {
    constexpr int kRows = 4;
    const int64_t tasks = std::min<int64_t>(context.threads, s.units / kLongRow);
    const int64_t width = round_up(divide_up(s.units, tasks), kLanes<T>);
    parallel_for(
        context, divide_up(s.units, width), read_cost<T>(s.inputs * width),
        [&](int64_t begin, int64_t end) {
            for (int64_t j = begin * width; j < std::min(s.units, end * width); j += width) {
                const int64_t columns = std::min(width, s.units - j);
                std::fill_n(y + j, columns, T(0));
                int64_t k = 0;
                for (; k + kRows <= s.inputs; k += kRows) {
                    add_kernel_rows<T, kRows>(x + k, kernel + k * s.units + j, s.units, columns,
                                              y + j);
                }
                for (; k < s.inputs; ++k) {
                    add_kernel_rows<T, 1>(x + k, kernel + k * s.units + j, s.units, columns, y + j);
                }
                for_each_vector(y + j, 0, columns, [&](int64_t i, auto part) CONVKIT_INLINE {
                    const Vec<T> sum = get(y + j + i, part);
                    put(y + j + i, larger<T>(bias ? sum + get(bias + j + i, part) : sum, floor),
                        part);
                });
            }
        });
}

// y = max(x kernel + bias, floor) for one row: bound by how fast the kernel comes out of memory.
template <class T>
void multiply_one(const Context& context, const Dense& s, const T* x, const T* kernel,
                  const T* bias, T floor, T* y) {
    if (is_far<T>(s)) return multiply_one_far(context, s, x, kernel, bias, floor, y);
    constexpr int kMost = std::min(16, 2 * kTileRows);
    const int64_t strips = divide_up(s.units, kMost * kLanes<T>);
    const int64_t width = round_up(divide_up(s.units, strips), kLanes<T>);
    const double cost = read_cost<T>(s.inputs * width);
    parallel_for(context, strips, cost, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin * width; j < std::min(s.units, end * width); j += width) {
            const int64_t columns = std::min(width, s.units - j);
            get_strip<T>(divide_up(columns, kLanes<T>), std::make_index_sequence<kMost>())(
                s, x, kernel + j, kernel + s.kernel_size(), bias ? bias + j : nullptr, floor,
                columns, y + j);
        }
    });
}

// y = max(x kernel + bias, floor) for so few units that a value as one chain would be slow: whether
// it is that. It does not depend on the rows, nor do the bits of theirs.
template <class T>
bool multiply_few_units(const Context& context, const Dense& s, int64_t rows, const T* x,
                        const T* kernel, const T* bias, T floor, T* y) {
    const bool narrow = is_narrow<T>(s.units, s.inputs);
    if (!narrow && !fits_two_registers<T>(s.units, s.inputs)) return false;
    if (rows == 0) return true;
    if (narrow) {
        multiply_narrow(context, rows, s.inputs, s.units, x, kernel, bias, floor, y);
    } else {
        multiply_two_registers(context, rows, s.inputs, s.units, x, kernel, bias, floor, y);
    }
    return true;
}

}  // namespace

template <class T>
void dense(const Context& context, const Dense& s, int64_t n, const T* x, const T* kernel,
           const T* bias, T* y) {
    const PlainRows<T> a = {x, n * s.rows, s.inputs};
    const T floor = floor_of<T>(kLinear);
    if (multiply_few_units(context, s, a.rows, x, kernel, bias, floor, y)) return;
    if (a.rows == 1) return multiply_one(context, s, x, kernel, bias, floor, y);
    if (in_place(s, a.rows)) return multiply_few(context, a, kernel, bias, s.units, y);
    const Matrix<T> left = {x, x + a.rows * s.inputs, s.inputs, false};
    const Matrix<T> right = {kernel, kernel + s.kernel_size(), s.units, false};
    Product<T>(left, right, a.rows, s.units, s.inputs, bias, y).run(context);
}

template <class T>
void fused_dense(const Context& context, const FusedDense& s, int64_t n, const T* x,
                 const T* kernel, const T* bias, T* y) {
    if (is_floor(s.activation)) {
        const int64_t rows = n * s.dense.rows;
        const T floor = floor_of<T>(s.activation);
        if (multiply_few_units(context, s.dense, rows, x, kernel, bias, floor, y)) return;
        if (rows == 1) return multiply_one(context, s.dense, x, kernel, bias, floor, y);
    }
    dense(context, s.dense, n, x, kernel, bias, y);
    if (s.activation == kLinear) return;
    activation<T>(context, {s.dense.output_size(), s.activation, s.slope}, n, y, y);
}

template <class T>
void dense_backward_input(const Context& context, const Dense& s, int64_t n, const T* dy,
                          const T* kernel, T* dx) {
    const int64_t rows = n * s.rows;
    if (rows <= kFewSamples) {
        return multiply_transposed(context, rows, s.units, s.inputs, dy, kernel, dx);
    }
    const Matrix<T> left = {dy, dy + rows * s.units, s.units, false};
    const Matrix<T> right = {kernel, kernel + s.kernel_size(), s.units, true};
    Product<T>(left, right, rows, s.inputs, s.units, nullptr, dx).run(context);
}

template <class T>
void dense_backward_kernel(const Context& context, const Dense& s, int64_t n, const T* dy,
                           const T* x, T* dkernel, T* dbias) {
    const PlainRows<T> a = {x, n * s.rows, s.inputs};
    const WeightGradient<T> gradient = {a.rows, s.inputs, 1, s.units, dy, dkernel, dbias};
    if (a.rows > 0 && a.rows <= kFewSamples) {
        gradient.sum_bias();
        return multiply_outer(context, a.rows, s.inputs, s.units, x, dy, dkernel);
    }
    if (gradient.slots() > 1 || gradient.taps_in_lanes() || a.rows == 0) {
        return gradient.run(context, [&](int64_t) { return a; });
    }
    gradient.sum_bias();
    const Matrix<T> left = {x, x + a.rows * s.inputs, s.inputs, true};
    const Matrix<T> right = {dy, dy + a.rows * s.units, s.units, false};
    Product<T>(left, right, s.inputs, s.units, a.rows, nullptr, dkernel).run(context);
}

INSTANTIATE(dense)
INSTANTIATE(fused_dense)
INSTANTIATE(dense_backward_input)
INSTANTIATE(dense_backward_kernel)

}  // namespace CONVKIT_ISA
}  // namespace convkit
