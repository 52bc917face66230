// Samples into tiles and out of them, and what else depends on which sample a lane is.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "cpu_kernels.h"
#include "philox.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

template <class Source, class Y, class Convert>
void gather_rows(int64_t size, int64_t n, const void* source, const int64_t* index, Y* y,
                 Convert convert) {
    const Source* x = static_cast<const Source*>(source);
    for (int64_t i = 0; n > 0 && i < in_tiles(n); ++i) {
        const int64_t sample = std::min(i, n - 1);
        const Source* from = x + (index ? index[sample] : sample) * size;
        Y* to = y + i / kTile * kTile * size + i % kTile;
        for (int64_t k = 0; k < size; ++k) to[k * kTile] = convert(from[k]);
    }
}

template <class Y, class Convert>
void gather_any(const Gather& s, int64_t n, const void* source, const int64_t* index, Y* y,
                Convert convert) {
    switch (s.type) {
        case kUint8:
        case kBool:
            return gather_rows<uint8_t>(s.size, n, source, index, y, convert);
        case kInt32:
            return gather_rows<int32_t>(s.size, n, source, index, y, convert);
        case kInt64:
            return gather_rows<int64_t>(s.size, n, source, index, y, convert);
        case kFloat32:
            return gather_rows<float>(s.size, n, source, index, y, convert);
        case kFloat64:
            return gather_rows<double>(s.size, n, source, index, y, convert);
    }
}

int32_t label(int64_t v) {
    using Limits = std::numeric_limits<int32_t>;
    return v < Limits::min() || v > Limits::max() ? -1 : static_cast<int32_t>(v);
}

int32_t label(double v) {
    return v > -2147483649.0 && v < 2147483648.0 ? static_cast<int32_t>(v) : -1;
}

}  // namespace

template <class T>
void tile_gather(const Context&, const Gather& s, int64_t n, const void* source,
                 const int64_t* index, T* y) {
    const T scale = static_cast<T>(s.scale);
    gather_any(s, n, source, index, y, [=](auto v) { return static_cast<T>(v) * scale; });
}

template <class T>
void tile_gather_labels(const Context&, const Gather& s, int64_t n, const void* source,
                        const int64_t* index, int32_t* y) {
    gather_any(s, n, source, index, y, [](auto v) {
        using Widest = std::conditional_t<std::is_floating_point_v<decltype(v)>, double, int64_t>;
        return label(static_cast<Widest>(v));
    });
}

template <class T>
void untile(const Context&, const Elementwise& s, int64_t n, const T* x, T* y) {
    for (int64_t i = 0; i < n; ++i) {
        const T* from = x + i / kTile * kTile * s.size + i % kTile;
        for (int64_t k = 0; k < s.size; ++k) y[i * s.size + k] = from[k * kTile];
    }
}

template <class T>
void tile_transpose(const Context&, const Transpose& s, int64_t n, const T* x, T* y) {
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        for (int64_t row = 0; row < s.rows; ++row) {
            for (int64_t column = 0; column < s.columns; ++column) {
                std::memcpy(y + (column * s.rows + row) * kTile, x, kTile * sizeof(T));
                x += kTile;
            }
        }
        y += s.rows * s.columns * kTile;
    }
}

template <class T>
void tile_dropout(const Context& context, const Dropout& s, int64_t n, const T* x,
                  const int64_t* random, T* y) {
    const T scale = static_cast<T>(1 / (1 - s.rate));
    const auto dropped_below = static_cast<uint32_t>(std::ceil(s.rate * kPhiloxGrid));
    for (int64_t i = 0; i < in_tiles(n) * s.size; ++i) {
        const int64_t sample = context.first + i / (s.size * kTile) * kTile + i % kTile;
        const int64_t element = sample * s.size + i / kTile % s.size;
        const auto numbers = philox_blocks<1>(random[0], random[1], s.stream, element / 4);
        const T scaled = x[i] * scale;
        y[i] = (numbers.value[element % 4][0] >> 8) < dropped_below ? T(0) : scaled;
    }
}

template <class T>
void tile_mean_backward(const Context& context, const Mean& s, int64_t n, const T* dy, T* dx) {
    const int64_t batch = context.batch > 0 ? context.batch : n;
    const T each = dy[0] / static_cast<T>(batch * s.rows);
    for (int64_t i = 0; i < in_tiles(n) * s.rows; ++i) {
        const int64_t sample = i / (s.rows * kTile) * kTile + i % kTile;
        dx[i] = sample < n ? each : T(0);
    }
}

INSTANTIATE(tile_gather)
INSTANTIATE(tile_gather_labels)
INSTANTIATE(untile)
INSTANTIATE(tile_transpose)
INSTANTIATE(tile_dropout)
INSTANTIATE(tile_mean_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
