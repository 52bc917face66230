// Convolution of one sample in shared memory, forward and both ways back.
//
// With stride 1 a thread holds the sums of a strip of pixels in a row by some filters. It goes
// through channels and rows of the kernel; for each it loads the pixels under the strip once, and
// slides the kernel's row over them in registers. Channels and rows are split among threads until
// there is work for all; the parts are added up in a fixed order by who writes the outputs.
// The gradient of the input is the same with the picture of gradients and a turned kernel. For the
// gradient of the kernel a thread holds the sums of a row of taps by some filters, and slides over
// the pixels. All else goes value by value, in the gather form.
//
// LeNet's second convolution (14 x 14 x 6 to 10 x 10 x 16, 5 x 5), for a strip of 5 pixels by 4
// filters: 9 loads of pixels and 5 vectors of weights for 100 multiply-adds; 480 threads.
#pragma once

#include "activate.cuh"
#include "stretch_node.cuh"

namespace convkit {
namespace cuda {

constexpr int kPacked = 4;  // weights that stand together: those of up to so many filters

// Copies of a picture in which columns of zeros stand beside it, and pixels so far apart that
// neighbours are in different banks.
struct SpreadShape {
    int32_t count;  // with the zeros; 0: the picture is read where it is
    int32_t width, channels, left, row_pitch, pixel_pitch;
    Divisor<int32_t> by_row, by_channels;
};

__device__ inline void spread(const SpreadShape& s, const float* x, float* y) {
    for (int i = threadIdx.x; i < s.count; i += kStretchThreads) {
        const int row = s.by_row.quotient(i), place = s.by_row.remainder(i);
        const int column = s.by_channels.quotient(place), channel = s.by_channels.remainder(place);
        const int from = column - s.left;
        const bool there = from >= 0 && from < s.width;
        y[row * s.row_pitch + column * s.pixel_pitch + channel] =
            there ? x[(row * s.width + from) * s.channels + channel] : 0.0f;
    }
}

// Weights in the order of their use: packed[row of the kernel, channel][group of filters][column]
// [kPacked]. Turned: rows and columns backwards, filters for channels.
struct PackShape {
    int32_t count, per_group, filters, turned;
    int32_t kernel_height, kernel_width, channels, all_filters;  // of the kernel as it lies
    Divisor<int32_t> by_columns, by_groups, by_channels;
};

__device__ inline void pack_weights(const StretchNode& node) {
    const PackShape& s = shape_of<PackShape>(node);
    const auto* const kernel = reinterpret_cast<const float*>(node.memory[0]);
    float* const packed = values_of(node, 0);
    for (int i = threadIdx.x; i < s.count; i += kStretchThreads) {
        const int in_group = i % kPacked, column_of = i / kPacked;
        const int column = s.by_columns.remainder(column_of);
        const int group_of = s.by_columns.quotient(column_of);
        const int filter = s.by_groups.remainder(group_of) * s.per_group + in_group;
        const int term = s.by_groups.quotient(group_of);
        const int row = s.by_channels.quotient(term), channel = s.by_channels.remainder(term);
        float weight = 0;
        if (in_group < s.per_group && filter < s.filters) {
            const int h = s.turned ? s.kernel_height - 1 - row : row;
            const int w = s.turned ? s.kernel_width - 1 - column : column;
            const int c = s.turned ? filter : channel, f = s.turned ? channel : filter;
            weight = kernel[((h * s.kernel_width + w) * s.channels + c) * s.all_filters + f];
        }
        packed[i] = weight;
    }
}

// ---- stride 1 -----------------------------------------------------------------------------------

// Row `row` of y begins with row `row` - top of x. y holds parts of the sums: (parts, out_height,
// out_width, filter_pitch).
struct SlideShape {
    int32_t kind;  // of its template; 0: none
    int32_t items, row_pitch, pixel_pitch;
    int32_t height, channels, kernel_height, top;
    int32_t out_width, filter_pitch, part;  // numbers in a part
    int32_t groups, channel_parts, row_parts;
    Divisor<int32_t> by_groups, by_strips, by_rows, by_channel_parts;
};

template <int kWidth, int kPixels, int kFilters>
__device__ void slide(const SlideShape& s, const float* x, const float* packed, float* y) {
    constexpr int kReach = kPixels + kWidth - 1;
    for (int item = threadIdx.x; item < s.items; item += kStretchThreads) {
        const int strip_of = s.by_groups.quotient(item), group = s.by_groups.remainder(item);
        const int row_of = s.by_strips.quotient(strip_of), strip = s.by_strips.remainder(strip_of);
        const int part = s.by_rows.quotient(row_of), row = s.by_rows.remainder(row_of);
        const int row_part = s.by_channel_parts.quotient(part);
        const int first_channel = s.by_channel_parts.remainder(part);
        // The last strip lies within the row; what the one before it has too is left to that.
        const int column = min(strip * kPixels, s.out_width - kPixels);
        const int above = row - s.top, first = max(0, -above);
        const int begin = first + row_part, end = min(s.kernel_height, s.height - above);
        const int row_step = s.row_parts * s.row_pitch;
        const int packed_step = s.groups * kWidth * kPacked;
        float sum[kPixels][kFilters] = {};
        for (int channel = first_channel; channel < s.channels; channel += s.channel_parts) {
            const float* from =
                x + (above + begin) * s.row_pitch + column * s.pixel_pitch + channel;
            const float* weights =
                packed + (begin * s.channels + channel) * packed_step + group * kWidth * kPacked;
            for (int h = begin; h < end; h += s.row_parts) {
                float pixel[kReach];
                CONVKIT_UNROLL
                for (int i = 0; i < kReach; ++i) pixel[i] = from[i * s.pixel_pitch];
                CONVKIT_UNROLL
                for (int w = 0; w < kWidth; ++w) {
                    const auto weight = load_vector<float, kPacked>(weights + w * kPacked);
                    CONVKIT_UNROLL
                    for (int p = 0; p < kPixels; ++p) {
                        CONVKIT_UNROLL
                        for (int f = 0; f < kFilters; ++f)
                            sum[p][f] += pixel[p + w] * weight.value[f];
                    }
                }
                from += row_step;
                weights += s.row_parts * s.channels * packed_step;
            }
        }
        float* const to =
            y + part * s.part + (row * s.out_width + column) * s.filter_pitch + group * kFilters;
        CONVKIT_UNROLL
        for (int p = 0; p < kPixels; ++p) {
            if (column + p < strip * kPixels) continue;
            if constexpr (kFilters == kPacked) {
                Vector<float, kPacked> values;
                CONVKIT_UNROLL
                for (int f = 0; f < kFilters; ++f) values.value[f] = sum[p][f];
                store_vector<float, kPacked>(to + p * s.filter_pitch, values);
            } else {
                CONVKIT_UNROLL
                for (int f = 0; f < kFilters; ++f) to[p * s.filter_pitch + f] = sum[p][f];
            }
        }
    }
}

// ---- value by value -----------------------------------------------------------------------------

struct ConvShape {
    int32_t height, width, channels, kernel_height, kernel_width, filters;
    int32_t group_channels, group_filters;
    int32_t stride_height, stride_width, dilation_height, dilation_width, pad_top, pad_left;
    int32_t out_height, out_width;
    PixelShape inputs, outputs;
    Divisor<int32_t> by_group_channels, by_group_filters, by_stride_height, by_stride_width;

