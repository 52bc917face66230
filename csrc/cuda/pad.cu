// Moving pixels and axes.
//   pad2d    x (n, height, width, channels) -> y (n, out_height, out_width, channels),
//            y[i, j] = x[i - top, j - left], 0 where there is none; top and left may be negative
//   permute  x (n, size_0, size_1, size_2, size_3, inner) -> y, whose axis i is axis from_i of x
// Each is its own gradient, the other way.
#include <algorithm>
#include <cstdlib>

#include "cuda_kernels.h"
#include "index.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class I>
struct Padding {
    Places<I> y;
    I height, width, top, left;
    int64_t channels;
};

template <class T, int kWidth, class I>
__global__ void pad2d_kernel(Padding<I> s, const T* x, T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.y.count) return;
    const Place<I> p = s.y.at(item);
    const I row = p.row - s.top, column = p.column - s.left;
    Vector<T, kWidth> value{};
    if (row >= 0 && row < s.height && column >= 0 && column < s.width) {
        const int64_t pixel = (static_cast<int64_t>(p.sample) * s.height + row) * s.width + column;
        value = load_vector<T, kWidth>(x + pixel * s.channels +
                                       static_cast<int64_t>(p.vector) * kWidth);
    }
    write_vector<T, kWidth>(y + static_cast<int64_t>(item) * kWidth, value);
}

// y's axes, and how far apart their values are in x.
template <class I>
struct Axes {
    I count;
    Divisor<I> vectors, size_0, size_1, size_2, size_3;
    int64_t step_0, step_1, step_2, step_3, sample;
};

template <class T, int kWidth, class I>
__global__ void permute_kernel(Axes<I> s, const T* x, T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.count) return;
    const I run = s.vectors.quotient(item), line = s.size_3.quotient(run);
    const I block = s.size_2.quotient(line), outer = s.size_1.quotient(block);
    const int64_t from = s.size_0.quotient(outer) * s.sample +
                         s.size_0.remainder(outer) * s.step_0 +
                         s.size_1.remainder(block) * s.step_1 +
                         s.size_2.remainder(line) * s.step_2 + s.size_3.remainder(run) * s.step_3 +
                         static_cast<int64_t>(s.vectors.remainder(item)) * kWidth;
    write_vector<T, kWidth>(y + static_cast<int64_t>(item) * kWidth,
                            load_vector<T, kWidth>(x + from));
}

}  // namespace

template <class T>
void pad2d(const Context& context, const Pad2d& s, int64_t n, const T* x, T* y) {
    const int64_t count = n * s.output_size();
    if (count == 0) return;
    const int width = vector_width<T>(s.channels, {x, y});
    const int64_t side = std::max({std::abs(s.top), std::abs(s.left), s.height, s.width});
    with_variant<T>(width, std::max(count, 2 * side * width), [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Padding<I> padding{Places<I>(n, s.out_height, s.out_width, s.channels / kWidth),
                                 static_cast<I>(s.height),
                                 static_cast<I>(s.width),
                                 static_cast<I>(s.top),
                                 static_cast<I>(s.left),
                                 s.channels};
        launch(context, "pad2d", pad2d_kernel<T, kWidth, I>, blocks_for(count / kWidth),
               dim3(kThreads), 0, padding, x, y);
    });
}

template <class T>
void permute(const Context& context, const Permute& s, int64_t n, const T* x, T* y) {
    const int64_t count = n * s.total();
    if (count == 0) return;
    if (s.from_0 == 0 && s.from_1 == 1 && s.from_2 == 3 && s.inner == 1) {
        return transpose(context, Transpose{s.size_2, s.size_3}, n * s.size_0 * s.size_1, x, y);
    }
    const int64_t sizes[4] = {s.size_0, s.size_1, s.size_2, s.size_3};
    const int64_t steps[4] = {s.size_1 * s.size_2 * s.size_3 * s.inner,
                              s.size_2 * s.size_3 * s.inner, s.size_3 * s.inner, s.inner};
    const int width = vector_width<T>(s.inner, {x, y});
    with_variant<T>(width, count, [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Axes<I> axes{static_cast<I>(count / kWidth),
                           Divisor<I>(s.inner / kWidth),
                           Divisor<I>(sizes[s.from_0]),
                           Divisor<I>(sizes[s.from_1]),
                           Divisor<I>(sizes[s.from_2]),
                           Divisor<I>(sizes[s.from_3]),
                           steps[s.from_0],
                           steps[s.from_1],
                           steps[s.from_2],
                           steps[s.from_3],
                           s.total()};
        launch(context, "permute", permute_kernel<T, kWidth, I>, blocks_for(count / kWidth),
               dim3(kThreads), 0, axes, x, y);
    });
}

INSTANTIATE(pad2d)
INSTANTIATE(permute)

}  // namespace cuda
}  // namespace convkit
