// Convolution and its gradients as matrix products (gemm.cuh). Groups of channels are parts of a
// product. A dense layer is the convolution of pictures of one pixel.
//
//   forward          c (pixels of y, filters)              = windows of x     * kernel
//   backward_input   c (pixels of x, channels)             = windows of dy    * kernel transposed
//   backward_kernel  c (taps and channels, filters)        = transposed windows of x * dy
//
// backward_input: a pixel of x met only those taps of the kernel that differ from its place by a
// multiple of the stride. So pixels are taken in classes, by their remainder of the stride down and
// across, each a product over its own taps, of which none is zero but for the border.
#pragma once

#include "gemm.cuh"

namespace convkit {
namespace cuda {

// ---- geometry in 32 bits ------------------------------------------------------------------------

// A Conv2d as kernels take it: sides fit into int (check_sides); what counts values does not.
struct Geometry {
    int height, width, kernel_height, kernel_width, out_height, out_width;
    int stride_height, stride_width, dilation_height, dilation_width, pad_top, pad_left;
    int channels, filters;              // of all groups
    int group_channels, group_filters;  // of one
    int groups;
};

// Throws DeviceError where a side of the picture, the kernel or a count of channels has more than
// 30 bits: places in a picture are counted in int.
inline void check_sides(const char* name, const Conv2d& s) {
    const int64_t most = int64_t{1} << 29;
    const int64_t sides[] = {s.height,
                             s.width,
                             s.out_height,
                             s.out_width,
                             s.out_height * s.stride_height,
                             s.out_width * s.stride_width,
                             s.kernel_height * s.dilation_height,
                             s.kernel_width * s.dilation_width,
                             s.pad_top,
                             s.pad_left,
                             s.kernel_height * s.kernel_width * s.channels,
                             s.kernel_height * s.kernel_width * s.filters};
    for (const int64_t side : sides) {
        if (side > most)
            throw DeviceError(std::string(name) +
                              ": expected sides and windows of at most 2^29, got " +
                              std::to_string(side));
    }
}

inline Geometry geometry_of(const Conv2d& s) {
    Geometry g = {};
    g.height = static_cast<int>(s.height), g.width = static_cast<int>(s.width);
    g.kernel_height = static_cast<int>(s.kernel_height);
    g.kernel_width = static_cast<int>(s.kernel_width);
    g.out_height = static_cast<int>(s.out_height), g.out_width = static_cast<int>(s.out_width);
    g.stride_height = static_cast<int>(s.stride_height);
    g.stride_width = static_cast<int>(s.stride_width);
    g.dilation_height = static_cast<int>(s.dilation_height);
    g.dilation_width = static_cast<int>(s.dilation_width);
    g.pad_top = static_cast<int>(s.pad_top), g.pad_left = static_cast<int>(s.pad_left);
    g.channels = static_cast<int>(s.channels), g.filters = static_cast<int>(s.filters);
    g.groups = static_cast<int>(s.groups);
    g.group_channels = static_cast<int>(s.channels / s.groups);
    g.group_filters = static_cast<int>(s.filters / s.groups);
    return g;
}

// ---- what becomes of sums -----------------------------------------------------------------------

// The activations that cost next to nothing; others follow in a pass of their own.
constexpr bool is_cheap(int64_t kind) {
    return kind == kLinear || kind == kRelu || kind == kLeakyRelu;
}

template <class T>
struct Epilogue {
    const T* bias = nullptr;
    int64_t kind = kLinear;
    T slope = 0;

    __device__ __forceinline__ T cheap(int64_t column, T v) const {
        if (bias) v += bias[column];
        if (kind == kRelu) return v < T(0) ? T(0) : v;
        return kind == kLeakyRelu && v < T(0) ? v * slope : v;
    }
    __device__ __forceinline__ T any(int64_t column, T v) const {
        if (bias) v += bias[column];
        return activate(kind, slope, v);
    }
};

// Writes four values of a row, of which `left` exist, or adds them to what an earlier slice left.
template <class T>
struct RowWriter {
    T* to;
    int64_t left;
    bool wide;

