// Metrics and reductions.
//   categorical_accuracy         target, prediction (n, rows, size, inner) -> score (n, rows,
//                                inner): 1 where both have their (first) maximum over size at the
//                                same place, else 0
//   sparse_categorical_accuracy  target (n, rows, inner): labels; 1 where the maximum is there
//   binary_accuracy              the share of a row's values whose target is (prediction > 0.5)
//   mean                         x (n, rows) -> y (1)
//     backward                   dy (1) -> dx (n, rows) = dy / (n rows)
//   accumulate                   x (n, rows) -> total (2): sum of x, n rows added to what it holds
#include <algorithm>

#include "cpu_kernels.h"
#include "rows.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

template <class T, class Target>
void class_accuracy(const Context& context, const Loss& s, int64_t n, const Target* target,
                    const T* prediction, T* score) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, prediction, none, none, [&](const auto& rows) {
        const Ints<T> right = class_of(s.size, rows.t) == argmax(s.size, rows.p);
        rows.put_numbers(score, right ? broadcast<T>(1) : Vec<T>{});
    });
}

// Longer rows of a batch value by value: they need not be laid side by side.
template <class T>
void binary_accuracy_along_rows(const Context& context, const Loss& s, int64_t n, const T* target,
                                const T* prediction, T* score) {
    const T half = static_cast<T>(0.5);
    parallel_for(context, n * s.rows, 0.5 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            int64_t right = 0;
            for (int64_t i = row * s.size; i < (row + 1) * s.size; ++i) {
                right += target[i] == static_cast<T>(prediction[i] > half);
            }
            score[row] = static_cast<T>(right) / static_cast<T>(s.size);
        }
    });
}

// In double, by eight interleaved sums that are added in a fixed order.
template <class T>
double total_of(const T* x, int64_t count) {
    constexpr int64_t kSums = 8;
    double sums[kSums] = {};
    int64_t i = 0;
    for (; i + kSums <= count; i += kSums) {
        for (int64_t k = 0; k < kSums; ++k) sums[k] += static_cast<double>(x[i + k]);
    }
    for (int64_t k = 0; i + k < count; ++k) sums[k] += static_cast<double>(x[i + k]);
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) +
           ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

}  // namespace

template <class T>
void categorical_accuracy(const Context& context, const Loss& s, int64_t n, const T* target,
                          const T* prediction, T* score) {
    class_accuracy(context, s, n, target, prediction, score);
}

template <class T>
void sparse_categorical_accuracy(const Context& context, const Loss& s, int64_t n,
                                 const int32_t* target, const T* prediction, T* score) {
    class_accuracy(context, s, n, target, prediction, score);
}

template <class T>
void binary_accuracy(const Context& context, const Loss& s, int64_t n, const T* target,
                     const T* prediction, T* score) {
    if (s.inner == 1 && s.size > 1) {
        return binary_accuracy_along_rows(context, s, n, target, prediction, score);
    }
    const Vec<T> half = broadcast(static_cast<T>(0.5)), one = broadcast<T>(1);
    T* const none = nullptr;
    for_each_rows(context, s, n, target, prediction, none, none, [&](const auto& rows) {
        Ints<T> right{};
        for (int64_t i = 0; i < s.size; ++i) {
            right -= rows.t(i) == (rows.p(i) > half ? one : Vec<T>{});  // true is -1
        }
        rows.put_numbers(score, __builtin_convertvector(right, Vec<T>) / static_cast<T>(s.size));
    });
}

template <class T>
void mean(const Context&, const Mean& s, int64_t n, const T* x, T* y) {
    const int64_t count = n * s.rows;
    y[0] = static_cast<T>(total_of(x, count) / static_cast<double>(count));
}

template <class T>
void mean_backward(const Context&, const Mean& s, int64_t n, const T* dy, T* dx) {
    const int64_t count = n * s.rows;
    std::fill(dx, dx + count, dy[0] / static_cast<T>(count));
}

template <class T>
void accumulate(const Context&, const Mean& s, int64_t n, const T* x, double* total) {
    const int64_t count = n * s.rows;
    total[0] += total_of(x, count);
    total[1] += static_cast<double>(count);
}

INSTANTIATE(categorical_accuracy)
INSTANTIATE(sparse_categorical_accuracy)
INSTANTIATE(binary_accuracy)
INSTANTIATE(mean)
INSTANTIATE(mean_backward)
INSTANTIATE(accumulate)

}  // namespace CONVKIT_ISA
}  // namespace convkit