    __device__ int input(int row, int column, int channel) const {
        return (row * width + column) * channels + channel;
    }
    __device__ int output(int row, int column, int filter) const {
        return (row * out_width + column) * filters + filter;
    }
    __device__ int weight(int h, int w, int channel, int filter) const {
        return ((h * kernel_width + w) * group_channels + channel) * filters + filter;
    }
};

__device__ inline void convolve(const ConvShape& s, const float* x, const float* kernel, float* y) {
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads) {
        const Pixel p = s.outputs.at(i);
        const int first = s.by_group_filters.quotient(p.channel) * s.group_channels;
        float sum = 0;
        for (int h = 0; h < s.kernel_height; ++h) {
            const int row = p.row * s.stride_height - s.pad_top + h * s.dilation_height;
            if (row < 0 || row >= s.height) continue;
            for (int w = 0; w < s.kernel_width; ++w) {
                const int column = p.column * s.stride_width - s.pad_left + w * s.dilation_width;
                if (column < 0 || column >= s.width) continue;
                const float* const from = x + s.input(row, column, first);
                const float* const weights = kernel + s.weight(h, w, 0, p.channel);
                for (int c = 0; c < s.group_channels; ++c)
                    sum += from[c] * weights[static_cast<int64_t>(c) * s.filters];
            }
        }
        y[i] = sum;
    }
}

__device__ inline void convolve_backward_input(const ConvShape& s, const float* dy,
                                               const float* kernel, float* dx) {
    for (int i = threadIdx.x; i < s.inputs.count; i += kStretchThreads) {
        const Pixel p = s.inputs.at(i);
        const int group = s.by_group_channels.quotient(p.channel);
        const int channel = s.by_group_channels.remainder(p.channel);
        float sum = 0;
        for (int h = 0; h < s.kernel_height; ++h) {
            const int down = p.row + s.pad_top - h * s.dilation_height;
            if (down < 0 || s.by_stride_height.remainder(down) != 0) continue;
            const int row = s.by_stride_height.quotient(down);
            if (row >= s.out_height) continue;
            for (int w = 0; w < s.kernel_width; ++w) {
                const int across = p.column + s.pad_left - w * s.dilation_width;
                if (across < 0 || s.by_stride_width.remainder(across) != 0) continue;
                const int column = s.by_stride_width.quotient(across);
                if (column >= s.out_width) continue;
                const int filter = group * s.group_filters;
                const float* const from = dy + s.output(row, column, filter);
                const float* const weights = kernel + s.weight(h, w, channel, filter);
                for (int f = 0; f < s.group_filters; ++f) sum += from[f] * weights[f];
            }
        }
        dx[i] = sum;
    }
}

// ---- parts to outputs ---------------------------------------------------------------------------

// The sum of the parts in their order.
__device__ inline float sum_of_parts(const float* from, int parts, int part) {
    float sum = 0;
    for (int i = 0; i < parts; ++i) sum += from[i * part];
    return sum;
}

struct PoolingShape {
    int32_t parts, part, out_width, filter_pitch;
    int32_t pool_height, pool_width, kind;
    float slope;
    PixelShape outputs;
};

// Bias, pooling, activation; mask may be null.
__device__ inline void finish_convolution(const PoolingShape& s, const float* z, const float* bias,
                                          float* y, uint8_t* mask) {
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads) {
        const Pixel p = s.outputs.at(i);
        const float shift = bias ? bias[p.channel] : 0.0f;
        float best = 0;
        int at = 0;
        for (int a = 0; a < s.pool_height; ++a) {
            for (int b = 0; b < s.pool_width; ++b) {
                const int pixel =
                    (p.row * s.pool_height + a) * s.out_width + p.column * s.pool_width + b;
                const float v =
                    sum_of_parts(z + pixel * s.filter_pitch + p.channel, s.parts, s.part) + shift;
                const int number = a * s.pool_width + b;
                if (number == 0 || (!(v <= best) && best == best)) {
                    best = v;
                    at = number;
                }
            }
        }
        y[i] = activate(s.kind, s.slope, best);
        if (mask) mask[i] = static_cast<uint8_t>(at);
    }
}

