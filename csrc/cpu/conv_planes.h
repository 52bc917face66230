// Convolution with few filters: pixels in the lanes. Formula and shapes as in conv.cpp.
//
// The gradient of the kernel runs over whole rows of a plane, the wrapped-around pixels multiplied
// by zeros; so an infinity or NaN in x reaches more taps there than those whose windows hold it.
#pragma once

#include "epilogue.h"
#include "gemm.h"
#include "lanes.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// The channels of x as planes of pixels, padded with zeros, so that a tap of the kernel is a shift,
// and pixels fill the lanes. Strides take the planes apart into their phases.
// A plane has the pitch `width`; of each of its rows the first out_width pixels are outputs, which
// are pooled when they are written.
template <class T>
struct Planes {
    const Conv2d& s;
    Epilogue<T> epilogue;
    int64_t pool, y_height, y_width;  // y is pooled by pool x pool
    int64_t channels, units, taps;
    int64_t width;        // columns of a plane
    int64_t bands, rows;  // the outputs are cut into bands of at most so many rows
    int64_t plane_size;

    explicit Planes(const Conv2d& s, Epilogue<T> epilogue = {})
        : s(s),
          epilogue(epilogue),
          pool(epilogue.pool),
          y_height(divide(s.out_height, pool)),
          y_width(divide(s.out_width, pool)),
          channels(divide(s.channels, s.groups)),
          units(divide(s.filters, s.groups)),
          taps(s.kernel_height * s.kernel_width * channels),
          width(s.out_width + divide((s.kernel_width - 1) * s.dilation_width, s.stride_width)) {
        constexpr int64_t kPixels = 1024;
        bands = divide_up(y_height, std::max<int64_t>(1, kPixels / (pool * width)));
        rows = pool * divide_up(y_height, bands);
        plane_size =
            width * (rows + divide((s.kernel_height - 1) * s.dilation_height, s.stride_height));
    }

    int64_t planes() const { return channels * s.stride_height * s.stride_width; }
    int64_t pixels() const { return round_up(rows * width, kLanes<T>); }
    // Behind the planes: space to read whole registers, then a plane of ones.
    int64_t ones() const { return planes() * plane_size + kLanes<T>; }
    int64_t size() const { return ones() + pixels(); }

    bool possible() const { return units <= kFewRows && size() <= 1 << 16; }

