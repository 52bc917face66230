// dkernel (kernel_height, kernel_width, channels / groups, filters) and dbias (filters) of a tile's
// convolution, added to what they hold (or stored, where context.fresh), from dy (out_height,
// out_width, filters, kTile) and x (height, width, channels, kTile).
//
//   dkernel[kh, kw, c, f] += sum over oh, ow, samples of dy[oh, ow, f] *
//       x[oh * stride - pad + kh * dilation, ow * stride - pad + kw * dilation, c],
//       where that pixel lies in the picture
//   dbias[f] += sum over oh, ow, samples of dy[oh, ow, f]
//
// What one row of the kernel meets of x lies side by side: its terms (kw, c). A block of sums is a
// run of terms by some filters; it stays in registers while many pixels are gone through. There are
// two kinds:
//
// - Filters in the lanes: dy is transposed to (pixel, sample, filters), and each value of x is
//   broadcast against it. The sums come out as dkernel has them. Where filters fill only half of a
//   long register, it takes two samples.
// - Samples in the lanes, for few filters: registers of x times registers of dy, as they lie. A sum
//   is a register, whose lanes are added up at the end.
//
// Pixels whose windows reach over the left or right border are summed apart, column by column, with
// the terms that lie in the picture: nothing is multiplied by zeros.
#include "conv_planes.h"
#include "cpu_kernels.h"
#include "tile/tile.h"
#include "tile/transpose.h"

#if defined(__clang__)
#define CONVKIT_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#else
#define CONVKIT_KEEP_LOOP _Pragma("GCC unroll 1")
#endif

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// What one block sums over: a rectangle of pixels of dy, and the first of its terms for each.
template <class T>
struct Pixels {
    const T* dy;
    int64_t dy_row, dy_pixel;
    const T* x;
    int64_t x_row, x_pixel;
    int64_t rows, columns;
};

template <class T>
using Block = void (*)(const Pixels<T>&, T*);

// ---- filters in the lanes -----------------------------------------------------------------------

// The next value of x in all lanes; or the next two, by turns.
template <class T, int kSamples>
inline CONVKIT_INLINE Vec<T> spread(const T* x) {
    if constexpr (kSamples == 1) {
        return broadcast(x[0]);
    } else {
        static_assert(2 * sizeof(T) == sizeof(int64_t));
        int64_t both;
        std::memcpy(&both, x, sizeof both);
        return reinterpret_cast<Vec<T>>(both - Vec<int64_t>{});
    }
}

// Sums of M terms by V registers of filters; dy is (pixel, sample, V registers), or (pixel, two
// samples, filters, sample).
template <class T, int V, int kSamples, int M>
void filters_block(const Pixels<T>& p, T* sums) {
    Vec<T> sum[M][V] = {};
    for (int64_t row = 0; row < p.rows; ++row) {
        const T* dy = p.dy + row * p.dy_row;
        const T* x = p.x + row * p.x_row;
        for (int64_t column = 0; column < p.columns; ++column, x += p.x_pixel) {
            CONVKIT_KEEP_LOOP
            for (int64_t sample = 0; sample < kTile; sample += kSamples, dy += V * kLanes<T>) {
                Vec<T> lanes[V];
                CONVKIT_UNROLL
                for (int v = 0; v < V; ++v) lanes[v] = load(dy + v * kLanes<T>);
                CONVKIT_UNROLL_SUMS
                for (int m = 0; m < M; ++m) {
                    const Vec<T> value = spread<T, kSamples>(x + m * kTile + sample);
                    CONVKIT_UNROLL
                    for (int v = 0; v < V; ++v) sum[m][v] += value * lanes[v];
                }
            }
        }
    }
    CONVKIT_UNROLL_SUMS
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) store(sums + (m * V + v) * kLanes<T>, sum[m][v]);
    }
}

// Filters are taken in blocks of two registers, one, or half of one.
template <class T>
constexpr bool kHalves = kLanes<T> == kTile;

template <class T>
int64_t block_width(int64_t filters) {
    if (kHalves<T> && filters <= kLanes<T> / 2) return kLanes<T> / 2;
    const int64_t and_half = kHalves<T> ? kLanes<T> / 2 : 0;
    return filters <= kLanes<T> + and_half ? kLanes<T> : 2 * kLanes<T>;
}