struct PartsShape {
    int32_t parts, part, filter_pitch;
    PixelShape outputs;
};

__device__ inline void finish_parts(const PartsShape& s, const float* z, float* y) {
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads) {
        const int pixel = s.outputs.by_channels.quotient(i);
        const int channel = s.outputs.by_channels.remainder(i);
        y[i] = sum_of_parts(z + pixel * s.filter_pitch + channel, s.parts, s.part);
    }
}

// ---- back through pooling and activation --------------------------------------------------------

struct UnpoolShape {
    int32_t pool_height, pool_width, out_height, out_width, channels, kind;
    float slope;
    int32_t rest;  // whether windows leave pixels out
    PixelShape pooled, outputs;
};

__device__ inline void unpool(const StretchNode& node) {
    const UnpoolShape& s = shape_of<UnpoolShape>(node);
    const float *const dy = values_of(node, 0), *const y = values_of(node, 1);
    const auto* const mask = reinterpret_cast<const uint8_t*>(values_of(node, 2));
    float* const dz = values_of(node, 3);
    const int kind = s.kind, line = s.out_width * s.channels;
    for (int i = threadIdx.x; i < s.pooled.count; i += kStretchThreads) {
        const Pixel p = s.pooled.at(i);
        const float gradient = activate_backward(kind, s.slope, dy[i], y[i]);
        const int winner = mask[i];
        float* const to =
            dz + (p.row * s.pool_height * s.out_width + p.column * s.pool_width) * s.channels +
            p.channel;
        for (int a = 0; a < s.pool_height; ++a)
            for (int b = 0; b < s.pool_width; ++b)
                to[a * line + b * s.channels] = a * s.pool_width + b == winner ? gradient : 0.0f;
    }
    if (!s.rest) return;
    const int height = s.out_height / s.pool_height * s.pool_height;
    const int width = s.out_width / s.pool_width * s.pool_width;
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads) {
        const Pixel p = s.outputs.at(i);
        if (p.row >= height || p.column >= width) dz[i] = 0.0f;
    }
}