    // Offsets of the taps in the order of the kernel, then of the plane of ones.
    void offsets(int64_t* offset) const {
        for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
            const Place down = place(kh * s.dilation_height, s.stride_height);
            for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                const Place across = place(kw * s.dilation_width, s.stride_width);
                const int64_t phase = down.phase * s.stride_width + across.phase;
                const int64_t at = down.index * width + across.index;
                for (int64_t c = 0; c < channels; ++c) {
                    *offset++ = (phase * channels + c) * plane_size + at;
                }
            }
        }
        *offset = ones();
    }

    // Rows of y.
    Range band(int64_t i) const { return {cut(y_height, bands, i), cut(y_height, bands, i + 1)}; }

    // From the group's first channel in one sample, for the outputs from row `oh`.
    void fill(const T* x, const T* x_end, int64_t oh, T* dst) const {
        for (int64_t phase = 0; phase < s.stride_height * s.stride_width; ++phase) {
            const int64_t top = oh * s.stride_height + phase / s.stride_width - s.pad_top;
            const int64_t left = phase % s.stride_width - s.pad_left;
            const Range part = inside(left, s.stride_width, s.width, width);
            for (int64_t c = 0; c < channels; ++c) {
                int64_t ih = top;
                for (T* const end = dst + plane_size; dst < end;
                     dst += width, ih += s.stride_height) {
                    fill_row(ih < 0 || ih >= s.height ? Range{0, 0} : part,
                             x + (ih * s.width + left) * s.channels + c, x_end, dst);
                }
            }
        }
        fill_zero(dst, kLanes<T>);
    }

    // The pitch of planes of outputs, and how many there are: only whole registers and corners.
    int64_t pitch() const { return pixels() + kLanes<T>; }
    int64_t output_planes() const { return round_up(units, kCorner<T>) * pitch(); }
    // Behind them: space to read two registers of pixels from anywhere in the last one.
    int64_t product_size() const { return output_planes() + 2 * kLanes<T>; }

    // dy of one group and band as planes, zero beside the outputs.
    void fill_gradient(const T* dy, const T* dy_end, int64_t height, T* dst) const {
        fill_zero(dst, output_planes());
        for (int64_t oh = 0; oh < height; ++oh) {
            for (int64_t ow = 0; ow < s.out_width; ow += kLanes<T>) {
                for (int64_t f = 0; f < units; f += kCorner<T>) {
                    gather_pixels(dy + (oh * s.out_width + ow) * s.filters + f, dy_end,
                                  std::min<int64_t>(kLanes<T>, s.out_width - ow), units - f,
                                  dst + f * pitch() + oh * width + ow);
                }
            }
        }
    }

    // y of one group and band, `height` rows, from planes of outputs.
    void write(const T* planes, const T* bias, int64_t height, T* y) const {
        pool == 1 ? write_rows<1>(planes, bias, height, y) : write_rows<2>(planes, bias, height, y);
    }

 private:
    template <int kPool>
    void write_rows(const T* planes, const T* bias, int64_t height, T* y) const {
        alignas(64) T shift[kFewRows] = {};
        for (int64_t f = 0; bias && f < units; ++f) shift[f] = bias[f];
        const int64_t filters = s.filters, line = y_width * filters;
        // Behind a pixel, whole corners are written: that belongs to the next pixels, which follow.
        const bool alone = filters <= kCorner<T> && s.groups == 1;
        const int64_t room = (kLanes<T> - 1) * filters + kCorner<T>;
        // The last pixels of a row fill the registers together with those before them.
        const int64_t last = std::max<int64_t>(0, y_width - kLanes<T>);
        const T* end = y + height * line;
        for (int64_t row = 0; row < height; ++row, planes += kPool * width, y += line) {
            for (int64_t i = 0; i < y_width; i += kLanes<T>) {
                const int64_t column = std::min(i, last);
                T* pixels = y + column * filters;
                if (alone && end - pixels >= room) {
                    Vec<T> rows[kLanes<T>];
                    load_corner<kPool>(planes + kPool * column, shift, rows);
                    CONVKIT_UNROLL
                    for (int j = 0; j < kLanes<T>; ++j) {
                        std::memcpy(pixels + j * filters, &rows[j], kCorner<T> * sizeof(T));
                    }
                } else {
                    write_some<kPool>(planes + kPool * column, shift,
                                      std::min<int64_t>(kLanes<T>, y_width - column), pixels);
                }
            }
        }
    }

    // Where a row or column of the padded picture lies: which phase of the stride, which of its
    // rows.
    struct Place {
        int64_t phase, index;
    };
    static Place place(int64_t at, int64_t stride) {
        if (stride == 1) return {0, at};
        return {at % stride, at / stride};
    }

    // Up to kLanes pixels of dy to kCorner planes; the lanes of missing pixels become zero.
    void gather_pixels(const T* src, const T* end, int64_t count, int64_t filters, T* dst) const {
        Vec<T> rows[kLanes<T>];
        if (count == kLanes<T> && end - src >= (kLanes<T> - 1) * s.filters + kLanes<T>) {
            CONVKIT_UNROLL
            for (int i = 0; i < kLanes<T>; ++i) rows[i] = load(src + i * s.filters);
        } else {
            Vec<T> some[kLanes<T>] = {};
            for (int64_t i = 0; i < count; ++i) {
                const T* pixel = src + i * s.filters;
                const int64_t used = std::min<int64_t>(kCorner<T>, filters);
                some[i] = end - pixel >= kLanes<T> ? load(pixel) : load_partial(pixel, used);
            }
            CONVKIT_UNROLL
            for (int i = 0; i < kLanes<T>; ++i) rows[i] = some[i];
        }
        pixels_to_filters<T>(rows);
        // Lanes behind the row are zero, and the next row follows.
        CONVKIT_UNROLL
        for (int i = 0; i < kCorner<T>; ++i) store(dst + i * pitch(), rows[i]);
    }

    // kLanes neighbouring pixels of y, before bias and floor.
    template <int kPool>
    CONVKIT_INLINE Vec<T> pooled(const T* src) const {
        if constexpr (kPool == 1) {
            return load(src);
        } else {
            constexpr auto all = std::make_index_sequence<kLanes<T>>();
            const Vec<T> low = larger_or_nan<T>(load(src), load(src + width));
            const Vec<T> high =
                larger_or_nan<T>(load(src + kLanes<T>), load(src + width + kLanes<T>));
            return larger_or_nan<T>(every_second<T, 0>(low, high, all),
                                    every_second<T, 1>(low, high, all));
        }
    }

    // kCorner planes as a register for each of kLanes pixels of y.
    template <int kPool>
    CONVKIT_INLINE void load_corner(const T* src, const T* shift, Vec<T>* rows) const {
        CONVKIT_UNROLL
        for (int i = 0; i < kCorner<T>; ++i) {
            const Vec<T> z = pooled<kPool>(src + i * pitch()) + broadcast(shift[i]);
            rows[i] = larger<T>(z, epilogue.floor);
        }
        filters_to_pixels<T>(rows);
    }

    // `count` pixels of all planes to y, nothing else.
    template <int kPool>
    void write_some(const T* planes, const T* shift, int64_t count, T* y) const {
        for (int64_t f = 0; f < units; f += kCorner<T>) {
            Vec<T> rows[kLanes<T>];
            load_corner<kPool>(planes + f * pitch(), shift + f, rows);
            const int64_t used = std::min<int64_t>(kCorner<T>, units - f);
            for (int64_t i = 0; i < count; ++i) {
                T* pixel = y + i * s.filters + f;
                used == kLanes<T> ? store(pixel, rows[i]) : store_partial(pixel, rows[i], used);
            }
        }
    }

    // Whole registers: what is written too far belongs to the next row, which follows.
    void fill_row(Range part, const T* src, const T* x_end, T* dst) const {
        const int64_t step = s.stride_width * s.channels;
        zero_registers(dst, part.begin);
        if (step == 1) {
            copy_run(dst + part.begin, dst + part.end + kLanes<T>, src + part.begin, x_end,
                     part.end - part.begin);
        } else {
            for (int64_t q = part.begin; q < part.end; ++q) dst[q] = src[q * step];
        }
        zero_registers(dst + part.end, width - part.end);
    }

    static void zero_registers(T* dst, int64_t count) {
        for (int64_t i = 0; i < count; i += kLanes<T>) store(dst + i, Vec<T>{});
    }
};

