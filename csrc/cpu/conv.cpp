// 2-D convolution (cross-correlation), as matrix products (gemm.h).
//
//   y[i, oh, ow, f] = bias[f] + sum over kh, kw, c of
//       x[i, oh * stride - pad + kh * dilation, ow * stride - pad + kw * dilation, c]
//       * kernel[kh, kw, c, f], where the pixel lies in the picture
//
// x, dx (n, height, width, channels); kernel, dkernel (kernel_height, kernel_width,
// channels / groups, filters); bias, dbias (filters), may be null; y, dy (n, out_height, out_width,
// filters). Each group of channels makes its own group of filters.
//
// Forward and dkernel: a row of the left matrix is the window under an output pixel (im2col), made
// in small blocks. dx: for one row ih of the picture, a row of the left matrix holds, for one
// column ow, the rows of dy that ih took part in; the product has kernel_width * channels columns,
// and what falls onto one pixel is then gathered. So neither pays for the border of the picture,
// and each row of dx is written by one thread. Small pictures have a product for each tap instead
// (small_picture.h). That is one algorithm of several: conv_choice.h chooses.
//
// fused_conv2d is this, then max-pooling and an activation: y (n, pooled_height, pooled_width,
// filters). The forms of few filters do 2 x 2 pooling and relu while the sums are in registers,
// those of groups relu; whatever else there is follows in passes of its own.
#include "conv_choice.h"
#include "cpu_kernels.h"
#include "epilogue.h"
#include "few_pixels.h"
#include "gemm.h"
#include "product.h"
#include "small_picture.h"
#include "weight_gradient.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Samples that are worked on together, so that pixels with the same place fill a block.
int64_t samples_together(const Conv2d& s, int64_t n) {
    return std::min(n, std::max<int64_t>(1, kBlockRows / s.out_width));
}

// Windows of x as rows (kernel_height, kernel_width, channels / groups), for one group. Pixels are
// numbered (sample, oh, ow), or (oh, sample, ow): then the pixels of a block share their place in
// the picture, and rows of the kernel beyond its border are left out of the product.
template <class T>
struct Windows {
    const Conv2d& s;
    const T* x;  // first channel of the group in the first sample
    const T* x_end;
    int64_t samples;
    bool by_sample;

    struct Row {
        int64_t sample, oh;
    };
    Row row(int64_t index) const {
        if (by_sample) return {index / s.out_height, index % s.out_height};
        return {index % samples, index / samples};
    }

    Range depth(int64_t first, int64_t count) const {
        const int64_t size = s.kernel_width * (s.channels / s.groups);
        const Range top = kernel_rows(first), bottom = kernel_rows(first + count - 1);
        return {std::min(top.begin, bottom.begin) * size, std::max(top.end, bottom.end) * size};
    }

    void pack(int64_t first, int64_t count, int64_t begin, int64_t end, T* dst) const {
        for (int64_t m = first; m < first + count;) {
            const int64_t ow = m % s.out_width;
            const int64_t run = std::min(s.out_width - ow, first + count - m);
            pack_run(row(m / s.out_width), ow, run, begin, end, dst);
            m += run;
            dst += run * kStride<T>;
        }
    }

 private:
    // Rows of the kernel that lie inside the picture for pixel m.
    Range kernel_rows(int64_t m) const {
        const int64_t top = row(m / s.out_width).oh * s.stride_height - s.pad_top;
        return inside(top, s.dilation_height, s.height, s.kernel_height);
    }

