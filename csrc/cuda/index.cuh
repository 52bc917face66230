// Places in arrays: division by numbers that stay the same, and the choice of 32 or 64 bits for
// them and of vectors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "anywhere.h"
#include "launch.cuh"
#include "vectors.cuh"

namespace convkit {
namespace cuda {

// ---- division
// ------------------------------------------------------------------------------------

// Divides indices by a number that the host knows. int64_t is for what int32_t does not hold.
template <class I>
class Divisor {
 public:
    explicit Divisor(int64_t d) : d_(d > 0 ? d : 1) {}

    __device__ I quotient(I i) const { return i / d_; }
    __device__ I remainder(I i) const { return i % d_; }

 private:
    I d_;
};

// By a product and a shift (Granlund, Montgomery: Division by invariant integers using
// multiplication; PLDI 1994), for 0 <= i < 2^31. The sum below has no carry then.
template <>
class Divisor<int32_t> {
 public:
    explicit Divisor(int64_t d) : d_(d > 0 ? static_cast<uint32_t>(d) : 1), shift_(0) {
        while (uint64_t{1} << shift_ < d_) ++shift_;
        const uint64_t excess = (uint64_t{1} << shift_) - d_;
        multiplier_ = static_cast<uint32_t>((excess << 32) / d_ + 1);
    }

    __device__ int32_t quotient(int32_t i) const {
        const uint32_t n = static_cast<uint32_t>(i);
        const uint32_t high = static_cast<uint32_t>(uint64_t{n} * multiplier_ >> 32);
        return static_cast<int32_t>((high + n) >> shift_);
    }
    __device__ int32_t remainder(int32_t i) const {
        return i - quotient(i) * static_cast<int32_t>(d_);
    }

 private:
    uint32_t d_, multiplier_, shift_;
};

// ---- items
// ---------------------------------------------------------------------------------------

// A place in an array (samples, rows, columns, vectors of channels).
template <class I>
struct Place {
    I sample, row, column, vector;
};

// The places of such an array, counted as they lie in memory.
template <class I>
struct Places {
    I count;
    Divisor<I> rows, columns, vectors;

    Places(int64_t n, int64_t rows, int64_t columns, int64_t vectors)
        : count(static_cast<I>(n * rows * columns * vectors)),
          rows(rows),
          columns(columns),
          vectors(vectors) {}

    __device__ Place<I> at(I item) const {
        const I pixel = vectors.quotient(item), line = columns.quotient(pixel);
        return {rows.quotient(line), rows.remainder(line), columns.remainder(pixel),
                vectors.remainder(item)};
    }
};

// One item for each thread.
template <class I>
__device__ inline I item_of_thread() {
    return static_cast<I>(blockIdx.x) * static_cast<I>(blockDim.x) + static_cast<I>(threadIdx.x);
}

inline dim3 blocks_for(int64_t items, int64_t each = kThreads) {
    return dim3(static_cast<unsigned>(divide_up(items, each)));
}

// ---- writing
// -------------------------------------------------------------------------------------

// store_vector into global memory. Plain stores nvcc may take apart again, which makes four
// accesses of one where several vectors are written in a row.
template <class T, int kCount>
__device__ inline void write_vector(T* to, const Vector<T, kCount>& vector) {
#ifndef CONVKIT_EMULATED
    using Word = std::conditional_t<sizeof vector == 16, uint4, uint2>;
    if constexpr (sizeof vector >= sizeof(Word)) {
        Word word;
        memcpy(&word, &vector, sizeof word);
        __stwb(reinterpret_cast<Word*>(to), word);
        return;
    }
#endif
    store_vector<T, kCount>(to, vector);
}

// ---- which instantiation
// -------------------------------------------------------------------------

// Up to here a place is an int32_t, also that of a thread behind the last one. The emulator, which
// sees no arrays that large, comes to both kinds.
#ifdef CONVKIT_EMULATED
constexpr int64_t kMostIn32Bits = 1 << 16;
#else
constexpr int64_t kMostIn32Bits = INT32_MAX - 1024;
#endif

// The widest vector that divides `size` and that all of the memory is aligned to; memory may be
// null.
template <class T>
int vector_width(int64_t size, std::initializer_list<const T*> memory) {
    constexpr int kMost = kVectorBytes / static_cast<int>(sizeof(T));
    int width = kMost;
    for (const T* each : memory) {
        if (kMost >= 4 && width == 4 && !in_vectors<4>(each)) width = 2;
        if (width == 2 && !in_vectors<2>(each)) width = 1;
    }
    while (size % width != 0) width /= 2;
    return width;
}

template <int kWidth, class I>
struct Variant {
    static constexpr int width = kWidth;
    using Index = I;
};

// f(Variant) for vectors of `width` and for places up to `largest`, both counted in single values.
// What needs 64 bits goes value by value.
template <class T, class F>
void with_variant(int width, int64_t largest, F f) {
    if (largest / width > kMostIn32Bits) return f(Variant<1, int64_t>{});
    if constexpr (sizeof(T) == 4) {
        if (width == 4) return f(Variant<4, int32_t>{});
    }
    if (width == 2) return f(Variant<2, int32_t>{});
    f(Variant<1, int32_t>{});
}

}  // namespace cuda
}  // namespace convkit
