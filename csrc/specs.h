// Geometry of every op: sizes, strides and pads; no pointers.
//
// A spec describes one sample. The number of samples n is an argument of every kernel, so that one
// plan serves a full batch, a smaller last batch and a single image. Layout is NHWC, kernels HWIO.
#pragma once

#include <cstdint>

namespace convkit {

// Samples of a tile, the layout of depth-first programs: (value, kTile), samples in the lanes.
// The same for every instruction set and type; narrower registers take a value in several parts.
constexpr int64_t kTile = 16;

// The samples in as many whole tiles as n samples need.
constexpr int64_t in_tiles(int64_t n) { return (n + kTile - 1) / kTile * kTile; }

// x (n, height, width, channels), kernel (kernel_height, kernel_width, channels / groups, filters),
// y (n, out_height, out_width, filters). Bottom and right padding follow from the output's size.
struct Conv2d {
    int64_t height, width, channels;
    int64_t kernel_height, kernel_width, filters, groups;
    int64_t stride_height, stride_width;
    int64_t dilation_height, dilation_width;
    int64_t pad_top, pad_left;
    int64_t out_height, out_width;

    int64_t input_size() const { return height * width * channels; }
    int64_t output_size() const { return out_height * out_width * filters; }
    int64_t kernel_size() const {
        return kernel_height * kernel_width * (channels / groups) * filters;
    }
    int64_t multiply_adds() const {
        return out_height * out_width * kernel_height * kernel_width * (channels / groups) *
               filters;
    }
};

// x (n, rows, inputs), kernel (inputs, units), y (n, rows, units).
struct Dense {
    int64_t rows, inputs, units;

    int64_t input_size() const { return rows * inputs; }
    int64_t output_size() const { return rows * units; }
    int64_t kernel_size() const { return inputs * units; }
    int64_t multiply_adds() const { return rows * inputs * units; }
};

// x (n, height, width, channels), y (n, out_height, out_width, channels). A window may reach over
// the padded border (ceil_mode); what lies beyond the padding is never counted.
struct Pool2d {
    int64_t height, width, channels;
    int64_t pool_height, pool_width;
    int64_t stride_height, stride_width;
    int64_t dilation_height, dilation_width;
    int64_t pad_top, pad_bottom, pad_left, pad_right;
    int64_t out_height, out_width;
    int64_t count_include_pad;  // 0 or 1; average pooling only

    int64_t input_size() const { return height * width * channels; }
    int64_t output_size() const { return out_height * out_width * channels; }
};

// x (n, height, width, channels), y (n, height * scale_height, width * scale_width, channels).
struct Upsample2d {
    int64_t height, width, channels;
    int64_t scale_height, scale_width;
    int64_t bilinear;  // 0: nearest; 1: bilinear with half-pixel centres, edges clamped

    int64_t input_size() const { return height * width * channels; }
    int64_t output_size() const { return input_size() * scale_height * scale_width; }
};

// Values of one sample, whatever their shape.
struct Elementwise {
    int64_t size;
};

enum ActivationKind : int64_t { kLinear = -1, kRelu, kLeakyRelu, kSigmoid, kTanh, kExp };

struct Activation {
    int64_t size;
    int64_t kind;  // ActivationKind
    double slope;  // leaky_relu only, >= 0: y = x > 0 ? x : slope * x
};

// A convolution, then max-pooling without overlap (pool 1 x 1: none), then an activation that never
// decreases, so that it may follow the pooling. What no whole window covers is left out.
struct FusedConv2d {
    Conv2d conv;
    int64_t activation;  // ActivationKind
    double slope;        // leaky_relu only
    int64_t pool_height, pool_width;

    int64_t pooled_height() const { return conv.out_height / pool_height; }
    int64_t pooled_width() const { return conv.out_width / pool_width; }
    int64_t output_size() const { return pooled_height() * pooled_width() * conv.filters; }
};

struct FusedDense {
    Dense dense;
    int64_t activation;  // ActivationKind
    double slope;        // leaky_relu only
};

// y = x * scale + offset.
struct Rescale {
    int64_t size;
    double scale, offset;
};

// x (n, outer, size, inner), normalised over `size`.
struct Softmax {
    int64_t outer, size, inner;

    int64_t total() const { return outer * size * inner; }
};

// a (n, outer, first), b (n, outer, second), y (n, outer, first + second).
struct Concatenate {
    int64_t outer, first, second;
};

// x (n, rows, columns), y (n, columns, rows): channels_first to channels_last and back.
struct Transpose {
    int64_t rows, columns;
};

// Zeroes a share `rate` of the values and scales the others by 1 / (1 - rate). `stream` tells the
// dropout nodes of one step apart.
struct Dropout {
    int64_t size;
    int64_t stream;
    double rate;
};

// target and prediction (n, rows, size, inner), loss (n, rows, inner): over `size`. Sparse targets
// are labels (n, rows, inner).
struct Loss {
    int64_t rows, size, inner;
    int64_t from_logits;  // 0 or 1; cross-entropies only

    int64_t losses() const { return rows * inner; }
    int64_t total() const { return rows * size * inner; }
};

// x (n, rows), one number per sample and row.
struct Mean {
    int64_t rows;
};

enum SourceType : int64_t { kUint8, kInt32, kInt64, kFloat32, kFloat64, kBool };

// source (any number of samples, size) of `type`; y (n, size) = source[index] * scale + offset.
struct Gather {
    int64_t size;
    int64_t type;  // SourceType
    double scale, offset;

    int64_t row_bytes() const {
        if (type == kUint8 || type == kBool) return size;
        return size * (type == kInt32 || type == kFloat32 ? 4 : 8);
    }
};

// Optimizers see a parameter as one flat array; n is 1.
struct Sgd {
    int64_t size;
    double momentum;
    int64_t nesterov;  // 0 or 1
};

struct Adam {
    int64_t size;
    double beta_1, beta_2, epsilon;
};

}  // namespace convkit
