// Gradients of the usual pooling: windows of 2 x 2 or 3 x 3 at every second row and column of x,
// all inside it.
//
// Row `out` of windows goes with rows 2 out and 2 out + 1 of x, window `out` of it with pixels 2
// out and 2 out + 1 (the even one and the odd one). Of few channels several windows lie in a
// vector: permutations bring their even pixels together, and pairs of results back to neighbours. A
// window of three's last row and column belong to those behind it: dx gathers from up to four
// windows, in the order of pool_gather.h, so that which way is taken does not change a bit.
#pragma once

#include <algorithm>
#include <type_traits>

#include "context.h"
#include "stream.h"
#include "windows.h"

namespace convkit {
namespace CONVKIT_ISA {

// The lanes of any vector, in units of 4 bytes.
typedef int32_t Words __attribute__((vector_size(kVectorBytes)));
constexpr int64_t kWords = kVectorBytes / 4;

// Unit i is unit order[i] of a and b side by side; only where the processor permutes so.
#if defined(__AVX2__)
constexpr bool kPermutes = true;
#else
constexpr bool kPermutes = false;
#endif

template <class T>
static inline CONVKIT_INLINE Vec<T> permuted(Vec<T> a, Vec<T> b, Words order) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vec<T>>(_mm512_permutex2var_epi32(reinterpret_cast<__m512i>(a),
                                                              reinterpret_cast<__m512i>(order),
                                                              reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
    const auto at = reinterpret_cast<__m256i>(order);
    const auto second = _mm256_cmpgt_epi32(at, _mm256_set1_epi32(kWords - 1));
    return reinterpret_cast<Vec<T>>(
        _mm256_blendv_epi8(_mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(a), at),
                           _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(b), at), second));
#else
    (void)b, (void)order;
    return a;
#endif
}

// How pixels lie in vectors: several, or the channels of one.
template <class T, bool kSeveral>
struct PixelLanes {
    int64_t channels, pixels;  // of a vector
    Words evens{}, odds{}, low{}, high{};

    explicit PixelLanes(int64_t channels)
        : channels(channels), pixels(kSeveral ? kLanes<T> / channels : 1) {
        if constexpr (kSeveral) {
            constexpr int64_t kUnits = sizeof(T) / 4;
            for (int64_t word = 0; word < 2 * kWords; ++word) {
                const int64_t value = word / kUnits, unit = word % kUnits;
                const int64_t pixel = value / channels, channel = value % channels;
                if (pixel < pixels && word < kWords) {
                    const int64_t even = 2 * pixel * channels + channel;
                    evens[word] = static_cast<int32_t>(even * kUnits + unit);
                    odds[word] = static_cast<int32_t>((even + channels) * kUnits + unit);
                }
                if (pixel >= 2 * pixels) continue;
                const int64_t from = pixel / 2 * channels + channel + pixel % 2 * kLanes<T>;
                (word < kWords ? low : high)[word % kWords] =
                    static_cast<int32_t>(from * kUnits + unit);
            }
        }
    }