    // The windows of pixels ow .. ow + run of one output row.
    void pack_run(Row r, int64_t ow, int64_t run, int64_t begin, int64_t end, T* dst) const {
        const int64_t channels = s.channels / s.groups;
        // Taps that lie side by side in memory are copied together.
        const int64_t together = s.groups == 1 && s.dilation_width == 1 ? s.kernel_width : 1;
        const T* image = x + r.sample * s.input_size();
        int64_t tap = begin / channels / together * together;
        int64_t kh = tap / s.kernel_width, kw = tap % s.kernel_width;
        for (int64_t k = begin; k < end;) {
            const int64_t stop = std::min(end, (tap + together) * channels);
            const int64_t ih = r.oh * s.stride_height - s.pad_top + kh * s.dilation_height;
            T* out = dst + (k - begin);
            if (ih < 0 || ih >= s.height) {
                for (int64_t i = 0; i < run; ++i) fill_zero(out + i * kStride<T>, stop - k);
            } else {
                const Range part = {k - tap * channels, stop - tap * channels};
                copy_taps(image + ih * s.width * s.channels, kw * s.dilation_width - s.pad_left,
                          together, part, ow, run, out);
            }
            k = stop;
            tap += together;
            kw += together;
            if (kw == s.kernel_width) kw = 0, ++kh;
        }
    }

    // Values `part` of the `together` pixels that begin `offset` columns off the window's place
    // in `line`, a row of the picture.
    void copy_taps(const T* line, int64_t offset, int64_t together, Range part, int64_t ow,
                   int64_t run, T* dst) const {
        const int64_t count = part.end - part.begin, channels = s.channels / s.groups;
        // Windows before `left` and from `right` on reach over the border.
        const Range inner = inside(offset, s.stride_width, s.width - together + 1, s.out_width);
        const int64_t left = std::min(std::max<int64_t>(inner.begin - ow, 0), run);
        const int64_t right = std::min(std::max(inner.end - ow, left), run);
        const int64_t column = ow * s.stride_width + offset, step = s.stride_width * s.channels;
        if (left < right) {
            const T* src = line + (column + left * s.stride_width) * s.channels + part.begin;
            copy_rows(dst + left * kStride<T>, src, step, right - left, count, x_end - src);
        }
        for (int64_t i = 0; i < run; ++i) {
            if (i >= left && i < right) continue;
            const int64_t iw = column + i * s.stride_width;
            const int64_t first = std::max(part.begin, -iw * channels);
            const int64_t last = std::min(part.end, (s.width - iw) * channels);
            T* out = dst + i * kStride<T>;
            fill_zero(out, count);
            if (first < last) {
                std::memcpy(out + (first - part.begin), line + (iw * s.channels + first),
                            static_cast<size_t>(last - first) * sizeof(T));
            }
        }
    }
};

// The taps of a window through which input position `at` (padding included) reached outputs, along
// one axis: tap + i * step reached out - i * out_step, for i in 0 .. count. In an order in which
// taps `step` apart follow each other, the first is at `position`. Where count is 0, tap and
// position still grow with `at`.
struct Taps {
    int64_t tap, step, count;
    int64_t out, out_step;
    int64_t position;
};

struct Axis {
    int64_t kernel, stride, dilation, outputs;
    int64_t step, out_step;

    Axis(int64_t kernel, int64_t stride, int64_t dilation, int64_t outputs)
        : kernel(kernel), stride(stride), dilation(dilation), outputs(outputs) {
        int64_t common = stride, rest = dilation;
        while (rest != 0) {
            const int64_t next = common % rest;
            common = rest;
            rest = next;
        }
        step = stride / common;
        out_step = dilation / common;
    }

    int64_t position(int64_t tap) const {
        int64_t before = 0;
        for (int64_t i = 0; i < std::min(tap % step, kernel); ++i) {
            before += divide_up(kernel - i, step);
        }
        return before + tap / step;
    }

    Taps taps(int64_t at) const {
        Taps t = {0, step, 0, 0, out_step, 0};
        const int64_t candidates = std::min(step, kernel);
        while (t.tap < candidates && (at - t.tap * dilation) % stride != 0) ++t.tap;
        if (t.tap < candidates && at >= t.tap * dilation) {
            t.out = (at - t.tap * dilation) / stride;
            const int64_t end = std::min(divide_up(kernel - t.tap, step), t.out / out_step + 1);
            const int64_t skip =
                t.out < outputs ? 0 : std::min(end, (t.out - outputs) / out_step + 1);
            t.tap += skip * step;
            t.out -= skip * out_step;
            t.count = end - skip;
        }
        t.position = position(t.tap);
        return t;
    }
};

