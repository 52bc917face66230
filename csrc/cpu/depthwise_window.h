// Convolution in groups of one channel by windows of 3 x 3, a filter for each channel, without
// stride and dilation, and its gradients. Formula and shapes as in conv.cpp; tiles as in
// depthwise_tiles.h.
//
// What such a kernel takes is the loads of the tile, and what is done once a row. So two rows of
// outputs are made at a time, some columns of both: a value is loaded once for all of those that
// meet it. The input's gradient is the same convolution of dy, its taps turned by half a turn: so
// that they are added up in the order of the kernel, it is read and written backwards.
#pragma once

#include <type_traits>

#include "depthwise_tiles.h"
#include "epilogue.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int kWindow = 3, kWindowTaps = kWindow * kWindow;
constexpr int kWindowRows = 2, kWindowColumns = 4;  // of outputs, at a time

// Some columns of kRows rows of outputs: put(row, column, sum) with bias + the sum over the taps.
// rows[k] is the first that the windows of the first column meet of the k-th row, and columns are
// kStep apart.
template <class T, int kRows, int kColumns, int64_t kStep, class Put>
static inline CONVKIT_INLINE void correlate_windows(const T* const* rows, int64_t column,
                                                    const Vec<T>* weights, Vec<T> bias, Put put) {
    Vec<T> sum[kRows][kColumns];
    CONVKIT_UNROLL
    for (int k = 0; k < kRows + kWindow - 1; ++k) {
        Vec<T> x[kColumns + kWindow - 1];
        CONVKIT_UNROLL
        for (int j = 0; j < kColumns + kWindow - 1; ++j) {
            x[j] = load(rows[k] + (column + j) * kStep);
        }
        CONVKIT_UNROLL
        for (int i = 0; i < kRows; ++i) {
            const int kh = k - i;
            if (kh < 0 || kh >= kWindow) continue;
            CONVKIT_UNROLL
            for (int kw = 0; kw < kWindow; ++kw) {
                CONVKIT_UNROLL
                for (int j = 0; j < kColumns; ++j) {
                    if (kh == 0 && kw == 0) sum[i][j] = bias;
                    sum[i][j] += x[j + kw] * weights[kh * kWindow + kw];
                }
            }
            if (kh < kWindow - 1) continue;
            CONVKIT_UNROLL
            for (int j = 0; j < kColumns; ++j) put(i, column + j, sum[i][j]);
        }
    }
}

// The same for all columns.
template <class T, int kRows, int64_t kStep, class Put>
static inline CONVKIT_INLINE void correlate_window_rows(const T* const* rows, int64_t columns,
                                                        const T* taps, Vec<T> bias, Put put) {
    Vec<T> weights[kWindowTaps];
    CONVKIT_UNROLL
    for (int tap = 0; tap < kWindowTaps; ++tap) weights[tap] = load(taps + tap * kLanes<T>);
    int64_t j = 0;
    for (; j + kWindowColumns <= columns; j += kWindowColumns) {
        correlate_windows<T, kRows, kWindowColumns, kStep>(rows, j, weights, bias, put);
    }
    if (j + kWindowColumns / 2 <= columns) {
        correlate_windows<T, kRows, kWindowColumns / 2, kStep>(rows, j, weights, bias, put);
        j += kWindowColumns / 2;
    }
    if (j < columns) correlate_windows<T, kRows, 1, kStep>(rows, j, weights, bias, put);
}

// Where rows of outputs go: at least `floor`, and so many channels of each.
template <class T>
struct WindowResults {
    T* y;
    int64_t row, step, lanes;
    T floor;
};

template <class T, int kRows, int64_t kStep>
static void correlate_window_rows(const T* const* rows, int64_t columns, const T* taps, Vec<T> bias,
                                  const WindowResults<T>& results) {
    const WindowResults<T> to = results;
    const auto whole = [&](int i, int64_t j, Vec<T> sum) CONVKIT_INLINE {
        store(to.y + i * to.row + j * to.step, larger<T>(sum, to.floor));
    };
    const auto part = [&](int i, int64_t j, Vec<T> sum) CONVKIT_INLINE {
        store_partial(to.y + i * to.row + j * to.step, larger<T>(sum, to.floor), to.lanes);
    };
    if (to.lanes >= kLanes<T>) {
        correlate_window_rows<T, kRows, kStep>(rows, columns, taps, bias, whole);
    } else {
        correlate_window_rows<T, kRows, kStep>(rows, columns, taps, bias, part);
    }
}