    __device__ __forceinline__ void add_to(T (&values)[kQuad]) const {
        if (wide) {
            T before[kQuad];
            load_many(to, before);
            CONVKIT_UNROLL
            for (int j = 0; j < kQuad; ++j) values[j] = before[j] + values[j];
        } else {
            CONVKIT_UNROLL
            for (int j = 0; j < kQuad; ++j)
                if (j < left) values[j] = to[j] + values[j];
        }
    }
    __device__ __forceinline__ void write(const T (&values)[kQuad]) const {
        if (wide) return store_many(to, values);
        CONVKIT_UNROLL
        for (int j = 0; j < kQuad; ++j)
            if (j < left) to[j] = values[j];
    }
};

// ---- forward ------------------------------------------------------------------------------------

// Rows of c are pixels of y in the order of memory; with pooling, in that of pooled pixels and,
// within each, of its window, so that a window is 2 or 4 rows next to each other.
template <class T>
struct Forward {
    template <class Tile>
    using Left = DepthLoader<T, Tile::kRows, Tile::kDepth, Tile::kTeam, false>;
    template <class Tile>
    using Right = MatrixLoader<T, Tile::kColumns, Tile::kDepth, Tile::kTeam>;
    static constexpr bool kColumnSums = false;

    Geometry g;
    Taps<T> left;     // over x
    Matrix<T> right;  // the kernel
    Epilogue<T> epilogue;
    T* y;  // or, where blocks share the depth, their sums one after the other
    int64_t samples;
    int64_t split_size;           // values of y in all; 0: y itself
    int pool_height, pool_width;  // windows of 1, 2 or 4 = 2^window_bits
    int window_bits;
    bool wide_y;

    void pool_by(int64_t height, int64_t width) {
        pool_height = static_cast<int>(height), pool_width = static_cast<int>(width);
        window_bits = height * width == 4 ? 2 : height * width == 2 ? 1 : 0;
    }
    __device__ int64_t pixels() const {
        return static_cast<int64_t>(g.out_height / pool_height) * (g.out_width / pool_width);
    }

    struct Here : Block, Area {
        int taps;
        __device__ int across() const { return taps; }
    };
    __device__ Here here(const Block& block) const {
        return {block,
                {(samples * pixels()) << window_bits, g.group_filters,
                 static_cast<int64_t>(g.kernel_height) * g.kernel_width * g.group_channels},
                g.kernel_width};
    }

    __device__ Spot spot_left(const Here& here, int64_t row) const {
        const int within = static_cast<int>(row) & ((1 << window_bits) - 1);
        const Quotient line = divide(row >> window_bits, g.out_width / pool_width);
        const Quotient sample = divide(line.quotient, g.out_height / pool_height);
        if (sample.quotient >= samples) return {0, kNowhere, 0};
        int h = static_cast<int>(sample.remainder) * pool_height + within / pool_width;
        int w = static_cast<int>(line.remainder) * pool_width + within % pool_width;
        h = h * g.stride_height - g.pad_top;
        w = w * g.stride_width - g.pad_left;
        return {((sample.quotient * g.height + h) * g.width + w) * g.channels +
                    here.part * g.group_channels,
                h, w};
    }

    __device__ __forceinline__ void finish(const Here& here, int64_t row, int64_t column,
                                           T (&sum)[kQuad][kQuad], bool first, bool last) const {
        if (window_bits > 0) pool(sum, 0, 1), pool(sum, 2, 3);
        if (window_bits > 1) pool(sum, 0, 2);
        const int64_t left = g.group_filters - column;
        if (left <= 0) return;
        CONVKIT_UNROLL
        for (int i = 0; i < kQuad; ++i) {
            if (row + i >= here.rows || (i & ((1 << window_bits) - 1)) != 0) continue;
            T* to = y + here.split * split_size + ((row + i) >> window_bits) * g.filters +
                    here.part * g.group_filters + column;
            const RowWriter<T> writer = {to, left, wide_y};
            if (!first) writer.add_to(sum[i]);
            if (last && split_size == 0) {
                CONVKIT_UNROLL
                for (int j = 0; j < kQuad; ++j)
                    if (j < left)
                        sum[i][j] =
                            epilogue.cheap(here.part * g.group_filters + column + j, sum[i][j]);
            }
            writer.write(sum[i]);
        }
    }

    __device__ __forceinline__ void finish_one(const Here& here, int64_t row, int64_t column,
                                               T sum) const {
        if (row >= here.rows || column >= g.group_filters) return;
        const int64_t filter = here.part * g.group_filters + column;
        y[here.split * split_size + row * g.filters + filter] =
            split_size == 0 ? epilogue.any(filter, sum) : sum;
    }

