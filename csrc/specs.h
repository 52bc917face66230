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

// How a convolution is computed on a processor; csrc/cpu/conv_choice.h chooses. The first two leave
// the choice: among all, and among those that add up the products themselves.
enum class ConvAlgorithm : int64_t {
    kAutomatic,
    kDirect,
    kProduct,    // a matrix product of windows and filters
    kWindows,    // few registers of filters: windows where they lie (forward alone)
    kPlanes,     // few filters: pixels in the lanes
    kDepthwise,  // groups of one channel: channels in the lanes
    kWinograd2,  // windows of 2 x 2 outputs
    kWinograd4,  // windows of 4 x 4 outputs
    kGrouped,    // groups: filters in the lanes, whatever group they are of
};

// x (n, height, width, channels), kernel (kernel_height, kernel_width, channels / groups, filters),
// y (n, out_height, out_width, filters). Bottom and right padding follow from the output's size.
struct Conv2d {
    int64_t height, width, channels;
    int64_t kernel_height, kernel_width, filters, groups;
    int64_t stride_height, stride_width;
    int64_t dilation_height, dilation_width;
    int64_t pad_top, pad_left;
    int64_t out_height, out_width;
    int64_t algorithm;  // ConvAlgorithm

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

// Element-wise functions whose gradient follows from x.
enum UnaryKind : int64_t {
    kElu,          // x > 0 ? x : a (exp(x) - 1)
    kSelu,         // elu with Klambauer's constants
    kSoftplus,     // log(1 + exp(x))
    kSoftsign,     // x / (1 + |x|)
    kSilu,         // x sigmoid(x)
    kGelu,         // x Phi(x)
    kGeluTanh,     // its approximation by tanh
    kHardSigmoid,  // min(max(x / 6 + 1 / 2, 0), 1)
    kHardSwish,    // x hard_sigmoid(x)
    kMish,         // x tanh(softplus(x))
    kClip,         // min(max(x, a), b)
    kAbs,
    kSquare,
    kSqrt,
    kLog,
    kRelu6,  // min(max(x, 0), 6), as relu without a gradient at either end
};

struct Unary {
    int64_t size;
    int64_t kind;  // UnaryKind
    double a, b;   // where the kind says so
};

enum BinaryKind : int64_t { kSubtract, kMultiply, kDivide, kMaximum, kMinimum };

// a, b and y of one shape.
struct Binary {
    int64_t size;
    int64_t kind;  // BinaryKind
};

enum ReduceKind : int64_t { kSum, kMean, kMax, kMin };

// x (n, outer, size, inner), y (n, outer, inner).
struct Reduce {
    int64_t outer, size, inner;
    int64_t kind;  // ReduceKind

    int64_t input_size() const { return outer * size * inner; }
    int64_t output_size() const { return outer * inner; }
};

// x (n, outer, inner), y (n, outer, repeats, inner).
struct Expand {
    int64_t outer, repeats, inner;

    int64_t input_size() const { return outer * inner; }
    int64_t output_size() const { return outer * repeats * inner; }
};

// x (n, rows, channels); scale and shift (channels).
struct ChannelAffine {
    int64_t rows, channels;

    int64_t total() const { return rows * channels; }
};

// x (n, rows, channels), normalised over all n and rows.
struct BatchNorm {
    int64_t rows, channels;
    double epsilon;

    int64_t total() const { return rows * channels; }
};

// x (n, rows, size), each row normalised.
struct LayerNorm {
    int64_t rows, size;
    double epsilon;

    int64_t total() const { return rows * size; }
};

// x (n, rows, size), alpha (size).
struct PRelu {
    int64_t rows, size;

    int64_t total() const { return rows * size; }
};

// kernel (rows, filters) of a convolution or a dense layer, scale and shift (filters).
struct Fold {
    int64_t rows, filters;
};

// moving = momentum moving + (1 - momentum) value.
struct MovingAverage {
    int64_t size;
    double momentum;
};

// x (n, height, width, channels), y (n, out_height, out_width, channels): y[i, j] is
// x[i - top, j - left], 0 where there is none. Cropping has negative top and left.
struct Pad2d {
    int64_t height, width, channels;
    int64_t top, left;
    int64_t out_height, out_width;

    int64_t input_size() const { return height * width * channels; }
    int64_t output_size() const { return out_height * out_width * channels; }
};

// x (n, size_0, size_1, size_2, size_3, inner); axis i of y is axis from_i of x.
struct Permute {
    int64_t size_0, size_1, size_2, size_3;
    int64_t from_0, from_1, from_2, from_3;
    int64_t inner;

    int64_t total() const { return size_0 * size_1 * size_2 * size_3 * inner; }
};

// As Dropout, whole channels at a time: x (n, rows, channels).
struct SpatialDropout {
    int64_t rows, channels;
    int64_t stream;
    double rate;

