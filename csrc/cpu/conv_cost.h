// What convolutions cost by each algorithm: for an output pixel, in multiply-adds of registers
// (0.14 ns on the processor where they were measured, a Zen 5 at 4 GHz).
//
// Each is a sum over what the algorithm does for a pixel: its products, what it moves, and what it
// does for every pixel whatever the channels. The factors are least squares, of relative errors,
// over the times of 751 shapes on AVX-512, AVX2 and SSE2, those of bench/choice_cases.py. They
// differ so little among instruction sets that one set of factors serves all: on those shapes, to
// go by them takes 0 to 2 % longer than to go by the times themselves, and 0 to 5 % for pictures
// less than 7 pixels wide. bench/bench_choice.py measures and fits anew; bench/conv_costs.py has
// the sums as written here.
#pragma once

#include "conv_planes.h"
#include "small_picture.h"
#include "winograd_conv.h"

namespace convkit {
namespace CONVKIT_ISA {

// The convolution of dy with the turned kernel that gives dx; for strides of 1.
static inline Conv2d mirrored(const Conv2d& s) {
    Conv2d m = s;
    m.height = s.out_height, m.width = s.out_width, m.channels = s.filters;
    m.out_height = s.height, m.out_width = s.width, m.filters = s.channels;
    m.pad_top = (s.kernel_height - 1) * s.dilation_height - s.pad_top;
    m.pad_left = (s.kernel_width - 1) * s.dilation_width - s.pad_left;
    return m;
}

template <class T>
class ConvCost {
 public:
    // Of a batch, for what is done once in it: choices are to be the same for all batches.
    static constexpr double kSamples = 16;

    explicit ConvCost(const Conv2d& s)
        : s_(s),
          channels_(static_cast<double>(s.channels / s.groups)),
          filters_(static_cast<double>(s.filters / s.groups)),
          window_(static_cast<double>(s.kernel_height * s.kernel_width)) {}

    // A matrix product of windows; `plain`: of pixels that are not copied (product.h). There is
    // something to be done for each row of the kernel in each row of the picture.
    double product(WinogradPass pass, bool plain = false) const {
        const double kernel_width = static_cast<double>(s_.kernel_width);
        const double products = kMultiplyAdd * window_ * channels_ * registers(filters_);
        if (pass == WinogradPass::kForward) {
            if (plain) return 1.0 * products + 14;
            if (const SmallPicture<T> small(s_); small.pays()) return met(s_, small);
            return rows_met() * (1.1 * products + 0.5 * window_ * channels_) +
                   90 * kernel_rows(s_.out_width) + 60;
        }
        if (pass == WinogradPass::kBackwardInput) {
            if (s_.stride_height * s_.stride_width == 1) {
                const Conv2d mirror = mirrored(s_);
                if (const SmallPicture<T> small(mirror); small.pays()) return met(mirror, small);
            }
            const double rows = static_cast<double>(s_.kernel_height) * filters_ /
                                static_cast<double>(s_.stride_height);
            const double across = static_cast<double>(s_.out_width) / static_cast<double>(s_.width);
            return across * kMultiplyAdd * rows * registers(kernel_width * channels_) +
                   60 * kernel_rows(s_.width) + 40;
        }
        const double turned = 1.2 * kMultiplyAdd * filters_ * registers(window_ * channels_);
        return 1.2 * std::min(products, turned) +
               6 * static_cast<double>(s_.kernel_height) * registers(kernel_width * channels_) +
               120 * kernel_rows(s_.out_width);
    }

    // Windows that are multiplied where they lie (conv_direct.h), two registers of filters at a
    // time. The few sums of a narrow picture wait for each other.
    double windows() const {
        const double tiles = static_cast<double>(divide_up(s_.out_width, kTileRows));
        const double waits = kWaits * tiles / static_cast<double>(s_.out_width);
        const double both = std::floor(registers(filters_) / 2);
        const double one = registers(filters_) - 2 * both;
        return rows_met() * window_ * channels_ *
                   (both * std::max(2 * kMultiplyAdd, waits) +
                    one * std::max(kMultiplyAdd, waits)) +
               16;
    }

