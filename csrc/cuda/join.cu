// Joining and moving.
//   add          a, b (n, size) -> y = a + b
//     backward   dy -> da = db = dy; either may be null
//   concatenate  a (n, outer, first), b (n, outer, second) -> y (n, outer, first + second)
//     backward   dy (as y) -> da (as a), db (as b); either may be null
//   transpose    x (n, rows, columns) -> y (n, columns, rows)
#include <algorithm>

#include "cuda_kernels.h"
#include "map.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class T>
struct Sum {
    __device__ void operator()(const T (&in)[2], T (&out)[1]) const { out[0] = in[0] + in[1]; }
};

template <class T, int kCopies>
struct Copy {
    __device__ void operator()(const T (&in)[1], T (&out)[kCopies]) const {
        for (int i = 0; i < kCopies; ++i) out[i] = in[0];
    }
};

// ---- concatenate
// ---------------------------------------------------------------------------------

// Rows of `both` vectors, of which the first `first` are of one array, the others of the other.
template <class I>
struct Parts {
    I count, first, second;
    Divisor<I> both;
};

// The vectors of y one by one, kAtOnce for each thread. Forward y takes its parts, backward it
// gives them.
template <class T, int kWidth, class I, bool kForward, class Y, class Part>
__global__ void join_kernel(Parts<I> s, Y* y, Part* a, Part* b) {
    const I begin = static_cast<I>(blockIdx.x) * (kThreads * kLoadsInFlight);
    Vector<T, kWidth> values[kLoadsInFlight]{};
    Part* parts[kLoadsInFlight]{};
    CONVKIT_UNROLL
    for (int k = 0; k < kLoadsInFlight; ++k) {
        const I item = begin + k * kThreads + static_cast<I>(threadIdx.x);
        if (item >= s.count) break;
        const I row = s.both.quotient(item), column = s.both.remainder(item);
        const bool of_a = column < s.first;
        Part* const part = of_a ? a : b;
        if (!part) continue;
        const int64_t at = of_a ? static_cast<int64_t>(row) * s.first + column
                                : static_cast<int64_t>(row) * s.second + (column - s.first);
        parts[k] = part + at * kWidth;
        values[k] =
            load_vector<T, kWidth>(kForward ? parts[k] : y + static_cast<int64_t>(item) * kWidth);
    }
    CONVKIT_UNROLL
    for (int k = 0; k < kLoadsInFlight; ++k) {
        const I item = begin + k * kThreads + static_cast<I>(threadIdx.x);
        if (!parts[k]) continue;
        if constexpr (kForward) {
            write_vector<T, kWidth>(y + static_cast<int64_t>(item) * kWidth, values[k]);
        } else {
            write_vector<T, kWidth>(parts[k], values[k]);
        }
    }
}

template <class T, bool kForward, class Y, class Part>
void join(const Context& context, const char* name, const Concatenate& s, int64_t n, Y* y, Part* a,
          Part* b) {
    const int64_t both = s.first + s.second, count = n * s.outer * both;
    if (count == 0) return;
    int width = vector_width<T>(s.first, {y, a, b});
    while (s.second % width != 0) width /= 2;
    with_variant<T>(width, count, [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Parts<I> parts{static_cast<I>(count / kWidth), static_cast<I>(s.first / kWidth),
                             static_cast<I>(s.second / kWidth), Divisor<I>(both / kWidth)};
        launch(context, name, join_kernel<T, kWidth, I, kForward, Y, Part>,
               blocks_for(parts.count, kThreads * kLoadsInFlight), dim3(kThreads), 0, parts, y, a,
               b);
    });
}

// ---- transpose
// -----------------------------------------------------------------------------------

// A tile of x, tile_rows x tile_columns of the matrix, is read along its rows and written along its
// columns. Where one side is short, the tile takes all of it, so that what it reads or writes is
// one run.
constexpr int kTileBytes = 16 * 1024, kTileSide = 64, kShort = 32;

template <class I>
struct Tiles {
    I rows, columns, tile_rows, tile_columns;
    int pitch;
    Divisor<I> across, down;  // how many tiles
    Divisor<I> by_tile_rows, by_tile_columns;
};

template <class T, class I>
__global__ void transpose_kernel(Tiles<I> s, const T* x, T* y) {
    DYNAMIC_SHARED(T, tile);
    const I block = static_cast<I>(blockIdx.x), line = s.across.quotient(block);
    const I left = s.across.remainder(block) * s.tile_columns;
    const I top = s.down.remainder(line) * s.tile_rows;
    const int64_t matrix = static_cast<int64_t>(s.down.quotient(line)) * s.rows * s.columns;
    const I values = s.tile_rows * s.tile_columns;
    const I rows = min(s.tile_rows, s.rows - top), columns = min(s.tile_columns, s.columns - left);
    const T* const from = x + matrix + static_cast<int64_t>(top) * s.columns + left;
    T* const to = y + matrix + static_cast<int64_t>(left) * s.rows + top;
    CONVKIT_UNROLL
    for (I i = static_cast<I>(threadIdx.x); i < values; i += kThreads) {
        const I row = s.by_tile_columns.quotient(i), column = s.by_tile_columns.remainder(i);
        if (row < rows && column < columns)
            tile[row * s.pitch + column] = from[static_cast<int64_t>(row) * s.columns + column];
    }
    __syncthreads();
    CONVKIT_UNROLL
    for (I i = static_cast<I>(threadIdx.x); i < values; i += kThreads) {
        const I row = s.by_tile_rows.remainder(i), column = s.by_tile_rows.quotient(i);
        if (row < rows && column < columns)
            to[static_cast<int64_t>(column) * s.rows + row] = tile[row * s.pitch + column];
    }
}