// Rows of dy as they meet a row of x, for one group. Of the rows of the picture, those are taken
// that have the same remainder of ih / stride: they were reached through the same taps. Numbered
// (row, sample, ow); values are (tap, filters / groups), the taps in the order of Taps::position.
template <class T>
struct GradientRows {
    const Conv2d& s;
    const T* dy;  // first filter of the group in the first sample
    const T* dy_end;
    const Taps* lines;  // for each row of the picture
    int64_t samples;
    int64_t remainder;

    int64_t ih(int64_t row) const { return remainder + row / samples * s.stride_height; }
    Range depth(int64_t first, int64_t count) const {
        const int64_t size = s.filters / s.groups;
        const Range top = positions(first / s.out_width);
        const Range bottom = positions((first + count - 1) / s.out_width);
        return {std::min(top.begin, bottom.begin) * size, std::max(top.end, bottom.end) * size};
    }

    void pack(int64_t first, int64_t count, int64_t begin, int64_t end, T* dst) const {
        for (int64_t m = first; m < first + count;) {
            const int64_t ow = m % s.out_width;
            const int64_t run = std::min(s.out_width - ow, first + count - m);
            pack_run(m / s.out_width, ow, run, begin, end, dst);
            m += run;
            dst += run * kStride<T>;
        }
    }

 private:
    Range positions(int64_t row) const {
        const Taps& t = lines[ih(row)];
        return {t.position, t.position + t.count};
    }

    void pack_run(int64_t row, int64_t ow, int64_t run, int64_t begin, int64_t end, T* dst) const {
        const int64_t size = s.filters / s.groups;
        const Taps& t = lines[ih(row)];
        const T* image = dy + row % samples * s.output_size() + ow * s.filters;
        int64_t skip = begin % size;
        for (int64_t k = begin, i = begin / size - t.position; k < end; ++i, skip = 0) {
            const int64_t stop = std::min(end, k - skip + size);
            T* out = dst + (k - begin);
            if (i < 0 || i >= t.count) {
                for (int64_t j = 0; j < run; ++j) fill_zero(out + j * kStride<T>, stop - k);
            } else {
                const int64_t oh = t.out - i * t.out_step;
                const T* src = image + oh * s.out_width * s.filters + skip;
                copy_rows(out, src, s.filters, run, stop - k, dy_end - src);
            }
            k = stop;
        }
    }
};

// dx of one row and some of its channels, gathered from product (out_width, `pitch`), whose
// columns are (kernel_width, channels). `columns` has the taps of each column of the picture.
template <class T>
void gather_row(const Conv2d& s, const Taps* columns, const T* product, int64_t pitch,
                int64_t channels, T* dx) {
    const T* end = dx + s.width * s.channels;
    for (int64_t iw = 0; iw < s.width; ++iw, dx += s.channels) {
        const Taps& t = columns[iw];
        const int64_t step = t.step * channels - t.out_step * pitch;
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
            const T* src = product + t.out * pitch + t.tap * channels + c;
            Vec<T> sum{};
            for (int64_t i = 0; i < t.count; ++i) sum += load(src + i * step);
            // What is written too far belongs to the next pixel, which follows.
            const bool roomy = channels == s.channels && end - (dx + c) >= kLanes<T>;
            if (roomy || channels - c >= kLanes<T>) {
                store(dx + c, sum);
            } else {
                store_partial(dx + c, sum, channels - c);
            }
        }
    }
}

// kernel (kernel_height, kernel_width, channels / groups, filters) as the mirrored convolution's.
template <class T>
void turn_kernel(const Conv2d& s, const T* kernel, T* turned) {
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    for (int64_t tap = s.kernel_height * s.kernel_width - 1; tap >= 0; --tap) {
        for (int64_t f = 0; f < units; ++f) {
            for (int64_t c = 0; c < s.channels; ++c) {
                const int64_t row = tap * channels + c % channels;
                *turned++ = kernel[row * s.filters + c / channels * units + f];
            }
        }
    }
}