    // Calls body(at, pixel) for vectors of the windows 0 .. count: of value `at` of a line of them,
    // with `pixel` that of its first channel; its even pixels are at value at + pixel of x.
    template <class Body>
    CONVKIT_INLINE inline void for_each(int64_t count, Body body) const {
        if constexpr (kSeveral) {
            const int64_t end = count * channels, step = pixels * channels;
            for (int64_t at = 0; at < end; at += step) body(at, at);
        } else {
            for (int64_t out = 0; out < count; ++out) {
                for_each_channel_vector<T>(channels, [&](int64_t c, int64_t) CONVKIT_INLINE {
                    body(out * channels + c, out * channels);
                });
            }
        }
    }
    // The even pixels from x on, and the odd ones. Reads up to two vectors.
    CONVKIT_INLINE inline void load_pairs(const T* x, Vec<T>& even, Vec<T>& odd) const {
        if constexpr (kSeveral) {
            const Vec<T> first = load(x), second = load(x + kLanes<T>);
            even = permuted<T>(first, second, evens);
            odd = permuted<T>(first, second, odds);
        } else {
            even = load(x);
            odd = load(x + channels);
        }
    }
    CONVKIT_INLINE inline Vec<T> load_evens(const T* x) const {
        if constexpr (kSeveral) return permuted<T>(load(x), load(x + kLanes<T>), evens);
        return load(x);
    }
    // The other way; what stands behind, up to `end`, is overwritten. kPast: past the caches, of
    // whole vectors.
    template <bool kPast = false>
    CONVKIT_INLINE inline void store_pairs(T* to, const T* end, Vec<T> even, Vec<T> odd) const {
        const int64_t step = kSeveral ? int64_t{kLanes<T>} : channels, room = end - to;
        if constexpr (kPast) {
            store_past(to, even);
            if (room > step) store_past(to + step, odd);
            return;
        }
        store_run(to, end, kSeveral ? permuted<T>(even, odd, low) : even, room);
        if (room <= step) return;
        store_run(to + step, end, kSeveral ? permuted<T>(even, odd, high) : odd, room - step);
    }
};

// Which windows these are.
static inline bool halves(const Pool2d& s) {
    return s.stride_height == 2 && s.stride_width == 2 && s.dilation_height == 1 &&
           s.dilation_width == 1 && s.pool_height == s.pool_width &&
           (s.pool_height == 2 || s.pool_height == 3) && s.pad_top == 0 && s.pad_left == 0 &&
           (s.out_height - 1) * 2 + s.pool_height <= s.height &&
           (s.out_width - 1) * 2 + s.pool_width <= s.width;
}

template <class T>
static inline bool several_pixels(const Pool2d& s) {
    return kPermutes && 2 * s.channels <= kLanes<T>;
}

// Rows of x from which vectors may be read: where these reach beyond x, copies of them.
template <class T>
struct ReadableRows {
    static constexpr int64_t kCopies = 3;  // of neighbours
    const T *x, *x_end;
    int64_t size, reach;  // of a row, and how far vectors reach behind it
    T* copies;

    static int64_t reach_of(int64_t channels) {
        return channels % kLanes<T> == 0 ? 0 : 2 * kLanes<T>;
    }

    const T* at(int64_t row) const {
        const T* const from = x + row * size;
        if (x_end - from >= size + reach) return from;
        T* const copy = copies + row % kCopies * (size + reach);
        std::memcpy(copy, from, static_cast<size_t>(size) * sizeof(T));
        std::fill_n(copy + size, reach, T(0));
        return copy;
    }
};

// ---- windows of two: each value lies in one -----------------------------------------------------
template <bool kMax, bool kPast, bool kSeveral, class T>
static inline void halved_pairs(const Pool2d& s, PixelLanes<T, kSeveral> lanes, ReadableRows<T> x,
                                const T* dy, const T* dy_end, int64_t sample, int64_t out, T* dx,
                                int64_t rows) {
    const int64_t channels = s.channels, size = s.width * channels;
    if (out >= s.out_height) {
        std::fill_n(dx, rows * size, T(0));
        return;
    }
    const T *first = nullptr, *second = nullptr;
    if constexpr (kMax) {
        first = x.at(sample * s.height + 2 * out);
        second = x.at(sample * s.height + 2 * out + 1);
    }
    dy += (sample * s.out_height + out) * s.out_width * channels;
    const T* const first_end = dx + s.out_width * 2 * channels;
    const T* const second_end = first_end + size;
    lanes.for_each(s.out_width, [&](int64_t at, int64_t pixel) CONVKIT_INLINE {
        const int64_t even = at + pixel;
        const Vec<T> all = load_run(dy + at, dy_end, dy_end - dy - at);
        if constexpr (kMax) {
            Vec<T> taps[4];
            lanes.load_pairs(first + even, taps[0], taps[1]);
            lanes.load_pairs(second + even, taps[2], taps[3]);
            Winner<T> winner{taps[0], Vec<T>{}};
            for (int t = 1; t < 4; ++t) winner.meet_number(taps[t], broadcast(T(t)));
            if (any_nan<T>(taps[0] + taps[1] + (taps[2] + taps[3]))) {
                winner = {taps[0], Vec<T>{}};
                for (int t = 1; t < 4; ++t) winner.meet(taps[t], broadcast(T(t)));
            }
            const auto share = [&](int t) CONVKIT_INLINE {
                return winner.tap == broadcast(T(t)) ? all : Vec<T>{};
            };
            lanes.template store_pairs<kPast>(dx + even, first_end, share(0), share(1));
            lanes.template store_pairs<kPast>(dx + size + even, second_end, share(2), share(3));
        } else {
            const Vec<T> share = all / broadcast(T(4));
            lanes.template store_pairs<kPast>(dx + even, first_end, share, share);
            lanes.template store_pairs<kPast>(dx + size + even, second_end, share, share);
        }
    });
    const int64_t left = size - s.out_width * 2 * channels;
    std::fill_n(dx + size - left, left, T(0));
    std::fill_n(dx + 2 * size - left, left, T(0));
}

// ---- windows of three ---------------------------------------------------------------------------
// Lines of windows, and what is known of the rows of x; each line has `lead` values before it.
template <bool kMax, bool kSeveral, class T>
struct HalvedTriples {
    using Lanes = PixelLanes<T, kSeveral>;
    const Pool2d& s;
    const Lanes all_lanes;
    ReadableRows<T> x;
    const T* dy;
    int64_t channels, values, pairs, pitch;
    T* memory;
    int64_t reduced = -1;  // the row of x of which `rows` knows the maxima,
    bool reduced_nan = false;

