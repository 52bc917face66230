// The innermost loops of grouped.h: sums in registers whose lanes belong to several groups, or to a
// part of one.
#pragma once

#include "gemm.h"
#include "lanes.h"
#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {

#if defined(__clang__)
#define CONVKIT_UNROLL_FAR _Pragma("clang loop unroll(full)")
#else
#define CONVKIT_UNROLL_FAR _Pragma("GCC unroll 32")
#endif

// Each lane's input: of the values of a pixel at p, lane l takes p[places[l]], which lie in
// kSources registers. With no source all lanes are of one group, and take p[0].
template <class T, int kSources>
class GroupLanes {
 public:
#if defined(__AVX2__) && !defined(__AVX512F__)
    explicit GroupLanes(const Ints<T>& places) : places_(places), halves_(places) {
        // Registers of doubles are permuted in halves.
        if constexpr (sizeof(T) == 8) halves_ = (places + places) | ((places + places + 1) << 32);
    }
#else
    explicit GroupLanes(const Ints<T>& places) : places_(places) {}
#endif

    CONVKIT_INLINE Vec<T> operator()(const T* p) const {
#if defined(__AVX2__)
        if constexpr (kSources == 1) return permute(load(p));
        const Vec<T> low = load(p), high = load(p + kLanes<T>);
#if defined(__AVX512F__)
        const auto at = reinterpret_cast<__m512i>(places_);
        if constexpr (sizeof(T) == 4) {
            return reinterpret_cast<Vec<T>>(_mm512_permutex2var_ps(
                reinterpret_cast<__m512>(low), at, reinterpret_cast<__m512>(high)));
        } else {
            return reinterpret_cast<Vec<T>>(_mm512_permutex2var_pd(
                reinterpret_cast<__m512d>(low), at, reinterpret_cast<__m512d>(high)));
        }
#else
        return places_ < kLanes<T> ? permute(low) : permute(high);
#endif
#else
        Vec<T> v;
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<T>; ++i) v[i] = p[places_[i]];
        return v;
#endif
    }

    // The same for the `i`-th next input of the groups.
    CONVKIT_INLINE Vec<T> operator()(const T* p, int i) const {
        if constexpr (kSources == 1) return (*this)(p + i);
        return GroupLanes(places_ + i)(p);
    }

    // The next inputs of the groups.
    CONVKIT_INLINE void advance() { *this = GroupLanes(places_ + 1); }

 private:
#if defined(__AVX2__)
    CONVKIT_INLINE Vec<T> permute(Vec<T> v) const {
#if defined(__AVX512F__)
        // All lanes by a mask: GCC warns of the form without.
        const auto at = reinterpret_cast<__m512i>(places_);
        if constexpr (sizeof(T) == 4) {
            return reinterpret_cast<Vec<T>>(
                _mm512_maskz_permutexvar_ps(0xffff, at, reinterpret_cast<__m512>(v)));
        } else {
            return reinterpret_cast<Vec<T>>(
                _mm512_maskz_permutexvar_pd(0xff, at, reinterpret_cast<__m512d>(v)));
        }
#else
        return reinterpret_cast<Vec<T>>(_mm256_permutevar8x32_ps(
            reinterpret_cast<__m256>(v), reinterpret_cast<__m256i>(halves_)));
#endif
    }
#endif

    Ints<T> places_;
#if defined(__AVX2__) && !defined(__AVX512F__)
    Ints<T> halves_;
#endif
};

template <class T>
class GroupLanes<T, 0> {
 public:
    explicit GroupLanes(const Ints<T>&) {}
    CONVKIT_INLINE Vec<T> operator()(const T* p) const { return broadcast(*p); }
    CONVKIT_INLINE Vec<T> operator()(const T* p, int i) const { return broadcast(p[i]); }
};

// ---- outputs ------------------------------------------------------------------------------------

// A row of the kernel: where the line that it meets lies behind x, and its weights (inputs, taps,
// kLanes) behind `weights`.
struct GroupedLine {
    int64_t x, weights;
};

