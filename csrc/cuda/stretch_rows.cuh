// Softmax, losses and accuracies of one sample in shared memory: a warp takes a row.
#pragma once

#include "accuracies.cuh"
#include "losses.cuh"
#include "stretch_node.cuh"

namespace convkit {
namespace cuda {

struct RowsShape {
    int32_t rows;  // and columns of them, side by side
    int32_t size, inner;
    int32_t from_logits;
};

// f(team, row) for every row, by the lanes of one warp.
template <class F>
__device__ void each_row(const RowsShape& s, const F& f) {
    const Team team{kWarp, static_cast<int>(threadIdx.x) % kWarp, nullptr};
    for (int i = static_cast<int>(threadIdx.x) / kWarp; i < s.rows; i += kStretchWarps) {
        const int start = i / s.inner * s.size * s.inner + i % s.inner;
        f(team, Row{i, s.size, start, s.inner, true});
    }
}

// softmax, or log_softmax.
template <bool kLog>
struct NormaliseRow {
    const float* x;
    float* y;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<float> p{x + row.start, row.step};
        const float top = top_of(team, row, p);
        const Exponential<float> e{p, top};
        float total = sum_of<float>(team, row, e);
        if (kLog) total = log_of(total);
        for (int64_t i = team.lane; i < row.size; i += team.width)
            y[row.start + i * row.step] = kLog ? (p(i) - top) - total : e(i) / total;
    }
};

template <bool kLog>
struct NormaliseRowBackward {
    const float *dy, *y;
    float* dx;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<float> g{dy + row.start, row.step}, p{y + row.start, row.step};
        float total = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            total += kLog ? g(i) : g(i) * p(i);
        total = team.sum(total);
        for (int64_t i = team.lane; i < row.size; i += team.width)
            dx[row.start + i * row.step] =
                kLog ? g(i) - exp_of(p(i)) * total : p(i) * (g(i) - total);
    }
};

// The nodes of this file.
__device__ inline void run_rows(const StretchNode& node) {
    using K = KernelNumber;
    const RowsShape& s = shape_of<RowsShape>(node);
    const bool logits = s.from_logits != 0;
    float* a[5];
    for (int i = 0; i < 5; ++i) a[i] = node.at[i] < 0 ? nullptr : values_of(node, i);
    const auto labels = [&](int i) { return reinterpret_cast<const int32_t*>(a[i]); };
    switch (static_cast<K>(node.op)) {
        case K::softmax:
            return each_row(s, NormaliseRow<false>{a[0], a[1]});
        case K::log_softmax:
            return each_row(s, NormaliseRow<true>{a[0], a[1]});
        case K::softmax_backward:
            return each_row(s, NormaliseRowBackward<false>{a[0], a[1], a[2]});
        case K::log_softmax_backward:
            return each_row(s, NormaliseRowBackward<true>{a[0], a[1], a[2]});
        case K::categorical_crossentropy:
            return each_row(s, Categorical<float, float>{a[0], a[1], a[2], logits});
        case K::categorical_crossentropy_backward:
            return each_row(
                s, CategoricalBackward<float, float>{a[0], a[1], a[2], a[3], a[4], logits});
        case K::sparse_categorical_crossentropy:
            return each_row(s, Categorical<float, int32_t>{labels(0), a[1], a[2], logits});
        case K::sparse_categorical_crossentropy_backward:
            return each_row(s, CategoricalBackward<float, int32_t>{a[0], labels(1), a[2], nullptr,
                                                                   a[3], logits});
        case K::binary_crossentropy:
            if (logits) {
                each_row(s,
                         MeanOfTerms<float, BinaryCrossentropyFromLogits<float>>{a[0], a[1], a[2]});
            } else {
                each_row(s, MeanOfTerms<float, BinaryCrossentropy<float>>{a[0], a[1], a[2]});
            }
            return;
        case K::binary_crossentropy_backward:
            if (logits) {
                each_row(s, MeanOfTermsBackward<float, BinaryCrossentropyFromLogits<float>>{
                                a[0], a[1], a[2], a[3], a[4]});
            } else {
                each_row(s, MeanOfTermsBackward<float, BinaryCrossentropy<float>>{a[0], a[1], a[2],
                                                                                  a[3], a[4]});
            }
            return;
        case K::mean_squared_error:
            return each_row(s, MeanOfTerms<float, SquaredError<float>>{a[0], a[1], a[2]});
        case K::mean_squared_error_backward:
            return each_row(
                s, MeanOfTermsBackward<float, SquaredError<float>>{a[0], a[1], a[2], a[3], a[4]});
        case K::mean_absolute_error:
            return each_row(s, MeanOfTerms<float, AbsoluteError<float>>{a[0], a[1], a[2]});
        case K::mean_absolute_error_backward:
            return each_row(
                s, MeanOfTermsBackward<float, AbsoluteError<float>>{a[0], a[1], a[2], a[3], a[4]});
        case K::softmax_crossentropy:
            return each_row(s, SoftmaxAndLoss<float, float>{a[0], a[1], a[2], a[3], logits});
        case K::softmax_crossentropy_backward:
            return each_row(s, BeforeSoftmax<float, float>{a[0], a[1], a[2], a[3], logits});
        case K::sparse_softmax_crossentropy:
            return each_row(s, SoftmaxAndLoss<float, int32_t>{labels(0), a[1], a[2], a[3], logits});
        case K::sparse_softmax_crossentropy_backward:
            return each_row(s, BeforeSoftmax<float, int32_t>{a[0], labels(1), a[2], a[3], logits});
        case K::categorical_accuracy:
            return each_row(s, ClassAccuracy<float, float>{a[0], a[1], a[2]});
        case K::sparse_categorical_accuracy:
            return each_row(s, ClassAccuracy<float, int32_t>{labels(0), a[1], a[2]});
        default:  // K::binary_accuracy: the layout takes no other
            each_row(s, BinaryAccuracy<float>{a[0], a[1], a[2]});
    }
}

}  // namespace cuda
}  // namespace convkit
