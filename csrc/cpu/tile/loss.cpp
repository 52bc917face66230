// Losses of tiles: loss.cpp, whose rows stand in the lanes here to begin with.
#include "loss.h"

#include "cpu_kernels.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void tile_categorical_crossentropy(const Context& context, const Loss& s, int64_t n,
                                   const T* target, const T* prediction, T* loss) {
    categorical(context, s, rows_of_tiles(s, n), target, prediction, loss);
}

template <class T>
void tile_categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                            const T* dloss, const T* target, const T* prediction,
                                            T* dtarget, T* dprediction) {
    categorical_backward(context, s, rows_of_tiles(s, n), dloss, target, prediction, dtarget,
                         dprediction);
}

template <class T>
void tile_sparse_categorical_crossentropy(const Context& context, const Loss& s, int64_t n,
                                          const int32_t* target, const T* prediction, T* loss) {
    categorical(context, s, rows_of_tiles(s, n), target, prediction, loss);
}

template <class T>
void tile_sparse_categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                                   const T* dloss, const int32_t* target,
                                                   const T* prediction, T* dprediction) {
    T* const dtarget = nullptr;
    categorical_backward(context, s, rows_of_tiles(s, n), dloss, target, prediction, dtarget,
                         dprediction);
}

template <class T>
void tile_binary_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    mean_of_terms(context, s, Term::kBinaryCrossentropy, rows_of_tiles(s, n), target, prediction,
                  loss);
}

template <class T>
void tile_binary_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                       const T* dloss, const T* target, const T* prediction,
                                       T* dtarget, T* dprediction) {
    mean_of_terms_backward(context, s, Term::kBinaryCrossentropy, rows_of_tiles(s, n), dloss,
                           target, prediction, dtarget, dprediction);
}

template <class T>
void tile_mean_squared_error(const Context& context, const Loss& s, int64_t n, const T* target,
                             const T* prediction, T* loss) {
    mean_of_terms(context, s, Term::kSquaredError, rows_of_tiles(s, n), target, prediction, loss);
}

template <class T>
void tile_mean_squared_error_backward(const Context& context, const Loss& s, int64_t n,
                                      const T* dloss, const T* target, const T* prediction,
                                      T* dtarget, T* dprediction) {
    mean_of_terms_backward(context, s, Term::kSquaredError, rows_of_tiles(s, n), dloss, target,
                           prediction, dtarget, dprediction);
}

template <class T>
void tile_mean_absolute_error(const Context& context, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    mean_of_terms(context, s, Term::kAbsoluteError, rows_of_tiles(s, n), target, prediction, loss);
}

template <class T>
void tile_mean_absolute_error_backward(const Context& context, const Loss& s, int64_t n,
                                       const T* dloss, const T* target, const T* prediction,
                                       T* dtarget, T* dprediction) {
    mean_of_terms_backward(context, s, Term::kAbsoluteError, rows_of_tiles(s, n), dloss, target,
                           prediction, dtarget, dprediction);
}

INSTANTIATE(tile_categorical_crossentropy)
INSTANTIATE(tile_categorical_crossentropy_backward)
INSTANTIATE(tile_sparse_categorical_crossentropy)
INSTANTIATE(tile_sparse_categorical_crossentropy_backward)
INSTANTIATE(tile_binary_crossentropy)
INSTANTIATE(tile_binary_crossentropy_backward)
INSTANTIATE(tile_mean_squared_error)
INSTANTIATE(tile_mean_squared_error_backward)
INSTANTIATE(tile_mean_absolute_error)
INSTANTIATE(tile_mean_absolute_error_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