// Matrices that are small: value by value. What is read lies so near that it comes from the cache.
template <class T, class I>
struct TransposedSmall {
    Divisor<I> by_rows, by_columns;
    int64_t rows, columns;
    const T* x;
    T* y;

    __device__ void operator()(int64_t i) const {
        const I line = by_rows.quotient(static_cast<I>(i));
        const I row = by_rows.remainder(static_cast<I>(i)), column = by_columns.remainder(line);
        const int64_t matrix = by_columns.quotient(line) * (rows * columns);
        y[i] = x[matrix + row * columns + column];
    }
};

constexpr int64_t kSmallMatrix = 1024;

template <class T, class I>
void transpose_tiles(const Context& context, const Transpose& s, int64_t n, const T* x, T* y) {
    constexpr int64_t kValues = kTileBytes / sizeof(T);
    int64_t tile_rows = kTileSide, tile_columns = kValues / kTileSide;
    if (s.rows <= kShort) {
        tile_rows = s.rows;
        tile_columns = std::min(s.columns, kValues / tile_rows);
    } else if (s.columns <= kShort) {
        tile_columns = s.columns;
        tile_rows = std::min(s.rows, kValues / tile_columns);
    }
    // Neighbouring threads read neighbouring rows of a column, or of a few columns where there are
    // less than 32 rows: such a distance puts them in different banks of shared memory.
    const int64_t apart = divide_up<int64_t>(kWarp, tile_rows);
    int64_t pitch = tile_columns;
    while (pitch % kWarp != apart % kWarp && !(apart == 1 && pitch % 2 == 1)) ++pitch;
    const int64_t across = divide_up(s.columns, tile_columns), down = divide_up(s.rows, tile_rows);
    const Tiles<I> tiles{static_cast<I>(s.rows),    static_cast<I>(s.columns),
                         static_cast<I>(tile_rows), static_cast<I>(tile_columns),
                         static_cast<int>(pitch),   Divisor<I>(across),
                         Divisor<I>(down),          Divisor<I>(tile_rows),
                         Divisor<I>(tile_columns)};
    launch(context, "transpose", transpose_kernel<T, I>, blocks_for(n * across * down, 1),
           dim3(kThreads), static_cast<size_t>(tile_rows * pitch) * sizeof(T), tiles, x, y);
}

template <class T, class I>
void transpose_as(const Context& context, const Transpose& s, int64_t n, const T* x, T* y) {
    if (s.rows * s.columns <= kSmallMatrix) {
        for_each(context, "transpose", n * s.rows * s.columns,
                 TransposedSmall<T, I>{Divisor<I>(s.rows), Divisor<I>(s.columns), s.rows, s.columns,
                                       x, y});
    } else {
        transpose_tiles<T, I>(context, s, n, x, y);
    }
}

}  // namespace

template <class T>
void add(const Context& context, const Elementwise& s, int64_t n, const T* a, const T* b, T* y) {
    map<T, 2, 1>(context, "add", n * s.size, {{a, b}}, {{y}}, Sum<T>{});
}

template <class T>
void add_backward(const Context& context, const Elementwise& s, int64_t n, const T* dy, T* da,
                  T* db) {
    if (da && db) {
        map<T, 1, 2>(context, "add_backward", n * s.size, {{dy}}, {{da, db}}, Copy<T, 2>{});
    } else if (da || db) {
        map<T, 1, 1>(context, "add_backward", n * s.size, {{dy}}, {{da ? da : db}}, Copy<T, 1>{});
    }
}

template <class T>
void concatenate(const Context& context, const Concatenate& s, int64_t n, const T* a, const T* b,
                 T* y) {
    join<T, true>(context, "concatenate", s, n, y, a, b);
}

template <class T>
void concatenate_backward(const Context& context, const Concatenate& s, int64_t n, const T* dy,
                          T* da, T* db) {
    join<T, false>(context, "concatenate_backward", s, n, dy, da, db);
}

template <class T>
void transpose(const Context& context, const Transpose& s, int64_t n, const T* x, T* y) {
    const int64_t count = n * s.rows * s.columns;
    if (count == 0) return;
    if (count <= kMostIn32Bits) {
        transpose_as<T, int32_t>(context, s, n, x, y);
    } else {
        transpose_as<T, int64_t>(context, s, n, x, y);
    }
}

INSTANTIATE(add)
INSTANTIATE(add_backward)
INSTANTIATE(concatenate)
INSTANTIATE(concatenate_backward)
INSTANTIATE(transpose)

}  // namespace cuda
}  // namespace convkit