 private:
    static __device__ __forceinline__ void pool(T (&sum)[kQuad][kQuad], int to, int from) {
        CONVKIT_UNROLL
        for (int j = 0; j < kQuad; ++j) sum[to][j] = larger_or_nan(sum[to][j], sum[from][j]);
    }
};

template <class T>
Forward<T> forward_product(const Conv2d& s, int64_t n, const T* x, const T* kernel,
                           const Epilogue<T>& epilogue, T* y) {
    Forward<T> p = {};
    p.g = geometry_of(s);
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    p.left = {x,
              p.g.group_channels,
              s.dilation_width * s.channels,
              s.dilation_height * s.width * s.channels,
              p.g.dilation_height,
              p.g.dilation_width,
              p.g.height,
              p.g.width,
              is_wide(channels, x) && s.channels % kWide<T> == 0};
    p.right = {kernel, s.filters, units, is_wide(units, kernel)};
    p.epilogue = epilogue;
    p.y = y, p.wide_y = units % kQuad == 0 && is_wide(units, y);
    p.samples = n;
    p.pool_by(1, 1);
    return p;
}

// ---- backward, input ----------------------------------------------------------------------------

// The pixels first, first + stride, ... along one axis, of which there are `count`, met the taps
// tap, tap + step, ...: `taps` of them. The first pixel met tap `tap` as part of output `out`,
// which may lie outside; the next tap has the output `out_step` before.
struct Class {
    int first, count, tap, taps, out;
};

struct ClassAxis {
    int size, kernel, stride, dilation, pad;
    int step, out_step;  // stride and dilation without their common divisor
    int classes;

    __device__ Class at(int index) const {
        Class c = {index, (size - index + stride - 1) / stride, 0, 0, 0};
        const int last = min(step, kernel);
        while (c.tap < last && (index + pad - c.tap * dilation) % stride != 0) ++c.tap;
        if (c.tap == last) return {c.first, c.count, 0, 0, 0};
        c.taps = (kernel - c.tap + step - 1) / step;
        c.out = (index + pad - c.tap * dilation) / stride;
        return c;
    }
};

inline ClassAxis class_axis(int64_t size, int64_t kernel, int64_t stride, int64_t dilation,
                            int64_t pad) {
    int64_t common = stride, rest = dilation;
    while (rest != 0) {
        const int64_t next = common % rest;
        common = rest;
        rest = next;
    }
    const int64_t classes = stride < size ? stride : size;
    return {static_cast<int>(size),
            static_cast<int>(kernel),
            static_cast<int>(stride),
            static_cast<int>(dilation),
            static_cast<int>(pad),
            static_cast<int>(stride / common),
            static_cast<int>(dilation / common),
            static_cast<int>(classes)};
}

inline ClassAxis classes_down(const Conv2d& s) {
    return class_axis(s.height, s.kernel_height, s.stride_height, s.dilation_height, s.pad_top);
}
inline ClassAxis classes_across(const Conv2d& s) {
    return class_axis(s.width, s.kernel_width, s.stride_width, s.dilation_width, s.pad_left);
}

template <class T>
struct BackwardInput {
    template <class Tile>
    using Left = DepthLoader<T, Tile::kRows, Tile::kDepth, Tile::kTeam, false>;
    template <class Tile>
    using Right = DepthLoader<T, Tile::kColumns, Tile::kDepth, Tile::kTeam, true>;
    static constexpr bool kColumnSums = false;

    Geometry g;
    Taps<T> left, right;  // over dy and the kernel
    ClassAxis down, across;
    T* dx;  // or sums of splits, as in Forward
    int64_t samples;
    int64_t split_size;
    bool wide_dx;

    struct Here : Block, Area {
        int64_t group;
        Class lines, pixels;  // along the picture's two axes
        __device__ int across() const { return max(1, pixels.taps); }
    };
    __device__ Here here(const Block& block) const {
        const Quotient q = divide(block.part, down.classes * across.classes);
        const int index = static_cast<int>(q.remainder);
        const Class lines = down.at(index / across.classes);
        const Class pixels = across.at(index % across.classes);
        return {block,
                {samples * lines.count * pixels.count, g.group_channels,
                 static_cast<int64_t>(lines.taps) * pixels.taps * g.group_filters},
                q.quotient,
                lines,
                pixels};
    }
    struct Pixel {
        int64_t sample;
        int row, column;  // in their classes
    };
    __device__ Pixel pixel(const Here& here, int64_t row) const {
        const Quotient line = divide(row, here.pixels.count);
        const Quotient sample = divide(line.quotient, here.lines.count);
        return {sample.quotient, static_cast<int>(sample.remainder),
                static_cast<int>(line.remainder)};
    }