// A row of outputs: at least `floor`, bias + the sum over lines, inputs and taps. Distances are in
// values: from one pixel to the next, from an output's pixel to the next one's, from a tap's.
template <class T>
struct GroupedRow {
    const T *x, *weights;
    const GroupedLine* lines;
    int64_t count;  // lines
    int64_t inputs, taps;
    int64_t pixel, step, tap_step;
    Ints<T> places;
    Vec<T> bias;
    T floor;
    int64_t y_step, lanes;
    bool past;  // the caches, with whole registers
};

// Outputs whose sums fill the registers. What is met by several taps of them is read once.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kGroupedColumns[] = {4, 7, 10, 14};
#else
constexpr int kGroupedColumns[] = {2, 4, 7, 10};
#endif
constexpr int kGroupedSizes = 4;

// Outputs of a tile of a row of so many.
static inline int grouped_size(int64_t columns) {
    int best = 0;
    int64_t least = INT64_MAX;
    for (int i = 0; i < kGroupedSizes; ++i) {
        const int64_t cost = divide_up(columns, kGroupedColumns[i]) * (kGroupedColumns[i] + 2);
        if (cost <= least) least = cost, best = i;
    }
    return best;
}

// The first `count` of kColumns neighbouring outputs, which have kTaps neighbouring pixels each,
// kStep apart; with kTaps = 0 they may lie anyhow.
template <class T, int kSources, int kColumns, int kTaps, int kStep>
static void grouped_tile(const GroupedRow<T>& row, int64_t column, int64_t count, T* y) {
    const int64_t pixel = kSources > 0 ? kSources * kLanes<T> : row.pixel;
    Vec<T> sum[kColumns];
    CONVKIT_UNROLL
    for (int j = 0; j < kColumns; ++j) sum[j] = row.bias;
    for (int64_t line = 0; line < row.count; ++line) {
        const T* x = row.x + row.lines[line].x + column * row.step;
        const T* weights = row.weights + row.lines[line].weights;
        GroupLanes<T, kSources> lanes(row.places);
        // Where their distance is not known, a pointer for every three pixels: so many registers
        // there are.
        constexpr int kPixels = kTaps > 0 ? (kColumns - 1) * kStep + kTaps : 1;
        constexpr int kEach = kSources == 0 ? 3 : kPixels;
        const T* pixels[(kPixels + kEach - 1) / kEach];
        CONVKIT_UNROLL
        for (int k = 0; k * kEach < kPixels; ++k) pixels[k] = x + k * kEach * pixel;
        for (int64_t i = 0; i < row.inputs; ++i) {
            if constexpr (kTaps > 0) {
                Vec<T> weight[kTaps];
                CONVKIT_UNROLL
                for (int tap = 0; tap < kTaps; ++tap) weight[tap] = load(weights + tap * kLanes<T>);
                weights += kTaps * kLanes<T>;
                CONVKIT_UNROLL_FAR
                for (int at = 0; at < kPixels; ++at) {
                    const Vec<T> value = lanes(pixels[at / kEach] + at % kEach * pixel);
                    CONVKIT_UNROLL
                    for (int tap = 0; tap < kTaps; ++tap) {
                        const int from = at - tap;
                        if (from < 0 || from % kStep != 0 || from / kStep >= kColumns) continue;
                        sum[from / kStep] += value * weight[tap];
                    }
                }
            } else {
                const T* at = pixels[0];
                for (int64_t tap = 0; tap < row.taps; ++tap, at += row.tap_step) {
                    const Vec<T> weight = load(weights);
                    weights += kLanes<T>;
                    CONVKIT_UNROLL
                    for (int j = 0; j < kColumns; ++j) sum[j] += lanes(at + j * row.step) * weight;
                }
            }
            if constexpr (kSources == 0) {
                CONVKIT_UNROLL
                for (int k = 0; k * kEach < kPixels; ++k) ++pixels[k];
            } else {
                lanes.advance();
            }
        }
    }
    const T floor = row.floor;
    const int64_t y_step = row.y_step;
    if (count == kColumns && row.lanes >= kLanes<T> && !row.past) {
        CONVKIT_UNROLL
        for (int j = 0; j < kColumns; ++j) store(y + j * y_step, larger<T>(sum[j], floor));
        return;
    }
    T values[kColumns * kLanes<T>];
    CONVKIT_UNROLL
    for (int j = 0; j < kColumns; ++j) store(values + j * kLanes<T>, larger<T>(sum[j], floor));
    for (int64_t j = 0; j < count; ++j) {
        const Vec<T> value = load(values + j * kLanes<T>);
        if (row.past) {
            store_past(y + j * y_step, value);
        } else if (row.lanes >= kLanes<T>) {
            store(y + j * y_step, value);
        } else {
            store_partial(y + j * y_step, value, row.lanes);
        }
    }
}