// ---- gradients of the kernel --------------------------------------------------------------------

// Segments of rows of dy, which threads share; each part of the threads has sums of its own:
// (parts, kernel_height, kernel_width, channels, filters), and behind them (bias_parts, filters).
struct KernelShape {
    int32_t kind;  // of its template; 0: value by value
    int32_t items, row_pitch, pixel_pitch;
    int32_t height, channels, kernel_height, top;
    int32_t out_width, filters, pixels, size;  // of dy, of the kernel
    int32_t parts, segments;
    int32_t bias_parts, with_bias;
    int32_t kernel_sum, bias_sum;  // where the gradients are in a slot
    Divisor<int32_t> by_groups, by_channels, by_terms, by_segments, by_filters;
};

template <int kWidth, int kPixels, int kFilters>
__device__ void slide_over_pixels(const KernelShape& s, const float* x, const float* dy,
                                  float* sums) {
    for (int item = threadIdx.x; item < s.items; item += kStretchThreads) {
        const int term_of = s.by_groups.quotient(item);
        const int filter = s.by_groups.remainder(item) * kFilters;
        const int part = s.by_terms.quotient(term_of), term = s.by_terms.remainder(term_of);
        const int h = s.by_channels.quotient(term), channel = s.by_channels.remainder(term);
        float sum[kWidth][kFilters] = {};
        for (int segment = part; segment < s.segments; segment += s.parts) {
            const int row = s.by_segments.quotient(segment);
            const int column = s.by_segments.remainder(segment) * kPixels;
            const int from_row = row - s.top + h;
            if (from_row < 0 || from_row >= s.height) continue;
            const float* const from = x + from_row * s.row_pitch + column * s.pixel_pitch + channel;
            const float* const gradients = dy + (row * s.out_width + column) * s.filters + filter;
            float pixel[kPixels + kWidth - 1];
            CONVKIT_UNROLL
            for (int i = 0; i < kWidth - 1; ++i) pixel[i] = from[i * s.pixel_pitch];
            CONVKIT_UNROLL
            for (int p = 0; p < kPixels; ++p) {
                if (column + p >= s.out_width) break;
                pixel[p + kWidth - 1] = from[(p + kWidth - 1) * s.pixel_pitch];
                float gradient[kFilters];
                if constexpr (kFilters == kPacked) {
                    const auto values = load_vector<float, kPacked>(gradients + p * s.filters);
                    CONVKIT_UNROLL
                    for (int f = 0; f < kFilters; ++f) gradient[f] = values.value[f];
                } else {
                    CONVKIT_UNROLL
                    for (int f = 0; f < kFilters; ++f)
                        gradient[f] = filter + f < s.filters ? gradients[p * s.filters + f] : 0.0f;
                }
                CONVKIT_UNROLL
                for (int w = 0; w < kWidth; ++w) {
                    CONVKIT_UNROLL
                    for (int f = 0; f < kFilters; ++f) sum[w][f] += pixel[p + w] * gradient[f];
                }
            }
        }
        CONVKIT_UNROLL
        for (int w = 0; w < kWidth; ++w) {
            float* const to = sums + part * s.size +
                              ((h * kWidth + w) * s.channels + channel) * s.filters + filter;
            CONVKIT_UNROLL
            for (int f = 0; f < kFilters; ++f)
                if (filter + f < s.filters) to[f] = sum[w][f];
        }
    }
}

