// Convolution in groups: filters in the lanes, whatever group they are of. Formula and shapes as in
// conv.cpp; filter f belongs to the group f / units, which has the inputs channels
// f / units * inputs and those that follow.
//
// Where a group has fewer filters than a register lanes, a register holds filters of several
// groups, and each lane takes the inputs of its own by a permutation of the pixel's registers: as
// many multiply-adds as with one group, and none with zeros of other groups. Where it has more, a
// register belongs to one group, whose inputs are broadcast.
//
// Rows of the picture are copied to a ring of lines, padded with zeros, shortly before they are
// met, as in depthwise.h. The input's gradient is the same sum over dy, with a phase for each
// remainder of an axis' places by its stride.
//
// An infinity or NaN in a weight meets the zeros of the padding.
#pragma once

#include "context.h"
#include "epilogue.h"
#include "gemm.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// Registers of outputs, which lie by `units` in groups, and the inputs that they meet.
template <class T>
struct GroupedBlocks {
    int64_t groups, inputs, units;
    int64_t in_group;  // registers of a group; 0: registers are of several
    int64_t width;     // outputs of a register, where it is of several
    int64_t sources;   // registers of inputs that one of outputs meets; 0: they are broadcast
    int64_t count;     // registers of outputs
    int64_t parts;     // of these, with inputs in common
    int64_t pixel;     // values of a pixel of a part

    GroupedBlocks(int64_t groups, int64_t inputs, int64_t units)
        : groups(groups), inputs(inputs), units(units), in_group(0), width(kLanes<T>), sources(0) {
        // Groups that end where a register ends, or nearly so, have their inputs closer together.
        const int64_t whole = kLanes<T> / units;
        const bool nearly = 4 * whole * units >= 3 * kLanes<T> && whole * inputs <= kLanes<T>;
        if (nearly) width = whole * units;
        const int64_t met = width == whole * units ? whole : (kLanes<T> - 2) / units + 2;
        const int64_t values = std::min(met, groups) * inputs;
        const bool far = values > 2 * kLanes<T> && 2 * units > kLanes<T>;
        if (4 * units >= 3 * kLanes<T> || far) in_group = divide_up(units, kLanes<T>);
        sources = in_group ? 0 : divide_up(values, kLanes<T>);
        count = in_group ? groups * in_group : divide_up(groups * units, width);
        parts = in_group ? groups : count;
        pixel = in_group ? round_up(inputs, kLanes<T>) : sources * kLanes<T>;
    }

    bool possible() const { return sources <= 2; }
    int64_t in_part() const { return in_group ? in_group : 1; }

    // Outputs of register i.
    int64_t first(int64_t i) const {
        return in_group ? i / in_group * units + i % in_group * kLanes<T> : i * width;
    }
    int64_t lanes(int64_t i) const {
        return in_group ? std::min<int64_t>(kLanes<T>, units - i % in_group * kLanes<T>)
                        : std::min(width, groups * units - i * width);
    }
    // Inputs of part i.
    int64_t first_input(int64_t i) const { return first(i * in_part()) / units * inputs; }
    int64_t inputs_of(int64_t i) const {
        if (in_group) return inputs;
        return ((first(i) + lanes(i) - 1) / units + 1) * inputs - first_input(i);
    }
};

// Those of y, or of dx as it is made of dy.
template <class T>
static GroupedBlocks<T> grouped_blocks(const Conv2d& s, bool backward) {
    const int64_t channels = s.channels / s.groups, filters = s.filters / s.groups;
    return backward ? GroupedBlocks<T>(s.groups, filters, channels)
                    : GroupedBlocks<T>(s.groups, channels, filters);
}

// An axis of a sum: for place t of a phase, a tap meets what lies at t * step + its offset of a
// line, which begins `before` in front of the picture. Forward there is one phase.
struct GroupedAxis {
    int64_t taps, stride, dilation;
    bool backward;
    int64_t size, padding;  // of the results
    int64_t phases, step;
    int64_t first, places;  // of t
    int64_t span, before;

    // An axis of `outputs` values, made from `size` with `padding` in front; of the gradient of
    // these if `backward`.
    GroupedAxis(int64_t size, int64_t outputs, int64_t taps, int64_t stride, int64_t dilation,
                int64_t padding, bool backward)
        : taps(taps),
          stride(stride),
          dilation(dilation),
          backward(backward),
          size(backward ? size : outputs),
          padding(padding),
          phases(backward ? stride : 1),
          step(backward ? 1 : stride),
          first(backward ? padding / stride : 0),
          places(backward ? (size - 1 + padding) / stride - first + 1 : outputs),
          span((taps - 1) * dilation / (backward ? stride : 1) + 1),
          before(backward ? span - 1 : padding) {}

    int64_t phase(int64_t tap) const { return backward ? tap * dilation % stride : 0; }
    int64_t offset(int64_t tap) const {
        return backward ? span - 1 - tap * dilation / stride : tap * dilation;
    }
    // The places of a phase that lie in the result, and where.
    Range inside(int64_t phase) const {
        if (!backward) return {0, places};
        const int64_t begin = padding > phase ? divide_up(padding - phase, stride) : 0;
        const int64_t last = size - 1 + padding - phase;
        return {begin, last < 0 ? begin : std::max(begin, last / stride + 1)};
    }
    int64_t place(int64_t t, int64_t phase) const {
        return backward ? t * stride + phase - padding : t;
    }
};

template <class T>
struct Grouped {
    const Conv2d& s;
    T floor;

    explicit Grouped(const Conv2d& s, T floor = Epilogue<T>().floor) : s(s), floor(floor) {}

    bool forward_possible() const;  // and the gradient of the kernel
    bool backward_input_possible() const;

    void run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias,
             T* y) const;
    void run_backward_input(const Context& context, int64_t n, const T* dy, const T* kernel,
                            T* dx) const;
    void run_backward_kernel(const Context& context, int64_t n, const T* dy, const T* x, T* dkernel,
                             T* dbias) const;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