// As many terms as leave registers for dy and a value of x (which needs none where it is used once,
// as AVX-512 spreads it on the fly); fewer for float64, which is not worth the code.
template <class T>
constexpr int most_terms(int64_t width) {
    if (width == 2 * kLanes<T>) return !kManyRegisters ? 6 : sizeof(T) == 4 ? 14 : 8;
    if (width < kLanes<T>) return 24;
    return kManyRegisters && sizeof(T) == 4 ? 30 : 12;
}

template <class T, int V, int kSamples, size_t... M>
Block<T> pick_filters_block(int64_t terms, std::index_sequence<M...>) {
    static constexpr Block<T> table[] = {filters_block<T, V, kSamples, static_cast<int>(M) + 1>...};
    return table[terms - 1];
}

template <class T>
Block<T> get_filters_block(int64_t width, int64_t terms) {
    constexpr int kOne = most_terms<T>(kLanes<T>), kTwo = most_terms<T>(2 * kLanes<T>);
    if (width > kLanes<T>) {
        return pick_filters_block<T, 2, 1>(terms, std::make_index_sequence<kTwo>());
    }
    if constexpr (kHalves<T>) {
        constexpr int kHalf = most_terms<T>(kLanes<T> / 2);
        if (width < kLanes<T>) {
            return pick_filters_block<T, 1, 2>(terms, std::make_index_sequence<kHalf>());
        }
    }
    return pick_filters_block<T, 1, 1>(terms, std::make_index_sequence<kOne>());
}

// One register of filters of `pixels` pixels of dy, `step` apart, to (pixel, sample, filters) with
// samples `width` apart. Where there are fewer filters, the other lanes are zero. Returns the sum.
template <class T>
Vec<T> turn(const T* dy, int64_t step, int64_t filters, int64_t pixels, T* turned, int64_t width) {
    Vec<T> sum{};
    for (int64_t pixel = 0; pixel < pixels; ++pixel, dy += step) {
        for (int part = 0; part < kParts<T>; ++part, turned += kLanes<T> * width) {
            const T* from = dy + part * kLanes<T>;
            Square<T> square;
            CONVKIT_UNROLL
            for (int i = 0; i < kLanes<T>; ++i) {
                square.row[i] = i < filters ? load(from + i * kTile) : Vec<T>{};
            }
            transpose_square(square);
            CONVKIT_UNROLL
            for (int i = 0; i < kLanes<T>; ++i) store(turned + i * width, square.row[i]);
            CONVKIT_UNROLL
            for (int half = kLanes<T> / 2; half > 0; half /= 2) {
                CONVKIT_UNROLL
                for (int i = 0; i < half; ++i) square.row[i] += square.row[i + half];
            }
            sum += square.row[0];
        }
    }
    return sum;
}

// The same for half a register of filters, to (pixel, two samples, filters, sample): pairs of
// samples are transposed as if they were one value.
template <class T>
Vec<T> turn_pairs(const T* dy, int64_t step, int64_t filters, int64_t pixels, T* turned) {
    Vec<T> sum{};
    for (int64_t pixel = 0; pixel < pixels; ++pixel, dy += step) {
        using Pair = double;
        Square<Pair> square;
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<Pair>; ++i) {
            const Vec<T> row = i < filters ? load(dy + i * kTile) : Vec<T>{};
            square.row[i] = reinterpret_cast<Vec<Pair>>(row);
        }
        transpose_square(square);
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<Pair>; ++i, turned += kLanes<T>) {
            store(turned, reinterpret_cast<Vec<T>>(square.row[i]));
            sum += reinterpret_cast<Vec<T>>(square.row[i]);
        }
    }
    return sum;
}

// y[0 .. count] += x[0 .. count]; whole registers of x are read.
template <class T>
void add_to(T* y, const T* x, int64_t count) {
    for (; count >= kLanes<T>; count -= kLanes<T>, y += kLanes<T>, x += kLanes<T>) {
        store(y, load(y) + load(x));
    }
    if (count > 0) store_partial(y, load_partial(y, count) + load(x), count);
}

