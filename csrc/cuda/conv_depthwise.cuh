// Convolution where each channel makes filters of its own (groups = channels): little arithmetic,
// so reading side by side is all. Threads next to each other have neighbouring filters (channels).
//
//   filter f = channel * multiplier + j, with multiplier = filters / channels
//   kernel, dkernel (kernel_height, kernel_width, 1, filters)
#pragma once

#include "conv_products.cuh"

namespace convkit {
namespace cuda {

template <class T>
struct Depthwise {
    Geometry g;
    ClassAxis down, across;  // for the gradient of the input
    int multiplier;
    int64_t samples;
    const T *x, *kernel, *dy;
    T* to;  // y, dx, or sums over chunks of the pixels, (dkernel, dbias) each
    Epilogue<T> epilogue;
    int64_t chunk;  // lines of the output
    bool with_bias;
};

// y: kFilters neighbouring filters (1, or as many as a vector, then the multiplier is 1) of
// kPixels pixels next to each other.
template <class T, int kFilters, int kPixels>
struct DepthwiseForward {
    Depthwise<T> p;

    __device__ void operator()(int64_t item) const {
        const Geometry& g = p.g;
        const int quads = (g.out_width + kPixels - 1) / kPixels;
        Quotient q = divide(item, g.filters / kFilters);
        const int filter = static_cast<int>(q.remainder) * kFilters;
        q = divide(q.quotient, quads);
        const int ow = static_cast<int>(q.remainder) * kPixels;
        const Quotient line = divide(q.quotient, g.out_height);
        const int oh = static_cast<int>(line.remainder);
        const int channel = filter / p.multiplier;
        const T* image = p.x + line.quotient * g.height * g.width * g.channels + channel;
        T sum[kPixels][kFilters] = {};
        for (int kh = 0; kh < g.kernel_height; ++kh) {
            const int ih = oh * g.stride_height - g.pad_top + kh * g.dilation_height;
            if (static_cast<unsigned>(ih) >= static_cast<unsigned>(g.height)) continue;
            const T* row = image + static_cast<int64_t>(ih) * g.width * g.channels;
            for (int kw = 0; kw < g.kernel_width; ++kw) {
                T w[kFilters];
                load_many(p.kernel + int64_t{1} * (kh * g.kernel_width + kw) * g.filters + filter,
                          w);
                CONVKIT_UNROLL
                for (int i = 0; i < kPixels; ++i) {
                    const int iw = (ow + i) * g.stride_width - g.pad_left + kw * g.dilation_width;
                    if (static_cast<unsigned>(iw) >= static_cast<unsigned>(g.width)) continue;
                    T x[kFilters];
                    load_many(row + static_cast<int64_t>(iw) * g.channels, x);
                    CONVKIT_UNROLL
                    for (int f = 0; f < kFilters; ++f) sum[i][f] += x[f] * w[f];
                }
            }
        }
        T* y = p.to + (q.quotient * g.out_width + ow) * g.filters + filter;
        CONVKIT_UNROLL
        for (int i = 0; i < kPixels; ++i) {
            if (ow + i >= g.out_width) break;
            CONVKIT_UNROLL
            for (int f = 0; f < kFilters; ++f) sum[i][f] = p.epilogue.cheap(filter + f, sum[i][f]);
            store_many(y + static_cast<int64_t>(i) * g.filters, sum[i]);
        }
    }
};

// dx: kChannels neighbouring channels of a pixel.
template <class T, int kChannels>
struct DepthwiseBackwardInput {
    Depthwise<T> p;

