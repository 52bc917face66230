// Which algorithm computes a convolution: the one place that decides, by what each costs
// (conv_cost.h) and by what else was measured.
//
// A choice depends on the shapes of one sample alone (and the instruction set), so what a sample
// gives depends neither on the batch nor on what else is done with it. Only that of the kernel's
// gradient, a sum over the batch, depends on its size. An algorithm that the spec asks for is taken
// wherever it can be used; a pass that it has no form for is left to the direct ones.
#pragma once

#include "conv_cost.h"
#include "conv_direct.h"
#include "conv_planes.h"
#include "depthwise.h"
#include "grouped.h"
#include "winograd_conv.h"

namespace convkit {
namespace CONVKIT_ISA {

// A product of plain matrices (product.h): each pixel by itself, with channels enough to be copied.
static inline bool is_pixelwise(const Conv2d& s) {
    constexpr int64_t kLeastChannels = 32;
    return s.kernel_height * s.kernel_width * s.groups == 1 && s.stride_height == 1 &&
           s.stride_width == 1 && s.out_height == s.height && s.out_width == s.width &&
           s.channels >= kLeastChannels;
}

// Whether groups of several channels are better computed by Grouped, where that can be used. It is
// three to eight times as fast as a product for each group where these have less than a register of
// filters, and as fast or faster otherwise, unless dx has short rows and wide groups. Pixels in the
// lanes may be better for a few filters in all, which leave registers half empty.
template <class T>
static bool grouped_pays(const Conv2d& s, WinogradPass pass) {
    constexpr int64_t kShort = 10;
    if (pass == WinogradPass::kBackwardKernel) return true;
    const bool back = pass == WinogradPass::kBackwardInput;
    const GroupedBlocks<T> blocks = grouped_blocks<T>(s, back);
    if (back && blocks.in_group > 1 && s.width < kShort) return false;
    if (2 * blocks.groups * blocks.units >= blocks.count * kLanes<T>) return true;
    const int64_t products = s.kernel_height * s.kernel_width * blocks.inputs;
    const int64_t cost = blocks.count * (products * 4 / 3 + 12) / blocks.groups;
    if (back && s.stride_height * s.stride_width > 1) return true;
    const Conv2d shape = back ? mirrored(s) : s;
    const Planes<T> planes(shape);
    return !planes.possible() || ConvCost<T>(s).planes(pass, planes) >= static_cast<double>(cost);
}

// Whether windows of groups are multiplied where they lie: that is as fast where a group fills some
// registers of filters and rows are long, and faster with 1 x 1 kernels or on narrow registers.
template <class T>
static bool grouped_windows_pay(const Conv2d& s) {
    constexpr int64_t kLong = 14;
    if (s.groups == 1 || s.groups == s.channels || s.out_width < kLong) return false;
    const int64_t least = s.kernel_height * s.kernel_width == 1 ? 1 : 2;
    return grouped_blocks<T>(s, false).in_group >= least;
}

template <class T>
class ConvChoice {
 public:
    ConvChoice(const Conv2d& s, int64_t n, Epilogue<T> epilogue = {})
        : s_(s),
          n_(n),
          epilogue_(epilogue),
          asked_(static_cast<ConvAlgorithm>(s.algorithm)),
          cost_(s) {
        if (asked_ == ConvAlgorithm::kAutomatic && only_direct()) asked_ = ConvAlgorithm::kDirect;
    }

    ConvAlgorithm forward() const {
        const bool open = asked(ConvAlgorithm::kAutomatic) || asked(ConvAlgorithm::kDirect);
        if (asked(ConvAlgorithm::kWindows) || (open && grouped_windows_pay<T>(s_))) {
            if (Direct<T>(s_, epilogue_).possible()) return ConvAlgorithm::kWindows;
        }
        if (const auto found = common(WinogradPass::kForward); found != ConvAlgorithm::kAutomatic)
            return found;
        // Whether it is Winograd's method does not depend on what follows: pooling is to make the
        // same bits in a pass of its own.
        const Cheapest best = forward_form(Epilogue<T>(), true);
        const bool summed = best.algorithm != ConvAlgorithm::kWinograd2 &&
                            best.algorithm != ConvAlgorithm::kWinograd4;
        return summed ? forward_form(epilogue_, false).algorithm : best.algorithm;
    }

