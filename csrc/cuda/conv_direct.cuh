// Convolution with few filters, where tiles of gemm.cuh would be half empty: LeNet's layers.
//
// A block takes rows of one sample's output after the other ("a band"): it brings the band's window
// of the picture, channel by channel, and the whole kernel into shared memory. A thread has
// kPixels neighbouring pixels and some filters in registers. The sums go through shared memory
// again, so that they leave in the order of memory, with bias, max-pooling and activation on the
// way.
//
// The gradient of the input, for strides of 1, is the same over dy with the kernel turned round.
#pragma once

#include <algorithm>

#include "conv_products.cuh"
#include "index.cuh"

namespace convkit {
namespace cuda {

constexpr int kPixels = 4;                          // of a thread, next to each other
constexpr int64_t kFewFilters = 24;                 // up to so many
constexpr size_t kDirectShared = 48 * 1024 - 1024;  // what every GPU has, and a little less

// One convolution without groups; the kernel is (tap, channels, filters) in memory, or turned
// round: (last tap first, filters, channels).
template <class T>
struct Direct {
    int height, width, channels;
    int kernel_height, kernel_width, filters;
    int stride_height, stride_width, dilation_height, dilation_width, pad_top, pad_left;
    int out_height, out_width;
    int pool_height, pool_width;
    bool turned;
    int64_t samples;

    const T *x, *kernel;
    Epilogue<T> epilogue;
    T* y;

    // How it is cut: rows of a band (whole windows of the pooling), bands of a sample; quads of
    // pixels in a row; filters, rounded up to what threads take at a time.
    int band, bands, across, round_filters;
    // Shared memory: rows and columns of the picture's part, distance of its rows and of channels;
    // the same for sums.
    int part_height, part_width, part_pitch, part_plane;
    int sum_pitch, sum_plane;
    Divisor<int32_t> by_channels{1}, by_filters{1}, by_across{1}, by_band{1}, by_pooled_width{1};
    Divisor<int32_t> by_line{1};

    int64_t part_size() const { return static_cast<int64_t>(part_plane) * channels; }
    int64_t kernel_size() const {
        return int64_t{1} * kernel_height * kernel_width * channels * round_filters;
    }
    int64_t sums_size() const { return static_cast<int64_t>(sum_plane) * round_filters; }
    size_t shared_bytes() const {
        return static_cast<size_t>(kernel_size() + part_size() + sums_size()) * sizeof(T);
    }

