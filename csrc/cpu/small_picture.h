// Convolution of small pictures, of which a good part of each window lies outside: for each tap of
// the kernel, a matrix product of those output pixels alone for which it meets the picture, of all
// samples together.
//
// `turned`: that of dy which gives dx, for strides of 1. Its geometry is the mirrored one, and it
// reads the kernel of the convolution from its last tap to its first, channels for filters.
//
// The kernel is read where it lies, once for a block of samples. As in gemm.h, every value of y is
// one chain over the depth in ascending order: the bits are those of the other products, in which
// taps outside add zeros.
#pragma once

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
class SmallPicture {
 public:
    explicit SmallPicture(const Conv2d& s, bool turned = false)
        : s_(s),
          turned_(turned),
          pixels_(s.out_height * s.out_width),
          pieces_(std::max<int64_t>(1, divide_up(s.channels, kDepth))),
          piece_(round_up(divide_up(s.channels, pieces_), kLanes<T>)),
          met_down_(met_before(s.kernel_height, [&](int64_t kh) { return down(kh); })),
          met_across_(met_before(s.kernel_width, [&](int64_t kw) { return across(kw); })) {}

    // The share of the taps of all windows that meet the picture.
    double share() const {
        const int64_t taps = s_.kernel_height * s_.kernel_width * pixels_;
        return taps == 0 ? 1 : static_cast<double>(met_down_ * met_across_) / taps;
    }

    // Sums are taken up and put back for each tap, whose channels are to outweigh that.
    bool pays() const {
        constexpr int64_t kLeastChannels = 32, kMostPixels = 32;
        static_assert(kMostPixels <= kMostRows, "a sample is never cut");
        constexpr double kMostShare = 0.75;
        return s_.groups == 1 && s_.channels >= kLeastChannels && pixels_ <= kMostPixels &&
               share() <= kMostShare;
    }

