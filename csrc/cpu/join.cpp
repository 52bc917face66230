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
#include "stream.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void add(const Context& context, const Elementwise& s, int64_t n, const T* a, const T* b, T* y) {
    const bool past = streams<T>(n * s.size, y, a) && y != b;
    parallel_stores(context, n * s.size, 0.15, [&](int64_t begin, int64_t end) {
        for_each_vector(past, y, begin, end, [&](int64_t i, auto part) {
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

namespace {

// How many rows of a result that goes past the caches are put together in scratch memory at once.
int64_t rows_at_once(int64_t size) {
    return std::max<int64_t>(1, 4096 / std::max<int64_t>(size, 1));
}

// y (count, size) from rows `step` apart.
template <class T>
void take_rows(int64_t count, int64_t size, const T* x, int64_t step, const T* x_end, bool past,
               T* y) {
    const T* const y_end = y + count * size;
    if (!past) {
        for (int64_t i = 0; i < count; ++i) {
            copy_run(y + i * size, y_end, x + i * step, x_end, size);
        }
        return;
    }
    const int64_t most = rows_at_once(size);
    T* const rows = scratch<T>(kLocal, most * size);
    for (int64_t first = 0; first < count; first += most) {
        const int64_t some = std::min(most, count - first);
        take_rows(some, size, x + first * step, step, x_end, false, rows);
        copy_past(rows, some * size, y + first * size);
    }
}

}  // namespace

template <class T>
void concatenate(const Context& context, const Concatenate& s, int64_t n, const T* a, const T* b,
                 T* y) {
    const int64_t count = n * s.outer, both = s.first + s.second;
    const T *a_end = a + count * s.first, *b_end = b + count * s.second;
    const bool past = streams<T>(count * both, y, a);
    parallel_stores(context, count, 2 + 0.15 * both, [&](int64_t begin, int64_t end) {
        const int64_t most = past ? rows_at_once(both) : end - begin;
        T* const rows = past ? scratch<T>(kLocal, most * both) : nullptr;
        for (int64_t first = begin; first < end; first += most) {
            const int64_t some = std::min(most, end - first);
            T* to = past ? rows : y + first * both;
            const T* const to_end = to + some * both;
            for (int64_t i = first; i < first + some; ++i, to += both) {
                copy_run(to, to_end, a + i * s.first, a_end, s.first);
                copy_run(to + s.first, to_end, b + i * s.second, b_end, s.second);
            }
            if (past) copy_past(rows, some * both, y + first * both);
        }
    });
}

template <class T>
void concatenate_backward(const Context& context, const Concatenate& s, int64_t n, const T* dy,
                          T* da, T* db) {
    const int64_t count = n * s.outer, both = s.first + s.second;
    const T* const dy_end = dy + count * both;
    const auto take = [&](int64_t begin, int64_t end, int64_t offset, int64_t size, T* d) {
        if (!d) return;
        take_rows(end - begin, size, dy + begin * both + offset, both, dy_end,
                  streams<T>(count * size, d, dy), d + begin * size);
    };
    parallel_stores(context, count, 2 + 0.15 * both, [&](int64_t begin, int64_t end) {
        // Both in turns, so that dy is read once.
        const int64_t most = rows_at_once(both);
        for (int64_t i = begin; i < end; i += most) {
            take(i, std::min(i + most, end), 0, s.first, da);
            take(i, std::min(i + most, end), s.first, s.second, db);
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
