// The windows of winograd_conv.h in pictures, and the transforms of what they hold: values of
// kLanes channels or filters in registers, what is transformed in blocks of kWinogradBlock of them.
#pragma once

#include "epilogue.h"
#include "specs.h"
#include "winograd_axis.h"
#include "winograd_product.h"

namespace convkit {
namespace CONVKIT_ISA {

// A convolution of pictures (height, width, channels) with windows in rows and columns.
struct Windowed {
    int64_t outputs, taps;  // of a window, and of the kernel, over an axis
    int64_t height, width, channels;
    int64_t out_height, out_width, filters;
    int64_t pad_top, pad_left;
    int64_t rows, columns;
    bool turned;  // the kernel: by 180 degrees, channels and filters interchanged

    static Windowed forward(const Conv2d& s, int64_t outputs) {
        return {outputs,
                s.kernel_height,
                s.height,
                s.width,
                s.channels,
                s.out_height,
                s.out_width,
                s.filters,
                s.pad_top,
                s.pad_left,
                divide_up(s.out_height, outputs),
                divide_up(s.out_width, outputs),
                false};
    }
    static Windowed backward_input(const Conv2d& s, int64_t outputs) {
        const int64_t reach = s.kernel_height - 1;
        return {outputs,
                s.kernel_height,
                s.out_height,
                s.out_width,
                s.filters,
                s.height,
                s.width,
                s.channels,
                reach - s.pad_top,
                reach - s.pad_left,
                divide_up(s.height, outputs),
                divide_up(s.width, outputs),
                true};
    }

    int64_t side() const { return outputs + taps - 1; }
    int64_t places() const { return side() * side(); }
    int64_t windows() const { return rows * columns; }  // of a picture
    int64_t channel_blocks() const { return divide_up(channels, kWinogradBlock); }
    int64_t filter_blocks() const { return divide_up(filters, kWinogradBlock); }
};

// Values between the places of what is transformed: apart by a register more than they need, since
// a power of two apart they would share few sets of the cache.
template <class T>
static inline int64_t place_step(int64_t values) {
    return values + kLanes<T>;
}

// A rough time in nanoseconds for so many windows: products and, which take longer where channels
// are few, transforms.
template <class T>
static inline double windows_cost(const Windowed& s, double windows) {
    const double registers =
        static_cast<double>(divide_up(s.channels, kLanes<T>) + divide_up(s.filters, kLanes<T>));
    const double places = windows * static_cast<double>(s.places());
    return multiply_cost<T>(places * static_cast<double>(s.channels * s.filters)) +
           1.2 * places * registers;
}

// Calls use(FastAxis) for the window's.
template <class Use>
static inline void with_axis(const Windowed& s, Use use) {
    if (s.taps == 5)
        return use(FastAxis<2, 5>(), std::integral_constant<int, 2>(),
                   std::integral_constant<int, 5>());
    if (s.outputs == 2)
        return use(FastAxis<2, 3>(), std::integral_constant<int, 2>(),
                   std::integral_constant<int, 3>());
    use(FastAxis<4, 3>(), std::integral_constant<int, 4>(), std::integral_constant<int, 3>());
}

// Where a window lies.
struct WindowPlace {
    int64_t sample, row, column;

    WindowPlace(const Windowed& s, int64_t index)
        : sample(index / s.windows()),
          row(index % s.windows() / s.columns),
          column(index % s.columns) {}
};

// The pixels of a square of kSide x kSide of a picture; beyond its border, `zeros`.
template <class T, int kSide>
struct Square {
    const T* pixels[kSide * kSide];