    static int64_t pitch_of(const Pool2d& s) {
        return s.channels + (s.width + 1) / 2 * s.channels + kLanes<T>;
    }
    static int64_t memory_of(const Pool2d& s) { return 8 * pitch_of(s); }

    HalvedTriples(const Pool2d& s, const Lanes& lanes, ReadableRows<T> x, const T* dy, T* memory)
        : s(s),
          all_lanes(lanes),
          x(x),
          dy(dy),
          channels(s.channels),
          values(s.out_width * s.channels),
          pairs((s.width + 1) / 2),
          pitch(pitch_of(s)),
          memory(memory) {
        std::fill_n(memory, 8 * pitch, T(0));
    }

    // Of the last two rows of windows: what each has to give, and the winners' taps.
    T* gives(int64_t out) const { return memory + (out & 1) * pitch + channels; }
    T* winners(int64_t out) const { return memory + (2 + (out & 1)) * pitch + channels; }
    // Of an even row of x: each window's maximum in it, and in which column that is.
    T* maxima(int64_t out) const { return memory + (4 + (out & 1)) * pitch; }
    T* columns(int64_t out) const { return memory + (6 + (out & 1)) * pitch; }

    // The winner of one row of a window; with NaN in the row, NaN is in `sum`.
    static CONVKIT_INLINE inline Winner<T> reduce(const Lanes& lanes, const T* row, int tap,
                                                  Vec<T>& sum) {
        Vec<T> a, b;
        lanes.load_pairs(row, a, b);
        const Vec<T> c = lanes.load_evens(row + 2 * lanes.channels);
        Winner<T> winner{a, broadcast(T(tap))};
        winner.meet_number(b, broadcast(T(tap + 1)));
        winner.meet_number(c, broadcast(T(tap + 2)));
        sum += a + b + c;
        return winner;
    }