// Channels of one product of the input gradient: its columns are to stay in the cache.
template <class T>
int64_t channel_block(const Conv2d& s) {
    const int64_t channels = s.channels / s.groups;
    const int64_t most =
        std::max(kPanel<T>, kBlockColumns / s.kernel_width / kPanel<T> * kPanel<T>);
    return std::min(channels, most);
}

// The convolution with this epilogue, by an algorithm other than a matrix product; false: that is
// to be taken.
template <class T>
bool other_form(const Context& context, const Conv2d& s, Epilogue<T> epilogue, int64_t n,
                const T* x, const T* kernel, const T* bias, T* y) {
    switch (ConvChoice<T>(s, n, epilogue).forward()) {
        case ConvAlgorithm::kDepthwise:
            if (epilogue.pool > 1) return false;
            Depthwise<T>(s, epilogue.floor).run(context, n, x, kernel, bias, y);
            return true;
        case ConvAlgorithm::kGrouped:
            if (epilogue.pool > 1) return false;
            Grouped<T>(s, epilogue.floor).run(context, n, x, kernel, bias, y);
            return true;
        case ConvAlgorithm::kPlanes:
            conv2d_planes(context, Planes<T>(s, epilogue), n, x, kernel, bias, y);
            return true;
        case ConvAlgorithm::kWindows:
            conv2d_direct(context, Direct<T>(s, epilogue), n, x, kernel, bias, y);
            return true;
        case ConvAlgorithm::kWinograd2:
            conv2d_winograd<T>(context, s, 2, n, x, kernel, bias, epilogue, y);
            return true;
        case ConvAlgorithm::kWinograd4:
            conv2d_winograd<T>(context, s, 4, n, x, kernel, bias, epilogue, y);
            return true;
        default:
            return false;
    }
}

// The convolution, then the pooling: so many samples at a time that what is between them stays in
// the caches. Its memory is that of tiles, of which this kernel is never a part.
template <class T>
void conv2d_then_pool(const Context& context, const FusedConv2d& s, int64_t n, const T* x,
                      const T* kernel, const T* bias, T* y) {
    constexpr int64_t kValues = int64_t{1} << 18;
    const Conv2d& c = s.conv;
    Pool2d pool = {};
    pool.height = c.out_height, pool.width = c.out_width, pool.channels = c.filters;
    pool.pool_height = pool.stride_height = s.pool_height;
    pool.pool_width = pool.stride_width = s.pool_width;
    pool.dilation_height = pool.dilation_width = 1;
    pool.out_height = s.pooled_height(), pool.out_width = s.pooled_width();
    const int64_t most = std::max<int64_t>(1, context.threads * kValues / c.output_size());
    for (int64_t first = 0; first < n; first += most) {
        const int64_t count = std::min(most, n - first);
        T* z = scratch<T>(kTiles, count * c.output_size());
        conv2d(context, c, count, x + first * c.input_size(), kernel, bias, z);
        max_pool2d<T>(context, pool, count, z, y + first * s.output_size());
    }
}

}  // namespace

