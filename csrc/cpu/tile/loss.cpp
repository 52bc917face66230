// Losses of a tile, through the kernels for rows.
#include "cpu_kernels.h"
#include <type_traits>

#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

template <class T>
void to_rows(const T* x, int64_t size, T* y) {
    for (int64_t i = 0; i < size * kTile; ++i) y[i % kTile * size + i / kTile] = x[i];
}

template <class T>
void from_rows(const T* x, int64_t size, T* y) {
    for (int64_t i = 0; i < size * kTile; ++i) y[i] = x[i % kTile * size + i / kTile];
}

template <class T>
const T* rows_of(const T* x, int64_t size, T* y) {
    to_rows(x, size, y);
    return y;
}
template <class T>
const int32_t* rows_of(const int32_t* x, int64_t, T*) {
    return x;
}

template <class T, class Target, class F>
void forward(const Loss& s, int64_t n, const Target* target, const T* prediction, T* loss, F f) {
    const int64_t values = s.size * kTile;
    T* rows = scratch<T>(kShared, 2 * values);
    const int64_t target_values =
        sizeof(Target) == 4 && !std::is_floating_point_v<Target> ? kTile : values;
    for (int64_t row = 0; row < in_tiles(n) / kTile * s.rows; ++row) {
        to_rows(prediction + row * values, s.size, rows + values);
        f(rows_of(target + row * target_values, s.size, rows), rows + values, loss + row * kTile);
    }
}

template <class T, class Target, class F>
void backward(const Loss& s, int64_t n, const T* dloss, const Target* target, const T* prediction,
              T* dtarget, T* dprediction, F f) {
    const int64_t values = s.size * kTile;
    T* rows = scratch<T>(kShared, 4 * values);
    const int64_t target_values =
        sizeof(Target) == 4 && !std::is_floating_point_v<Target> ? kTile : values;
    for (int64_t row = 0; row < in_tiles(n) / kTile * s.rows; ++row) {
        to_rows(prediction + row * values, s.size, rows + values);
        f(dloss + row * kTile, rows_of(target + row * target_values, s.size, rows), rows + values,
          dtarget ? rows + 2 * values : nullptr, dprediction ? rows + 3 * values : nullptr);
        if (dtarget) from_rows(rows + 2 * values, s.size, dtarget + row * values);
        if (dprediction) from_rows(rows + 3 * values, s.size, dprediction + row * values);
    }
}

}  // namespace

template <class T>
void tile_categorical_crossentropy(const Context&, const Loss& s, int64_t n, const T* target,
                                   const T* prediction, T* loss) {
    const Loss one{1, s.size, s.from_logits};
    forward(s, n, target, prediction, loss, [&](const T* t, const T* p, T* l) {
        categorical_crossentropy<T>(Context{}, one, kTile, t, p, l);
    });
}

template <class T>
void tile_categorical_crossentropy_backward(const Context&, const Loss& s, int64_t n,
                                            const T* dloss, const T* target, const T* prediction,
                                            T* dtarget, T* dprediction) {
    const Loss one{1, s.size, s.from_logits};
    backward(s, n, dloss, target, prediction, dtarget, dprediction,
             [&](const T* d, const T* t, const T* p, T* dt, T* dp) {
                 categorical_crossentropy_backward<T>(Context{}, one, kTile, d, t, p, dt, dp);
             });
}

template <class T>
void tile_binary_crossentropy(const Context&, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    const Loss one{1, s.size, s.from_logits};
    forward(s, n, target, prediction, loss, [&](const T* t, const T* p, T* l) {
        binary_crossentropy<T>(Context{}, one, kTile, t, p, l);
    });
}

template <class T>
void tile_binary_crossentropy_backward(const Context&, const Loss& s, int64_t n, const T* dloss,
                                       const T* target, const T* prediction, T* dtarget,
                                       T* dprediction) {
    const Loss one{1, s.size, s.from_logits};
    backward(s, n, dloss, target, prediction, dtarget, dprediction,
             [&](const T* d, const T* t, const T* p, T* dt, T* dp) {
                 binary_crossentropy_backward<T>(Context{}, one, kTile, d, t, p, dt, dp);
             });
}

template <class T>
void tile_mean_squared_error(const Context&, const Loss& s, int64_t n, const T* target,
                             const T* prediction, T* loss) {
    const Loss one{1, s.size, s.from_logits};
    forward(s, n, target, prediction, loss, [&](const T* t, const T* p, T* l) {
        mean_squared_error<T>(Context{}, one, kTile, t, p, l);
    });
}

template <class T>
void tile_mean_squared_error_backward(const Context&, const Loss& s, int64_t n, const T* dloss,
                                      const T* target, const T* prediction, T* dtarget,
                                      T* dprediction) {
    const Loss one{1, s.size, s.from_logits};
    backward(s, n, dloss, target, prediction, dtarget, dprediction,
             [&](const T* d, const T* t, const T* p, T* dt, T* dp) {
                 mean_squared_error_backward<T>(Context{}, one, kTile, d, t, p, dt, dp);
             });
}

template <class T>
void tile_mean_absolute_error(const Context&, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    const Loss one{1, s.size, s.from_logits};
    forward(s, n, target, prediction, loss, [&](const T* t, const T* p, T* l) {
        mean_absolute_error<T>(Context{}, one, kTile, t, p, l);
    });
}

template <class T>
void tile_mean_absolute_error_backward(const Context&, const Loss& s, int64_t n, const T* dloss,
                                       const T* target, const T* prediction, T* dtarget,
                                       T* dprediction) {
    const Loss one{1, s.size, s.from_logits};
    backward(s, n, dloss, target, prediction, dtarget, dprediction,
             [&](const T* d, const T* t, const T* p, T* dt, T* dp) {
                 mean_absolute_error_backward<T>(Context{}, one, kTile, d, t, p, dt, dp);
             });
}

template <class T>
void tile_sparse_categorical_crossentropy(const Context&, const Loss& s, int64_t n,
                                          const int32_t* target, const T* prediction, T* loss) {
    const Loss one{1, s.size, s.from_logits};
    forward(s, n, target, prediction, loss, [&](const int32_t* t, const T* p, T* l) {
        sparse_categorical_crossentropy<T>(Context{}, one, kTile, t, p, l);
    });
}

template <class T>
void tile_sparse_categorical_crossentropy_backward(const Context&, const Loss& s, int64_t n,
                                                   const T* dloss, const int32_t* target,
                                                   const T* prediction, T* dprediction) {
    const Loss one{1, s.size, s.from_logits};
    T* const none = nullptr;
    backward(s, n, dloss, target, prediction, none, dprediction,
             [&](const T* d, const int32_t* t, const T* p, T*, T* dp) {
                 sparse_categorical_crossentropy_backward<T>(Context{}, one, kTile, d, t, p, dp);
             });
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
