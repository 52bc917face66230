// What brings the operands of a product into shared memory; see gemm.cuh, where it is said what a
// loader is.
#pragma once

#include <type_traits>

#include "anywhere.h"
#include "launch.cuh"

// Of loops that are not unrolled for their registers' sake.
#ifdef __CUDACC__
#define CONVKIT_UNROLL_BY(count) _Pragma(CONVKIT_TEXT(unroll count))
#define CONVKIT_TEXT(text) #text
#else
#define CONVKIT_UNROLL_BY(count)
#endif

namespace convkit {
namespace cuda {

constexpr int kQuad = 4;
constexpr int kPad = 4;  // behind each row of a stage: keeps vectors aligned, banks apart

// Values in the widest access that `count` values can be read or written by.
template <class T, int kCount>
constexpr int kAccess = kCount % 4 == 0 && sizeof(T) == 4 ? 4
                        : kCount % 2 == 0                 ? 2
                                                          : 1;
template <class T>
constexpr int kWide = kAccess<T, 4>;  // of 16 bytes

// kCount values in accesses as wide as may be; `from` is aligned to these.
template <class T, int kCount>
__device__ __forceinline__ void load_many(const T* from, T (&to)[kCount]) {
    constexpr int kEach = kAccess<T, kCount>;
    CONVKIT_UNROLL
    for (int i = 0; i < kCount; i += kEach) {
        const Vector<T, kEach> part = load_vector<T, kEach>(from + i);
        CONVKIT_UNROLL
        for (int j = 0; j < kEach; ++j) to[i + j] = part.value[j];
    }
}

template <class T, int kCount>
__device__ __forceinline__ void store_many(T* to, const T (&from)[kCount]) {
    constexpr int kEach = kAccess<T, kCount>;
    CONVKIT_UNROLL
    for (int i = 0; i < kCount; i += kEach) {
        Vector<T, kEach> part;
        CONVKIT_UNROLL
        for (int j = 0; j < kEach; ++j) part.value[j] = from[i + j];
        store_vector<T, kEach>(to + i, part);
    }
}

// Whether rows of `size` values that begin there can be read and written by the widest access.
template <class T>
bool is_wide(int64_t size, const T* memory) {
    return size % kWide<T> == 0 && reinterpret_cast<uintptr_t>(memory) % 16 == 0;
}

struct Quotient {
    int64_t quotient, remainder;
};

// Numbers of so many bits are divided in 32 bits. The emulator, which sees no arrays that large,
// comes to both kinds.
#ifdef CONVKIT_EMULATED
constexpr int kNarrowBits = 16;
#else
constexpr int kNarrowBits = 32;
#endif

// For a >= 0 and b > 0; in 32 bits where both fit, which is several times as fast.
__device__ __forceinline__ Quotient divide(int64_t a, int64_t b) {
    if (((a | b) >> kNarrowBits) == 0) {
        const uint32_t c = static_cast<uint32_t>(a), d = static_cast<uint32_t>(b);
        const uint32_t q = c / d;
        return {static_cast<int64_t>(q), static_cast<int64_t>(c - q * d)};
    }
    const int64_t q = a / b;
    return {q, a - q * b};
}

// ---- loaders ------------------------------------------------------------------------------------

// One side of an address. A value is memory[row.offset + k.offset], if (row.h + k.h, row.w + k.w)
// lies in the picture.
struct alignas(16) Spot {
    int64_t offset;
    int h, w;
};

constexpr int kNowhere = -(1 << 30);  // as h: in no picture, whatever is added (less than 2^30)

// k as (tap down, tap across, channel): the channels of a tap lie next to each other.
template <class T>
struct Taps {
    const T* from;
    int channels;                // of a tap
    int64_t tap_step, row_step;  // between taps, between rows of taps, in memory
    int h_step, w_step;          // and in the picture
    int height, width;           // of the picture
    bool wide;                   // channels come in vectors
};

// Rows whose values lie along k; spots (shared memory) has the kCount rows' places. Where kInside,
// all taps are inside the picture, if the row is anywhere.
template <class T, int kCount, int kDepth, int kTeam, bool kInside>
class DepthLoader {
 public:
    static constexpr int kSpots = kCount, kTeamSpots = 0;
    static constexpr int kValues = kCount * kDepth / kTeam;

