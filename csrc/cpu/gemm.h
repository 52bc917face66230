// One packed, register-blocked matrix product: c (rows, columns) = a (rows, depth) b (depth,
// columns) + bias. Convolutions and dense layers differ only in how they fill the operands.
//
// a is the broadcast side: one value at a time is spread over a register. It is filled by a small
// functor, at most kBlockRows rows by kDepth values at a time, so that it stays in the caches.
// b is the lane side: registers hold neighbouring columns. Its rows need not be copied where they
// may be read as whole registers; else pack_lanes() and pack_lanes_transposed() bring it into
// panels, padded with zeros.
//
// Every value of c is one chain of multiply-adds over the depth in ascending order, starting from
// zero, then + bias; blocks of depth continue the chain from c. So the bits of a value depend
// neither on the tile it falls into, nor on the other rows, nor on the number of threads.
#pragma once

#include <algorithm>
#include <utility>

#include "context.h"
#include "simd.h"
#include "stream.h"

#if defined(__clang__)
#define CONVKIT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define CONVKIT_UNROLL _Pragma("GCC unroll 16")
#endif

namespace convkit {
namespace CONVKIT_ISA {

// A tile of c held in registers has up to kTileRows rows of two registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
#elif defined(__aarch64__)
constexpr int kTileRows = 8;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif

template <class T>
constexpr int64_t kPanel = 2 * kLanes<T>;

// Blocks: a panel of b (kDepth, kPanel) fits the first-level cache, a block of a (kBlockRows,
// kDepth) the second. Rows of a packed block lie kStride apart: the spare values spread the rows
// over the sets of the cache and let copies run over the end of a row.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kDepth = 256;
constexpr int64_t kBlockColumns = 256;
template <class T>
constexpr int64_t kStride = kDepth + kVectorBytes / static_cast<int64_t>(sizeof(T));

// a: value (m, k) at data[m * kStride + k] if step is 0, else (transposed) at data[k * step + m].
template <class T>
struct Rows {
    const T* data;
    int64_t step;
};

// b: value (k, j) at data[(j / kPanel) * panel + k * step + j % kPanel]. All columns up to the
// next multiple of kLanes are read.
template <class T>
struct Lanes {
    const T* data;
    int64_t panel;
    int64_t step;

