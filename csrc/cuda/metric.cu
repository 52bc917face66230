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
#include "totals.cuh"

namespace convkit {
namespace cuda {
namespace {

// ---- totals -------------------------------------------------------------------------------------

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
    sum_of(context, "mean", x, count, AsItIs{}, PutMean<T>{y, static_cast<double>(count)});
}

template <class T>
void mean_backward(const Context& context, const Mean& s, int64_t n, const T* dy, T* dx) {
    const int64_t count = n * s.rows;
    for_each(context, "mean_backward", count, SpreadMean<T>{dy, dx, static_cast<T>(count)});
}

template <class T>
void accumulate(const Context& context, const Mean& s, int64_t n, const T* x, double* total) {
    const int64_t count = n * s.rows;
    sum_of(context, "accumulate", x, count, AsItIs{},
           AddToTotal{total, static_cast<double>(count)});
}

INSTANTIATE(categorical_accuracy)
INSTANTIATE(sparse_categorical_accuracy)
INSTANTIATE(binary_accuracy)
INSTANTIATE(mean)
INSTANTIATE(mean_backward)
INSTANTIATE(accumulate)

}  // namespace cuda
}  // namespace convkit