    ConvAlgorithm backward_input() const {
        const WinogradPass pass = WinogradPass::kBackwardInput;
        if (const auto found = common(pass); found != ConvAlgorithm::kAutomatic) return found;
        Cheapest best = summed_or_winograd(pass, false);
        const Conv2d mirror = mirrored(s_);
        const Planes<T> planes(mirror);
        if (planes_possible(pass)) best.meet(ConvAlgorithm::kPlanes, cost_.planes(pass, planes));
        return best.algorithm;
    }

    ConvAlgorithm backward_kernel() const {
        const WinogradPass pass = WinogradPass::kBackwardKernel;
        if (const auto found = common(pass); found != ConvAlgorithm::kAutomatic) return found;
        Cheapest best = summed_or_winograd(pass, false);
        const Planes<T> planes(s_);
        if (planes.possible()) best.meet(ConvAlgorithm::kPlanes, cost_.planes(pass, planes));
        return best.algorithm;
    }

 private:
    struct Cheapest {
        ConvAlgorithm algorithm;
        double cost;

        void meet(ConvAlgorithm other, double its) {
            if (its < cost) *this = {other, its};
        }
    };

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
        if (asked(ConvAlgorithm::kGrouped) && grouped_possible(pass)) return asked_;
        if (channelwise) return ConvAlgorithm::kDepthwise;
        if (grouped_possible(pass) && grouped_pays<T>(s_, pass)) return ConvAlgorithm::kGrouped;
        return ConvAlgorithm::kAutomatic;
    }

    Cheapest forward_form(Epilogue<T> epilogue, bool winograd) const {
        const WinogradPass pass = WinogradPass::kForward;
        const bool plain = epilogue.pool == 1 && epilogue.floor == Epilogue<T>().floor;
        const bool pixelwise = plain && is_pixelwise(s_);
        Cheapest best = winograd
                            ? summed_or_winograd(pass, pixelwise)
                            : Cheapest{ConvAlgorithm::kProduct, cost_.product(pass, pixelwise)};
        const Planes<T> planes(s_, epilogue);
        if (planes.possible()) best.meet(ConvAlgorithm::kPlanes, cost_.planes(pass, planes));
        if (Direct<T>(s_, epilogue).pays()) best.meet(ConvAlgorithm::kWindows, cost_.windows());
        return best;
    }

    // A matrix product or Winograd's method. That must have clearly fewer products than there are
    // to be added up otherwise. The gradient of a kernel is a sum over the batch, so that choice
    // may depend on it; over a few pixels in all it is not worth its transforms.
    Cheapest summed_or_winograd(WinogradPass pass, bool plain) const {
        constexpr double kMostProducts = 0.65, kLeastPixels = 25, kLeastSamples = 4;
        Cheapest best = {ConvAlgorithm::kProduct, cost_.product(pass, plain)};
        if (asked_ != ConvAlgorithm::kAutomatic) return best;
        double samples = ConvCost<T>::kSamples;
        if (pass == WinogradPass::kBackwardKernel) {
            const auto n = static_cast<double>(n_);
            if (n * static_cast<double>(s_.out_height * s_.out_width) < kLeastPixels) return best;
            samples = std::max(n, kLeastSamples);
        }
        const double sums = static_cast<double>(s_.kernel_height * s_.kernel_width);
        for (int64_t outputs = 2; outputs <= 4; outputs += 2) {
            if (!winograd_possible(s_, outputs)) continue;
            if (cost_.winograd_products(pass, outputs) > kMostProducts * sums) continue;
            best.meet(outputs == 2 ? ConvAlgorithm::kWinograd2 : ConvAlgorithm::kWinograd4,
                      cost_.winograd(pass, outputs, samples));
        }
        return best;
    }

    bool grouped_possible(WinogradPass pass) const {
        const Grouped<T> grouped(s_);
        return pass == WinogradPass::kBackwardInput ? grouped.backward_input_possible()
                                                    : grouped.forward_possible();
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
    ConvCost<T> cost_;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