    void find(int64_t sample, int64_t out) {
        const Lanes lanes = all_lanes;  // what is not in memory that a store may change
        const int64_t top = sample * s.height + 2 * out;
        const T* const rows[3] = {x.at(top), x.at(top + 1), x.at(top + 2)};
        T *const best = maxima(out), *const column = columns(out);
        if (reduced != top) {
            Vec<T> sum{};
            lanes.for_each(s.out_width, [&](int64_t at, int64_t pixel) CONVKIT_INLINE {
                const Winner<T> first = reduce(lanes, rows[0] + at + pixel, 0, sum);
                store(best + at, first.best);
                store(column + at, first.tap);
            });
            reduced_nan = any_nan<T>(sum);
        }
        T *const next_best = maxima(out + 1), *const next_column = columns(out + 1);
        T* const taps = winners(out);
        Vec<T> sum{}, next_sum{};
        lanes.for_each(s.out_width, [&](int64_t at, int64_t pixel) CONVKIT_INLINE {
            const Winner<T> second = reduce(lanes, rows[1] + at + pixel, 3, sum);
            const Winner<T> third = reduce(lanes, rows[2] + at + pixel, 0, next_sum);
            Winner<T> winner{load(best + at), load(column + at)};
            winner.meet_number(second.best, second.tap);
            winner.meet_number(third.best, third.tap + broadcast(T(6)));
            store(next_best + at, third.best);
            store(next_column + at, third.tap);
            store(taps + at, winner.tap);
        });
        const bool next_nan = any_nan<T>(next_sum);
        if (reduced_nan || next_nan || any_nan<T>(sum)) find_with_nan(rows, taps);
        reduced = top + 2;
        reduced_nan = next_nan;
        // Whole vectors were stored, so beyond the end too.
        std::fill(taps + values, taps - channels + pitch, T(-1));
    }

    void find_with_nan(const T* const (&rows)[3], T* taps) const {
        const Lanes lanes = all_lanes;
        lanes.for_each(s.out_width, [&](int64_t at, int64_t pixel) CONVKIT_INLINE {
            Winner<T> winner{lanes.load_evens(rows[0] + at + pixel), Vec<T>{}};
            for (int t = 1; t < 9; ++t) {
                const T* const tap = rows[t / 3] + at + pixel + t % 3 * channels;
                winner.meet(lanes.load_evens(tap), broadcast(T(t)));
            }
            store(taps + at, winner.tap);
        });
    }

    // Row `out` of windows; below the last, and above the first (-1), there is nothing to give.
    void make(int64_t sample, int64_t out) {
        T* const give = gives(out);
        if (out < 0 || out >= s.out_height) {
            std::fill_n(give, values, T(0));
            if (kMax) std::fill(winners(out), winners(out) - channels + pitch, T(-1));
            return;
        }
        const T* const from = dy + (sample * s.out_height + out) * values;
        if constexpr (kMax) {
            std::memcpy(give, from, static_cast<size_t>(values) * sizeof(T));
            find(sample, out);
        } else {
            for_each_vector(give, 0, values, [&](int64_t k, auto part) CONVKIT_INLINE {
                put(give + k, get(from + k, part) / broadcast(T(9)), part);
            });
        }
    }