template <class T>
struct DepthwiseWindow {
    int64_t height, width, out_height, out_width, channels, pad_top, pad_left;
    int64_t strips;  // of columns, so narrow that a tile stays in a first-level cache
    TileRing<T> ring;

    DepthwiseWindow(int64_t height, int64_t width, int64_t out_height, int64_t out_width,
                    int64_t channels, int64_t pad_top, int64_t pad_left)
        : height(height),
          width(width),
          out_height(out_height),
          out_width(out_width),
          channels(channels),
          pad_top(pad_top),
          pad_left(pad_left),
          strips(divide_up(out_width, kStrip)),
          ring(kWindowRows + kWindow - 1, divide_up(out_width, strips) + kWindow - 1, channels, 1) {
    }

    static bool fits(const Conv2d& s) {
        return s.kernel_height == kWindow && s.kernel_width == kWindow && s.stride_height == 1 &&
               s.stride_width == 1 && s.dilation_height == 1 && s.dilation_width == 1 &&
               s.groups == s.channels && s.groups == s.filters;
    }
    // From x to y, or turned from dy to dx.
    static DepthwiseWindow of_outputs(const Conv2d& s) {
        return {s.height, s.width, s.out_height, s.out_width, s.channels, s.pad_top, s.pad_left};
    }
    static DepthwiseWindow of_inputs(const Conv2d& s) {
        return {s.out_height,
                s.out_width,
                s.height,
                s.width,
                s.channels,
                kWindow - 1 - s.pad_top,
                kWindow - 1 - s.pad_left};
    }

    template <bool kTurned>
    void run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias, T floor,
             T* y) const;

 private:
    static constexpr int64_t kStrip = 32;
};

template <class T>
template <bool kTurned>
void DepthwiseWindow<T>::run(const Context& context, int64_t n, const T* x, const T* kernel,
                             const T* bias, T floor, T* y) const {
    constexpr int64_t kSign = kTurned ? -1 : 1, kStep = kSign * kLanes<T>;
    const int64_t blocks = ring.blocks, cuts = tile_bands(n * blocks * strips, out_height);
    const int64_t tasks = n * cuts * strips * blocks;
    const int64_t work = n * out_height * out_width * channels * kWindowTaps;
    const double cost = multiply_cost<T>(static_cast<double>(work) / tasks);
    parallel_for(context, tasks, cost, [&](int64_t begin, int64_t end) {
        T* tile = scratch<T>(kPackA, ring.size());
        T* weights = scratch<T>(kPackB, ring.registers * kWindowTaps * kLanes<T>);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t block = task % blocks, strip = task / blocks % strips;
            const int64_t band = task / blocks / strips % cuts;
            const int64_t sample = task / blocks / strips / cuts;
            const TileLanes<T> lanes = ring.lanes(block, channels, 1, 1);
            for (int64_t r = 0; r < lanes.registers(); ++r) {
                for (int64_t tap = 0; tap < kWindowTaps; ++tap) {
                    store(weights + (r * kWindowTaps + tap) * kLanes<T>,
                          lanes.read(kernel + tap * channels, r));
                }
            }
            const int64_t left = cut(out_width, strips, strip);
            const int64_t columns = cut(out_width, strips, strip + 1) - left;
            TilePicture<T> rows = {x + sample * height * width * channels,
                                   height,
                                   width,
                                   channels,
                                   pad_top,
                                   left - pad_left,
                                   ring,
                                   lanes,
                                   tile,
                                   0};
            const int64_t last = cut(out_height, cuts, band + 1);
            int64_t count;  // of rows together
            for (int64_t oh = cut(out_height, cuts, band); oh < last; oh += count) {
                count = std::min<int64_t>(kWindowRows, last - oh);
                const int64_t met = count + kWindow - 1;
                rows.bring(oh, oh + met);
                // The row and column of the first outputs, and the rows that they meet.
                const int64_t row = kTurned ? oh + count - 1 : oh;
                const int64_t column = kTurned ? left + columns - 1 : left;
                const T* lines[kWindowRows + kWindow - 1];
                for (int64_t k = 0; k < met; ++k) {
                    lines[k] = kTurned ? tile + ring.at(oh + met - 1 - k) +
                                             (columns + kWindow - 2) * kLanes<T>
                                       : tile + ring.at(oh + k);
                }
                T* out =
                    y + ((sample * out_height + row) * out_width + column) * channels + lanes.first;
                const auto correlate = count == kWindowRows
                                           ? correlate_window_rows<T, kWindowRows, kStep>
                                           : correlate_window_rows<T, 1, kStep>;
                for (int64_t r = 0; r < lanes.registers(); ++r) {
                    correlate(lines, columns, weights + r * kWindowTaps * kLanes<T>,
                              bias ? lanes.read(bias, r) : Vec<T>{},
                              {out + r * kLanes<T>, kSign * out_width * channels, kSign * channels,
                               lanes.lanes(r), floor});
                    for (int64_t k = 0; k < met; ++k) lines[k] += ring.plane();
                }
            }
        }
    });
}