    __device__ Spot spot_left(const Here& here, int64_t row) const {
        const Pixel at = pixel(here, row);
        if (at.sample >= samples) return {0, kNowhere, 0};
        const int h = here.lines.out + at.row, w = here.pixels.out + at.column;
        return {((at.sample * g.out_height + h) * g.out_width + w) * g.filters +
                    here.group * g.group_filters,
                h, w};
    }
    __device__ Spot spot_right(const Here& here, int64_t column) const {
        const int64_t tap = static_cast<int64_t>(here.lines.tap) * g.kernel_width + here.pixels.tap;
        return {(tap * g.group_channels + column) * g.filters + here.group * g.group_filters,
                column < g.group_channels ? 0 : kNowhere, 0};
    }

    // Where channel `column` of a row's pixel lies in dx.
    __device__ int64_t place(const Here& here, int64_t row, int64_t column) const {
        if (down.stride == 1 && across.stride == 1)
            return row * g.channels + here.group * g.group_channels + column;
        const Pixel at = pixel(here, row);
        const int64_t h = here.lines.first + static_cast<int64_t>(at.row) * down.stride;
        const int64_t w = here.pixels.first + static_cast<int64_t>(at.column) * across.stride;
        return ((at.sample * g.height + h) * g.width + w) * g.channels +
               here.group * g.group_channels + column;
    }

    __device__ __forceinline__ void finish(const Here& here, int64_t row, int64_t column,
                                           T (&sum)[kQuad][kQuad], bool first, bool) const {
        const int64_t left = g.group_channels - column;
        if (left <= 0) return;
        CONVKIT_UNROLL
        for (int i = 0; i < kQuad; ++i) {
            if (row + i >= here.rows) continue;
            T* to = dx + here.split * split_size + place(here, row + i, column);
            const RowWriter<T> writer = {to, left, wide_dx};
            if (!first) writer.add_to(sum[i]);
            writer.write(sum[i]);
        }
    }

    __device__ __forceinline__ void finish_one(const Here& here, int64_t row, int64_t column,
                                               T sum) const {
        if (row >= here.rows || column >= g.group_channels) return;
        dx[here.split * split_size + place(here, row, column)] = sum;
    }
};

template <class T>
BackwardInput<T> backward_input_product(const Conv2d& s, int64_t n, const T* dy, const T* kernel,
                                        T* dx) {
    BackwardInput<T> p = {};
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    p.g = geometry_of(s);
    p.down = classes_down(s), p.across = classes_across(s);
    p.left = {dy,
              p.g.group_filters,
              -static_cast<int64_t>(p.across.out_step) * s.filters,
              -static_cast<int64_t>(p.down.out_step) * s.out_width * s.filters,
              -p.down.out_step,
              -p.across.out_step,
              p.g.out_height,
              p.g.out_width,
              is_wide(units, dy)};
    const int64_t tap = channels * s.filters;
    p.right = {kernel,
               p.g.group_filters,
               p.across.step * tap,
               p.down.step * s.kernel_width * tap,
               0,
               0,
               1,
               1,
               is_wide(units, kernel)};
    p.dx = dx;
    p.samples = n;
    p.wide_dx = channels % kQuad == 0 && is_wide(channels, dx);
    return p;
}

// Of the largest class.
inline Area backward_input_area(const Conv2d& s, int64_t n) {
    const auto taps = [](const ClassAxis& axis) {
        return divide_up<int64_t>(axis.kernel, axis.step);
    };
    const ClassAxis down = classes_down(s), across = classes_across(s);
    return {n * divide_up<int64_t>(s.height, s.stride_height) *
                divide_up<int64_t>(s.width, s.stride_width),
            s.channels / s.groups, taps(down) * taps(across) * (s.filters / s.groups)};
}

// ---- backward, kernel ---------------------------------------------------------------------------

// Rows of c: (tap, channel), as dkernel lies in memory. Its sums over shares of the pixels are
// (dkernel, dbias) one after the other, or these themselves.
template <class T>
struct BackwardKernel {
    template <class Tile>
    using Left = RowsLoader<T, Tile::kRows, Tile::kDepth, Tile::kTeam>;
    template <class Tile>
    using Right = MatrixLoader<T, Tile::kColumns, Tile::kDepth, Tile::kTeam>;
    static constexpr bool kColumnSums = true;

