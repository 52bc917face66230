// Moving pixels and axes.
//   pad2d    x (n, height, width, channels) -> y (n, out_height, out_width, channels),
//            y[i, j] = x[i - top, j - left], 0 where there is none; top and left may be negative
//   permute  x (n, size_0, size_1, size_2, size_3, inner) -> y, whose axis i is axis from_i of x
// Each is its own gradient, the other way.
#include <algorithm>
#include <cstring>

#include "cpu_kernels.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

template <class T>
void clear(T* y, int64_t count) {
    if (count > 0) std::memset(y, 0, static_cast<size_t>(count) * sizeof(T));
}

// y[j] = x[j step] for runs of `size` values.
template <class T>
void copy_strided(int64_t count, int64_t size, const T* x, int64_t step, T* y) {
    if (size == 1) {
        for (int64_t j = 0; j < count; ++j) y[j] = x[j * step];
        return;
    }
    if (step == size) {
        std::memcpy(y, x, static_cast<size_t>(count * size) * sizeof(T));
        return;
    }
    for (int64_t j = 0; j < count; ++j) {
        const T* from = x + j * step;
        T* to = y + j * size;
        int64_t i = 0;
        for (; i + kLanes<T> <= size; i += kLanes<T>) store(to + i, load(from + i));
        if (i < size) store_partial(to + i, load_partial(from + i, size - i), size - i);
    }
}

}  // namespace

template <class T>
void pad2d(const Context& context, const Pad2d& s, int64_t n, const T* x, T* y) {
    const int64_t begin_column = std::clamp<int64_t>(s.left, 0, s.out_width);
    const int64_t end_column = std::clamp(s.left + s.width, begin_column, s.out_width);
    const int64_t line = s.out_width * s.channels, before = begin_column * s.channels;
    const int64_t copied = (end_column - begin_column) * s.channels;
    parallel_for(context, n * s.out_height, 5 + 0.1 * line, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            T* to = y + i * line;
            const int64_t row = i % s.out_height - s.top;
            if (row < 0 || row >= s.height || copied == 0) {
                clear(to, line);
                continue;
            }
            const int64_t from = i / s.out_height * s.height + row;
            clear(to, before);
            std::memcpy(to + before, x + (from * s.width + begin_column - s.left) * s.channels,
                        static_cast<size_t>(copied) * sizeof(T));
            clear(to + before + copied, line - before - copied);
        }
    });
}

template <class T>
void permute(const Context& context, const Permute& s, int64_t n, const T* x, T* y) {
    if (s.from_0 == 0 && s.from_1 == 1 && s.from_2 == 3 && s.inner == 1) {
        return transpose(context, Transpose{s.size_2, s.size_3}, n * s.size_0 * s.size_1, x, y);
    }
    const int64_t sizes[4] = {s.size_0, s.size_1, s.size_2, s.size_3};
    const int64_t from[4] = {s.from_0, s.from_1, s.from_2, s.from_3};
    int64_t steps[4], size[4], step[4];  // of x, of y, and of x along y's axes
    steps[3] = s.inner;
    for (int i = 2; i >= 0; --i) steps[i] = steps[i + 1] * sizes[i + 1];
    for (int i = 0; i < 4; ++i) {
        size[i] = sizes[from[i]];
        step[i] = steps[from[i]];
    }
    const int64_t line = size[3] * s.inner, block = size[2] * line, outer = size[0] * size[1];
    parallel_for(context, n * outer, 0.5 * block, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t first = item % outer / size[1], second = item % size[1];
            const T* source = x + item / outer * s.total() + first * step[0] + second * step[1];
            for (int64_t i = 0; i < size[2]; ++i) {
                copy_strided(size[3], s.inner, source + i * step[2], step[3],
                             y + item * block + i * line);
            }
        }
    });
}

INSTANTIATE(pad2d)
INSTANTIATE(permute)

}  // namespace CONVKIT_ISA
}  // namespace convkit