    Square(const T* picture, int64_t height, int64_t width, int64_t depth, int64_t top,
           int64_t left, const T* zeros) {
        for (int i = 0; i < kSide; ++i) {
            const int64_t row = top + i;
            const T* line = picture + row * width * depth;
            for (int j = 0; j < kSide; ++j) {
                const int64_t column = left + j;
                const bool within = row >= 0 && row < height && column >= 0 && column < width;
                pixels[i * kSide + j] = within ? line + column * depth : zeros;
            }
        }
    }
};

// One axis after the other: to[i][j] of from(i, j), kFrom x kFrom values to kTo x kTo, by `axis`;
// put(i, j, value).
template <class T, int kFrom, int kTo, class From, class Axis, class Put>
static inline CONVKIT_INLINE void both_axes(From from, Axis axis, Put put) {
    Vec<T> half[kTo][kFrom];
    CONVKIT_UNROLL
    for (int j = 0; j < kFrom; ++j) {
        Vec<T> line[kFrom], to[kTo];
        CONVKIT_UNROLL
        for (int i = 0; i < kFrom; ++i) line[i] = from(i, j);
        axis(line, to);
        CONVKIT_UNROLL
        for (int i = 0; i < kTo; ++i) half[i][j] = to[i];
    }
    CONVKIT_UNROLL
    for (int i = 0; i < kTo; ++i) {
        Vec<T> to[kTo];
        axis(half[i], to);
        CONVKIT_UNROLL
        for (int j = 0; j < kTo; ++j) put(i, j, to[j]);
    }
}

// body(k, part) for the registers of channels begin .. end.
template <class T, class Body>
static inline CONVKIT_INLINE void for_each_register(int64_t begin, int64_t end, Body body) {
    int64_t k = begin;
    for (; k + kLanes<T> <= end; k += kLanes<T>) body(k, Whole{});
    if (k < end) body(k, Part{end - k});
}

// B' d B of channels begin .. end (of one block) of a patch, to a row of a block at each place.
// What is new in the next patch is fetched meanwhile: pieces of lines so short that the processor
// does not see them come.
template <class T, int kOutputs, int kTaps, int kSide = kOutputs + kTaps - 1>
void transform_patch(const Square<T, kSide>& patch, const Square<T, kSide>& next, int64_t begin,
                     int64_t end, T* to, int64_t step) {
    for_each_register<T>(begin, end, [&](int64_t k, auto part) CONVKIT_INLINE {
        CONVKIT_UNROLL
        for (int i = 0; i < kSide; ++i) {
            CONVKIT_UNROLL
            for (int j = kTaps - 1; j < kSide; ++j) {
                __builtin_prefetch(next.pixels[i * kSide + j] + k);
            }
        }
        both_axes<T, kSide, kSide>(
            [&](int i, int j) CONVKIT_INLINE { return get(patch.pixels[i * kSide + j] + k, part); },
            [](const auto& d, auto& v)
                CONVKIT_INLINE { FastAxis<kOutputs, kTaps>::template patch<T>(d, v); },
            [&](int i, int j, Vec<T> v)
                CONVKIT_INLINE { store(to + (i * kSide + j) * step + (k - begin), v); });
    });
}

template <class T, int kOutputs, int kTaps>
static Square<T, kOutputs + kTaps - 1> patch_of(const Windowed& s, const T* x, int64_t window,
                                                const T* zeros) {
    const WindowPlace place(s, window);
    return {x + place.sample * s.height * s.width * s.channels,
            s.height,
            s.width,
            s.channels,
            place.row * kOutputs - s.pad_top,
            place.column * kOutputs - s.pad_left,
            zeros};
}

// Patches of channels of one block, of windows first .. first + count, to `to` (places, count,
// kWinogradBlock).
template <class T>
static void transform_patches(const Windowed& s, const T* x, int64_t first, int64_t count,
                              int64_t block, const T* zeros, T* to, int64_t step) {
    const int64_t begin = block * kWinogradBlock;
    const int64_t end = std::min(s.channels, begin + kWinogradBlock);
    with_axis(s, [&](auto, auto outputs, auto taps) {
        constexpr int kOutputs = decltype(outputs)::value, kTaps = decltype(taps)::value;
        auto patch = patch_of<T, kOutputs, kTaps>(s, x, first, zeros);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t following = first + std::min(i + 1, count - 1);
            const auto next = patch_of<T, kOutputs, kTaps>(s, x, following, zeros);
            transform_patch<T, kOutputs, kTaps>(patch, next, begin, end, to + i * kWinogradBlock,
                                                step);
            patch = next;
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
