// The three steps of winograd.h: transforms of the kernel and of patches, products, transforms
// back.
//
// weights (points, channels, filters) or, for the input's gradient, (points, filters, channels);
// patches (points, strip, channels, kTile); products (points, strip, filters, kTile). Points lie a
// value further apart than they would: a power of two apart they would share few sets of the cache.
#include "tile/winograd.h"

#include "tile/block.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr int kMostPoints = 36;
constexpr int kWindows = 4;  // in a block of sums
// Of patches and products, so that they stay in the second-level cache.
constexpr int64_t kStripBytes = 128 * 1024;

// One axis of the kernel's transform.
template <class T>
static inline CONVKIT_INLINE void transform_taps(const Vec<T> (&w)[3], Vec<T> (&to)[4]) {
    to[0] = w[0];
    to[1] = T(0.5) * (w[0] + w[2] + w[1]);
    to[2] = T(0.5) * (w[0] + w[2] - w[1]);
    to[3] = w[2];
}
template <class T>
static inline CONVKIT_INLINE void transform_taps(const Vec<T> (&w)[5], Vec<T> (&to)[6]) {
    using Axis = WinogradAxis<5>;
    constexpr double kA = Axis::kA, kB = Axis::kB, kAA = Axis::kAA, kBB = Axis::kBB;
    constexpr double kScaleA = 1 / (2 * kAA * (kAA - kBB)), kScaleB = 1 / (2 * kBB * (kBB - kAA));
    to[0] = T(1 / Axis::kProduct) * w[0];
    const Vec<T> even_a = w[0] + T(kAA) * (w[2] + T(kAA) * w[4]);
    const Vec<T> odd_a = T(kA) * (w[1] + T(kAA) * w[3]);
    to[1] = T(kScaleA) * (even_a + odd_a);
    to[2] = T(kScaleA) * (even_a - odd_a);
    const Vec<T> even_b = w[0] + T(kBB) * (w[2] + T(kBB) * w[4]);
    const Vec<T> odd_b = T(kB) * (w[1] + T(kBB) * w[3]);
    to[3] = T(kScaleB) * (even_b + odd_b);
    to[4] = T(kScaleB) * (even_b - odd_b);
    to[5] = w[4];
}

// G w G' for a register of weights, `size` apart.
template <class T, int kTaps, class P>
static inline CONVKIT_INLINE void transform_kernel(const T* kernel, int64_t size, P part,
                                                   bool turned, T* to, int64_t step) {
    constexpr int kSide = kTaps + 1;
    Vec<T> half[kSide][kTaps];
    CONVKIT_UNROLL
    for (int j = 0; j < kTaps; ++j) {
        Vec<T> w[kTaps], line[kSide];
        CONVKIT_UNROLL
        for (int i = 0; i < kTaps; ++i) {
            const int place = i * kTaps + j;
            w[i] = get(kernel + (turned ? kTaps * kTaps - 1 - place : place) * size, part);
        }
        transform_taps<T>(w, line);
        CONVKIT_UNROLL
        for (int i = 0; i < kSide; ++i) half[i][j] = line[i];
    }
    CONVKIT_UNROLL
    for (int i = 0; i < kSide; ++i) {
        Vec<T> line[kSide];
        transform_taps<T>(half[i], line);
        CONVKIT_UNROLL
        for (int j = 0; j < kSide; ++j) put(to + (i * kSide + j) * step, line[j], part);
    }
}

// B' d B for all channels of a patch, whose pixels are given.
template <class T, int kTaps>
void transform_patch(const T* const* pixels, int64_t size, T* to, int64_t step) {
    constexpr int kSide = kTaps + 1;
    for (int64_t k = 0; k < size; k += kLanes<T>) {
        Vec<T> half[kSide][kSide];
        CONVKIT_UNROLL
        for (int j = 0; j < kSide; ++j) {
            Vec<T> d[kSide], line[kSide];
            CONVKIT_UNROLL
            for (int i = 0; i < kSide; ++i) d[i] = load(pixels[i * kSide + j] + k);
            WinogradAxis<kTaps>::patch(d, line);
            CONVKIT_UNROLL
            for (int i = 0; i < kSide; ++i) half[i][j] = line[i];
        }
        CONVKIT_UNROLL
        for (int i = 0; i < kSide; ++i) {
            Vec<T> line[kSide];
            WinogradAxis<kTaps>::patch(half[i], line);
            CONVKIT_UNROLL
            for (int j = 0; j < kSide; ++j) store(to + (i * kSide + j) * step + k, line[j]);
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
    const int64_t points = s.points(),
                  bytes = points * kTile * (s.channels + s.filters) * int64_t{sizeof(T)};
    strip = std::min(std::max<int64_t>(1, kStripBytes / bytes / kWindows) * kWindows,
                     round_up(tiles * s.rows * s.columns, kWindows));
    weight_step = round_up(size, kLanes<T>) + kTile;
    patch_step = (strip * s.channels + 1) * kTile;
    product_step = (strip * s.filters + 1) * kTile;
    weights = scratch<T>(kPackA, points * weight_step);
    patches = scratch<T>(kPackB, points * patch_step + pixel);
    zeros = patches + points * patch_step;
    products = scratch<T>(kLocal, points * product_step);
    std::memset(zeros, 0, sizeof(T) * pixel);
    for_each_vector(weights, 0, size, [&](int64_t i, auto part) {
        if (s.taps == 3) {
            transform_kernel<T, 3>(kernel + i, size, part, s.turned, weights + i, weight_step);
        } else {
            transform_kernel<T, 5>(kernel + i, size, part, s.turned, weights + i, weight_step);
        }
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
        const T* pixels[kMostPoints];
        for (int64_t p = 0; p < s.points(); ++p) {
            const int64_t row = top + p / s.side(), column = left + p % s.side();
            const bool within = row >= 0 && row < s.height && column >= 0 && column < s.width;
            pixels[p] = within ? from + (row * s.width + column) * pixel : zeros;
        }
        if (s.taps == 3) {
            transform_patch<T, 3>(pixels, pixel, patches + i * pixel, patch_step);
        } else {
            transform_patch<T, 5>(pixels, pixel, patches + i * pixel, patch_step);
        }
    }
    for (int64_t p = 0; p < s.points(); ++p) {
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
    T* const first = y + (window.tile * s.out_height + oh) * row + ow * pixel;
    for_each_output(window, [&](int64_t k, Vec<T>(&z)[4]) CONVKIT_INLINE {
        T* to = first + k;
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
    });
}

template class WinogradTiles<float>;
template class WinogradTiles<double>;

}  // namespace CONVKIT_ISA
}  // namespace convkit