    template <class Here>
    __device__ __forceinline__ DepthLoader(const Taps<T>& taps, const Here& here, const Spot* spots,
                                           Spot*, int thread, int64_t begin, int64_t end)
        : taps_(taps), spots_(spots), across_(here.across()) {
        const int k = taps.wide ? thread % kVectors * kWide<T> : thread % kDepth;
        const int row = taps.wide ? thread / kVectors : thread / kDepth;
        spots_ += row;
        to_ = k * (kCount + kPad) + row;
        left_ = static_cast<int>(end - begin) - k;
        const Quotient tap = divide(begin + k, taps.channels);
        const Quotient line = divide(tap.quotient, across_);
        c_ = static_cast<int>(tap.remainder);
        column_ = static_cast<int>(line.remainder);
        h_ = kInside ? 0 : static_cast<unsigned>(line.quotient) * taps.h_step;
        w_ = kInside ? 0 : static_cast<unsigned>(column_) * taps.w_step;
        offset_ = line.quotient * taps.row_step + column_ * taps.tap_step + c_;
    }

    __device__ __forceinline__ void prepare(int) {}

    __device__ __forceinline__ void load(int) {
        if (taps_.wide) {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues / kWide<T>; ++i) {
                const Spot spot = spots_[i * kVectorRows];
                Vector<T, kWide<T>> values = {};
                if (inside(spot))
                    values = load_vector<T, kWide<T>>(taps_.from + (offset_ + spot.offset));
                CONVKIT_UNROLL
                for (int j = 0; j < kWide<T>; ++j) value_[i * kWide<T> + j] = values.value[j];
            }
        } else {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues; ++i) {
                const Spot spot = spots_[i * kSingleRows];
                value_[i] = inside(spot) ? taps_.from[offset_ + spot.offset] : T(0);
            }
        }
        advance();
    }

    __device__ __forceinline__ void store(T* memory) const {
        T* to = memory + to_;
        if (taps_.wide) {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues; ++i)
                to[i % kWide<T> * (kCount + kPad) + i / kWide<T> * kVectorRows] = value_[i];
        } else {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues; ++i) to[i * kSingleRows] = value_[i];
        }
    }

 private:
    // Vectors of a row; rows that the team reads at the same time, by vectors and one by one.
    static constexpr int kVectors = kDepth / kWide<T>;
    static constexpr int kVectorRows = kTeam / kVectors, kSingleRows = kTeam / kDepth;
    static_assert(kCount % kVectorRows == 0 && kCount % kSingleRows == 0, "whole passes");

    __device__ __forceinline__ bool inside(const Spot& spot) const {
        if (kInside) return left_ > 0 && spot.h >= 0;
        return left_ > 0 &&
               static_cast<unsigned>(spot.h) + h_ < static_cast<unsigned>(taps_.height) &&
               static_cast<unsigned>(spot.w) + w_ < static_cast<unsigned>(taps_.width);
    }

    __device__ __forceinline__ void advance() {
        left_ -= kDepth;
        c_ += kDepth;
        offset_ += kDepth;
        while (c_ >= taps_.channels) {
            c_ -= taps_.channels;
            offset_ += taps_.tap_step - taps_.channels;
            if (!kInside) w_ += taps_.w_step;
            if (++column_ == across_) {
                column_ = 0;
                offset_ += taps_.row_step - across_ * taps_.tap_step;
                if (!kInside) w_ -= static_cast<unsigned>(across_) * taps_.w_step;
                if (!kInside) h_ += taps_.h_step;
            }
        }
    }

    const Taps<T>& taps_;
    const Spot* spots_;
    int across_;
    int to_, left_;
    int c_, column_;
    unsigned h_, w_;  // past the last tap, where none looks, they may wrap
    int64_t offset_;
    T value_[kValues];
};

