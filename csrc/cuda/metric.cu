// Metrics and reductions.
//   categorical_accuracy         target, prediction (n, rows, size, inner) -> score (n, rows,
//                                inner): 1 where both have their (first) maximum over size at the
//                                same place, else 0
//   sparse_categorical_accuracy  target (n, rows, inner): labels; 1 where the maximum is there
//   binary_accuracy              the share of a row's values whose target is (prediction > 0.5)
//   mean                         x (n, rows) -> y (1)
//     backward                   dy (1) -> dx (n, rows) = dy / (n rows)
//   accumulate                   x (n, rows) -> total (2): sum of x, n rows added to what it holds
// Totals are added in double, by chunks that the number of values alone decides.
#include "accuracies.cuh"
#include "cuda_kernels.h"

namespace convkit {
namespace cuda {
namespace {

// ---- totals -------------------------------------------------------------------------------------

// What becomes of the sum of a chunk: finish(chunk, sum).
struct Keep {
    double* sums;

    __device__ void operator()(int64_t chunk, double sum) const { sums[chunk] = sum; }
};

template <class T>
struct PutMean {
    T* y;
    double count;

    __device__ void operator()(int64_t, double sum) const { *y = static_cast<T>(sum / count); }
};

struct AddToTotal {
    double* total;
    double count;

    __device__ void operator()(int64_t, double sum) const {
        total[0] += sum;
        total[1] += count;
    }
};

// A block for each chunk.
template <class X, class Finish>
__global__ void sum_kernel(const X* x, int64_t count, int64_t chunk, Finish finish) {
    SHARED(double, partial, kWarp);
    const int64_t begin = blockIdx.x * chunk, end = begin + chunk < count ? begin + chunk : count;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
        sum += static_cast<double>(x[i]);
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) finish(static_cast<int64_t>(blockIdx.x), sum);
}

// finish(0, the sum of x), by one block, or where that would take long by one for each chunk and
// then one for their sums.
template <class T, class Finish>
void sum_of(const Context& context, const char* name, const T* x, int64_t count,
            const Finish& finish) {
    constexpr int64_t kLeast = 32 * kThreads, kMostChunks = 1024;
    const dim3 one(1), threads(kThreads);
    if (count <= kLeast) {
        launch(context, name, sum_kernel<T, Finish>, one, threads, 0, x, count, kLeast, finish);
        return;
    }
    const int64_t least = divide_up(count, kMostChunks), chunk = least > kLeast ? least : kLeast;
    const int64_t chunks = divide_up(count, chunk);
    auto* const sums = static_cast<double*>(
        context.queue->workspace(static_cast<size_t>(chunks) * sizeof(double)));
    launch(context, name, sum_kernel<T, Keep>, dim3(static_cast<unsigned>(chunks)), threads, 0, x,
           count, chunk, Keep{sums});
    launch(context, name, sum_kernel<double, Finish>, one, threads, 0, sums, chunks, chunks,
           finish);
}

template <class T>
struct SpreadMean {
    const T* dy;
    T* dx;
    T count;

    __device__ void operator()(int64_t i) const { dx[i] = *dy / count; }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void categorical_accuracy(const Context& context, const Loss& s, int64_t n, const T* target,
                          const T* prediction, T* score) {
    for_each_row(context, "categorical_accuracy", s, n,
                 ClassAccuracy<T, T>{target, prediction, score});
}

template <class T>
void sparse_categorical_accuracy(const Context& context, const Loss& s, int64_t n,
                                 const int32_t* target, const T* prediction, T* score) {
    for_each_row(context, "sparse_categorical_accuracy", s, n,
                 ClassAccuracy<T, int32_t>{target, prediction, score});
}

template <class T>
void binary_accuracy(const Context& context, const Loss& s, int64_t n, const T* target,
                     const T* prediction, T* score) {
    for_each_row(context, "binary_accuracy", s, n, BinaryAccuracy<T>{target, prediction, score});
}

template <class T>
void mean(const Context& context, const Mean& s, int64_t n, const T* x, T* y) {
    const int64_t count = n * s.rows;
    sum_of(context, "mean", x, count, PutMean<T>{y, static_cast<double>(count)});
}

template <class T>
void mean_backward(const Context& context, const Mean& s, int64_t n, const T* dy, T* dx) {
    const int64_t count = n * s.rows;
    for_each(context, "mean_backward", count, SpreadMean<T>{dy, dx, static_cast<T>(count)});
}

template <class T>
void accumulate(const Context& context, const Mean& s, int64_t n, const T* x, double* total) {
    const int64_t count = n * s.rows;
    sum_of(context, "accumulate", x, count, AddToTotal{total, static_cast<double>(count)});
}

INSTANTIATE(categorical_accuracy)
INSTANTIATE(sparse_categorical_accuracy)
INSTANTIATE(binary_accuracy)
INSTANTIATE(mean)
INSTANTIATE(mean_backward)
INSTANTIATE(accumulate)

}  // namespace cuda
}  // namespace convkit
