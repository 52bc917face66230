// Losses: target t and prediction p (n, rows, size, inner) -> loss (n, rows, inner); sparse targets
// are labels (n, rows, inner) that stand for one-hot rows, a label outside 0 .. size - 1 for a row
// of NaN. Formulas, clipping and gradients are those of csrc/cpu/loss.cpp.
#include "cuda_kernels.h"
#include "losses.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class Rule, class T>
void mean_of_terms(const Context& context, const char* name, const Loss& s, int64_t n,
                   const T* target, const T* prediction, T* loss) {
    for_each_row(context, name, s, n, MeanOfTerms<T, Rule>{target, prediction, loss});
}

template <class Rule, class T>
void mean_of_terms_backward(const Context& context, const char* name, const Loss& s, int64_t n,
                            const T* dloss, const T* target, const T* prediction, T* dtarget,
                            T* dprediction) {
    for_each_row(context, name, s, n,
                 MeanOfTermsBackward<T, Rule>{dloss, target, prediction, dtarget, dprediction});
}

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void categorical_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    for_each_row(context, "categorical_crossentropy", s, n,
                 Categorical<T, T>{target, prediction, loss, s.from_logits != 0});
}

template <class T>
void categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                       const T* dloss, const T* target, const T* prediction,
                                       T* dtarget, T* dprediction) {
    for_each_row(context, "categorical_crossentropy_backward", s, n,
                 CategoricalBackward<T, T>{dloss, target, prediction, dtarget, dprediction,
                                           s.from_logits != 0});
}

template <class T>
void sparse_categorical_crossentropy(const Context& context, const Loss& s, int64_t n,
                                     const int32_t* target, const T* prediction, T* loss) {
    for_each_row(context, "sparse_categorical_crossentropy", s, n,
                 Categorical<T, int32_t>{target, prediction, loss, s.from_logits != 0});
}

template <class T>
void sparse_categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                              const T* dloss, const int32_t* target,
                                              const T* prediction, T* dprediction) {
    for_each_row(context, "sparse_categorical_crossentropy_backward", s, n,
                 CategoricalBackward<T, int32_t>{dloss, target, prediction, nullptr, dprediction,
                                                 s.from_logits != 0});
}

template <class T>
void binary_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                         const T* prediction, T* loss) {
    const char* const name = "binary_crossentropy";
    if (s.from_logits) {
        mean_of_terms<BinaryCrossentropyFromLogits<T>>(context, name, s, n, target, prediction,
                                                       loss);
    } else {
        mean_of_terms<BinaryCrossentropy<T>>(context, name, s, n, target, prediction, loss);
    }
}

template <class T>
void binary_crossentropy_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                  const T* target, const T* prediction, T* dtarget,
                                  T* dprediction) {
    const char* const name = "binary_crossentropy_backward";
    if (s.from_logits) {
        mean_of_terms_backward<BinaryCrossentropyFromLogits<T>>(context, name, s, n, dloss, target,
                                                                prediction, dtarget, dprediction);
    } else {
        mean_of_terms_backward<BinaryCrossentropy<T>>(context, name, s, n, dloss, target,
                                                      prediction, dtarget, dprediction);
    }
}

template <class T>
void mean_squared_error(const Context& context, const Loss& s, int64_t n, const T* target,
                        const T* prediction, T* loss) {
    mean_of_terms<SquaredError<T>>(context, "mean_squared_error", s, n, target, prediction, loss);
}

template <class T>
void mean_squared_error_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                 const T* target, const T* prediction, T* dtarget, T* dprediction) {
    mean_of_terms_backward<SquaredError<T>>(context, "mean_squared_error_backward", s, n, dloss,
                                            target, prediction, dtarget, dprediction);
}

template <class T>
void mean_absolute_error(const Context& context, const Loss& s, int64_t n, const T* target,
                         const T* prediction, T* loss) {
    mean_of_terms<AbsoluteError<T>>(context, "mean_absolute_error", s, n, target, prediction, loss);
}

template <class T>
void mean_absolute_error_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                  const T* target, const T* prediction, T* dtarget,
                                  T* dprediction) {
    mean_of_terms_backward<AbsoluteError<T>>(context, "mean_absolute_error_backward", s, n, dloss,
                                             target, prediction, dtarget, dprediction);
}

template <class T>
void softmax_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                          const T* x, T* y, T* loss) {
    for_each_row(context, "softmax_crossentropy", s, n,
                 SoftmaxAndLoss<T, T>{target, x, y, loss, s.from_logits != 0});
}

template <class T>
void softmax_crossentropy_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                   const T* target, const T* y, T* dx) {
    for_each_row(context, "softmax_crossentropy_backward", s, n,
                 BeforeSoftmax<T, T>{dloss, target, y, dx, s.from_logits != 0});
}

template <class T>
void sparse_softmax_crossentropy(const Context& context, const Loss& s, int64_t n,
                                 const int32_t* target, const T* x, T* y, T* loss) {
    for_each_row(context, "sparse_softmax_crossentropy", s, n,
                 SoftmaxAndLoss<T, int32_t>{target, x, y, loss, s.from_logits != 0});
}

template <class T>
void sparse_softmax_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                          const T* dloss, const int32_t* target, const T* y,
                                          T* dx) {
    for_each_row(context, "sparse_softmax_crossentropy_backward", s, n,
                 BeforeSoftmax<T, int32_t>{dloss, target, y, dx, s.from_logits != 0});
}

INSTANTIATE(categorical_crossentropy)
INSTANTIATE(categorical_crossentropy_backward)
INSTANTIATE(sparse_categorical_crossentropy)
INSTANTIATE(sparse_categorical_crossentropy_backward)
INSTANTIATE(binary_crossentropy)
INSTANTIATE(binary_crossentropy_backward)
INSTANTIATE(mean_squared_error)
INSTANTIATE(mean_squared_error_backward)
INSTANTIATE(mean_absolute_error)
INSTANTIATE(mean_absolute_error_backward)
INSTANTIATE(softmax_crossentropy)
INSTANTIATE(softmax_crossentropy_backward)
INSTANTIATE(sparse_softmax_crossentropy)
INSTANTIATE(sparse_softmax_crossentropy_backward)

}  // namespace cuda
}  // namespace convkit