// Writes what a thread has of rows (or columns) next to each other: vectors, or single values, of
// every kStep-th k.
template <class T, int kCount, int kTeam, int kValues>
__device__ __forceinline__ void store_rows(T* to, const T (&value)[kValues], bool wide) {
    if (wide) {
        constexpr int kStep = kTeam / (kCount / kWide<T>);
        CONVKIT_UNROLL
        for (int i = 0; i < kValues / kWide<T>; ++i) {
            Vector<T, kWide<T>> values;
            CONVKIT_UNROLL
            for (int j = 0; j < kWide<T>; ++j) values.value[j] = value[i * kWide<T> + j];
            store_vector<T, kWide<T>>(to + i * kStep * (kCount + kPad), values);
        }
    } else {
        constexpr int kStep = kTeam / kCount;
        CONVKIT_UNROLL
        for (int i = 0; i < kValues; ++i) to[i * kStep * (kCount + kPad)] = value[i];
    }
}

// k as (sample, oh, ow): pixels of the output, each with its window's place in the input.
template <class T>
struct Pixels {
    const T* from;
    int out_height, out_width;
    int64_t column_step, row_step, sample_step;  // in memory, from a pixel to the next
    int h_step, w_step;                          // and in the picture
    int64_t first;                               // where the first window begins, in memory
    int h_first, w_first;                        // and in the picture
    int height, width;                           // of the picture
    bool wide;                                   // rows come in vectors
};

// Rows whose values lie next to each other in memory, for the same k. Pixels' places are worked out
// by one thread each, a stage ahead, in 2 x kDepth spots of the team.
template <class T, int kCount, int kDepth, int kTeam>
class RowsLoader {
 public:
    static constexpr int kSpots = kCount, kTeamSpots = 2 * kDepth;
    static constexpr int kValues = kCount * kDepth / kTeam;

    template <class Here>
    __device__ __forceinline__ RowsLoader(const Pixels<T>& pixels, const Here&, const Spot* spots,
                                          Spot* team_spots, int thread, int64_t begin, int64_t end)
        : pixels_(pixels), spots_(spots), team_spots_(team_spots), thread_(thread) {
        left_ = static_cast<int>(end - begin) - thread;
        const Quotient line = divide(begin + thread, pixels.out_width);
        const Quotient sample = divide(line.quotient, pixels.out_height);
        ow_ = static_cast<int>(line.remainder);
        oh_ = static_cast<int>(sample.remainder);
        sample_ = pixels.first + sample.quotient * pixels.sample_step;
        const int row = pixels.wide ? thread % kVectors * kWide<T> : thread % kCount;
        spots_ += row;
        k_ = pixels.wide ? thread / kVectors : thread / kCount;
        to_ = k_ * (kCount + kPad) + row;
    }

    __device__ __forceinline__ void prepare(int stage) {
        if (thread_ >= kDepth) return;
        Spot spot = {0, kNowhere, 0};
        if (left_ > 0) {
            spot.h = pixels_.h_first + oh_ * pixels_.h_step;
            spot.w = pixels_.w_first + ow_ * pixels_.w_step;
            spot.offset = sample_ + oh_ * pixels_.row_step + ow_ * pixels_.column_step;
        }
        team_spots_[stage % 2 * kDepth + thread_] = spot;
        left_ -= kDepth;
        ow_ += kDepth;
        while (ow_ >= pixels_.out_width) {
            ow_ -= pixels_.out_width;
            if (++oh_ == pixels_.out_height) {
                oh_ = 0;
                sample_ += pixels_.sample_step;
            }
        }
    }

