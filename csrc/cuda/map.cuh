// Flat arrays, value by value: one or two in, one or two out. A result may take the very memory of
// an argument.
#pragma once

#include <algorithm>

#include "index.cuh"

namespace convkit {
namespace cuda {

template <class T, int kCount>
struct Arrays {
    T* array[kCount];
};

// Enough loads in flight to keep the memory busy.
constexpr int kLoadsInFlight = 4;

// Vectors of each input that a thread takes. With more, functions of double spill registers.
template <class T, int kInputs>
constexpr int kMostEach = sizeof(T) == 8 ? 2 / kInputs : kLoadsInFlight / kInputs;

// A block takes `each` times as many vectors as it has threads, the first block also what no whole
// vector covers.
template <class T, int kWidth, int kInputs, int kOutputs, class F>
__global__ void map_kernel(int64_t count, int each, Arrays<const T, kInputs> in,
                           Arrays<T, kOutputs> out, F f) {
    constexpr int kMost = kMostEach<T, kInputs>;
    const int64_t vectors = count / kWidth;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * each * kThreads + threadIdx.x;
    Vector<T, kWidth> values[kMost][kInputs]{};
    CONVKIT_UNROLL
    for (int k = 0; k < kMost; ++k) {
        const int64_t at = first + k * kThreads;
        if (k >= each || at >= vectors) break;
        CONVKIT_UNROLL
        for (int i = 0; i < kInputs; ++i)
            values[k][i] = load_vector<T, kWidth>(in.array[i] + at * kWidth);
    }
    CONVKIT_UNROLL
    for (int k = 0; k < kMost; ++k) {
        const int64_t at = first + k * kThreads;
        if (k >= each || at >= vectors) break;
        Vector<T, kWidth> results[kOutputs];
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) {
            T arguments[kInputs], found[kOutputs];
            CONVKIT_UNROLL
            for (int i = 0; i < kInputs; ++i) arguments[i] = values[k][i].value[e];
            f(arguments, found);
            CONVKIT_UNROLL
            for (int i = 0; i < kOutputs; ++i) results[i].value[e] = found[i];
        }
        CONVKIT_UNROLL
        for (int i = 0; i < kOutputs; ++i)
            write_vector<T, kWidth>(out.array[i] + at * kWidth, results[i]);
    }
    const int64_t rest = vectors * kWidth + threadIdx.x;
    if (kWidth > 1 && blockIdx.x == 0 && rest < count) {
        T arguments[kInputs], found[kOutputs];
        CONVKIT_UNROLL
        for (int i = 0; i < kInputs; ++i) arguments[i] = in.array[i][rest];
        f(arguments, found);
        CONVKIT_UNROLL
        for (int i = 0; i < kOutputs; ++i) out.array[i][rest] = found[i];
    }
}

template <class T, int kWidth, int kInputs, int kOutputs, class F>
void map_in_vectors(const Context& context, const char* name, int64_t count,
                    const Arrays<const T, kInputs>& in, const Arrays<T, kOutputs>& out,
                    const F& f) {
    // Threads take several vectors only where there are more than the GPU has threads.
    constexpr int64_t kMost = kMostEach<T, kInputs>;
    const int64_t blocks = divide_up<int64_t>(std::max<int64_t>(count / kWidth, 1), kThreads);
    const int64_t each = std::min(kMost, divide_up(blocks, kMostBlocks));
    launch(context, name, map_kernel<T, kWidth, kInputs, kOutputs, F>, blocks_for(blocks, each),
           dim3(kThreads), 0, count, static_cast<int>(each), in, out, f);
}

// f(in, out) for every value, in being the inputs' and out the outputs'. F is a struct with
// `__device__ void operator()(const T (&in)[kInputs], T (&out)[kOutputs]) const`.
template <class T, int kInputs, int kOutputs, class F>
void map(const Context& context, const char* name, int64_t count,
         const Arrays<const T, kInputs>& in, const Arrays<T, kOutputs>& out, const F& f) {
    if (count == 0) return;
    constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
    bool aligned = true;
    for (const T* each : in.array) aligned = aligned && in_vectors<kWidth>(each);
    for (const T* each : out.array) aligned = aligned && in_vectors<kWidth>(each);
    if (aligned) {
        map_in_vectors<T, kWidth>(context, name, count, in, out, f);
    } else {
        map_in_vectors<T, 1>(context, name, count, in, out, f);
    }
}

}  // namespace cuda
}  // namespace convkit