// Parts of the sums of dy, by the threads that have no other work.
__device__ inline void sum_pixels(const KernelShape& s, const float* dy, float* sums) {
    const int first = s.kind ? s.items % kStretchThreads : 0;
    const int thread = (static_cast<int>(threadIdx.x) - first + kStretchThreads) % kStretchThreads;
    for (int i = thread; i < s.bias_parts * s.filters; i += kStretchThreads) {
        const int part = s.by_filters.quotient(i), filter = s.by_filters.remainder(i);
        float sum = 0;
        for (int p = part; p < s.pixels; p += s.bias_parts) sum += dy[p * s.filters + filter];
        sums[i] = sum;
    }
}

// Weight (h, w, channel, filter): one thread for each.
__device__ inline void kernel_value_by_value(const ConvShape& s, const KernelShape& k,
                                             const float* x, const float* dy, float* sums) {
    for (int i = threadIdx.x; i < k.size; i += kStretchThreads) {
        const int term = k.by_filters.quotient(i), filter = k.by_filters.remainder(i);
        const int tap = s.by_group_channels.quotient(term);
        const int channel = s.by_group_channels.remainder(term) +
                            s.by_group_filters.quotient(filter) * s.group_channels;
        const int h = tap / s.kernel_width, w = tap % s.kernel_width;
        float sum = 0;
        for (int row = 0; row < s.out_height; ++row) {
            const int from_row = row * s.stride_height - s.pad_top + h * s.dilation_height;
            if (from_row < 0 || from_row >= s.height) continue;
            for (int column = 0; column < s.out_width; ++column) {
                const int from = column * s.stride_width - s.pad_left + w * s.dilation_width;
                if (from < 0 || from >= s.width) continue;
                sum += x[s.input(from_row, from, channel)] * dy[s.output(row, column, filter)];
            }
        }
        sums[i] = sum;
    }
}

// Sums of the parts, stored to the slot or added to it.
__device__ inline void put_sums(int size, const float* sums, int parts, bool fresh, float* to) {
    for (int i = threadIdx.x; i < size; i += kStretchThreads) {
        const float sum = sum_of_parts(sums + i, parts, size);
        to[i] = fresh ? sum : to[i] + sum;
    }
}

// ---- nodes --------------------------------------------------------------------------------------

// A template for each size that networks have: columns of the kernel, pixels, filters.
#define CONVKIT_SLIDES(X) \
    X(3, 2, 3)            \
    X(3, 4, 3)            \
    X(3, 5, 3)            \
    X(3, 7, 3)            \
    X(3, 2, 4)            \
    X(3, 4, 4)            \
    X(3, 5, 4)            \
    X(3, 7, 4)            \
    X(5, 2, 3) X(5, 4, 3) X(5, 5, 3) X(5, 7, 3) X(5, 2, 4) X(5, 4, 4) X(5, 5, 4) X(5, 7, 4)

CONVKIT_ANYWHERE constexpr int slide_kind(int width, int pixels, int filters) {
    return width * 100 + pixels * 10 + filters;
}