template <class T>
void conv2d(const Context& context, const Conv2d& s, int64_t n, const T* x, const T* kernel,
            const T* bias, T* y) {
    if (n == 0 || other_form<T>(context, s, {}, n, x, kernel, bias, y)) return;
    if (is_pixelwise(s)) {
        const int64_t pixels = n * s.height * s.width;
        if (is_stream<T>(2 * pixels, s.filters)) {  // with more, Product is as fast
            const PlainRows<T> rows = {x, pixels, s.channels};
            return multiply_stream(context, rows, pixels, kernel, s.filters, bias, y);
        }
        const Matrix<T> a = {x, x + pixels * s.channels, s.channels, false};
        const Matrix<T> b = {kernel, kernel + s.kernel_size(), s.filters, false};
        return Product<T>(a, b, pixels, s.filters, s.channels, bias, y).run(context);
    }
    const SmallPicture<T> small(s);
    if (small.pays() && !is_stream<T>(2 * n * s.out_height * s.out_width, s.filters)) {
        return small.run(context, n, x, kernel, bias, y);
    }
    if (s.groups == 1 && is_stream<T>(n * s.out_height * s.out_width, s.filters)) {
        const Windows<T> rows = {s, x, x + n * s.input_size(), n, true};
        return multiply_stream(context, rows, n * s.out_height * s.out_width, kernel, s.filters,
                               bias, y);
    }
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    const int64_t depth = s.kernel_height * s.kernel_width * channels;
    const int64_t packed_group = packed_size<T>(depth, units);
    T* packed = scratch<T>(kShared, s.groups * packed_group);
    parallel_for(context, s.groups, 0.1 * depth * units, [&](int64_t begin, int64_t end) {
        for (int64_t group = begin; group < end; ++group) {
            const T* source = kernel + group * units;
            pack_lanes(
                depth, units, 0, depth, [&](int64_t k) { return source + k * s.filters; },
                packed + group * packed_group);
        }
    });

    const int64_t together = samples_together(s, n), sample_blocks = divide_up(n, together);
    const int64_t pixels = together * s.out_height * s.out_width;
    const int64_t pixel_blocks = divide_up(pixels, kBlockRows);
    const int64_t column_blocks = divide_up(units, kBlockColumns);
    const int64_t tasks = s.groups * sample_blocks * pixel_blocks * column_blocks;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            int64_t rest = i;
            const int64_t column = rest % column_blocks * kBlockColumns;
            rest /= column_blocks;
            const int64_t first = cut(pixels, pixel_blocks, rest % pixel_blocks);
            int64_t last = cut(pixels, pixel_blocks, rest % pixel_blocks + 1);
            rest /= pixel_blocks;
            const int64_t sample = rest % sample_blocks * together;
            const int64_t group = rest / sample_blocks;
            const int64_t samples = std::min(together, n - sample);
            last = std::min(last, samples * s.out_height * s.out_width);
            if (first >= last) continue;

            const Windows<T> windows = {s, x + sample * s.input_size() + group * channels,
                                        x + n * s.input_size(), samples, false};
            T* rows[kBlockRows];
            for (int64_t m = first; m < last; ++m) {
                const auto row = windows.row(m / s.out_width);
                const int64_t pixel = (sample + row.sample) * s.out_height + row.oh;
                rows[m - first] = y + (pixel * s.out_width + m % s.out_width) * s.filters +
                                  group * units + column;
            }
            const Lanes<T> lanes =
                packed_lanes<T>(packed + group * packed_group, depth, units).from(0, column);
            multiply_rows(windows, lanes, first, last - first,
                          std::min(kBlockColumns, units - column),
                          bias ? bias + group * units + column : nullptr, rows);
        }
    });
}

template <class T>
void fused_conv2d(const Context& context, const FusedConv2d& s, int64_t n, const T* x,
                  const T* kernel, const T* bias, T* y) {
    if (n * s.output_size() == 0) return;
    const int64_t pool = s.pool_height;
    const Epilogue<T> epilogue = {pool, floor_of<T>(s.activation)};
    const bool fused = pool <= 2 && pool == s.pool_width &&
                       other_form(context, s.conv, epilogue, n, x, kernel, bias, y);
    if (!fused && s.pool_height * s.pool_width == 1) {
        conv2d(context, s.conv, n, x, kernel, bias, y);
    } else if (!fused) {
        conv2d_then_pool(context, s, n, x, kernel, bias, y);
    }
    if (s.activation == kLinear || (fused && is_floor(s.activation))) return;
    activation<T>(context, {s.output_size(), s.activation, s.slope}, n, y, y);
}