    void cut(int rows) {
        band = rows;
        const int covered = out_height / pool_height * pool_height;
        bands = divide_up(covered, band);
        across = divide_up(out_width, kPixels);
        part_height = (band - 1) * stride_height + (kernel_height - 1) * dilation_height + 1;
        part_width =
            (across * kPixels - 1) * stride_width + (kernel_width - 1) * dilation_width + 1;
        // Threads of a warp read kPixels * stride columns apart: rows one bank off.
        part_pitch = divide_up(part_width, kPixels) * kPixels + 1;
        part_plane = part_pitch * part_height;
        sum_pitch = across * kPixels + 1;
        sum_plane = sum_pitch * band;
        by_channels = Divisor<int32_t>(channels);
        by_filters = Divisor<int32_t>(filters);
        by_line = Divisor<int32_t>(int64_t{1} * part_width * channels);
        by_across = Divisor<int32_t>(across);
        by_band = Divisor<int32_t>(band);
        by_pooled_width = Divisor<int32_t>(out_width / pool_width);
    }
};

// The sums of kPixels pixels and kFilters filters of one thread. kWidth is the width of a kernel
// that has strides and dilations of 1 across, of which a row's values are then read once for all
// taps; 0 is any.
template <class T, int kFilters, int kWidth>
__device__ __forceinline__ void direct_sums(const Direct<T>& p, const T* part, const T* kernel,
                                            T (&sum)[kPixels][kFilters]) {
    const int channels = p.channels, filters = p.round_filters;
    for (int kh = 0; kh < p.kernel_height; ++kh) {
        const T* row = part + kh * p.dilation_height * p.part_pitch;
        if constexpr (kWidth > 0) {
            const T* weights = kernel + kh * kWidth * channels * filters;
            for (int c = 0; c < channels; ++c, row += p.part_plane, weights += filters) {
                T x[kPixels + kWidth - 1];
                CONVKIT_UNROLL
                for (int i = 0; i < kPixels + kWidth - 1; ++i) x[i] = row[i];
                CONVKIT_UNROLL
                for (int kw = 0; kw < kWidth; ++kw) {
                    T w[kFilters];
                    load_many(weights + kw * channels * filters, w);
                    CONVKIT_UNROLL
                    for (int i = 0; i < kPixels; ++i) CONVKIT_UNROLL
                    for (int f = 0; f < kFilters; ++f) sum[i][f] += x[kw + i] * w[f];
                }
            }
        } else {
            const T* weights = kernel + kh * p.kernel_width * channels * filters;
            for (int kw = 0; kw < p.kernel_width; ++kw) {
                const T* x = row + kw * p.dilation_width;
                CONVKIT_UNROLL_BY(2)
                for (int c = 0; c < channels; ++c, x += p.part_plane, weights += filters) {
                    T w[kFilters];
                    load_many(weights, w);
                    CONVKIT_UNROLL
                    for (int i = 0; i < kPixels; ++i) {
                        const T value = x[i * p.stride_width];
                        CONVKIT_UNROLL
                        for (int f = 0; f < kFilters; ++f) sum[i][f] += value * w[f];
                    }
                }
            }
        }
    }
}

template <class T, int kFilters, int kWidth>
__global__ void __launch_bounds__(256, 2) direct_kernel(const Direct<T> p) {
    DYNAMIC_SHARED(T, memory);
    T* const kernel = memory;
    T* const part = kernel + p.kernel_height * p.kernel_width * p.channels * p.round_filters;
    T* const sums = part + p.part_plane * p.channels;
    const int threads = blockDim.x;

    // The kernel: (tap, channels, filters), filters rounded up with zeros.
    const int kernel_rows = p.kernel_height * p.kernel_width * p.channels;
    for (int i = threadIdx.x; i < kernel_rows * p.round_filters; i += threads) kernel[i] = T(0);
    __syncthreads();
    for (int i = threadIdx.x; i < kernel_rows * p.filters; i += threads) {
        if (p.turned) {
            const int rest = p.by_channels.quotient(i), channel = i - rest * p.channels;
            const int tap = p.by_filters.quotient(rest), filter = rest - tap * p.filters;
            const int last = p.kernel_height * p.kernel_width - 1;
            kernel[((last - tap) * p.channels + channel) * p.round_filters + filter] = p.kernel[i];
        } else {
            const int row = p.by_filters.quotient(i);
            kernel[row * p.round_filters + i - row * p.filters] = p.kernel[i];
        }
    }

    const int oh = static_cast<int>(blockIdx.x) * p.band;
    const int rows = min(p.band, p.out_height / p.pool_height * p.pool_height - oh);
    const int top = oh * p.stride_height - p.pad_top;
    const int line = p.part_width * p.channels;
    const int pooled_width = p.out_width / p.pool_width;
    const int outputs = rows / p.pool_height * pooled_width * p.filters;
    for (int64_t sample = blockIdx.y; sample < p.samples; sample += gridDim.y) {
        const T* image = p.x + sample * p.height * p.width * p.channels;
        CONVKIT_UNROLL_BY(4)
        for (int i = threadIdx.x; i < p.part_height * line; i += threads) {
            const int h = p.by_line.quotient(i), rest = i - h * line;
            const int w = p.by_channels.quotient(rest), c = rest - w * p.channels;
            const int ih = top + h, iw = w - p.pad_left;
            const bool inside = static_cast<unsigned>(ih) < static_cast<unsigned>(p.height) &&
                                static_cast<unsigned>(iw) < static_cast<unsigned>(p.width);
            const int64_t from = (int64_t{1} * ih * p.width + iw) * p.channels + c;
            part[c * p.part_plane + h * p.part_pitch + w] = inside ? image[from] : T(0);
        }
        __syncthreads();

        const int items = p.band * p.across * (p.round_filters / kFilters);
        for (int item = threadIdx.x; item < items; item += threads) {
            const int rest = p.by_across.quotient(item), quad = item - rest * p.across;
            const int part_of_filters = p.by_band.quotient(rest);
            const int filter = part_of_filters * kFilters;
            const int row = rest - part_of_filters * p.band;
            if (row >= rows) continue;
            T sum[kPixels][kFilters];
            CONVKIT_UNROLL
            for (int i = 0; i < kPixels; ++i) CONVKIT_UNROLL
            for (int f = 0; f < kFilters; ++f) sum[i][f] = T(0);
            direct_sums<T, kFilters, kWidth>(
                p, part + row * p.stride_height * p.part_pitch + quad * kPixels * p.stride_width,
                kernel + filter, sum);
            T* to = sums + filter * p.sum_plane + row * p.sum_pitch + quad * kPixels;
            CONVKIT_UNROLL
            for (int i = 0; i < kPixels; ++i) CONVKIT_UNROLL
            for (int f = 0; f < kFilters; ++f) to[f * p.sum_plane + i] = sum[i][f];
        }
        __syncthreads();

        T* y = p.y + (sample * (p.out_height / p.pool_height) + oh / p.pool_height) * pooled_width *
                         p.filters;
        CONVKIT_UNROLL_BY(1)
        for (int i = threadIdx.x; i < outputs; i += threads) {
            const int pixel = p.by_filters.quotient(i), filter = i - pixel * p.filters;
            const int row = p.by_pooled_width.quotient(pixel);
            const int column = pixel - row * pooled_width;
            const T* window = sums + filter * p.sum_plane + row * p.pool_height * p.sum_pitch +
                              column * p.pool_width;
            T best = window[0];
            for (int h = 0; h < p.pool_height; ++h)
                for (int w = 0; w < p.pool_width; ++w)
                    best = larger_or_nan(best, window[h * p.sum_pitch + w]);
            y[i] = p.epilogue.any(filter, best);
        }
        // Sums are written again only behind the next barrier.
    }
}

// How many filters a thread takes: those that leave the fewest idle, 4 where they are equal.
inline int filters_at_once(int64_t filters) {
    const auto wasted = [&](int64_t each) { return divide_up(filters, each) * each; };
    if (filters <= 2) return 1;
    return wasted(6) < wasted(4) ? 6 : 4;
}

// The plan of a convolution with this pooling, cut so that many processors have work; false: it is
// not for this kernel, or its parts do not fit into shared memory.
template <class T>
bool plan_direct(const Conv2d& s, int64_t n, int64_t pool_height, int64_t pool_width,
                 Direct<T>* p) {
    const int64_t depth = s.kernel_height * s.kernel_width * s.channels;
    if (s.groups != 1 || s.filters > kFewFilters || depth > kSlice) return false;
    if (s.kernel_height * s.kernel_width == 1 || s.out_width < kPixels) return false;
    // In 64 bits before anything is narrowed: one row of the picture's part.
    const int64_t width =
        (s.out_width + kPixels) * s.stride_width + s.kernel_width * s.dilation_width;
    const int64_t height = pool_height * s.stride_height + s.kernel_height * s.dilation_height;
    if (width > 8192 || height > 8192 || width * s.channels > 16384) return false;
    const Geometry g = geometry_of(s);
    *p = {};
    p->height = g.height, p->width = g.width, p->channels = g.channels;
    p->kernel_height = g.kernel_height, p->kernel_width = g.kernel_width, p->filters = g.filters;
    p->stride_height = g.stride_height, p->stride_width = g.stride_width;
    p->dilation_height = g.dilation_height, p->dilation_width = g.dilation_width;
    p->pad_top = g.pad_top, p->pad_left = g.pad_left;
    p->out_height = g.out_height, p->out_width = g.out_width;
    p->pool_height = static_cast<int>(pool_height), p->pool_width = static_cast<int>(pool_width);
    p->samples = n;
    const int each = filters_at_once(s.filters);
    p->round_filters = static_cast<int>(divide_up<int64_t>(s.filters, each) * each);
    const int least = p->pool_height;
    p->cut(least);
    if (p->shared_bytes() > kDirectShared) return false;
    // Bands half as high, from all rows on, until they fit and there are enough of them.
    int rows = std::min(g.out_height, 8192 / g.stride_height) / least * least;
    for (;; rows = divide_up(rows / 2, least) * least) {
        p->cut(rows > least ? rows : least);
        const int64_t items = int64_t{1} * p->band * p->across * (p->round_filters / each);
        const bool fits = p->shared_bytes() <= kDirectShared;
        const bool enough = n * p->bands >= 2 * kProcessors || items <= 128;
        if (p->band == least || (fits && enough)) return true;
    }
}

template <class T, int kFilters>
void launch_direct(const Context& context, const char* name, const Direct<T>& p) {
    const int64_t items = int64_t{1} * p.band * p.across * (p.round_filters / kFilters);
    const int64_t most = divide_up<int64_t>(items, kWarp) * kWarp;
    const dim3 threads(static_cast<unsigned>(most < 64 ? 64 : most < 256 ? most : 256));
    // Blocks that take several samples bring the kernel in once for all of them.
    const int64_t at_once = divide_up<int64_t>(16 * kProcessors, p.bands);
    const dim3 grid(static_cast<unsigned>(p.bands),
                    static_cast<unsigned>(p.samples < at_once ? p.samples : at_once));
    const bool dense_taps = p.stride_width == 1 && (p.dilation_width == 1 || p.kernel_width == 1);
    if constexpr (sizeof(T) == 4) {
        if (dense_taps && p.kernel_width == 3)
            return launch(context, name, direct_kernel<T, kFilters, 3>, grid, threads,
                          p.shared_bytes(), p);
        if (dense_taps && p.kernel_width == 5)
            return launch(context, name, direct_kernel<T, kFilters, 5>, grid, threads,
                          p.shared_bytes(), p);
    }
    launch(context, name, direct_kernel<T, kFilters, 0>, grid, threads, p.shared_bytes(), p);
}

template <class T>
void run_direct(const Context& context, const char* name, const Direct<T>& p) {
    switch (filters_at_once(p.filters)) {
        case 1:
            return launch_direct<T, 1>(context, name, p);
        case 4:
            return launch_direct<T, 4>(context, name, p);
        default:
            return launch_direct<T, 6>(context, name, p);
    }
}

}  // namespace cuda
}  // namespace convkit