    __device__ void operator()(int64_t item) const {
        const Geometry& g = p.g;
        Quotient q = divide(item, g.channels / kChannels);
        const int channel = static_cast<int>(q.remainder) * kChannels;
        q = divide(q.quotient, g.width);
        const int iw = static_cast<int>(q.remainder);
        const Quotient line = divide(q.quotient, g.height);
        const int ih = static_cast<int>(line.remainder);
        const Class rows = p.down.at(ih % g.stride_height);
        const Class columns = p.across.at(iw % g.stride_width);
        const int oh = rows.out + ih / g.stride_height;
        const int ow = columns.out + iw / g.stride_width;
        const T* image = p.dy + line.quotient * g.out_height * g.out_width * g.filters;
        T sum[kChannels] = {};
        for (int i = 0; i < rows.taps; ++i) {
            const int h = oh - i * p.down.out_step;
            if (static_cast<unsigned>(h) >= static_cast<unsigned>(g.out_height)) continue;
            for (int j = 0; j < columns.taps; ++j) {
                const int w = ow - j * p.across.out_step;
                if (static_cast<unsigned>(w) >= static_cast<unsigned>(g.out_width)) continue;
                const int tap =
                    (rows.tap + i * p.down.step) * g.kernel_width + columns.tap + j * p.across.step;
                for (int m = 0; m < p.multiplier; ++m) {
                    const int filter = channel * p.multiplier + m;
                    T dy[kChannels], kernel[kChannels];
                    load_many(image + (int64_t{1} * h * g.out_width + w) * g.filters + filter, dy);
                    load_many(p.kernel + int64_t{1} * tap * g.filters + filter, kernel);
                    CONVKIT_UNROLL
                    for (int c = 0; c < kChannels; ++c) sum[c] += dy[c] * kernel[c];
                }
            }
        }
        store_many(p.to + (q.quotient * g.width + iw) * g.channels + channel, sum);
    }
};

// Sums over a chunk of the output's lines for one tap (blockIdx.y; the last stands for the bias)
// and 32 filters: each warp takes every eighth line, then their sums are added in the warps' order.
constexpr int kDepthwiseWarps = 8;

template <class T>
__global__ void __launch_bounds__(kDepthwiseWarps* kWarp)
    depthwise_backward_kernel(const Depthwise<T> p, int64_t filter_blocks) {
    SHARED(T, sums, kDepthwiseWarps * kWarp);
    const Geometry& g = p.g;
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const Quotient block = divide(blockIdx.x, filter_blocks);
    const int64_t filter = block.remainder * kWarp + lane;
    const int taps = g.kernel_height * g.kernel_width;
    const int64_t end = min(p.samples * g.out_height, (block.quotient + 1) * p.chunk);
    const int64_t step = int64_t{1} * g.stride_width * g.channels;
    for (int tap = blockIdx.y; tap < taps + (p.with_bias ? 1 : 0); tap += gridDim.y) {
        const int h = tap / g.kernel_width * g.dilation_height - g.pad_top;
        const int w = tap % g.kernel_width * g.dilation_width - g.pad_left;
        // Outputs whose window has the tap inside the picture.
        const int first = w < 0 ? (-w + g.stride_width - 1) / g.stride_width : 0;
        const int reach = g.width - w;
        const int last =
            reach > 0 ? min(g.out_width, (reach + g.stride_width - 1) / g.stride_width) : 0;
        T sum = T(0);
        for (int64_t line = block.quotient * p.chunk + warp; line < end && filter < g.filters;
             line += kDepthwiseWarps) {
            const T* dy = p.dy + line * g.out_width * g.filters + filter;
            if (tap == taps) {
                for (int ow = 0; ow < g.out_width; ++ow, dy += g.filters) sum += *dy;
                continue;
            }
            const Quotient at = divide(line, g.out_height);
            const int ih = static_cast<int>(at.remainder) * g.stride_height + h;
            if (static_cast<unsigned>(ih) >= static_cast<unsigned>(g.height)) continue;
            dy += static_cast<int64_t>(first) * g.filters;
            const int64_t iw = static_cast<int64_t>(first) * g.stride_width + w;
            const T* x = p.x + ((at.quotient * g.height + ih) * g.width + iw) * g.channels +
                         filter / p.multiplier;
            CONVKIT_UNROLL_BY(4)
            for (int ow = first; ow < last; ++ow, dy += g.filters, x += step) sum += *x * *dy;
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (warp == 0 && filter < g.filters) {
            for (int i = 1; i < kDepthwiseWarps; ++i) sum += sums[i * kWarp + lane];
            const int64_t size = int64_t{1} * (taps + 1) * g.filters;
            p.to[block.quotient * size + int64_t{1} * tap * g.filters + filter] = sum;
        }
        __syncthreads();
    }
}

inline bool is_depthwise(const Conv2d& s) { return s.groups > 1 && s.channels == s.groups; }

template <class T>
Depthwise<T> plan_depthwise(const Conv2d& s, int64_t n) {
    Depthwise<T> p = {};
    p.g = geometry_of(s);
    p.down = classes_down(s), p.across = classes_across(s);
    p.multiplier = static_cast<int>(s.filters / s.channels);
    p.samples = n;
    return p;
}

template <class T>
void run_depthwise(const Context& context, const char* name, const Depthwise<T>& p, bool wide) {
    constexpr int kEach = 4;
    const int64_t lines = p.samples * p.g.out_height;
    const int64_t quads = divide_up(p.g.out_width, kEach);
    if (wide) {
        for_each(context, name, lines * quads * (p.g.filters / kWide<T>),
                 DepthwiseForward<T, kWide<T>, kEach>{p});
    } else {
        for_each(context, name, lines * quads * p.g.filters, DepthwiseForward<T, 1, kEach>{p});
    }
}

template <class T>
void run_depthwise_backward_input(const Context& context, const char* name, const Depthwise<T>& p,
                                  bool wide) {
    const int64_t pixels = p.samples * p.g.height * p.g.width;
    if (wide) {
        for_each(context, name, pixels * (p.g.channels / kWide<T>),
                 DepthwiseBackwardInput<T, kWide<T>>{p});
    } else {
        for_each(context, name, pixels * p.g.channels, DepthwiseBackwardInput<T, 1>{p});
    }
}

}  // namespace cuda
}  // namespace convkit