    Lanes from(int64_t k, int64_t column) const {
        return {data + column / kPanel<T> * panel + k * step, panel, step};
    }
};

// c[m][j] = (first ? 0 : c[m][j]) + sum over k of a b + (bias ? bias[j] : 0), in this order.
// c points to the rows. Only `columns` values of each are read or written, as of bias. If c is
// streamed (stream.h), it is not read, and its rows are whole, aligned registers.
template <class T>
void multiply(const Rows<T>& a, const Lanes<T>& b, int64_t rows, int64_t columns, int64_t depth,
              bool first, const T* bias, T* const* c, bool streamed = false);

// Whether a result of so many rows is streamed: then these are whole, aligned registers.
template <class T>
static inline bool streams_rows(int64_t rows, int64_t columns, const T* c) {
    return streams<T>(rows * columns, c, nullptr) && columns % kLanes<T> == 0 &&
           reinterpret_cast<uintptr_t>(c) % kVectorBytes == 0;
}

// Memory that is to be read next: kAheadLines cache lines from `data`, and from each of `count`
// places `step` values apart.
constexpr int64_t kAheadLines = 16;
template <class T>
struct Ahead {
    const T* data;
    int64_t step, count;
};

// The same for one whole panel and plain rows of a, while what is ahead is fetched.
template <class T>
void multiply_panel(const Rows<T>& a, const T* panel, int64_t rows, int64_t depth, bool first,
                    const T* bias, T* const* c, const Ahead<T>& ahead);

// The same for a panel that is first filled: the first tile reads rows of b, b_step apart, and
// writes the panel for the others.
template <class T>
void multiply_unpacked(const Rows<T>& a, const T* b, int64_t b_step, int64_t rows, int64_t depth,
                       bool first, const T* bias, T* const* c, T* panel);

// ---- few rows: long rows of b, shifted ---------------------------------------------------------
// With few rows (filters) it is better to have pixels in the lanes. Row k of b is then a piece of
// a plane of pixels: value (k, q) lies at planes[offsets[k] + q].

constexpr int64_t kFewRows = 8;

// c[m * c_step + q] = sum over k of a[k * a_step + m] planes[offsets[k] + q], for up to kFewRows
// rows. All q up to the next multiple of kLanes are read and written.
template <class T>
void multiply_shifted(const T* a, int64_t a_step, const T* planes, const int64_t* offsets,
                      int64_t rows, int64_t columns, int64_t depth, T* c, int64_t c_step);

// Register (k, m) of `sums` (depth, rows) += sum over the registers q of planes[offsets[k] + q]
// d[m * d_step + q]: the gradient of a above, with its lanes still to be added up.
template <class T>
void correlate_shifted(const T* planes, const int64_t* offsets, const T* d, int64_t d_step,
                       int64_t rows, int64_t columns, int64_t depth, T* sums);

// Matrices that are multiplied where they lie, `step` values from row to row.
template <class T>
struct Strided {
    const T* data;
    int64_t step;
};

// c[m * c_step + j] = (first ? 0 : c[m * c_step + j]) + sum over k of a(k, m) b(k, j), for up to
// kCorrelated rows k; columns are whole registers. Meanwhile what follows in memory is fetched: as
// many rows of b, and of what a was copied from, which need not exist.
constexpr int64_t kCorrelated = 192;
template <class T>
void correlate_plain(const Strided<T>& a, const Strided<T>& a_ahead, const Strided<T>& b,
                     int64_t rows, int64_t columns, int64_t depth, bool first, T* c,
                     int64_t c_step);

// ---- packing -----------------------------------------------------------------------------------

// Transposes a square of kLanes registers in place.
template <class T>
void transpose(Vec<T>* rows);

// Lane i of the two rows that change places at distance `half`: which of the 2 * kLanes it is.
template <class T>
constexpr int swapped_lane(int i, int half, bool upper) {
    return (i & half) ? kLanes<T> + i - (upper ? 0 : half) : i + (upper ? half : 0);
}

// Every second of the lanes of a and b, from lane kFirst on.
template <class T, int kFirst, size_t... I>
static inline Vec<T> every_second(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, (2 * static_cast<int>(I) + kFirst)...);
#else
    using Index = decltype(a < b);
    return __builtin_shuffle(a, b, Index{(2 * static_cast<int>(I) + kFirst)...});
#endif
}

template <class T, int kHalf, bool kUpper, size_t... I>
static inline Vec<T> swap_lanes(Vec<T> a, Vec<T> b, std::index_sequence<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, swapped_lane<T>(I, kHalf, kUpper)...);
#else
    using Index = decltype(a < b);
    return __builtin_shuffle(a, b, Index{swapped_lane<T>(I, kHalf, kUpper)...});
#endif
}

// Transposes every square of kSize lanes of kSize registers by itself, in place.
template <class T, int kSize, int kHalf = 1>
static inline void transpose_squares(Vec<T>* rows) {
    if constexpr (kHalf < kSize) {
        constexpr auto all = std::make_index_sequence<kLanes<T>>();
        CONVKIT_UNROLL
        for (int i = 0; i < kSize; ++i) {
            if (i & kHalf) continue;
            const Vec<T> a = rows[i], b = rows[i + kHalf];
            rows[i] = swap_lanes<T, kHalf, false>(a, b, all);
            rows[i + kHalf] = swap_lanes<T, kHalf, true>(a, b, all);
        }
        transpose_squares<T, kSize, 2 * kHalf>(rows);
    }
}

// Lane i: the sum of the lanes of register i of kLanes, added up in pairs. The registers are used
// up.
template <class T, int kHalf = kLanes<T> / 2>
static inline Vec<T> sums_of_lanes(Vec<T>* registers) {
    if constexpr (kHalf > 0) {
        constexpr auto all = std::make_index_sequence<kLanes<T>>();
        CONVKIT_UNROLL
        for (int i = 0; i < kHalf; ++i) {
            const Vec<T> a = registers[i], b = registers[i + kHalf];
            registers[i] =
                swap_lanes<T, kHalf, false>(a, b, all) + swap_lanes<T, kHalf, true>(a, b, all);
        }
        return sums_of_lanes<T, kHalf / 2>(registers);
    } else {
        return registers[0];
    }
}

