// What convolutions cost by each algorithm: for an output pixel, in multiply-adds of registers
// (0.14 ns on the processor where they were measured, a Zen 5 at 4 GHz).
//
// Each is a sum over what the algorithm does for a pixel: its products, what it moves, and what it
// does for every pixel whatever the channels. The factors are least squares, of relative errors,
// over the times of 280 shapes on AVX-512, AVX2 and SSE2: kernels of 3 x 3 and 5 x 5, 1 to 32
// channels, 4 to 32 filters, 12 and 28 pixels wide; the products of a matrix product by larger
// layers as well. They differ so little among instruction sets that one set of factors serves all:
// on those shapes, to go by them takes 1 to 2 % longer than to go by the times themselves.
// bench/bench_choice.py measures and fits anew; bench/conv_costs.py has the sums as written here.
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
    explicit ConvCost(const Conv2d& s)
        : s_(s),
          channels_(static_cast<double>(s.channels / s.groups)),
          filters_(static_cast<double>(s.filters / s.groups)),
          window_(static_cast<double>(s.kernel_height * s.kernel_width)) {}

    // A matrix product of windows; `plain`: of pixels that are not copied (product.h).
    double product(WinogradPass pass, bool plain = false) const {
        const double kernel_width = static_cast<double>(s_.kernel_width);
        const double products = kMultiplyAdd * window_ * channels_ * registers(filters_);
        if (pass == WinogradPass::kForward) {
            if (plain) return 0.8 * products + 16;
            if (const SmallPicture<T> small(s_); small.pays()) return met(s_, small);
            return 0.95 * products + 0.6 * window_ * channels_ +
                   10 * static_cast<double>(s_.kernel_height) + 45;
        }
        if (pass == WinogradPass::kBackwardInput) {
            if (s_.stride_height * s_.stride_width == 1) {
                const Conv2d mirror = mirrored(s_);
                if (const SmallPicture<T> small(mirror); small.pays()) return met(mirror, small);
            }
            const double rows = static_cast<double>(s_.kernel_height) * filters_;
            return kMultiplyAdd * rows * registers(kernel_width * channels_) +
                   kGather * kernel_width * registers(channels_) + 40;
        }
        const double turned = 1.2 * kMultiplyAdd * filters_ * registers(window_ * channels_);
        return 1.05 * std::min(products, turned) +
               6 * static_cast<double>(s_.kernel_height) * registers(kernel_width * channels_) + 31;
    }

    // Windows that are multiplied where they lie (conv_direct.h).
    double windows() const { return kMultiplyAdd * window_ * channels_ * registers(filters_) + 16; }

    // Pixels in the lanes (conv_planes.h); of dx, planes are those of the mirrored convolution.
    double planes(WinogradPass pass, const Planes<T>& planes) const {
        const double products = kMultiplyAdd * static_cast<double>(planes.taps * planes.units) *
                                static_cast<double>(planes.width) /
                                static_cast<double>(planes.s.out_width * kLanes<T>);
        const double channels = static_cast<double>(planes.channels);
        if (pass == WinogradPass::kBackwardKernel) return 1.35 * products + 3 * channels + 16;
        return 1.1 * products + 3.5 * channels + 7;
    }

    // Winograd's method in windows of outputs x outputs; those at the border count whole. Its
    // weights are transformed for a batch of so many samples: the choice is to be the same for all
    // batches.
    double winograd(WinogradPass pass, int64_t outputs) const {
        const bool back = pass == WinogradPass::kBackwardInput;
        const double inputs = back ? filters_ : channels_, units = back ? channels_ : filters_;
        constexpr double kSamples = 16;
        const double each = winograd_products(pass, outputs), weights = inputs * registers(units);
        const double side = static_cast<double>(outputs + s_.kernel_height - 1);
        return each * (1.05 * kPlaceMultiplyAdd * weights +
                       8.5 * (transformed(inputs) + transformed(units))) +
               10 * weights * side * side / (kSamples * pixels(pass)) + 24;
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
        const double filters = registers(static_cast<double>(s.filters));
        const double taps = small.share() * static_cast<double>(s.kernel_height * s.kernel_width);
        return taps * (1.05 * kMultiplyAdd * channels * filters + 0.6 * channels + 3 * filters) +
               45;
    }

    // Of what is made; at least one.
    double pixels(WinogradPass pass) const {
        const bool back = pass == WinogradPass::kBackwardInput;
        return std::max(1.0, static_cast<double>(back ? s_.height : s_.out_height) *
                                 static_cast<double>(back ? s_.width : s_.out_width));
    }

    // Without fused multiply-adds, products take longer; not so much those that wait for memory.
#if defined(__AVX2__) || defined(__aarch64__)
    static constexpr double kMultiplyAdd = 1, kPlaceMultiplyAdd = 1;
#else
    static constexpr double kMultiplyAdd = 1.45, kPlaceMultiplyAdd = 0.9;
#endif
    // What falls onto one pixel of dx is added up register by register, filled or not.
    static constexpr double kGather = kVectorBytes == 64 ? 6 : 2;

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
