// Which algorithm computes a convolution: the one place that decides. What stands here was
// measured; costs are in half cycles, the time of one multiply-add of registers, per pixel.
//
// A choice depends on the shapes of one sample alone (and the instruction set), so what a sample
// gives depends neither on the batch nor on what else is done with it. Only that of the kernel's
// gradient, a sum over the batch, depends on its size. An algorithm that the spec asks for is taken
// wherever it can be used; a pass that it has no form for is left to the direct ones.
#pragma once

#include "conv_direct.h"
#include "conv_planes.h"
#include "depthwise.h"
#include "winograd_conv.h"

namespace convkit {
namespace CONVKIT_ISA {

// What a product with Windows costs per output pixel, in the unit of Planes::pay().
template <class T>
static int64_t windows_cost(const Conv2d& s) {
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    const int64_t runs = s.groups == 1 && s.dilation_width == 1 ? 1 : s.kernel_width;
    const int64_t products = s.kernel_width * channels * divide_up(units, kLanes<T>);
    return s.kernel_height * (products + 3 * runs);
}

// The convolution of dy with the turned kernel that gives dx; for strides of 1.
static inline Conv2d mirrored(const Conv2d& s) {
    Conv2d m = s;
    m.height = s.out_height, m.width = s.out_width, m.channels = s.filters;
    m.out_height = s.height, m.out_width = s.width, m.filters = s.channels;
    m.pad_top = (s.kernel_height - 1) * s.dilation_height - s.pad_top;
    m.pad_left = (s.kernel_width - 1) * s.dilation_width - s.pad_left;
    return m;
}

// Whether dx is better formed by the mirrored convolution in planes. Its rival's cost is that of
// GradientRows per pixel of dx.
template <class T>
static bool mirrored_planes_pay(const Conv2d& s, const Planes<T>& planes) {
    const int64_t columns = s.kernel_width * (s.channels / s.groups);
    const int64_t products = s.kernel_height * (s.filters / s.groups) *
                             divide_up(columns, kLanes<T>) * s.out_height * s.out_width /
                             (s.height * s.width);
    return s.stride_height == 1 && s.stride_width == 1 &&
           planes.pay(products + 3 * s.kernel_height + 2 * s.kernel_width);
}

// Whether Winograd's method is the fastest, and then by which windows: of 4 x 4 or 2 x 2 outputs.
// Else 0. Its products must be clearly fewer than those that are added up otherwise, windows at the
// border counted whole, and channels and filters so many that the transforms do not matter: with
// few, dx and dkernel gain earlier, since their matrix products are the slower ones. Sums over a
// few pixels are not worth a transformed kernel.
static inline int64_t winograd_outputs(const Conv2d& s, int64_t n, WinogradPass pass) {
    const bool forward = pass == WinogradPass::kForward, large = s.kernel_height == 5;
    const bool of_kernel = pass == WinogradPass::kBackwardKernel;
    const int64_t least = forward ? 16 : !large ? 8 : of_kernel ? 6 : 16;
    const int64_t height = pass == WinogradPass::kBackwardInput ? s.height : s.out_height;
    const int64_t width = pass == WinogradPass::kBackwardInput ? s.width : s.out_width;
    if (std::min(s.channels, s.filters) < least) return 0;
    constexpr double kLeastPixels = 49;
    const double pixels = static_cast<double>(height) * static_cast<double>(width);
    double fewest = 0.6 * pixels * static_cast<double>(s.kernel_height * s.kernel_width);
    if (of_kernel && static_cast<double>(n) * pixels < kLeastPixels) return 0;
    int64_t best = 0;
    for (int64_t outputs = 2; outputs <= 4; outputs += 2) {
        if (!winograd_possible(s, outputs)) continue;
        const int64_t side = outputs + s.kernel_height - 1;
        const double products = static_cast<double>(divide_up(height, outputs)) *
                                static_cast<double>(divide_up(width, outputs) * side * side);
        if (products > fewest) continue;
        best = outputs;
        fewest = products;
    }
    return best;
}

// A product of plain matrices (product.h): each pixel by itself, with channels enough to be copied.
static inline bool is_pixelwise(const Conv2d& s) {
    constexpr int64_t kLeastChannels = 32;
    return s.kernel_height * s.kernel_width * s.groups == 1 && s.stride_height == 1 &&
           s.stride_width == 1 && s.out_height == s.height && s.out_width == s.width &&
           s.channels >= kLeastChannels;
}

template <class T>
class ConvChoice {
 public:
    ConvChoice(const Conv2d& s, int64_t n, Epilogue<T> epilogue = {})
        : s_(s), n_(n), epilogue_(epilogue), asked_(static_cast<ConvAlgorithm>(s.algorithm)) {
        if (asked_ == ConvAlgorithm::kAutomatic && only_direct()) asked_ = ConvAlgorithm::kDirect;
    }