// The same for sums over either of two samples, by turns.
template <class T>
void add_pairs(T* y, const T* x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] += x[2 * i] + x[2 * i + 1];
}

// ---- samples in the lanes -----------------------------------------------------------------------

// Keeps in a register what is used several times: GCC would load it anew for each use, and loads
// are as scarce as multiplications here.
template <class T>
inline CONVKIT_INLINE void hold([[maybe_unused]] Vec<T>& v) {
#if defined(__GNUC__) && defined(__x86_64__)
    asm("" : "+v"(v));
#elif defined(__GNUC__) && defined(__aarch64__)
    asm("" : "+w"(v));
#endif
}

template <class T>
using SamplesBlock = void (*)(const Pixels<T>&, T*, T*);

// Adds to the sums of M terms by F filters, a register each; and dy to F registers of bias_sums.
template <class T, int F, bool kBias, int M>
void samples_block(const Pixels<T>& p, T* sums, [[maybe_unused]] T* bias_sums) {
    Vec<T> sum[M][F], bias[F] = {};
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int f = 0; f < F; ++f) sum[m][f] = load(sums + (m * F + f) * kLanes<T>);
    }
    for (int64_t row = 0; row < p.rows; ++row) {
        const T* dy = p.dy + row * p.dy_row;
        const T* x = p.x + row * p.x_row;
        for (int64_t column = 0; column < p.columns; ++column, dy += p.dy_pixel, x += p.x_pixel) {
            CONVKIT_KEEP_LOOP
            for (int part = 0; part < kTile; part += kLanes<T>) {
                Vec<T> gradient[F];
                CONVKIT_UNROLL
                for (int f = 0; f < F; ++f) {
                    gradient[f] = load(dy + f * kTile + part);
                    if constexpr (kBias) bias[f] += gradient[f];
                }
                CONVKIT_UNROLL
                for (int m = 0; m < M; ++m) {
                    Vec<T> value = load(x + m * kTile + part);
                    hold<T>(value);
                    CONVKIT_UNROLL
                    for (int f = 0; f < F; ++f) sum[m][f] += value * gradient[f];
                }
            }
        }
    }
    CONVKIT_UNROLL
    for (int m = 0; m < M; ++m) {
        CONVKIT_UNROLL
        for (int f = 0; f < F; ++f) store(sums + (m * F + f) * kLanes<T>, sum[m][f]);
    }
    if constexpr (kBias) {
        CONVKIT_UNROLL
        for (int f = 0; f < F; ++f) {
            store(bias_sums + f * kLanes<T>, load(bias_sums + f * kLanes<T>) + bias[f]);
        }
    }
}

// As many terms as leave registers for dy and one of x; beyond some, they gain nothing.
constexpr int kMostFilters = kManyRegisters ? 4 : 3;
template <class T>
constexpr int most_terms_by(int filters) {
    return std::min(sizeof(T) == 4 ? 8 : 5, kManyRegisters ? 24 / filters : 12 / filters);
}

// As many as leave registers for dbias too. With more terms, a pass of its own costs little beside;
// so it does for types and processors that are not worth the code.
template <class T>
constexpr int most_terms_with_bias(int filters) {
    if (sizeof(T) != 4 || kVectorBytes < 32) return 0;
    return std::min(5, ((kManyRegisters ? 31 : 15) - 2 * filters) / filters);
}

template <class T, int F, bool kBias, size_t... M>
SamplesBlock<T> pick_samples_block(int64_t terms, std::index_sequence<M...>) {
    static constexpr SamplesBlock<T> table[] = {
        samples_block<T, F, kBias, static_cast<int>(M) + 1>...};
    return table[terms - 1];
}

template <class T, int F>
SamplesBlock<T> pick_samples_block(int64_t terms, bool with_bias) {
    if constexpr (constexpr int kMost = most_terms_with_bias<T>(F); kMost > 0) {
        if (with_bias)
            return pick_samples_block<T, F, true>(terms, std::make_index_sequence<kMost>());
    }
    return pick_samples_block<T, F, false>(terms, std::make_index_sequence<most_terms_by<T>(F)>());
}