    // Rows 2 out and, if there are two, 2 out + 1 of dx. If they go past the caches, what the next
    // row of windows is made of is fetched meanwhile.
    template <bool kPast>
    void gather(int64_t sample, int64_t out, T* dx, int64_t rows) const {
        const Lanes lanes = all_lanes;
        const int64_t channels = lanes.channels, size = s.width * channels;
        const T *const give = gives(out), *const above = gives(out - 1);
        const T *const taps = winners(out), *const taps_above = winners(out - 1);
        const T *const end = dx + size, *const second_end = end + size;
        const auto share = [&](const T* line, const T* winner, int64_t at, int tap) CONVKIT_INLINE {
            if constexpr (!kMax) return load(line + at);
            return load(winner + at) == broadcast(T(tap)) ? load(line + at) : Vec<T>{};
        };
        const T* const next_dy = dy + (sample * s.out_height + out + 1) * values;
        const T* const next_x = kMax ? x.x + (sample * s.height + 2 * out + 3) * size : nullptr;
        lanes.for_each(pairs, [&](int64_t at, int64_t pixel) CONVKIT_INLINE {
            if constexpr (kPast) {
                __builtin_prefetch(next_dy + at, 0, 2);
                for (int64_t i = 0; kMax && i < 2; ++i) {
                    __builtin_prefetch(next_x + i * size + at + pixel, 0, 2);
                    __builtin_prefetch(next_x + i * size + at + pixel + channels, 0, 2);
                }
            }
            const int64_t left = at - channels;
            Vec<T> even{}, odd{}, lower_even{}, lower_odd{};
            even += share(above, taps_above, left, 8);
            even += share(above, taps_above, at, 6);
            even += share(give, taps, left, 2);
            even += share(give, taps, at, 0);
            odd += share(above, taps_above, at, 7);
            odd += share(give, taps, at, 1);
            lower_even += share(give, taps, left, 5);
            lower_even += share(give, taps, at, 3);
            lower_odd += share(give, taps, at, 4);
            lanes.template store_pairs<kPast>(dx + at + pixel, end, even, odd);
            if (rows == 1) return;
            T* const lower = dx + size + at + pixel;
            lanes.template store_pairs<kPast>(lower, second_end, lower_even, lower_odd);
        });
    }
};

// ---- both ---------------------------------------------------------------------------------------
// x is null for averages.
template <int kWindow, bool kMax, bool kSeveral, class T>
static inline void halved_rows(const Context& context, const Pool2d& s, int64_t n, const T* dy,
                               const T* x, T* dx) {
    const int64_t size = s.width * s.channels, pairs = (s.height + 1) / 2;
    const bool past = streams<T>(n * s.input_size(), dx, x);
    const double cost = (kMax ? 0.15 : 0.08) * 2 * static_cast<double>(size);
    parallel_stores(context, n * pairs, cost, [&](int64_t begin, int64_t end) {
        using Triples = HalvedTriples<kMax, kSeveral, T>;
        const PixelLanes<T, kSeveral> lanes(s.channels);
        const int64_t kept = kWindow == 3 ? Triples::memory_of(s) : 0;
        using Rows = ReadableRows<T>;
        const int64_t reach = Rows::reach_of(s.channels);
        T* const memory = scratch<T>(kLocal, kept + (kMax ? Rows::kCopies * (size + reach) : 0));
        const Rows readable{x, x + (kMax ? n * s.input_size() : 0), size, reach, memory + kept};
        // Of whole vectors, results go straight to memory.
        const bool whole = !kSeveral && past && straight(s.channels, dx);
        const Line<T> line(past && !whole, 2 * size);
        const auto for_each_row = [&](auto body) CONVKIT_INLINE {
            for (int64_t at = begin; at < end; ++at) {
                const int64_t sample = at / pairs, out = at % pairs;
                const int64_t rows = std::min<int64_t>(2, s.height - 2 * out);
                T* const to = dx + (sample * s.height + 2 * out) * size;
                T* const pair = line.at(to);
                body(sample, out, pair, rows, at == begin);
                if (past && !whole) copy_past(pair, rows * size, to);
            }
        };
        if constexpr (kWindow == 2) {
            const auto halve = whole ? halved_pairs<kMax, !kSeveral, kSeveral, T>
                                     : halved_pairs<kMax, false, kSeveral, T>;
            for_each_row([&](int64_t sample, int64_t out, T* to, int64_t rows, bool) {
                halve(s, lanes, readable, dy, dy + n * s.output_size(), sample, out, to, rows);
            });
        } else {
            Triples triples(s, lanes, readable, dy, memory);
            for_each_row([&](int64_t sample, int64_t out, T* to, int64_t rows, bool first)
                             CONVKIT_INLINE {
                                 if (first || out == 0) triples.make(sample, out - 1);
                                 triples.make(sample, out);
                                 whole ? triples.template gather<!kSeveral>(sample, out, to, rows)
                                       : triples.template gather<false>(sample, out, to, rows);
                             });
        }
    });
}

// Whether it did it: where several pixels fill a vector, or the channels of one most of it.
template <bool kMax, class T>
static inline bool pool_halves(const Context& context, const Pool2d& s, int64_t n, const T* dy,
                               const T* x, T* dx) {
    const bool several = several_pixels<T>(s);
    if (!halves(s) || (!several && 2 * s.channels <= kLanes<T>)) return false;
    const auto run = [&](auto several_pixels) {
        constexpr bool kSeveral = decltype(several_pixels)::value;
        if (s.pool_height == 2) {
            halved_rows<2, kMax, kSeveral>(context, s, n, dy, x, dx);
        } else {
            halved_rows<3, kMax, kSeveral>(context, s, n, dy, x, dx);
        }
    };
    if (!several) {
        run(std::false_type{});
    } else if constexpr (kPermutes) {
        run(std::true_type{});
    }
    return true;
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
