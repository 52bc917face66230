// The three steps of winograd.h: transforms of the kernel and of patches, products, transforms
// back.
//
// weights (16, channels, filters) or, for the input's gradient, (16, filters, channels); patches
// (16, strip, channels, kTile); products (16, strip, filters, kTile). Points
// lie a value further apart than they would: 16 of them a power of two apart would share few sets
// of the cache.
#include "tile/winograd.h"

#include "tile/block.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr int kPoints = 16;
constexpr int kWindows = 4;  // in a block of sums
// Of patches and products, so that they stay in the second-level cache.
constexpr int64_t kStripBytes = 128 * 1024;

// G w G' for a register of weights, `size` apart. Turning the kernel swaps the outer points.
template <class T, class P>
static inline CONVKIT_INLINE void transform_kernel(const T* kernel, int64_t size, P part,
                                                   bool turned, T* to, int64_t step) {
    Vec<T> g[4][3];
    CONVKIT_UNROLL
    for (int j = 0; j < 3; ++j) {
        const Vec<T> first = get(kernel + j * size, part);
        const Vec<T> middle = get(kernel + (3 + j) * size, part);
        const Vec<T> last = get(kernel + (6 + j) * size, part);
        g[0][j] = turned ? last : first;
        g[1][j] = T(0.5) * (first + last + middle);
        g[2][j] = T(0.5) * (first + last - middle);
        g[3][j] = turned ? first : last;
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
        T* row = to + 4 * i * step;
        const Vec<T> outer = g[i][0] + g[i][2];
        put(row, turned ? g[i][2] : g[i][0], part);
        put(row + step, T(0.5) * (outer + g[i][1]), part);
        put(row + 2 * step, T(0.5) * (outer - g[i][1]), part);
        put(row + 3 * step, turned ? g[i][0] : g[i][2], part);
    }
}

// B' d B for all channels of a patch, whose 16 pixels are given.
template <class T>
void transform_patch(const T* const* pixels, int64_t size, T* to, int64_t step) {
    for (int64_t i = 0; i < size; i += kLanes<T>) {
        Vec<T> half[4][4];
        CONVKIT_UNROLL
        for (int j = 0; j < 4; ++j) {
            const Vec<T> b = load(pixels[4 + j] + i), c = load(pixels[8 + j] + i);
            half[0][j] = load(pixels[j] + i) - c;
            half[1][j] = b + c;
            half[2][j] = c - b;
            half[3][j] = b - load(pixels[12 + j] + i);
        }
        CONVKIT_UNROLL
        for (int p = 0; p < 4; ++p) {
            T* row = to + 4 * p * step + i;
            store(row, half[p][0] - half[p][2]);
            store(row + step, half[p][1] + half[p][2]);
            store(row + 2 * step, half[p][2] - half[p][1]);
            store(row + 3 * step, half[p][1] - half[p][3]);
        }
    }
}

// y[w][f] = sum over c of x[w][c] weights[c][f], for one part of the lanes.
template <class T, int kCount, int kFilters>
void block(const Winograd& s, const T* x, const T* weights, T* y) {
    Vec<T> sums[kCount][kFilters];
    CONVKIT_UNROLL
    for (int w = 0; w < kCount; ++w) {
        CONVKIT_UNROLL
        for (int f = 0; f < kFilters; ++f) sums[w][f] = Vec<T>{};
    }
    const int64_t window = s.channels * kTile;
    for (int64_t c = 0; c < s.channels; ++c, x += kTile, weights += s.channel_step) {
        Vec<T> value[kCount];
        CONVKIT_UNROLL
        for (int w = 0; w < kCount; ++w) value[w] = load(x + w * window);
        CONVKIT_UNROLL
        for (int f = 0; f < kFilters; ++f) {
            const Vec<T> weight = broadcast(weights[f * s.filter_step]);
            CONVKIT_UNROLL
            for (int w = 0; w < kCount; ++w) sums[w][f] += value[w] * weight;
        }
    }
    CONVKIT_UNROLL
    for (int w = 0; w < kCount; ++w) {
        CONVKIT_UNROLL
        for (int f = 0; f < kFilters; ++f) store(y + (w * s.filters + f) * kTile, sums[w][f]);
    }
}

// The block of as many filters as `filters` says.
template <class T, int kCount, int kFilters>
void block_of(int64_t filters, const Winograd& s, const T* x, const T* weights, T* y) {
    if (kFilters == 1 || filters == kFilters) {
        block<T, kCount, kFilters>(s, x, weights, y);
    } else if constexpr (kFilters > 1) {
        block_of<T, kCount, kFilters - 1>(filters, s, x, weights, y);
    }
}