__device__ inline void slide_any(const SlideShape& s, const float* x, const float* packed,
                                 float* y) {
    switch (s.kind) {
#define CONVKIT_CASE(w, p, f) \
    case slide_kind(w, p, f): \
        return slide<w, p, f>(s, x, packed, y);
        CONVKIT_SLIDES(CONVKIT_CASE)
#undef CONVKIT_CASE
    }
}

__device__ inline void slide_over_any(const KernelShape& s, const float* x, const float* dy,
                                      float* sums) {
    switch (s.kind) {
#define CONVKIT_CASE(w, p, f) \
    case slide_kind(w, p, f): \
        return slide_over_pixels<w, p, f>(s, x, dy, sums);
        CONVKIT_SLIDES(CONVKIT_CASE)
#undef CONVKIT_CASE
    }
}

// Forward and backward to the input: what is read, the sums, and what becomes of them.
struct ConvolutionShape {
    SpreadShape spread;
    SlideShape slide;
    ConvShape conv;
    PoolingShape pooling;  // forward
    PartsShape parts;      // backward
};

// at: x, then y and mask and bias forward, dx backward; packed weights, the copy of x, the parts.
enum { kConvX, kConvY, kConvMask, kConvBias, kConvPacked, kConvCopy, kConvParts, kConvDy };

__device__ inline void convolution(const StretchNode& node) {
    const ConvolutionShape& s = shape_of<ConvolutionShape>(node);
    const bool forward = static_cast<KernelNumber>(node.op) == KernelNumber::tile_conv2d;
    const float* x = values_of(node, kConvX);
    float* const parts = values_of(node, kConvParts);
    if (s.spread.count > 0) {
        float* const copy = values_of(node, kConvCopy);
        spread(s.spread, x, copy);
        x = copy;
        __syncthreads();
    }
    const auto* const kernel = reinterpret_cast<const float*>(node.memory[0]);
    if (s.slide.kind) {
        slide_any(s.slide, x, values_of(node, kConvPacked), parts);
    } else if (forward) {
        convolve(s.conv, x, kernel, parts);
    } else {
        convolve_backward_input(s.conv, x, kernel, parts);
    }
    __syncthreads();
    if (!forward) return finish_parts(s.parts, parts, values_of(node, kConvY));
    const float* const bias = node.at[kConvBias] < 0 ? nullptr : values_of(node, kConvBias);
    auto* const mask = reinterpret_cast<uint8_t*>(values_of(node, kConvMask));
    finish_convolution(s.pooling, parts, bias, values_of(node, kConvY),
                       node.at[kConvMask] < 0 ? nullptr : mask);
}

struct ConvolutionKernelShape {
    SpreadShape spread;
    KernelShape kernel;
    ConvShape conv;
};

__device__ inline void convolution_backward_kernel(const StretchNode& node, const Sample& sample) {
    const ConvolutionKernelShape& s = shape_of<ConvolutionKernelShape>(node);
    const float *x = values_of(node, kConvX), *const dy = values_of(node, kConvDy);
    float* const sums = values_of(node, kConvParts);
    float* const bias_sums = sums + s.kernel.parts * s.kernel.size;
    if (s.spread.count > 0) {
        float* const copy = values_of(node, kConvCopy);
        spread(s.spread, x, copy);
        x = copy;
        __syncthreads();
    }
    if (s.kernel.with_bias) sum_pixels(s.kernel, dy, bias_sums);
    if (s.kernel.kind) {
        slide_over_any(s.kernel, x, dy, sums);
    } else {
        kernel_value_by_value(s.conv, s.kernel, x, dy, sums);
    }
    __syncthreads();
    float* const slot = sample.slots + sample.slot * sample.slot_floats;
    put_sums(s.kernel.size, sums, s.kernel.parts, sample.fresh, slot + s.kernel.kernel_sum);
    if (s.kernel.with_bias)
        put_sums(s.kernel.filters, bias_sums, s.kernel.bias_parts, sample.fresh,
                 slot + s.kernel.bias_sum);
}

}  // namespace cuda
}  // namespace convkit