template <class T>
static void conv2d_planes(const Context& context, const Planes<T>& p, int64_t n, const T* x,
                          const T* kernel, const T* bias, T* y) {
    const Conv2d& s = p.s;
    int64_t* offsets = scratch<int64_t>(kPackB, p.taps + 1);
    p.offsets(offsets);
    const int64_t tasks = n * p.bands * s.groups;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* planes = scratch<T>(kPackA, p.size());
        T* product = scratch<T>(kLocal, p.product_size());
        for (int64_t i = begin; i < end; ++i) {
            const int64_t rest = divide(i, s.groups), sample = divide(rest, p.bands);
            const int64_t group = i - rest * s.groups, filter = group * p.units;
            const Range band = p.band(rest - sample * p.bands);
            p.fill(x + sample * s.input_size() + group * p.channels, x + n * s.input_size(),
                   p.pool * band.begin, planes);
            multiply_shifted<T>(kernel + filter, s.filters, planes, offsets, p.units, p.pixels(),
                                p.taps, product, p.pitch());
            p.write(product, bias ? bias + filter : nullptr, band.end - band.begin,
                    y + (sample * p.y_height + band.begin) * p.y_width * s.filters + filter);
        }
    });
}

template <class T>
static void conv2d_planes_backward_kernel(const Context& context, const Planes<T>& p, int64_t n,
                                          const T* dy, const T* x, T* dkernel, T* dbias) {
    const Conv2d& s = p.s;
    const int64_t images = n * p.bands, size = (p.taps + 1) * p.units * kLanes<T>;
    const int64_t slots = std::max<int64_t>(
        1, std::min({int64_t{16}, images / 4, (int64_t{1} << 20) / (s.groups * size)}));
    T* sums = scratch<T>(
        kShared, slots * s.groups * size + (p.taps + 1) * static_cast<int64_t>(8 / sizeof(T)));
    int64_t* offsets = reinterpret_cast<int64_t*>(sums + slots * s.groups * size);
    p.offsets(offsets);
    const double work = static_cast<double>(n) * s.multiply_adds() / (slots * s.groups);
    parallel_for(
        context, slots * s.groups, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
            T* planes = scratch<T>(kPackA, p.size());
            T* gradient = scratch<T>(kPackB, p.output_planes());
            for (int64_t q = 0; q < p.pixels(); ++q) planes[p.ones() + q] = T(1);
            for (int64_t i = begin; i < end; ++i) {
                const int64_t slot = i / s.groups, group = i % s.groups;
                fill_zero(sums + i * size, size);
                for (int64_t j = cut(images, slots, slot); j < cut(images, slots, slot + 1); ++j) {
                    const int64_t sample = j / p.bands;
                    const Range band = p.band(j % p.bands);
                    p.fill(x + sample * s.input_size() + group * p.channels, x + n * s.input_size(),
                           band.begin, planes);
                    p.fill_gradient(dy + sample * s.output_size() +
                                        band.begin * s.out_width * s.filters + group * p.units,
                                    dy + n * s.output_size(), band.end - band.begin, gradient);
                    correlate_shifted<T>(planes, offsets, gradient, p.pitch(), p.units, p.pixels(),
                                         p.taps + 1, sums + i * size);
                }
            }
        });
    for (int64_t group = 0; group < s.groups; ++group) {
        for (int64_t i = 0; i < (p.taps + 1) * p.units; ++i) {
            Vec<T> total{};
            for (int64_t slot = 0; slot < slots; ++slot) {
                total += load(sums + (slot * s.groups + group) * size + i * kLanes<T>);
            }
            const int64_t tap = i / p.units, filter = group * p.units + i % p.units;
            if (tap < p.taps) {
                dkernel[tap * s.filters + filter] = sum<T>(total);
            } else if (dbias) {
                dbias[filter] = sum<T>(total);
            }
        }
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
