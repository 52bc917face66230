// The windows of pooling: which of their taps lie inside x, over how many values an average is
// taken, and which tap is the maximum.
#pragma once

#include <algorithm>
#include <cstring>

#include "lanes.h"
#include "specs.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace convkit {
namespace CONVKIT_ISA {

// The taps of a window along one axis; tap k is at origin + k * dilation, inside the input for
// first <= k < last.
struct Taps {
    int64_t origin, first, last;

    int64_t count() const { return last - first; }
};

static inline CONVKIT_INLINE Taps taps(int64_t out, int64_t stride, int64_t pad, int64_t dilation,
                                       int64_t window, int64_t size) {
    Taps t{out * stride - pad, 0, window};
    if (t.origin < 0) t.first = std::min(window, (-t.origin + dilation - 1) / dilation);
    if (t.origin + (window - 1) * dilation >= size) {
        const int64_t inside = (size - t.origin + dilation - 1) / dilation;
        t.last = std::max(t.first, std::min(window, inside));
    }
    return t;
}

static inline CONVKIT_INLINE Taps row_taps(const Pool2d& s, int64_t out) {
    return taps(out, s.stride_height, s.pad_top, s.dilation_height, s.pool_height, s.height);
}

static inline CONVKIT_INLINE Taps column_taps(const Pool2d& s, int64_t out) {
    return taps(out, s.stride_width, s.pad_left, s.dilation_width, s.pool_width, s.width);
}

// How many values of one axis an average is taken over: inside x, or inside the padded x.
static inline CONVKIT_INLINE int64_t counted(int64_t origin, int64_t window, int64_t size,
                                             int64_t pad_after, bool with_pad) {
    if (with_pad) return std::min(window, size + pad_after - origin);
    return std::max<int64_t>(0, std::min(origin + window, size) - std::max<int64_t>(origin, 0));
}

static inline CONVKIT_INLINE int64_t counted_rows(const Pool2d& s, int64_t top) {
    return counted(top, s.pool_height, s.height, s.pad_bottom, s.count_include_pad != 0);
}

static inline CONVKIT_INLINE int64_t counted_columns(const Pool2d& s, int64_t left) {
    return counted(left, s.pool_width, s.width, s.pad_right, s.count_include_pad != 0);
}

// Calls body(first, count) for the channels in vectors. The last vector of many channels goes back
// so far that it is full; it does some channels twice.
template <class T, class Body>
CONVKIT_INLINE inline void for_each_channel_vector(int64_t channels, Body body) {
    int64_t c = 0;
    for (; c + kLanes<T> <= channels; c += kLanes<T>) body(c, int64_t{kLanes<T>});
    if (c < channels) {
        c = std::max<int64_t>(0, channels - kLanes<T>);
        body(c, channels - c);
    }
}

// Whether any lane is NaN.
template <class T>
static inline CONVKIT_INLINE bool any_nan(Vec<T> v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const auto a = reinterpret_cast<__m512>(v);
        return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) != 0;
    } else {
        const auto a = reinterpret_cast<__m512d>(v);
        return _mm512_cmp_pd_mask(a, a, _CMP_UNORD_Q) != 0;
    }
#elif defined(__AVX2__)
    return _mm256_movemask_epi8(reinterpret_cast<__m256i>(v != v)) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_epi8(reinterpret_cast<__m128i>(v != v)) != 0;
#else
    const auto nan = v != v;
    return std::memchr(&nan, 0xff, sizeof nan) != nullptr;
#endif
}

// The first maximum so far, and the number of its tap.
template <class T>
struct Winner {
    Vec<T> best, tap;

    // With NaN a maximum.
    CONVKIT_INLINE inline void meet(Vec<T> v, Vec<T> number) {
        const auto wins = (v > best) | ((v != v) & (best == best));
        best = wins ? v : best;
        tap = wins ? number : tap;
    }
    // With NaN none.
    CONVKIT_INLINE inline void meet_number(Vec<T> v, Vec<T> number) {
        const auto wins = v > best;
        best = wins ? v : best;
        tap = wins ? number : tap;
    }
};

// What `start` becomes when all taps have met it: for_each_tap(f) calls f(values, number) for each.
// That none of them is NaN, which their sum tells, saves most of the comparisons.
template <class T, class ForEachTap>
static inline CONVKIT_INLINE Vec<T> winning_tap(Winner<T> start, ForEachTap for_each_tap) {
    Winner<T> winner = start;
    Vec<T> sum{};
    for_each_tap([&](Vec<T> v, Vec<T> number) CONVKIT_INLINE {
        winner.meet_number(v, number);
        sum += v;
    });
    if (!any_nan<T>(sum)) return winner.tap;
    winner = start;
    for_each_tap([&](Vec<T> v, Vec<T> number) CONVKIT_INLINE { winner.meet(v, number); });
    return winner.tap;
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
