// Joining and moving.
//   add          a, b (n, size) -> y = a + b
//     backward   dy -> da = db = dy; either may be null
//   concatenate  a (n, outer, first), b (n, outer, second) -> y (n, outer, first + second)
//     backward   dy (as y) -> da (as a), db (as b); either may be null
//   transpose    x (n, rows, columns) -> y (n, columns, rows)
#include <algorithm>
#include <cstring>

#include "cpu_kernels.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void add(const Context& context, const Elementwise& s, int64_t n, const T* a, const T* b, T* y) {
    parallel_for(context, n * s.size, 0.15, [&](int64_t begin, int64_t end) {
        for_each_vector(y, begin, end, [&](int64_t i, auto part) {
            put(y + i, get(a + i, part) + get(b + i, part), part);
        });
    });
}

// da = db = dy, read once for both.
template <class T>
void add_backward(const Context& context, const Elementwise& s, int64_t n, const T* dy, T* da,
                  T* db) {
    parallel_for(context, n * s.size, 0.15, [&](int64_t begin, int64_t end) {
        constexpr int64_t kBlock = 2048;
        for (int64_t i = begin; i < end; i += kBlock) {
            const size_t bytes = std::min(kBlock, end - i) * sizeof(T);
            if (da) std::memcpy(da + i, dy + i, bytes);
            if (db) std::memcpy(db + i, dy + i, bytes);
        }
    });
}

template <class T>
void concatenate(const Context& context, const Concatenate& s, int64_t n, const T* a, const T* b,
                 T* y) {
    const int64_t count = n * s.outer, both = s.first + s.second;
    const T *a_end = a + count * s.first, *b_end = b + count * s.second;
    parallel_for(context, count, 2 + 0.15 * both, [&](int64_t begin, int64_t end) {
        const T* y_end = y + end * both;
        for (int64_t i = begin; i < end; ++i) {
            copy_run(y + i * both, y_end, a + i * s.first, a_end, s.first);
            copy_run(y + i * both + s.first, y_end, b + i * s.second, b_end, s.second);
        }
    });
}

template <class T>
void concatenate_backward(const Context& context, const Concatenate& s, int64_t n, const T* dy,
                          T* da, T* db) {
    const int64_t count = n * s.outer, both = s.first + s.second;
    const T* dy_end = dy + count * both;
    parallel_for(context, count, 2 + 0.15 * both, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; da && i < end; ++i) {
            copy_run(da + i * s.first, da + end * s.first, dy + i * both, dy_end, s.first);
        }
        for (int64_t i = begin; db && i < end; ++i) {
            copy_run(db + i * s.second, db + end * s.second, dy + i * both + s.first, dy_end,
                     s.second);
        }
    });
}

template <class T>
void transpose(const Context& context, const Transpose& s, int64_t n, const T* x, T* y) {
    // Square tiles, so that the lines of cache that one side reads and the other writes stay.
    constexpr int64_t kStrip = 32;
    const int64_t strips = (s.columns + kStrip - 1) / kStrip;
    parallel_for(context, n * strips, 0.5 * kStrip * s.rows, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const T* from = x + item / strips * s.rows * s.columns;
            T* to = y + item / strips * s.rows * s.columns;
            const int64_t left = item % strips * kStrip;
            const int64_t right = std::min(left + kStrip, s.columns);
            for (int64_t top = 0; top < s.rows; top += kStrip) {
                const int64_t bottom = std::min(top + kStrip, s.rows);
                for (int64_t column = left; column < right; ++column) {
                    for (int64_t row = top; row < bottom; ++row) {
                        to[column * s.rows + row] = from[row * s.columns + column];
                    }
                }
            }
        }
    });
}

INSTANTIATE(add)
INSTANTIATE(add_backward)
INSTANTIATE(concatenate)
INSTANTIATE(concatenate_backward)
INSTANTIATE(transpose)

}  // namespace CONVKIT_ISA
}  // namespace convkit