template <class T>
void conv2d_backward_input(const Context& context, const Conv2d& s, int64_t n, const T* dy,
                           const T* kernel, T* dx) {
    if (n == 0) return;
    switch (ConvChoice<T>(s, n).backward_input()) {
        case ConvAlgorithm::kDepthwise:
            return Depthwise<T>(s).run_backward_input(context, n, dy, kernel, dx);
        case ConvAlgorithm::kGrouped:
            return Grouped<T>(s).run_backward_input(context, n, dy, kernel, dx);
        case ConvAlgorithm::kPlanes: {
            T* turned = scratch<T>(kShared, s.kernel_size());
            turn_kernel(s, kernel, turned);
            const Conv2d mirror = mirrored(s);
            return conv2d_planes<T>(context, Planes<T>(mirror), n, dy, turned, nullptr, dx);
        }
        case ConvAlgorithm::kWinograd2:
            return conv2d_winograd_backward_input<T>(context, s, 2, n, dy, kernel, dx);
        case ConvAlgorithm::kWinograd4:
            return conv2d_winograd_backward_input<T>(context, s, 4, n, dy, kernel, dx);
        default:
            break;
    }
    if (is_pixelwise(s)) {
        const int64_t pixels = n * s.height * s.width;
        const Matrix<T> a = {dy, dy + pixels * s.filters, s.filters, false};
        const Matrix<T> b = {kernel, kernel + s.kernel_size(), s.filters, true};
        return Product<T>(a, b, pixels, s.channels, s.filters, nullptr, dx).run(context);
    }
    if (s.stride_height * s.stride_width == 1) {
        const Conv2d mirror = mirrored(s);
        const SmallPicture<T> small(mirror, true);
        if (small.pays()) return small.run(context, n, dy, kernel, nullptr, dx);
    }
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    const int64_t block = channel_block<T>(s), channel_blocks = divide_up(channels, block);
    const int64_t depth = s.kernel_height * units;
    const int64_t packed_block = packed_size<T>(depth, s.kernel_width * block);
    const int64_t packed_blocks = s.groups * channel_blocks;
    T* packed = scratch<T>(
        kShared, packed_blocks * packed_block +
                     (s.height + s.width) * static_cast<int64_t>(sizeof(Taps) / sizeof(T)));
    const Axis vertical(s.kernel_height, s.stride_height, s.dilation_height, s.out_height);
    const Axis horizontal(s.kernel_width, s.stride_width, s.dilation_width, s.out_width);
    const double packing = 0.5 * s.kernel_size() / packed_blocks;
    parallel_for(context, packed_blocks, packing, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t group = i / channel_blocks, first = i % channel_blocks * block;
            const int64_t count = std::min(block, channels - first);
            for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
                const auto source = [&](int64_t j) {
                    const int64_t tap = kh * s.kernel_width + j / count;
                    return kernel + (tap * channels + first + j % count) * s.filters +
                           group * units;
                };
                pack_lanes_transposed(depth, s.kernel_width * count, vertical.position(kh) * units,
                                      units, source, packed + i * packed_block);
            }
        }
    });
    Taps* lines = reinterpret_cast<Taps*>(packed + packed_blocks * packed_block);
    Taps* columns = lines + s.height;
    for (int64_t ih = 0; ih < s.height; ++ih) lines[ih] = vertical.taps(ih + s.pad_top);
    for (int64_t iw = 0; iw < s.width; ++iw) columns[iw] = horizontal.taps(iw + s.pad_left);

    const int64_t together = samples_together(s, n), sample_blocks = divide_up(n, together);
    const int64_t remainders = std::min(s.stride_height, s.height);
    const int64_t row_block = std::max<int64_t>(1, kBlockRows / s.out_width);
    const int64_t row_blocks =
        divide_up(together * divide_up(s.height, s.stride_height), row_block);
    const int64_t tasks = packed_blocks * remainders * sample_blocks * row_blocks;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            int64_t rest = i;
            const int64_t first = rest % row_blocks * row_block;
            rest /= row_blocks;
            const int64_t sample = rest % sample_blocks * together;
            rest /= sample_blocks;
            const int64_t remainder = rest % remainders, part = rest / remainders;
            const int64_t group = part / channel_blocks, channel = part % channel_blocks * block;
            const int64_t samples = std::min(together, n - sample);
            const int64_t count = std::min(block, channels - channel);
            const int64_t height = divide_up(s.height - remainder, s.stride_height);
            const int64_t last = std::min(first + row_block, samples * height);
            if (first >= last) continue;

            const GradientRows<T> rows = {s,
                                          dy + sample * s.output_size() + group * units,
                                          dy + n * s.output_size(),
                                          lines,
                                          samples,
                                          remainder};
            const Lanes<T> lanes =
                packed_lanes<T>(packed + part * packed_block, depth, s.kernel_width * count);
            const int64_t pitch = round_up(s.kernel_width * count, kLanes<T>);
            T* product = scratch<T>(kLocal, row_block * s.out_width * pitch + kLanes<T>);
            T* targets[kBlockRows];
            for (int64_t m = first * s.out_width; m < last * s.out_width; m += kBlockRows) {
                const int64_t rows_here = std::min(kBlockRows, last * s.out_width - m);
                T* out = product + (m - first * s.out_width) * pitch;
                for (int64_t j = 0; j < rows_here; ++j) targets[j] = out + j * pitch;
                multiply_rows<T>(rows, lanes, m, rows_here, pitch, nullptr, targets);
            }
            for (int64_t row = first; row < last; ++row) {
                gather_row(s, columns, product + (row - first) * s.out_width * pitch, pitch, count,
                           dx + (sample + row % samples) * s.input_size() +
                               rows.ih(row) * s.width * s.channels + group * channels + channel);
            }
        }
    });
}