    Geometry g;
    Pixels<T> left;      // windows of x
    Matrix<T> right;     // dy
    T *dkernel, *dbias;  // dbias may be null
    int64_t depth;
    int64_t split_size;
    bool wide_to;

    struct Here : Block, Area {};
    __device__ Here here(const Block& block) const {
        return {block,
                {static_cast<int64_t>(g.kernel_height) * g.kernel_width * g.group_channels,
                 g.group_filters, depth}};
    }
    __device__ Spot spot_left(const Here& here, int64_t row) const {
        if (row >= here.rows) return {0, kNowhere, 0};
        const Quotient tap = divide(row, g.group_channels);
        const Quotient line = divide(tap.quotient, g.kernel_width);
        const int h = static_cast<int>(line.quotient) * g.dilation_height;
        const int w = static_cast<int>(line.remainder) * g.dilation_width;
        return {(static_cast<int64_t>(h) * g.width + w) * g.channels + tap.remainder +
                    here.part * g.group_channels,
                h, w};
    }

    __device__ __forceinline__ void finish(const Here& here, int64_t row, int64_t column,
                                           T (&sum)[kQuad][kQuad], bool first, bool) const {
        const int64_t left = g.group_filters - column;
        if (left <= 0) return;
        CONVKIT_UNROLL
        for (int i = 0; i < kQuad; ++i) {
            if (row + i >= here.rows) continue;
            T* to = dkernel + here.split * split_size + (row + i) * g.filters +
                    here.part * g.group_filters + column;
            const RowWriter<T> writer = {to, left, wide_to};
            if (!first) writer.add_to(sum[i]);
            writer.write(sum[i]);
        }
    }
    __device__ __forceinline__ void finish_one(const Here& here, int64_t row, int64_t column,
                                               T sum) const {
        if (row >= here.rows || column >= g.group_filters) return;
        dkernel[here.split * split_size + row * g.filters + here.part * g.group_filters + column] =
            sum;
    }
    __device__ __forceinline__ void finish_column(const Here& here, int64_t column, T sum) const {
        if (dbias && column < g.group_filters)
            dbias[here.split * split_size + here.part * g.group_filters + column] = sum;
    }
};

template <class T>
BackwardKernel<T> backward_kernel_product(const Conv2d& s, int64_t n, const T* dy, const T* x,
                                          T* dkernel, T* dbias) {
    BackwardKernel<T> p = {};
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    p.g = geometry_of(s);
    p.left = {x,
              p.g.out_height,
              p.g.out_width,
              s.stride_width * s.channels,
              s.stride_height * s.width * s.channels,
              s.input_size(),
              p.g.stride_height,
              p.g.stride_width,
              -(s.pad_top * s.width + s.pad_left) * s.channels,
              -p.g.pad_top,
              -p.g.pad_left,
              p.g.height,
              p.g.width,
              is_wide(channels, x)};
    p.right = {dy, s.filters, units, is_wide(units, dy)};
    p.dkernel = dkernel, p.dbias = dbias;
    p.wide_to = units % kQuad == 0 && is_wide(units, dkernel);
    p.depth = n * s.out_height * s.out_width;
    return p;
}

// What a product over one row of pixels is the same as, for kernels of one tap: fewer divisions.
inline Conv2d flattened(const Conv2d& s, int64_t* n) {
    const bool one_tap = s.kernel_height == 1 && s.kernel_width == 1 && s.stride_height == 1 &&
                         s.stride_width == 1 && s.pad_top == 0 && s.pad_left == 0 &&
                         s.height == s.out_height && s.width == s.out_width;
    const int64_t pixels = *n * s.height * s.width;
    if (!one_tap || pixels == 0 || pixels > int64_t{1} << 28) return s;
    Conv2d flat = s;
    flat.height = flat.out_height = 1;
    flat.width = flat.out_width = pixels;
    *n = 1;
    return flat;
}

// The dense layer as a convolution of pictures of one pixel.
inline Conv2d as_convolution(const Dense& s) {
    Conv2d c = {};
    c.height = c.width = c.out_height = c.out_width = 1;
    c.kernel_height = c.kernel_width = 1;
    c.stride_height = c.stride_width = c.dilation_height = c.dilation_width = 1;
    c.channels = s.inputs, c.filters = s.units, c.groups = 1;
    return c;
}

}  // namespace cuda
}  // namespace convkit