    ConvAlgorithm forward() const {
        if (asked(ConvAlgorithm::kWindows) && Direct<T>(s_, epilogue_).possible()) return asked_;
        if (const auto found = common(WinogradPass::kForward); found != ConvAlgorithm::kAutomatic)
            return found;
        if (Planes<T>(s_, epilogue_).pay(windows_cost<T>(s_))) return ConvAlgorithm::kPlanes;
        const bool plain = epilogue_.pool == 1 && epilogue_.floor == Epilogue<T>().floor;
        if (plain && is_pixelwise(s_)) return ConvAlgorithm::kProduct;
        if (Direct<T>(s_, epilogue_).pays()) return ConvAlgorithm::kWindows;
        return ConvAlgorithm::kProduct;
    }

    ConvAlgorithm backward_input() const {
        if (const auto found = common(WinogradPass::kBackwardInput);
            found != ConvAlgorithm::kAutomatic)
            return found;
        const bool planes = mirrored_planes_pay(s_, Planes<T>(mirrored(s_)));
        return planes ? ConvAlgorithm::kPlanes : ConvAlgorithm::kProduct;
    }

    ConvAlgorithm backward_kernel() const {
        if (const auto found = common(WinogradPass::kBackwardKernel);
            found != ConvAlgorithm::kAutomatic)
            return found;
        const bool planes = Planes<T>(s_).pay(windows_cost<T>(s_));
        return planes ? ConvAlgorithm::kPlanes : ConvAlgorithm::kProduct;
    }

 private:
    // What is decided in the same way for each pass; kAutomatic: nothing is.
    ConvAlgorithm common(WinogradPass pass) const {
        const Depthwise<T> depthwise(s_);
        const bool channelwise = pass == WinogradPass::kBackwardInput
                                     ? depthwise.backward_possible()
                                     : depthwise.forward_possible();
        if (asked(ConvAlgorithm::kProduct)) return asked_;
        if (asked(ConvAlgorithm::kPlanes) && planes_possible(pass)) return asked_;
        if (asked(ConvAlgorithm::kWinograd2) && winograd_possible(s_, 2)) return asked_;
        if (asked(ConvAlgorithm::kWinograd4) && winograd_possible(s_, 4)) return asked_;
        if (channelwise) return ConvAlgorithm::kDepthwise;
        if (asked_ != ConvAlgorithm::kAutomatic) return ConvAlgorithm::kAutomatic;
        switch (winograd_outputs(s_, n_, pass)) {
            case 2:
                return ConvAlgorithm::kWinograd2;
            case 4:
                return ConvAlgorithm::kWinograd4;
            default:
                return ConvAlgorithm::kAutomatic;
        }
    }
    bool asked(ConvAlgorithm algorithm) const { return asked_ == algorithm; }
    bool planes_possible(WinogradPass pass) const {
        if (pass != WinogradPass::kBackwardInput) return Planes<T>(s_, epilogue_).possible();
        return s_.stride_height == 1 && s_.stride_width == 1 && Planes<T>(mirrored(s_)).possible();
    }

    const Conv2d& s_;
    int64_t n_;
    Epilogue<T> epilogue_;
    ConvAlgorithm asked_;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