template <class T>
using GroupedTile = void (*)(const GroupedRow<T>&, int64_t, int64_t, T*);

template <class T, int kSources, int kTaps, int kStep, size_t... kSize>
static GroupedTile<T> pick_grouped_tile(int size, std::index_sequence<kSize...>) {
    static constexpr GroupedTile<T> table[] = {
        grouped_tile<T, kSources, kGroupedColumns[kSize], kTaps, kStep>...};
    return table[size];
}

// The outputs of a row: there is memory for all pixels of whole tiles.
template <class T, int kSources>
static void grouped_row(const GroupedRow<T>& row, int64_t columns, T* y) {
    constexpr auto all = std::make_index_sequence<kGroupedSizes>();
    const int size = grouped_size(columns);
    const bool adjoin = row.taps == 1 || row.tap_step == row.pixel;
    const bool one = row.step == row.pixel, two = row.step == 2 * row.pixel;
    const auto tile = !adjoin                ? pick_grouped_tile<T, kSources, 0, 0>(size, all)
                      : one && row.taps == 1 ? pick_grouped_tile<T, kSources, 1, 1>(size, all)
                      : one && row.taps == 2 ? pick_grouped_tile<T, kSources, 2, 1>(size, all)
                      : one && row.taps == 3 ? pick_grouped_tile<T, kSources, 3, 1>(size, all)
                      : one && row.taps == 5 ? pick_grouped_tile<T, kSources, 5, 1>(size, all)
                      : two && row.taps == 3 ? pick_grouped_tile<T, kSources, 3, 2>(size, all)
                                             : pick_grouped_tile<T, kSources, 0, 0>(size, all);
    const int64_t step = kGroupedColumns[size];
    for (int64_t j = 0; j < columns; j += step) {
        tile(row, j, std::min(step, columns - j), y + j * row.y_step);
    }
}

// ---- gradients of weights -----------------------------------------------------------------------

// Some rows of gradients dy (rows, columns, kLanes), and where the pixels of their first tap lie.
template <class T>
struct GroupedGradients {
    const T* dy;
    const T* const* lines;
    int64_t rows, columns;
    int64_t taps, pixel, step, tap_step;
    Ints<T> places;
};

// meet(first tap, last tap) for each pixel that a row of outputs meets by the taps of kTap and one
// more.
template <class Meet, int... kTap>
static inline CONVKIT_INLINE void grouped_columns(Meet meet, int64_t columns,
                                                  std::integer_sequence<int, kTap...>) {
    constexpr int kLast = sizeof...(kTap);
    using Last = std::integral_constant<int, kLast>;
    (meet(std::integral_constant<int, 0>(), std::integral_constant<int, kTap>()), ...);
    for (int64_t j = kLast; j < columns; ++j) meet(std::integral_constant<int, 0>(), Last());
    (meet(std::integral_constant<int, kTap + 1>(), Last()), ...);
}