    __device__ __forceinline__ void load(int stage) {
        const Spot* at = team_spots_ + stage % 2 * kDepth + k_;
        const Spot row = *spots_;
        if (pixels_.wide) {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues / kWide<T>; ++i) {
                const Spot spot = at[i * kVectorDepth];
                Vector<T, kWide<T>> values = {};
                if (inside(row, spot))
                    values = load_vector<T, kWide<T>>(pixels_.from + (row.offset + spot.offset));
                CONVKIT_UNROLL
                for (int j = 0; j < kWide<T>; ++j) value_[i * kWide<T> + j] = values.value[j];
            }
        } else {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues; ++i) {
                const Spot spot = at[i * kSingleDepth];
                value_[i] = inside(row, spot) ? pixels_.from[row.offset + spot.offset] : T(0);
            }
        }
    }

    __device__ __forceinline__ void store(T* memory) const {
        store_rows<T, kCount, kTeam>(memory + to_, value_, pixels_.wide);
    }

 private:
    static constexpr int kVectors = kCount / kWide<T>;
    static constexpr int kVectorDepth = kTeam / kVectors, kSingleDepth = kTeam / kCount;
    static_assert(kDepth % kVectorDepth == 0 && kDepth % kSingleDepth == 0, "whole passes");
    static_assert(kTeam >= kDepth && kTeam >= kCount, "a thread for each pixel, and for each row");

    __device__ __forceinline__ bool inside(const Spot& row, const Spot& k) const {
        return static_cast<unsigned>(row.h + k.h) < static_cast<unsigned>(pixels_.height) &&
               static_cast<unsigned>(row.w + k.w) < static_cast<unsigned>(pixels_.width);
    }

    const Pixels<T>& pixels_;
    const Spot* spots_;
    Spot* team_spots_;
    int thread_, to_, k_, left_;
    int oh_, ow_;
    int64_t sample_;
    T value_[kValues];
};

// from[k * pitch + column], of which a part of the problem has so many columns.
template <class T>
struct Matrix {
    const T* from;
    int64_t pitch;
    int64_t columns;
    bool wide;  // columns come in vectors
};

template <class T, int kCount, int kDepth, int kTeam>
class MatrixLoader {
 public:
    static constexpr int kSpots = 0, kTeamSpots = 0;
    static constexpr int kValues = kCount * kDepth / kTeam;

    template <class Here>
    __device__ __forceinline__ MatrixLoader(const Matrix<T>& matrix, const Here& here, const Spot*,
                                            Spot*, int thread, int64_t begin, int64_t end)
        : matrix_(matrix) {
        const int aside = matrix.wide ? thread % kVectors * kWide<T> : thread % kCount;
        const int k = matrix.wide ? thread / kVectors : thread / kCount;
        to_ = k * (kCount + kPad) + aside;
        const int64_t column = here.column + aside;
        left_ = column < matrix.columns ? static_cast<int>(end - begin) - k : 0;
        from_ = matrix.from + ((begin + k) * matrix.pitch + here.part * matrix.columns + column);
    }

    __device__ __forceinline__ void prepare(int) {}

    __device__ __forceinline__ void load(int) {
        if (matrix_.wide) {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues / kWide<T>; ++i) {
                Vector<T, kWide<T>> values = {};
                if (i * kVectorDepth < left_)
                    values = load_vector<T, kWide<T>>(from_ + i * kVectorDepth * matrix_.pitch);
                CONVKIT_UNROLL
                for (int j = 0; j < kWide<T>; ++j) value_[i * kWide<T> + j] = values.value[j];
            }
        } else {
            CONVKIT_UNROLL
            for (int i = 0; i < kValues; ++i)
                value_[i] =
                    i * kSingleDepth < left_ ? from_[i * kSingleDepth * matrix_.pitch] : T(0);
        }
        left_ -= kDepth;
        from_ += kDepth * matrix_.pitch;
    }

    __device__ __forceinline__ void store(T* memory) const {
        store_rows<T, kCount, kTeam>(memory + to_, value_, matrix_.wide);
    }

 private:
    static constexpr int kVectors = kCount / kWide<T>;
    static constexpr int kVectorDepth = kTeam / kVectors, kSingleDepth = kTeam / kCount;
    static_assert(kTeam % kCount == 0 && kDepth % kSingleDepth == 0, "whole passes");
    static_assert(kDepth % kVectorDepth == 0, "whole passes");

    const Matrix<T>& matrix_;
    const T* from_;
    int to_, left_;
    T value_[kValues];
};

}  // namespace cuda
}  // namespace convkit