// A row of gradients: so many channels of each, `step` apart. With each, what is met soon is
// fetched of the next row, `row` values on, and of the picture, unless that is null.
template <class T>
struct WindowGradients {
    const T* dy;
    int64_t step, row, lanes;
    const T* ahead;
};

// Adds to sums (taps and then one, kLanes) the products of a row of gradients dy with what the taps
// of their outputs met, and the gradients. rows[k] is the first that the first output meets of the
// k-th row.
template <class T, class Gradient>
static inline CONVKIT_INLINE void correlate_window_taps(const T* const* rows, int64_t columns,
                                                        Gradient dy, T* sums) {
    Vec<T> sum[kWindowTaps + 1] = {};
    int64_t column = 0;
    const auto some = [&](auto count) CONVKIT_INLINE {
        constexpr int kColumns = decltype(count)::value;
        Vec<T> gradients[kColumns];
        CONVKIT_UNROLL
        for (int j = 0; j < kColumns; ++j) {
            gradients[j] = dy(column + j);
            sum[kWindowTaps] += gradients[j];
        }
        CONVKIT_UNROLL
        for (int kh = 0; kh < kWindow; ++kh) {
            Vec<T> x[kColumns + kWindow - 1];
            CONVKIT_UNROLL
            for (int j = 0; j < kColumns + kWindow - 1; ++j) {
                x[j] = load(rows[kh] + (column + j) * kLanes<T>);
            }
            CONVKIT_UNROLL
            for (int j = 0; j < kColumns; ++j) {
                CONVKIT_UNROLL
                for (int kw = 0; kw < kWindow; ++kw) {
                    sum[kh * kWindow + kw] += x[j + kw] * gradients[j];
                }
            }
        }
        column += kColumns;
    };
    while (column + 2 <= columns) some(std::integral_constant<int, 2>());
    if (column < columns) some(std::integral_constant<int, 1>());
    CONVKIT_UNROLL
    for (int i = 0; i <= kWindowTaps; ++i) {
        store(sums + i * kLanes<T>, load(sums + i * kLanes<T>) + sum[i]);
    }
}

template <class T>
static void correlate_window_taps(const T* const* rows, int64_t columns,
                                  const WindowGradients<T>& gradients, T* sums) {
    const WindowGradients<T> from = gradients;
    const auto whole = [&](int64_t j) CONVKIT_INLINE { return load(from.dy + j * from.step); };
    const auto other = [&](int64_t j) CONVKIT_INLINE {
        const T* dy = from.dy + j * from.step;
        if (from.ahead) {
            __builtin_prefetch(dy + from.row);
            __builtin_prefetch(from.ahead + j * from.step);
        }
        return from.lanes >= kLanes<T> ? load(dy) : load_partial(dy, from.lanes);
    };
    if (from.lanes >= kLanes<T> && !from.ahead) {
        correlate_window_taps<T>(rows, columns, whole, sums);
    } else {
        correlate_window_taps<T>(rows, columns, other, sums);
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