template <class T>
SamplesBlock<T> get_samples_block(int64_t filters, int64_t terms, bool with_bias) {
    switch (filters) {
        case 1:
            return pick_samples_block<T, 1>(terms, with_bias);
        case 2:
            return pick_samples_block<T, 2>(terms, with_bias);
        case 3:
            return pick_samples_block<T, 3>(terms, with_bias);
        default:
            return pick_samples_block<T, kMostFilters>(terms, with_bias);
    }
}

// Adds F filters of dy to as many registers of sums.
template <class T, int F>
void sum_pixels(const Pixels<T>& p, T* sums) {
    Vec<T> sum[2][F] = {};
    for (int64_t row = 0; row < p.rows; ++row) {
        for (int part = 0; part < kTile; part += kLanes<T>) {
            const T* dy = p.dy + row * p.dy_row + part;
            int64_t column = 0;
            for (; column + 2 <= p.columns; column += 2, dy += 2 * p.dy_pixel) {
                CONVKIT_UNROLL
                for (int f = 0; f < F; ++f) {
                    sum[0][f] += load(dy + f * kTile);
                    sum[1][f] += load(dy + f * kTile + p.dy_pixel);
                }
            }
            if (column == p.columns) continue;
            CONVKIT_UNROLL
            for (int f = 0; f < F; ++f) sum[0][f] += load(dy + f * kTile);
        }
    }
    CONVKIT_UNROLL
    for (int f = 0; f < F; ++f) {
        store(sums + f * kLanes<T>, load(sums + f * kLanes<T>) + (sum[0][f] + sum[1][f]));
    }
}

template <class T>
Block<T> get_sum_pixels(int64_t filters) {
    switch (filters) {
        case 1:
            return sum_pixels<T, 1>;
        case 2:
            return sum_pixels<T, 2>;
        case 3:
            return sum_pixels<T, 3>;
        default:
            return sum_pixels<T, kMostFilters>;
    }
}

// Lane i of the result is the sum of the lanes of register i.
template <class T, int kHalf = 1>
inline CONVKIT_INLINE Vec<T> sum_lanes(Vec<T>* registers) {
    if constexpr (kHalf < kLanes<T>) {
        constexpr auto all = std::make_index_sequence<kLanes<T>>();
        CONVKIT_UNROLL
        for (int i = 0; i < kLanes<T> / (2 * kHalf); ++i) {
            const Vec<T> a = registers[2 * i], b = registers[2 * i + 1];
            registers[i] =
                swap_lanes<T, kHalf, false>(a, b, all) + swap_lanes<T, kHalf, true>(a, b, all);
        }
        return sum_lanes<T, 2 * kHalf>(registers);
    } else {
        return registers[0];
    }
}

// Adds `count` sums to rows of `filters` values, `step` apart; whole groups of registers are read.
template <class T>
void add_sums(const T* sums, int64_t count, int64_t filters, int64_t step, T* rows) {
    int64_t f = 0;
    for (int64_t i = 0; i < count; i += kLanes<T>) {
        Vec<T> registers[kLanes<T>];
        CONVKIT_UNROLL
        for (int k = 0; k < kLanes<T>; ++k) registers[k] = load(sums + (i + k) * kLanes<T>);
        const Vec<T> total = sum_lanes<T>(registers);
        for (int64_t k = 0; k < std::min<int64_t>(kLanes<T>, count - i); ++k) {
            rows[f] += total[k];
            if (++f == filters) f = 0, rows += step;
        }
    }
}

// ---- what a block goes through ------------------------------------------------------------------

// Term m of row ih of the picture and column ow of dy lies at
// data[ih * row + ow * pixel + m * kTile - shift].
template <class T>
struct Terms {
    const T* data;
    int64_t row, pixel, shift;
};

