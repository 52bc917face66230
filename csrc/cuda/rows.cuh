// Rows of predictions and targets, (n, rows, size, inner) over size: each is the work of a team of
// threads, as wide as the size alone asks for, so that a row's bits do not depend on the batch.
#pragma once

#include <cmath>

#include "activate.cuh"
#include "launch.cuh"
#include "specs.h"

namespace convkit {
namespace cuda {

// ---- teams --------------------------------------------------------------------------------------

struct Add {
    template <class V>
    __device__ V operator()(V a, V b) const {
        return a + b;
    }
};

struct LargerOrNan {
    template <class V>
    __device__ V operator()(V a, V b) const {
        return larger_or_nan(a, b);
    }
};

struct Smaller {
    template <class V>
    __device__ V operator()(V a, V b) const {
        return b < a ? b : a;
    }
};

// 1, 2, 4 ... or 32 neighbours of a warp, or a whole block. All threads of a block must call the
// functions together; every thread of a team gets the same result.
struct Team {
    static constexpr int kWarps = kThreads / kWarp;

    int width, lane;
    double* slots;  // shared memory, one for each warp

    // Every thread joins the same pairs of pairs, so all come to the same where `both` commutes.
    template <class V, class Join>
    __device__ V join(V value, Join both) const {
        const int near = width < kWarp ? width : kWarp;
        for (int step = near / 2; step > 0; step /= 2)
            value = both(value, __shfl_xor_sync(kAllLanes, value, step));
        if (width <= kWarp) return value;
        V* const parts = reinterpret_cast<V*>(slots);
        if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
        __syncthreads();
        value = parts[threadIdx.x % kWarps];
        for (int step = kWarps / 2; step > 0; step /= 2)
            value = both(value, __shfl_xor_sync(kAllLanes, value, step));
        __syncthreads();  // the slots are free again
        return value;
    }

    template <class V>
    __device__ V sum(V value) const {
        return join(value, Add{});
    }
};

// Threads for a row. Where rows lie side by side, neighbours take neighbouring rows instead.
inline int team_width(const Loss& s) {
    constexpr int64_t kLongestOfWarp = 512;
    if (s.inner > 1) return 1;
    if (s.size > kLongestOfWarp) return kThreads;
    int width = 1;
    while (width < s.size && width < kWarp) width *= 2;
    return width;
}

// ---- rows ---------------------------------------------------------------------------------------

// Value i lies at start + i * step. Teams without a row get one of size 0, since all must take part
// in what teams do together.
struct Row {
    int64_t index;  // of its number: its loss, its label
    int64_t size, start, step;
    bool there;
};

template <class F>
__global__ void rows_kernel(int64_t rows, int64_t size, int64_t inner, int width, F f) {
    SHARED(double, slots, Team::kWarps);
    const int place = static_cast<int>(threadIdx.x) / width;
    const Team team{width, static_cast<int>(threadIdx.x) % width, slots};
    const int64_t at_once = kThreads / width, step = at_once * gridDim.x;
    for (int64_t first = at_once * blockIdx.x; first < rows; first += step) {
        const int64_t index = first + place;
        Row row{index, 0, 0, inner, index < rows};
        if (row.there) {
            row.size = size;
            row.start = inner == 1 ? index * size : index / inner * size * inner + index % inner;
        }
        f(team, row);
    }
}

// f(team, row) for all rows, by all threads of a row's team. F is a struct with
// `__device__ void operator()(const Team& team, const Row& row) const`.
template <class F>
void for_each_row(const Context& context, const char* name, const Loss& s, int64_t n, const F& f) {
    const int width = team_width(s);
    const int64_t rows = n * s.losses(), blocks = divide_up<int64_t>(rows, kThreads / width);
    const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
    launch(context, name, rows_kernel<F>, grid, dim3(kThreads), 0, rows, s.size, s.inner, width, f);
}

// ---- what a row holds ---------------------------------------------------------------------------

template <class T>
struct Values {
    const T* first;
    int64_t step;

    __device__ T operator()(int64_t i) const { return first[i * step]; }
};

// A one-hot row, or a row of NaN for what is no class.
template <class T>
struct Label {
    int64_t at;
    bool known;

    __device__ T one() const { return known ? T(1) : static_cast<T>(NAN); }
    __device__ T operator()(int64_t i) const {
        return known ? static_cast<T>(i == at) : static_cast<T>(NAN);
    }
};

template <class T>
__device__ inline Values<T> targets_of(const T* targets, const Row& row) {
    return {targets + row.start, row.step};
}

template <class T>
__device__ inline Label<T> targets_of(const int32_t* labels, const Row& row) {
    const int64_t at = row.there ? labels[row.index] : -1;
    return {at, at >= 0 && at < row.size};
}

}  // namespace cuda
}  // namespace convkit