    int64_t total() const { return rows * channels; }
};

struct GaussianNoise {
    int64_t size;
    int64_t stream;
    double stddev;
};

enum FillMode : int64_t { kConstant, kNearest, kReflect, kWrap };

// Images x (n, height, width, channels) to y (n, out_height, out_width, channels). For each sample
// are drawn: flips (with these probabilities), an angle in radians, a shift in shares of the height
// and width, and factors by which the view grows (above 1: zoomed out); bounds low and high. If
// `crop` is 1, y is a window of x at a place that is drawn, and only flips are applied to it.
struct RandomTransform {
    int64_t height, width, channels;
    int64_t out_height, out_width;
    int64_t stream;
    int64_t crop;      // 0 or 1
    int64_t bilinear;  // 0: nearest
    int64_t fill;      // FillMode
    double fill_value;
    double flip_horizontal, flip_vertical;
    double angle_low, angle_high;
    double shift_height_low, shift_height_high, shift_width_low, shift_width_high;
    double zoom_height_low, zoom_height_high, zoom_width_low, zoom_width_high;
    int64_t zoom_both;  // 1: the width's factor is the height's

    int64_t input_size() const { return height * width * channels; }
    int64_t output_size() const { return out_height * out_width * channels; }
};

// Images x (n, rows, channels): y = clip((x - mean of the channel) factor + mean), with a factor in
// low .. high for each sample, clipped to value_low .. value_high.
struct RandomContrast {
    int64_t rows, channels;
    int64_t stream;
    double low, high;
    double value_low, value_high;

    int64_t total() const { return rows * channels; }
};

enum PointwiseLossKind : int64_t {
    kHinge,
    kSquaredHinge,
    kCategoricalHinge,
    kHuber,  // a: delta
    kKlDivergence,
    kPoisson,
    kLogCosh,
    kAbsolutePercentage,
    kSquaredLogarithmic,
    kCosineSimilarity,
    kBinaryFocal,       // a: alpha, or below 0 for no weights; b: gamma
    kCategoricalFocal,  // a: alpha, b: gamma
};

// As Loss.
struct PointwiseLoss {
    int64_t rows, size, inner;
    int64_t kind;         // PointwiseLossKind
    int64_t from_logits;  // 0 or 1; focal losses only
    double a, b;          // where the kind says so

    int64_t losses() const { return rows * inner; }
    int64_t total() const { return rows * size * inner; }
};

// target and prediction (n, rows, size, inner), score (n, rows, inner); sparse targets as of Loss.
struct TopK {
    int64_t rows, size, inner;
    int64_t k;

    int64_t losses() const { return rows * inner; }
    int64_t total() const { return rows * size * inner; }
};

// prediction (n, rows, classes); with one column the classes are 0 and 1, from 0.5 on.
struct Confusion {
    int64_t rows, columns;

    int64_t classes() const { return columns == 1 ? 2 : columns; }
    int64_t total() const { return rows * columns; }
};

// target and prediction (n, rows, columns). For each threshold (and column, if per_column) how many
// are true positives, false positives, true negatives, false negatives.
// `largest` is 0 for all that is above the threshold; 1: of these the largest of a row alone; -k:
// the k largest.
struct ThresholdCounts {
    int64_t rows, columns;
    int64_t thresholds;
    int64_t per_column;  // 0 or 1
    int64_t largest;

    int64_t total() const { return rows * columns; }
    int64_t counters() const { return 4 * thresholds * (per_column ? columns : 1); }
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

struct Rmsprop {
    int64_t size;
    double rho, momentum, epsilon;
};

struct Nadam {
    int64_t size;
    double beta_1, beta_2, epsilon;
};

struct Adagrad {
    int64_t size;
    double epsilon;
};

struct Adadelta {
    int64_t size;
    double rho, epsilon;
};

struct Lion {
    int64_t size;
    double beta_1, beta_2;
};

// Weight decay, a part of the parameter for each unit of the learning rate.
struct Decay {
    int64_t size;
    double rate;
};

// A gradient held to -limit .. limit, or to a norm of at most limit.
struct Clip {
    int64_t size;
    double limit;
};

// l1 |w| + l2 w^2, summed over a parameter.
struct Regularizer {
    int64_t size;
    double l1, l2;
};

enum ConstraintKind : int64_t { kNonNegative, kUnitNorm, kMinMaxNorm };

// A parameter (outer, size, inner), norms taken over `size`.
struct Constraint {
    int64_t outer, size, inner;
    int64_t kind;  // ConstraintKind
    double low, high, rate;

    int64_t total() const { return outer * size * inner; }
};

}  // namespace convkit