    // Pixels in the lanes (conv_planes.h), and filling the planes row by row; of dx, planes are
    // those of the mirrored convolution.
    double planes(WinogradPass pass, const Planes<T>& planes) const {
        const double made = pixels(pass);
        const double products = static_cast<double>(planes.taps * planes.units) *
                                static_cast<double>(planes.width) /
                                static_cast<double>(planes.s.out_width * kLanes<T>);
        const double rows = static_cast<double>(planes.bands * planes.planes()) *
                            static_cast<double>(planes.plane_size / planes.width) / made;
        if (pass == WinogradPass::kBackwardKernel) {
            return 1.2 * products + 70 * rows + 14 + 700 / made;
        }
        return 1.1 * kMultiplyAdd * products + 30 * rows +
               2 * static_cast<double>(planes.planes()) + 10;
    }

    // Winograd's method in windows of outputs x outputs; those at the border count whole. Its
    // weights are transformed once for so many samples.
    double winograd(WinogradPass pass, int64_t outputs, double samples = kSamples) const {
        const bool back = pass == WinogradPass::kBackwardInput;
        const double inputs = back ? filters_ : channels_, units = back ? channels_ : filters_;
        const double each = winograd_products(pass, outputs), weights = inputs * registers(units);
        const double side = static_cast<double>(outputs + s_.kernel_height - 1);
        return each *
                   (kPlaceMultiplyAdd * weights + 8 * (transformed(inputs) + transformed(units))) +
               8 * weights * side * side / (samples * pixels(pass)) + 25;
    }

    // Its products for a channel and a filter, where sums have kernel_height * kernel_width.
    double winograd_products(WinogradPass pass, int64_t outputs) const {
        const bool back = pass == WinogradPass::kBackwardInput;
        const int64_t down = divide_up(back ? s_.height : s_.out_height, outputs);
        const int64_t across = divide_up(back ? s_.width : s_.out_width, outputs);
        const int64_t side = outputs + s_.kernel_height - 1;
        return static_cast<double>(down) * static_cast<double>(across * side * side) / pixels(pass);
    }

 private:
    // A product for each tap (small_picture.h).
    static double met(const Conv2d& s, const SmallPicture<T>& small) {
        const double channels = static_cast<double>(s.channels);
        const double weights = channels * registers(static_cast<double>(s.filters));
        const double window = static_cast<double>(s.kernel_height * s.kernel_width);
        return small.share() * window * (1.2 * kPlaceMultiplyAdd * weights + channels) + 300;
    }

    // Of what is made; at least one.
    double pixels(WinogradPass pass) const {
        const bool back = pass == WinogradPass::kBackwardInput;
        return std::max(1.0, static_cast<double>(back ? s_.height : s_.out_height) *
                                 static_cast<double>(back ? s_.width : s_.out_width));
    }

    // Of the rows of all windows, the share that lies in the picture: the others are left out.
    double rows_met() const {
        int64_t met = 0;
        for (int64_t kh = 0; kh < s_.kernel_height; ++kh) {
            const Range part = inside(kh * s_.dilation_height - s_.pad_top, s_.stride_height,
                                      s_.height, s_.out_height);
            met += part.end - part.begin;
        }
        return static_cast<double>(met) / static_cast<double>(s_.kernel_height * s_.out_height);
    }
    // For each pixel of a row.
    double kernel_rows(int64_t width) const {
        return static_cast<double>(s_.kernel_height) / static_cast<double>(width);
    }

    // Without fused multiply-adds, products take longer, and a sum waits for its addition alone.
#if defined(__AVX2__) || defined(__aarch64__)
    static constexpr double kMultiplyAdd = 1, kPlaceMultiplyAdd = 1, kWaits = 8;
#else
    static constexpr double kMultiplyAdd = 1.45, kPlaceMultiplyAdd = 1.3, kWaits = 6;
#endif

    static double registers(double values) {
        return std::ceil(values / static_cast<double>(kLanes<T>));
    }
    // Registers that are transformed. Where loads have no masks, part of one takes as long as
    // three.
    static double transformed(double values) {
#if defined(__AVX2__)
        return registers(values);
#else
        const double whole = std::floor(values / static_cast<double>(kLanes<T>));
        return whole + 3 * (registers(values) - whole);
#endif
    }

    const Conv2d& s_;
    double channels_, filters_, window_;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
