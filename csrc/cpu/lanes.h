// Loops over contiguous memory a vector at a time, and memory in which rows or short runs do not
// fill a vector.
#pragma once

#include "simd.h"

// For what stands in the innermost loops: a call there costs more than the work.
#define CONVKIT_INLINE __attribute__((always_inline))

namespace convkit {
namespace CONVKIT_ISA {

// ---- a loop with a tail -------------------------------------------------------------------------
// for_each_vector(y, begin, end, [&](int64_t i, auto part) { put(y + i, f(get(x + i, part)), part);
// }); the last vector may be a part of one, and so may the first: from then on y is aligned, since
// a vector across two cache lines costs twice. Lanes see the same instructions wherever they stand,
// so the bits do not depend on where the work was cut.
struct Whole {};
struct Part {
    int64_t count;
};

template <class T>
static inline Vec<T> get(const T* p, Whole) {
    return load(p);
}
template <class T>
static inline Vec<T> get(const T* p, Part part) {
    return load_partial(p, part.count);
}
template <class T>
static inline void put(T* p, Vec<T> v, Whole) {
    store(p, v);
}
template <class T>
static inline void put(T* p, Vec<T> v, Part part) {
    store_partial(p, v, part.count);
}

template <class T, class Body>
static inline void for_each_vector(const T* y, int64_t begin, int64_t end, Body body) {
    int64_t i = begin;
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y + begin) % kVectorBytes);
    if (const int64_t head = (kVectorBytes - beyond) / static_cast<int64_t>(sizeof(T));
        beyond != 0 && head > 0 && begin + head < end) {
        body(i, Part{head});
        i += head;
    }
    for (; i + 4 * kLanes<T> <= end; i += 4 * kLanes<T>) {
        body(i, Whole{});
        body(i + kLanes<T>, Whole{});
        body(i + 2 * kLanes<T>, Whole{});
        body(i + 3 * kLanes<T>, Whole{});
    }
    for (; i + kLanes<T> <= end; i += kLanes<T>) body(i, Whole{});
    if (i < end) body(i, Part{end - i});
}

// ---- short runs: the few channels of a pixel ----------------------------------------------------
// A run of `count` values is read or written as a whole vector where memory has the room (up to
// `end`), which is far faster than an exact copy. What lies past the run is junk: the reader
// ignores it, the writer goes upwards through memory, so that the next run overwrites it.
template <class T>
static inline CONVKIT_INLINE Vec<T> load_run(const T* p, const T* end, int64_t count) {
    return end - p >= kLanes<T> ? load(p) : load_partial(p, count);
}

template <class T>
static inline CONVKIT_INLINE void store_run(T* p, const T* end, Vec<T> v, int64_t count) {
    if (end - p >= kLanes<T>) {
        store(p, v);
    } else {
        store_partial(p, v, count);
    }
}

template <class T>
static inline void copy_run(T* to, const T* to_end, const T* from, const T* from_end,
                            int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes<T>) {
        store_run(to + i, to_end, load_run(from + i, from_end, count - i), count - i);
    }
}

// The first `count` lanes of v, zero in the others.
template <class T>
static inline Vec<T> first_lanes(Vec<T> v, int64_t count) {
    if (count >= kLanes<T>) return v;
    Vec<T> lane;
    for (int i = 0; i < kLanes<T>; ++i) lane[i] = static_cast<T>(i);
    return lane < broadcast(static_cast<T>(count)) ? v : Vec<T>{};
}

// ---- columns: one reduction in each lane --------------------------------------------------------
// Column c of (outer, size, inner) starts at (c / inner) * size * inner + c % inner, its values lie
// `inner` apart; with inner = 1 a column is a row of a matrix. Rows of 10 values would leave most
// lanes idle, so kLanes columns are laid side by side in `lanes` (size, kLanes) and reduced at
// once.
static inline int64_t column_start(int64_t size, int64_t inner, int64_t column) {
    return column / inner * size * inner + column % inner;
}

template <class T>
static inline bool columns_adjoin(int64_t size, int64_t inner, int64_t first, int64_t count) {
    return count == kLanes<T> && (size == 1 || first % inner + count <= inner);
}

template <class T>
static inline void load_columns(const T* x, int64_t size, int64_t inner, int64_t first,
                                int64_t count, T* lanes) {
    if (columns_adjoin<T>(size, inner, first, count)) {
        const T* from = x + column_start(size, inner, first);
        for (int64_t i = 0; i < size; ++i) store(lanes + i * kLanes<T>, load(from + i * inner));
        return;
    }
    if (count < kLanes<T>) {
        std::memset(lanes, 0, static_cast<size_t>(size * kLanes<T>) * sizeof(T));
    }
    for (int64_t lane = 0; lane < count; ++lane) {
        const T* from = x + column_start(size, inner, first + lane);
        for (int64_t i = 0; i < size; ++i) lanes[i * kLanes<T> + lane] = from[i * inner];
    }
}

template <class T>
static inline void store_columns(const T* lanes, int64_t size, int64_t inner, int64_t first,
                                 int64_t count, T* y) {
    if (columns_adjoin<T>(size, inner, first, count)) {
        T* to = y + column_start(size, inner, first);
        for (int64_t i = 0; i < size; ++i) store(to + i * inner, load(lanes + i * kLanes<T>));
        return;
    }
    for (int64_t lane = 0; lane < count; ++lane) {
        T* to = y + column_start(size, inner, first + lane);
        for (int64_t i = 0; i < size; ++i) to[i * inner] = lanes[i * kLanes<T> + lane];
    }
}

// term(0) + ... + term(size - 1), in blocks, so that rounding errors grow slowly with the size.
template <class T, class Term>
static inline Vec<T> blocked_sum(int64_t size, Term term) {
    constexpr int64_t kBlock = 32;
    Vec<T> total{};
    for (int64_t begin = 0; begin < size; begin += kBlock) {
        const int64_t end = begin + kBlock < size ? begin + kBlock : size;
        Vec<T> part{};
        for (int64_t i = begin; i < end; ++i) part += term(i);
        total += part;
    }
    return total;
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