template <class T>
void conv2d_backward_kernel(const Context& context, const Conv2d& s, int64_t n, const T* dy,
                            const T* x, T* dkernel, T* dbias) {
    switch (ConvChoice<T>(s, n).backward_kernel()) {
        case ConvAlgorithm::kDepthwise:
            return Depthwise<T>(s).run_backward_kernel(context, n, dy, x, dkernel, dbias);
        case ConvAlgorithm::kGrouped:
            return Grouped<T>(s).run_backward_kernel(context, n, dy, x, dkernel, dbias);
        case ConvAlgorithm::kPlanes:
            return conv2d_planes_backward_kernel(context, Planes<T>(s), n, dy, x, dkernel, dbias);
        case ConvAlgorithm::kWinograd2:
            return conv2d_winograd_backward_kernel(context, s, 2, n, dy, x, dkernel, dbias);
        case ConvAlgorithm::kWinograd4:
            return conv2d_winograd_backward_kernel(context, s, 4, n, dy, x, dkernel, dbias);
        default:
            break;
    }
    const int64_t channels = s.channels / s.groups;
    const WeightGradient<T> gradient = {n * s.out_height * s.out_width,
                                        s.kernel_height * s.kernel_width * channels,
                                        s.groups,
                                        s.filters / s.groups,
                                        dy,
                                        dkernel,
                                        dbias};
    if (is_pixelwise(s)) {
        const PlainRows<T> pixels = {x, gradient.rows, s.channels};
        return gradient.run(context, [&](int64_t) { return pixels; });
    }
    gradient.run(context, [&](int64_t group) {
        return Windows<T>{s, x + group * channels, x + n * s.input_size(), n, true};
    });
}

template <class T>
void conv2d_algorithms(const Context&, const Conv2d& s, int64_t n, int64_t* chosen) {
    const ConvChoice<T> choice(s, n);
    chosen[0] = static_cast<int64_t>(choice.forward());
    chosen[1] = static_cast<int64_t>(choice.backward_input());
    chosen[2] = static_cast<int64_t>(choice.backward_kernel());
}

INSTANTIATE(conv2d)
INSTANTIATE(conv2d_algorithms)
INSTANTIATE(fused_conv2d)
INSTANTIATE(conv2d_backward_input)
INSTANTIATE(conv2d_backward_kernel)

}  // namespace CONVKIT_ISA
}  // namespace convkit