    void run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias,
             T* y) const {
        const int64_t most =
            std::max<int64_t>(1, kPackedValues / std::max<int64_t>(1, packed_sample()));
        for (int64_t first = 0; first < n; first += most) {
            run_some(context, std::min(most, n - first), x + first * s_.input_size(),
                     x + n * s_.input_size(), kernel, bias, y + first * s_.output_size());
        }
    }

 private:
    // Values that are packed at a time; rows of c in one task, and at least so many tasks, where
    // the sizes give them.
    static constexpr int64_t kPackedValues = int64_t{1} << 20, kMostRows = 384, kTasks = 8;

    // Output rows and columns for which a row or column of the kernel meets the picture.
    Range down(int64_t kh) const {
        return inside(kh * s_.dilation_height - s_.pad_top, s_.stride_height, s_.height,
                      s_.out_height);
    }
    Range across(int64_t kw) const {
        return inside(kw * s_.dilation_width - s_.pad_left, s_.stride_width, s_.width,
                      s_.out_width);
    }
    template <class Met>
    static int64_t met_before(int64_t end, Met met) {
        int64_t sum = 0;
        for (int64_t i = 0; i < end; ++i) sum += met(i).end - met(i).begin;
        return sum;
    }

    int64_t packed_sample() const { return met_down_ * met_across_ * pieces_ * kStride<T>; }

    void run_some(const Context& context, int64_t n, const T* x, const T* x_end, const T* kernel,
                  const T* bias, T* y) const {
        const int64_t panels = divide_up(s_.filters, kPanel<T>);
        const int64_t taps = s_.kernel_height * s_.kernel_width;
        int64_t blocks = divide_up(n, kMostRows / pixels_);
        while (panels * blocks < kTasks && n * pixels_ > 4 * kTileRows * blocks) ++blocks;
        blocks = std::min(blocks, n);
        T* const packed = scratch<T>(kShared, n * packed_sample());
        const double copying = 0.1 * static_cast<double>(n * packed_sample() / (taps * blocks));
        parallel_for(context, taps * blocks, copying, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const Range samples = {cut(n, blocks, i / taps), cut(n, blocks, i / taps + 1)};
                pack(samples, i % taps, x, x_end, packed + samples.begin * packed_sample());
            }
        });
        const double work =
            share() * static_cast<double>(n * s_.multiply_adds()) / (panels * blocks);
        parallel_for(
            context, panels * blocks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const int64_t block = i % blocks, column = i / blocks * kPanel<T>;
                    const Range samples = {cut(n, blocks, block), cut(n, blocks, block + 1)};
                    multiply_block(samples.end - samples.begin,
                                   packed + samples.begin * packed_sample(), kernel, column, bias,
                                   y + samples.begin * s_.output_size());
                }
            });
    }

    // Copies what a tap multiplies: (pieces, oh, ow, sample), behind what the taps before it do.
    void pack(Range samples, int64_t tap, const T* x, const T* x_end, T* packed) const {
        const int64_t kh = tap / s_.kernel_width, kw = tap % s_.kernel_width;
        const Range rows = down(kh), columns = across(kw);
        const int64_t before =
            met_before(kh, [&](int64_t i) { return down(i); }) * met_across_ +
            met_before(kw, [&](int64_t i) { return across(i); }) * (rows.end - rows.begin);
        const int64_t n = samples.end - samples.begin;
        packed += before * n * pieces_ * kStride<T>;
        for (int64_t c = 0; c < s_.channels; c += piece_) {
            const int64_t count = std::min(piece_, s_.channels - c);
            for (int64_t oh = rows.begin; oh < rows.end; ++oh) {
                const int64_t ih = oh * s_.stride_height - s_.pad_top + kh * s_.dilation_height;
                for (int64_t ow = columns.begin; ow < columns.end; ++ow) {
                    const int64_t iw = ow * s_.stride_width - s_.pad_left + kw * s_.dilation_width;
                    const T* src = x + samples.begin * s_.input_size() +
                                   (ih * s_.width + iw) * s_.channels + c;
                    copy_rows(packed, src, s_.input_size(), n, count, x_end - src);
                    packed += n * kStride<T>;
                }
            }
        }
    }

    // One panel of filters of n samples.
    void multiply_block(int64_t n, const T* packed, const T* kernel, int64_t column, const T* bias,
                        T* y) const {
        const int64_t width = std::min(kPanel<T>, s_.filters - column);
        T* const sums = scratch<T>(kLocal, n * pixels_ * kPanel<T>);
        T* const panel = scratch<T>(kPackB, kDepth * kPanel<T>);
        T* targets[kMostRows];
        fill_zero(sums, n * pixels_ * kPanel<T>);
        const T* weights =
            turned_ ? kernel + s_.kernel_size() + column * s_.channels : kernel + column;
        const int64_t tap = s_.channels * s_.filters;
        if (turned_) weights -= tap;
        for (int64_t kh = 0; kh < s_.kernel_height; ++kh) {
            const Range rows = down(kh);
            for (int64_t kw = 0; kw < s_.kernel_width; ++kw) {
                const Range columns = across(kw);
                int64_t met = 0;
                for (int64_t oh = rows.begin; oh < rows.end; ++oh) {
                    const int64_t first = (oh * s_.out_width + columns.begin) * n;
                    const int64_t last = (oh * s_.out_width + columns.end) * n;
                    for (int64_t m = first; m < last; ++m) targets[met++] = sums + m * kPanel<T>;
                }
                for (int64_t c = 0; c < s_.channels && met > 0; c += piece_) {
                    multiply_piece(weights, c, width, packed, met, targets, panel);
                    packed += met * kStride<T>;
                }
                weights += turned_ ? -tap : tap;
            }
        }
        put(sums, n, column, width, bias, y);
    }

    // Adds what `rows` packed rows and a piece of the channels of one tap, from c on, make.
    void multiply_piece(const T* weights, int64_t c, int64_t width, const T* packed, int64_t rows,
                        T* const* sums, T* panel) const {
        const int64_t depth = std::min(piece_, s_.channels - c);
        const bool whole = width == kPanel<T>;
        if (turned_) {
            const T* from = weights + c;
            pack_lanes_transposed(
                depth, width, 0, depth, [&](int64_t j) { return from + j * s_.channels; }, panel);
            const bool last = c + piece_ >= s_.channels;
            const T* next = last ? weights - s_.channels * s_.filters : from + piece_;
            if (whole) {
                return multiply_panel<T>({packed, 0}, panel, rows, depth, false, nullptr, sums,
                                         {next, s_.channels, kPanel<T>});
            }
        } else {
            const T* from = weights + c * s_.filters;
            if (whole) {
                return multiply_unpacked<T>({packed, 0}, from, s_.filters, rows, depth, false,
                                            nullptr, sums, panel);
            }
            pack_lanes(
                depth, width, 0, depth, [&](int64_t k) { return from + k * s_.filters; }, panel);
        }
        const int64_t lanes = round_up(width, kLanes<T>);
        multiply<T>({packed, 0}, {panel, 0, lanes}, rows, lanes, depth, false, nullptr, sums);
    }

    void put(const T* sums, int64_t n, int64_t column, int64_t width, const T* bias, T* y) const {
        for (int64_t m = 0; m < n * pixels_; ++m, sums += kPanel<T>) {
            T* to = y + (m % n * pixels_ + m / n) * s_.filters + column;
            for (int64_t j = 0; j < width; j += kLanes<T>) {
                const int64_t count = std::min<int64_t>(kLanes<T>, width - j);
                Vec<T> sum = load(sums + j);
                if (bias) sum += load_partial(bias + column + j, count);
                store_partial(to + j, sum, count);
            }
        }
    }

    const Conv2d& s_;
    bool turned_;
    int64_t pixels_;
    int64_t pieces_, piece_;  // of the channels
    int64_t met_down_, met_across_;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