// All filters at kCount windows, in blocks of about the same size.
template <class T, int kCount>
void all_filters(const Winograd& s, const T* x, const T* weights, T* y) {
    constexpr int kMost = most_filters<T>(std::max(2, kCount));
    for (int64_t f = 0, count = 0; f < s.filters; f += count) {
        count = divide_up(s.filters - f, divide_up(s.filters - f, kMost));
        for (int64_t lane = 0; lane < kTile; lane += kLanes<T>) {
            block_of<T, kCount, kMost>(count, s, x + lane, weights + f * s.filter_step,
                                       y + f * kTile + lane);
        }
    }
}

}  // namespace

template <class T>
WinogradTiles<T>::WinogradTiles(const Winograd& shape, int64_t tile_count, const T* kernel)
    : s(shape), tiles(tile_count) {
    const int64_t size = s.channels * s.filters, pixel = s.channels * kTile;
    const int64_t bytes = kPoints * kTile * (s.channels + s.filters) * int64_t{sizeof(T)};
    strip = std::min(std::max<int64_t>(1, kStripBytes / bytes / kWindows) * kWindows,
                     round_up(tiles * s.rows * s.columns, kWindows));
    weight_step = round_up(size, kLanes<T>) + kTile;
    patch_step = (strip * s.channels + 1) * kTile;
    product_step = (strip * s.filters + 1) * kTile;
    weights = scratch<T>(kPackA, kPoints * weight_step);
    patches = scratch<T>(kPackB, kPoints * patch_step + pixel);
    zeros = patches + kPoints * patch_step;
    products = scratch<T>(kLocal, kPoints * product_step);
    std::memset(zeros, 0, sizeof(T) * pixel);
    for_each_vector(weights, 0, size, [&](int64_t i, auto part) {
        transform_kernel(kernel + i, size, part, s.turned, weights + i, weight_step);
    });
}

template <class T>
void WinogradTiles<T>::multiply(const T* x, int64_t first, int64_t count) {
    const int64_t pixel = s.channels * kTile, windows = s.rows * s.columns;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t tile = (first + i) / windows, place = (first + i) % windows;
        const int64_t top = place / s.columns * 2 - s.pad_top;
        const int64_t left = place % s.columns * 2 - s.pad_left;
        const T* from = x + tile * s.height * s.width * pixel;
        const T* pixels[kPoints];
        for (int p = 0; p < kPoints; ++p) {
            const int64_t row = top + p / 4, column = left + p % 4;
            const bool within = row >= 0 && row < s.height && column >= 0 && column < s.width;
            pixels[p] = within ? from + (row * s.width + column) * pixel : zeros;
        }
        transform_patch(pixels, pixel, patches + i * pixel, patch_step);
    }
    for (int p = 0; p < kPoints; ++p) {
        const T* u = weights + p * weight_step;
        const T* v = patches + p * patch_step;
        T* m = products + p * product_step;
        int64_t i = 0;
        for (; i + kWindows <= count; i += kWindows) {
            all_filters<T, kWindows>(s, v + i * pixel, u, m + i * s.filters * kTile);
        }
        for (; i < count; ++i) all_filters<T, 1>(s, v + i * pixel, u, m + i * s.filters * kTile);
    }
}

template <class T>
void WinogradTiles<T>::store_window(const Window& window, const T* bias, T floor, T* y) const {
    const int64_t pixel = s.filters * kTile, row = s.out_width * pixel;
    const int64_t oh = 2 * window.row, ow = 2 * window.column;
    const bool right = ow + 1 < s.out_width, down = oh + 1 < s.out_height;
    const Vec<T> least = broadcast(floor);
    T* to = y + (window.tile * s.out_height + oh) * row + ow * pixel;
    for (int64_t k = 0; k < pixel; k += kLanes<T>, to += kLanes<T>) {
        Vec<T> z[4];
        window.get(k, z);
        const Vec<T> shift = broadcast(bias ? bias[k / kTile] : T(0));
        CONVKIT_UNROLL
        for (int i = 0; i < 4; ++i) {
            z[i] += shift;
            z[i] = z[i] < least ? least : z[i];
        }
        store(to, z[0]);
        if (right) store(to + pixel, z[1]);
        if (down) store(to + row, z[2]);
        if (right && down) store(to + row + pixel, z[3]);
    }
}

template class WinogradTiles<float>;
template class WinogradTiles<double>;

}  // namespace CONVKIT_ISA
}  // namespace convkit