// The terms of one group, whose first channel is x. Where they do not lie side by side in x, they
// are copied to (height, out_width, kernel_width, channels / groups, kTile).
template <class T>
Terms<T> terms_of_group(const Conv2d& s, const T* x) {
    const int64_t values = s.channels / s.groups * kTile;
    if (s.groups == 1 && (s.dilation_width == 1 || s.kernel_width == 1)) {
        return {x, s.width * values, s.stride_width * values, s.pad_left * values};
    }
    T* copy = scratch<T>(kPackA, s.height * s.out_width * s.kernel_width * values);
    T* to = copy;
    for (int64_t ih = 0; ih < s.height; ++ih) {
        for (int64_t ow = 0; ow < s.out_width; ++ow, to += s.kernel_width * values) {
            const int64_t left = ow * s.stride_width - s.pad_left;
            const Range taps = inside(left, s.dilation_width, s.width, s.kernel_width);
            for (int64_t kw = taps.begin; kw < taps.end; ++kw) {
                const int64_t iw = left + kw * s.dilation_width;
                const T* from = x + (ih * s.width + iw) * s.channels * kTile;
                for (int64_t i = 0; i < values; i += kLanes<T>) {
                    store(to + kw * values + i, load(from + i));
                }
            }
        }
    }
    return {copy, s.out_width * s.kernel_width * values, s.kernel_width * values, 0};
}

// Columns begin .. end of dy, whose windows hold the same taps of a row of the kernel.
struct Columns {
    int64_t begin, end;
    Range taps;
};

Columns columns_from(const Conv2d& s, int64_t begin) {
    const Range taps =
        inside(begin * s.stride_width - s.pad_left, s.dilation_width, s.width, s.kernel_width);
    if (taps.end - taps.begin < s.kernel_width) return {begin, begin + 1, taps};
    const int64_t reach = (s.kernel_width - 1) * s.dilation_width;
    return {begin, inside(-s.pad_left, s.stride_width, s.width - reach, s.out_width).end, taps};
}

// The blocks for these columns of dy and the rows `band`, in which `dy` is the first pixel: for
// each row of the kernel, its terms in equal runs of at most `most`. Calls visit(first of these
// terms in (taps, channels), how many, their pixels).
template <class T, class Visit>
void for_each_block(const Conv2d& s, const Terms<T>& terms, const Columns& columns, Range band,
                    int64_t most, const T* dy, int64_t dy_row, int64_t dy_pixel, Visit visit) {
    const int64_t channels = s.channels / s.groups;
    const int64_t count = (columns.taps.end - columns.taps.begin) * channels;
    if (count <= 0) return;
    const int64_t pieces = divide_up(count, most);
    for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
        const int64_t top = kh * s.dilation_height - s.pad_top;
        Range rows = inside(top, s.stride_height, s.height, s.out_height);
        rows = {std::max(rows.begin, band.begin), std::min(rows.end, band.end)};
        if (rows.begin >= rows.end) continue;
        const int64_t first = (kh * s.kernel_width + columns.taps.begin) * channels;
        const T* x = terms.data + (rows.begin * s.stride_height + top) * terms.row +
                     columns.begin * terms.pixel + columns.taps.begin * channels * kTile -
                     terms.shift;
        for (int64_t i = 0; i < pieces; ++i) {
            const int64_t begin = cut(count, pieces, i);
            visit(first + begin, cut(count, pieces, i + 1) - begin,
                  Pixels<T>{dy + (rows.begin - band.begin) * dy_row, dy_row, dy_pixel,
                            x + begin * kTile, s.stride_height * terms.row, terms.pixel,
                            rows.end - rows.begin, columns.end - columns.begin});
        }
    }
}

// Some filters of one group: their gradients, and their part of a pixel of dy.
template <class T>
struct Filters {
    int64_t count;
    const T* dy;
    T* dkernel;
    T* dbias;

    Filters part(int64_t first, int64_t size) const {
        return {size, dy + first * kTile, dkernel + first, dbias ? dbias + first : nullptr};
    }
};