// Inputs at a time, of so many taps: sums fill the registers.
constexpr int most_grouped_inputs(int taps) {
#if defined(__AVX512F__) || defined(__aarch64__)
    return taps == 1 ? 16 : taps == 3 ? 8 : 4;
#else
    return taps == 1 ? 8 : taps == 3 ? 3 : 1;
#endif
}

// Adds to sums (kInputs, taps, kLanes) the products of gradients with the inputs from `input` on
// that the taps of their outputs met. With kTaps > 1 these are all taps, which are neighbours as
// the outputs are, at least kTaps - 1 in a row: then a pixel is read once for all of its outputs.
template <class T, int kSources, int kTaps, int kInputs>
static void grouped_gradient(const GroupedGradients<T>& g, int64_t input, T* sums) {
    const GroupLanes<T, kSources> lanes(g.places);
    const int64_t pixel = kSources > 0 ? kSources * kLanes<T> : g.pixel;
    const int64_t line = g.columns * kLanes<T>;
    for (int64_t tap = 0; tap < g.taps; tap += kTaps) {
        Vec<T> sum[kInputs][kTaps] = {};
        for (int64_t row = 0; row < g.rows; ++row) {
            const T* x = g.lines[row] + input + tap * g.tap_step;
            const T* dy = g.dy + row * line;
            // The pixel at `x` with those of the outputs that meet it by taps first .. last.
            const auto meet = [&](auto first, auto last) CONVKIT_INLINE {
                Vec<T> gradient[kTaps];
                CONVKIT_UNROLL
                for (int k = 0; k < kTaps; ++k) {
                    if (first <= k && k <= last) gradient[k] = load(dy - k * kLanes<T>);
                }
                CONVKIT_UNROLL
                for (int i = 0; i < kInputs; ++i) {
                    const Vec<T> value = lanes(x, i);
                    CONVKIT_UNROLL
                    for (int k = 0; k < kTaps; ++k) {
                        if (first <= k && k <= last) sum[i][k] += value * gradient[k];
                    }
                }
                x += kTaps == 1 ? g.step : pixel;
                dy += kLanes<T>;
            };
            grouped_columns(meet, g.columns, std::make_integer_sequence<int, kTaps - 1>());
        }
        CONVKIT_UNROLL
        for (int i = 0; i < kInputs; ++i) {
            CONVKIT_UNROLL
            for (int k = 0; k < kTaps; ++k) {
                T* to = sums + (i * g.taps + tap + k) * kLanes<T>;
                store(to, load(to) + sum[i][k]);
            }
        }
    }
}

// The same for so many inputs, about equally many at a time.
template <class T, int kSources, int kTaps, size_t... kInputs>
static void grouped_gradients(const GroupedGradients<T>& g, int64_t inputs, T* sums,
                              std::index_sequence<kInputs...>) {
    static constexpr void (*table[])(const GroupedGradients<T>&, int64_t,
                                     T*) = {grouped_gradient<T, kSources, kTaps, kInputs + 1>...};
    const int64_t parts = divide_up(inputs, most_grouped_inputs(kTaps));
    for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = cut(inputs, parts, part);
        table[cut(inputs, parts, part + 1) - first - 1](g, first,
                                                        sums + first * g.taps * kLanes<T>);
    }
}

template <class T, int kSources>
static void grouped_gradients(const GroupedGradients<T>& g, int64_t inputs, T* sums) {
    const bool adjoin = g.tap_step == g.pixel && g.step == g.pixel && g.columns >= g.taps - 1;
    if (adjoin && g.taps == 3) {
        constexpr auto all = std::make_index_sequence<most_grouped_inputs(3)>();
        return grouped_gradients<T, kSources, 3>(g, inputs, sums, all);
    }
    if (adjoin && g.taps == 5) {
        constexpr auto all = std::make_index_sequence<most_grouped_inputs(5)>();
        return grouped_gradients<T, kSources, 5>(g, inputs, sums, all);
    }
    constexpr auto all = std::make_index_sequence<most_grouped_inputs(1)>();
    grouped_gradients<T, kSources, 1>(g, inputs, sums, all);
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
