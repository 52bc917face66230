// Results that are too large for the caches go past them to memory: a store that only fills a line
// of cache reads it first, and drives out what would have been of use. Whether they do is a matter
// of a result's size alone, and what is stored is the same.
#pragma once

#include <cstdint>

#include "context.h"
#include "lanes.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace convkit {
namespace CONVKIT_ISA {

// Half of a usual last level of cache: the other half is for what the result is made of.
constexpr int64_t kStreamedBytes = int64_t{16} << 20;

// Whether so many values are too many for the caches, so that what is wanted next is to be fetched
// meanwhile.
template <class T>
static inline bool far(int64_t count) {
    return count * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes;
}

// Whether a result of so many values goes past the caches; not where it takes the place of what it
// is made of, which has been read.
template <class T>
static inline bool streams(int64_t count, const void* result, const void* source) {
    return far<T>(count) && result != source;
}

// Whether each vector of a pixel's channels may be stored past the caches where it belongs.
template <class T>
static inline bool straight(int64_t channels, const T* result) {
    return channels % kLanes<T> == 0 && reinterpret_cast<uintptr_t>(result) % kVectorBytes == 0;
}

// Lines that are wanted next, as long as others are worked on: so many of them, `apart`, the first
// `ahead` of what is read now. Processors see by themselves what goes on in a line, not that the
// next one lies behind lines that were read before.
struct NextLines {
    int64_t ahead, lines, apart;

    // As much of each line as `count` values from `now` on.
    template <class T>
    CONVKIT_INLINE inline void fetch(const T* now, int64_t count) const {
        constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
        for (int64_t i = 0; i < lines; ++i) {
            for (int64_t k = 0; k < count; k += kLine) {
                __builtin_prefetch(now + ahead + i * apart + k, 0, 2);
            }
        }
    }
};

// To an address that is aligned as a vector; parallel_stores() makes it seen by other threads.
template <class T>
static inline CONVKIT_INLINE void store_past(T* p, Vec<T> v) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#elif defined(__SSE2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#else
    store(p, v);
#endif
}

static inline void finish_stores() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// parallel_for whose body stores past the caches.
template <class Body>
static inline void parallel_stores(const Context& context, int64_t count, double cost,
                                   const Body& body) {
    parallel_for(context, count, cost, [&](int64_t begin, int64_t end) {
        body(begin, end);
        finish_stores();
    });
}

// For for_each_vector's bodies, beside Whole and Part.
struct Past {};

template <class T>
static inline CONVKIT_INLINE Vec<T> get(const T* p, Past) {
    return load(p);
}
template <class T>
static inline CONVKIT_INLINE void put(T* p, Vec<T> v, Past) {
    store_past(p, v);
}

// for_each_vector, with stores past the caches if `past`.
template <class T, class Body>
static inline void for_each_vector(bool past, const T* y, int64_t begin, int64_t end, Body body) {
    if (!past) return for_each_vector(y, begin, end, body);
    int64_t i = begin;
    const auto beyond = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y + begin) % kVectorBytes);
    const int64_t head = (kVectorBytes - beyond) / static_cast<int64_t>(sizeof(T));
    if (beyond != 0 && begin + head < end) {
        body(i, Part{head});
        i += head;
    }
    if (reinterpret_cast<uintptr_t>(y + i) % kVectorBytes == 0) {
        for (; i + kLanes<T> <= end; i += kLanes<T>) body(i, Past{});
    }
    if (i < end) body(i, Part{end - i});
}

// y = x, past the caches.
template <class T>
static inline void copy_past(const T* x, int64_t count, T* y) {
    for_each_vector(true, y, 0, count, [&](int64_t i, auto part) CONVKIT_INLINE {
        put(y + i, get(x + i, part), part);
    });
}

// A line of results that is worked on: where it belongs, or in scratch memory, whence it goes past
// the caches.
template <class T>
struct Line {
    bool past;
    int64_t size;
    T* memory;

    Line(bool past, int64_t size)
        : past(past), size(size), memory(past ? scratch<T>(kShared, size) : nullptr) {}
    T* at(T* y) const { return past ? memory : y; }
    void copy_to(T* y) const {
        if (past) copy_past(memory, size, y);
    }
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