// A block of filters in the lanes. The bands are such that their x and dy, transposed, stay in the
// second-level cache.
template <class T>
void sum_by_filters(const Conv2d& s, const Terms<T>& terms, const Filters<T>& filters) {
    constexpr int64_t kBandBytes = 1 << 19, kMostSums = 30;
    const int64_t width = block_width<T>(filters.count), pixel = kTile * width;
    const int64_t stride = std::max<int64_t>(width, kLanes<T>);
    const int64_t bytes = s.out_width * (pixel + terms.pixel) * static_cast<int64_t>(sizeof(T));
    const int64_t bands = std::min(s.out_height, divide_up(s.out_height * bytes, kBandBytes));
    T* turned = scratch<T>(kPackB, divide_up(s.out_height, bands) * s.out_width * pixel);
    alignas(64) T sums[kMostSums * kLanes<T>];
    Vec<T> bias_sums[2] = {};
    const auto add = [&](T* y, const T* x) {
        if (kHalves<T> && width < kLanes<T>) {
            add_pairs(y, x, filters.count);
        } else {
            add_to(y, x, filters.count);
        }
    };
    for (int64_t i = 0; i < bands; ++i) {
        const Range band = {cut(s.out_height, bands, i), cut(s.out_height, bands, i + 1)};
        const T* dy = filters.dy + band.begin * s.out_width * s.filters * kTile;
        const int64_t step = s.filters * kTile, pixels = (band.end - band.begin) * s.out_width;
        if (kHalves<T> && width < kLanes<T>) {
            bias_sums[0] += turn_pairs(dy, step, filters.count, pixels, turned);
        } else {
            for (int64_t f = 0; f < width; f += kLanes<T>) {
                bias_sums[f / kLanes<T>] +=
                    turn(dy + f * kTile, step, filters.count - f, pixels, turned + f, width);
            }
        }
        for (int64_t ow = 0; ow < s.out_width;) {
            const Columns columns = columns_from(s, ow);
            for_each_block(
                s, terms, columns, band, most_terms<T>(width), turned + ow * pixel,
                s.out_width * pixel, pixel, [&](int64_t first, int64_t count, const Pixels<T>& p) {
                    get_filters_block<T>(width, count)(p, sums);
                    for (int64_t m = 0; m < count; ++m) {
                        add(filters.dkernel + (first + m) * s.filters, sums + m * stride);
                    }
                });
            ow = columns.end;
        }
    }
    if (!filters.dbias) return;
    for (int64_t v = 0; v < 2; ++v) store(sums + v * kLanes<T>, bias_sums[v]);
    add(filters.dbias, sums);
}

// Up to kMostFilters filters, with the samples in the lanes. The bands are such that their x and dy
// stay in the first-level cache, while the blocks follow each other.
template <class T>
void sum_by_samples(const Conv2d& s, const Terms<T>& terms, const Filters<T>& filters) {
    constexpr int64_t kBandBytes = 1 << 15;
    const int64_t values =
        s.kernel_height * s.kernel_width * (s.channels / s.groups) * filters.count;
    const int64_t bias_at = round_up(values, kLanes<T>);
    const int64_t registers = bias_at + round_up(kMostFilters, kLanes<T>);
    T* sums = scratch<T>(kLocal, registers * kLanes<T>);
    T* bias_sums = sums + bias_at * kLanes<T>;
    fill_zero(sums, registers * kLanes<T>);
    const int64_t most_with_bias = most_terms_with_bias<T>(filters.count);
    const int64_t pixel = s.filters * kTile, row = s.out_width * pixel;
    for (int64_t ow = 0; ow < s.out_width;) {
        const Columns columns = columns_from(s, ow);
        const int64_t width = columns.end - columns.begin;
        const int64_t bytes =
            width * (filters.count * kTile + terms.pixel) * static_cast<int64_t>(sizeof(T));
        const int64_t bands = std::min(s.out_height, divide_up(s.out_height * bytes, kBandBytes));
        for (int64_t i = 0; i < bands; ++i) {
            const Range band = {cut(s.out_height, bands, i), cut(s.out_height, bands, i + 1)};
            const T* dy = filters.dy + band.begin * row + ow * pixel;
            bool bias_left = filters.dbias != nullptr;
            for_each_block(s, terms, columns, band, most_terms_by<T>(filters.count), dy, row, pixel,
                           [&](int64_t first, int64_t count, const Pixels<T>& p) {
                               const bool with_bias = bias_left && count <= most_with_bias &&
                                                      p.rows == band.end - band.begin;
                               get_samples_block<T>(filters.count, count, with_bias)(
                                   p, sums + first * filters.count * kLanes<T>, bias_sums);
                               if (with_bias) bias_left = false;
                           });
            if (bias_left) {
                get_sum_pixels<T>(filters.count)(
                    {dy, row, pixel, nullptr, 0, 0, band.end - band.begin, width}, bias_sums);
            }
        }
        ow = columns.end;
    }
    add_sums(sums, values, filters.count, s.filters, filters.dkernel);
    if (filters.dbias) add_sums(bias_sums, filters.count, filters.count, 0, filters.dbias);
}

