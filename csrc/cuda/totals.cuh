// Sums over whole arrays, in double, by chunks that the number of values alone decides.
#pragma once

#include "launch.cuh"

namespace convkit {
namespace cuda {

// What becomes of the sum of a chunk: finish(chunk, sum).
struct KeepSum {
    double* sums;

    __device__ void operator()(int64_t chunk, double sum) const { sums[chunk] = sum; }
};

struct AsItIs {
    __device__ double operator()(double x) const { return x; }
};

// A block for each chunk.
template <class X, class F, class Finish>
__global__ void sum_kernel(const X* x, int64_t count, int64_t chunk, F f, Finish finish) {
    SHARED(double, partial, kWarp);
    const int64_t begin = blockIdx.x * chunk, end = begin + chunk < count ? begin + chunk : count;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
        sum += f(static_cast<double>(x[i]));
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) finish(static_cast<int64_t>(blockIdx.x), sum);
}

// finish(0, the sum of f(x)), by one block, or where that would take long by one for each chunk and
// then one for their sums.
template <class T, class F, class Finish>
void sum_of(const Context& context, const char* name, const T* x, int64_t count, const F& f,
            const Finish& finish) {
    constexpr int64_t kLeast = 32 * kThreads, kMostChunks = 1024;
    const dim3 one(1), threads(kThreads);
    if (count <= kLeast) {
        launch(context, name, sum_kernel<T, F, Finish>, one, threads, 0, x, count, kLeast, f,
               finish);
        return;
    }
    const int64_t least = divide_up(count, kMostChunks), chunk = least > kLeast ? least : kLeast;
    const int64_t chunks = divide_up(count, chunk);
    auto* const sums = static_cast<double*>(
        context.queue->workspace(static_cast<size_t>(chunks) * sizeof(double)));
    launch(context, name, sum_kernel<T, F, KeepSum>, dim3(static_cast<unsigned>(chunks)), threads,
           0, x, count, chunk, f, KeepSum{sums});
    launch(context, name, sum_kernel<double, AsItIs, Finish>, one, threads, 0, sums, chunks, chunks,
           AsItIs{}, finish);
}

}  // namespace cuda
}  // namespace convkit