// Registers of the first kCorner filters, pixels in the lanes <-> a register for each of kLanes
// pixels, whose first kCorner lanes are filters.
template <class T>
constexpr int kCorner = std::min(8, kLanes<T>);

template <class T>
static inline void filters_to_pixels(Vec<T>* rows) {
    constexpr auto all = std::make_index_sequence<kLanes<T>>();
    transpose_squares<T, kCorner<T>>(rows);
    CONVKIT_UNROLL
    for (int i = kCorner<T>; i < kLanes<T>; ++i) {
        const Vec<T> both = rows[i - kCorner<T>];
        rows[i] = swap_lanes<T, kCorner<T>, true>(both, both, all);
    }
}

template <class T>
static inline void pixels_to_filters(Vec<T>* rows) {
    constexpr auto all = std::make_index_sequence<kLanes<T>>();
    CONVKIT_UNROLL
    for (int i = kCorner<T>; i < kLanes<T>; ++i) {
        Vec<T>& low = rows[i - kCorner<T>];
        low = swap_lanes<T, kCorner<T>, false>(low, rows[i], all);
    }
    transpose_squares<T, kCorner<T>>(rows);
}

// Mostly by 1 (strides, groups): worth a branch.
static inline int64_t divide(int64_t a, int64_t b) { return b == 1 ? a : a / b; }
static inline int64_t divide_up(int64_t a, int64_t b) { return b == 1 ? a : (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// Where piece `i` of `pieces` equal ones of 0 .. count begins.
static inline int64_t cut(int64_t count, int64_t pieces, int64_t i) {
    return divide(count * i, pieces);
}

// A rough time of multiply-adds in nanoseconds, for parallel_for.
template <class T>
static inline double multiply_cost(double multiply_adds) {
    return 20 + multiply_adds / (4 * kLanes<T>);
}

template <class T, int V>
static inline void copy_registers(T* dst, const T* src, int64_t step, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i, dst += kStride<T>, src += step) {
        for (int v = 0; v < V; ++v) store(dst + v * kLanes<T>, load(src + v * kLanes<T>));
    }
}

// Copies `rows` pieces of `count` values, `step` apart, to rows of a packed block: whole registers
// at a time where that stays within `readable` values from src. Then up to kLanes - 1 values
// behind each piece are overwritten.
template <class T>
static inline void copy_rows(T* dst, const T* src, int64_t step, int64_t rows, int64_t count,
                             int64_t readable) {
    const int64_t vectors = divide_up(count, kLanes<T>), reach = vectors * kLanes<T>;
    const int64_t safe = readable < reach ? 0 : std::min(rows, (readable - reach) / step + 1);
    switch (vectors) {
        case 1:
            copy_registers<T, 1>(dst, src, step, safe);
            break;
        case 2:
            copy_registers<T, 2>(dst, src, step, safe);
            break;
        case 3:
            copy_registers<T, 3>(dst, src, step, safe);
            break;
        case 4:
            copy_registers<T, 4>(dst, src, step, safe);
            break;
        default:
            for (int64_t i = 0; i < safe; ++i) {
                for (int64_t j = 0; j < reach; j += kLanes<T>) {
                    store(dst + i * kStride<T> + j, load(src + i * step + j));
                }
            }
    }
    for (int64_t i = safe; i < rows; ++i) {
        std::memcpy(dst + i * kStride<T>, src + i * step, static_cast<size_t>(count) * sizeof(T));
    }
}

template <class T>
static inline void fill_zero(T* dst, int64_t count) {
    std::memset(dst, 0, static_cast<size_t>(count) * sizeof(T));
}

// Elements of a packed b.
template <class T>
static inline int64_t packed_size(int64_t depth, int64_t columns) {
    return depth * (columns <= kLanes<T> ? kLanes<T> : round_up(columns, kPanel<T>));
}

template <class T>
static inline Lanes<T> packed_lanes(const T* data, int64_t depth, int64_t columns) {
    const int64_t width = columns <= kLanes<T> ? kLanes<T> : kPanel<T>;
    return {data, depth * width, width};
}

// Packs rows k0 .. k0 + count of b (depth, columns) into `packed`; source(k) points to the
// columns of row k0 + k.
template <class T, class Source>
static void pack_lanes(int64_t depth, int64_t columns, int64_t k0, int64_t count, Source source,
                       T* packed) {
    const Lanes<T> lanes = packed_lanes<T>(packed, depth, columns);
    for (int64_t j = 0; j < columns; j += lanes.step) {
        T* dst = packed + j / kPanel<T> * lanes.panel + k0 * lanes.step;
        const int64_t width = std::min(lanes.step, columns - j);
        for (int64_t k = 0; k < count; ++k, dst += lanes.step) {
            const T* src = source(k) + j;
            int64_t i = 0;
            for (; i + kLanes<T> <= width; i += kLanes<T>) store(dst + i, load(src + i));
            if (i < width) store(dst + i, load_partial(src + i, width - i)), i += kLanes<T>;
            for (; i < lanes.step; i += kLanes<T>) store(dst + i, Vec<T>{});
        }
    }
}

// The same from a source that holds columns: source(j) points to rows k0 .. of column j.
template <class T, class Source>
static void pack_lanes_transposed(int64_t depth, int64_t columns, int64_t k0, int64_t count,
                                  Source source, T* packed) {
    const Lanes<T> lanes = packed_lanes<T>(packed, depth, columns);
    const int64_t padded = packed_size<T>(1, columns);
    for (int64_t j = 0; j < padded; j += kLanes<T>) {
        T* dst = packed + j / kPanel<T> * lanes.panel + j % kPanel<T> + k0 * lanes.step;
        for (int64_t k = 0; k < count; k += kLanes<T>) {
            const int64_t left = std::min<int64_t>(kLanes<T>, count - k);
            Vec<T> square[kLanes<T>];
            for (int i = 0; i < kLanes<T>; ++i) {
                if (j + i >= columns) {
                    square[i] = Vec<T>{};
                } else if (left == kLanes<T>) {
                    square[i] = load(source(j + i) + k);
                } else {
                    square[i] = load_partial(source(j + i) + k, left);
                }
            }
            transpose<T>(square);
            for (int64_t i = 0; i < left; ++i) store(dst + (k + i) * lanes.step, square[i]);
        }
    }
}

struct Range {
    int64_t begin, end;
};

// Output positions `out` in 0 .. count with 0 <= out * stride + offset < size.
static inline Range inside(int64_t offset, int64_t stride, int64_t size, int64_t count) {
    const int64_t begin = offset < 0 ? divide_up(-offset, stride) : 0;
    const int64_t end = offset < size ? divide_up(size - offset, stride) : 0;
    return {std::min(begin, count), std::max(std::min(begin, count), std::min(end, count))};
}

// Rows first .. first + rows (at most kBlockRows) of the product. The functor `a` has
//   Range depth(first, rows): the part of the depth in which these rows are not all zero
//   void pack(first, rows, begin, end, dst): rows of values begin .. end, kStride apart
// b counts its depth from 0, whatever the range.
template <class T, class Source>
static void multiply_rows(const Source& a, const Lanes<T>& b, int64_t first, int64_t rows,
                          int64_t columns, const T* bias, T* const* c) {
    T* packed = scratch<T>(kPackA, kBlockRows * kStride<T>);
    const Range range = a.depth(first, rows);
    const int64_t total = range.end - range.begin;
    const int64_t blocks = std::max<int64_t>(1, divide_up(total, kDepth));
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t begin = range.begin + cut(total, blocks, i);
        const int64_t end = range.begin + cut(total, blocks, i + 1);
        a.pack(first, rows, begin, end, packed);
        multiply<T>({packed, 0}, b.from(begin, 0), rows, columns, end - begin, i == 0,
                    i + 1 == blocks ? bias : nullptr, c);
    }
}

// A plain matrix (rows, size) as the functor of a product.
template <class T>
struct PlainRows {
    const T* data;
    int64_t rows, size;

    Range depth(int64_t, int64_t) const { return {0, size}; }
    void pack(int64_t first, int64_t count, int64_t begin, int64_t end, T* dst) const {
        const int64_t offset = first * size + begin;
        copy_rows(dst, data + offset, size, count, end - begin, rows * size - offset);
    }
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