// ---- which way ----------------------------------------------------------------------------------

// One run of terms in blocks of at most `most` terms by `width` registers: the multiply-adds, or
// the loads, or what it takes to keep the pipelines busy.
int64_t run_cost(int64_t terms, int64_t most, int64_t width) {
    constexpr int64_t kPipelines = 8;
    const int64_t pieces = divide_up(terms, most), size = divide_up(terms, pieces);
    return pieces * std::max({size * width, size + width, kPipelines});
}

// How the filters of a group are taken, and what that costs, in multiply-adds of registers.
template <class T>
struct Way {
    int64_t in_lanes;  // filters in the lanes; the others have samples in the lanes
    int64_t others;    // how many of the others at a time
    int64_t cost;

    Way(const Conv2d& s, int64_t in_lanes) : in_lanes(in_lanes), others(1), cost(0) {
        constexpr int64_t kTurn = 5;  // per register and sample of dy
        const int64_t pixels = s.out_height * s.out_width;
        const int64_t terms = s.kernel_width * (s.channels / s.groups);
        for (int64_t f = 0, width; f < in_lanes; f += width) {
            width = block_width<T>(in_lanes - f);
            const int64_t registers = divide_up(width, kLanes<T>);
            const int64_t run = run_cost(terms, most_terms<T>(width), registers);
            cost += (s.kernel_height * run + kTurn * registers) * pixels * kTile * width /
                    (registers * kLanes<T>);
        }
        const int64_t rest = s.filters / s.groups - in_lanes;
        if (rest <= 0) return;
        int64_t run = 0;
        for (int64_t most = 1; most <= std::min<int64_t>(rest, kMostFilters); ++most) {
            const int64_t blocks = divide_up(rest, most), size = divide_up(rest, blocks);
            const int64_t same = blocks * run_cost(terms, most_terms_by<T>(size), size);
            if (most == 1 || same <= run) run = same, others = size;
        }
        // These blocks go through fewer pixels at a time and read more of x and dy: 9 / 8, as
        // measured. At the end, each sum's lanes are added up.
        constexpr int64_t kFold = 10;
        cost += s.kernel_height * (pixels * kParts<T> * run * 9 / 8 + kFold * terms * rest);
    }
};

// Filters that fill registers mostly go into the lanes; where filters are few or the rows of the
// kernel short, and for what is left over, it may be cheaper not to.
template <class T>
Way<T> choose(const Conv2d& s) {
    const int64_t units = s.filters / s.groups, half = kHalves<T> ? kLanes<T> / 2 : kLanes<T>;
    Way<T> best(s, 0);
    for (const int64_t in_lanes : {units / kLanes<T> * kLanes<T>, units / half * half, units}) {
        const Way<T> way(s, in_lanes);
        if (way.cost < best.cost) best = way;
    }
    return best;
}

}  // namespace

template <class T>
void tile_conv2d_backward_kernel(const Context& context, const Conv2d& s, int64_t n, const T* dy,
                                 const T* x, T* dkernel, T* dbias) {
    if (context.fresh) {
        fill_zero(dkernel, s.kernel_size());
        if (dbias) fill_zero(dbias, s.filters);
    }
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    const Way<T> way = choose<T>(s);
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        for (int64_t group = 0; group < s.groups; ++group) {
            const Terms<T> terms = terms_of_group(s, x + group * channels * kTile);
            const Filters<T> all =
                Filters<T>{s.filters, dy, dkernel, dbias}.part(group * units, units);
            for (int64_t f = 0, width; f < way.in_lanes; f += width) {
                width = block_width<T>(way.in_lanes - f);
                sum_by_filters(s, terms, all.part(f, std::min(width, way.in_lanes - f)));
            }
            for (int64_t f = way.in_lanes; f < units; f += way.others) {
                sum_by_samples(s, terms, all.part(f, std::min(way.others, units - f)));
            }
        }
        dy += s.output_size() * kTile;
        x += s.input_size() * kTile;
    }
}

INSTANTIATE(tile_conv2d_backward_kernel)

}  // namespace CONVKIT_ISA
}  // namespace convkit
