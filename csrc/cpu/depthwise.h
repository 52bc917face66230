// Convolution in groups of one channel: channels in the lanes. Formula and shapes as in conv.cpp;
// filter f belongs to channel f / units.
//
// A band of a picture is copied to tiles of (rows, columns, kLanes channels), padded with zeros, so
// that a tap is a shift whatever the padding, stride and dilation, and reads are aligned. A task
// takes several registers of channels at once, which lie side by side in the picture.
//
// An infinity or NaN in a weight meets the zeros of the padding.
#pragma once

#include "epilogue.h"
#include "gemm.h"
#include "lanes.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// ---- products of a tile -------------------------------------------------------------------------

// Taps of a tile: where each lies from an output's place, in values, and its weights.
template <class T>
struct TileTaps {
    const int64_t* offsets;
    const T* weights;  // (count, kLanes)
    int64_t count;
};

// kColumns neighbouring outputs, `step` apart in the tile and y_step in y.
template <class T, int kColumns, int64_t kStep>
static inline CONVKIT_INLINE void correlate_columns(const TileTaps<T>& taps, const T* tile,
                                                    int64_t step, Vec<T> bias, T floor, T* y,
                                                    int64_t y_step, int64_t lanes) {
    if constexpr (kStep != 0) step = kStep;
    Vec<T> sum[kColumns];
    CONVKIT_UNROLL
    for (int i = 0; i < kColumns; ++i) sum[i] = bias;
    for (int64_t tap = 0; tap < taps.count; ++tap) {
        const Vec<T> weight = load(taps.weights + tap * kLanes<T>);
        const T* at = tile + taps.offsets[tap];
        CONVKIT_UNROLL
        for (int i = 0; i < kColumns; ++i) sum[i] += load(at + i * step) * weight;
    }
    CONVKIT_UNROLL
    for (int i = 0; i < kColumns; ++i) {
        const Vec<T> value = larger<T>(sum[i], floor);
        if (lanes >= kLanes<T>) {
            store(y + i * y_step, value);
        } else {
            store_partial(y + i * y_step, value, lanes);
        }
    }
}

// The last `count` outputs of a row, fewer than kColumns + 1.
template <class T, int kColumns, int64_t kStep>
static void correlate_rest(const TileTaps<T>& taps, const T* tile, int64_t step, Vec<T> bias,
                           T floor, T* y, int64_t y_step, int64_t lanes, int64_t count) {
    if (count == kColumns) {
        correlate_columns<T, kColumns, kStep>(taps, tile, step, bias, floor, y, y_step, lanes);
    } else if constexpr (kColumns > 1) {
        correlate_rest<T, kColumns - 1, kStep>(taps, tile, step, bias, floor, y, y_step, lanes,
                                               count);
    }
}

template <class T, int64_t kStep>
static void correlate_row(const TileTaps<T>& taps, const T* tile, int64_t step, Vec<T> bias,
                          T floor, T* y, int64_t y_step, int64_t lanes, int64_t columns) {
    constexpr int kColumns = 8;
    int64_t i = 0;
    for (; i + kColumns < columns; i += kColumns) {
        correlate_columns<T, kColumns, kStep>(taps, tile + i * step, step, bias, floor,
                                              y + i * y_step, y_step, lanes);
    }
    correlate_rest<T, kColumns, kStep>(taps, tile + i * step, step, bias, floor, y + i * y_step,
                                       y_step, lanes, columns - i);
}

// y[i, j] = at least `floor`, bias + the sum over the taps. Outputs are row_step and step apart in
// the tile, y_row and y_step in y, of which `lanes` channels are written.
template <class T>
static void correlate_tile(const TileTaps<T>& taps, const T* tile, int64_t row_step, int64_t step,
                           Vec<T> bias, T floor, T* y, int64_t y_row, int64_t y_step, int64_t lanes,
                           int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; ++i, tile += row_step, y += y_row) {
        if (step == kLanes<T>) {
            correlate_row<T, kLanes<T>>(taps, tile, step, bias, floor, y, y_step, lanes, columns);
        } else if (step == 2 * kLanes<T>) {
            correlate_row<T, 2 * kLanes<T>>(taps, tile, step, bias, floor, y, y_step, lanes,
                                            columns);
        } else {
            correlate_row<T, 0>(taps, tile, step, bias, floor, y, y_step, lanes, columns);
        }
    }
}

// Adds to sums (kTaps, kLanes) the products of outputs' gradients with what their taps met.
template <class T, int kTaps>
static void correlate_taps(const int64_t* offsets, const T* tile, int64_t row_step, int64_t step,
                           const T* dy, int64_t dy_row, int64_t dy_step, int64_t lanes,
                           int64_t rows, int64_t columns, T* sums) {
    Vec<T> sum[kTaps] = {};
    for (int64_t i = 0; i < rows; ++i, tile += row_step, dy += dy_row) {
        const T* at[kTaps];
        CONVKIT_UNROLL
        for (int tap = 0; tap < kTaps; ++tap) at[tap] = tile + offsets[tap];
        for (int64_t j = 0; j < columns; ++j) {
            const T* p = dy + j * dy_step;
            const Vec<T> gradient = lanes >= kLanes<T> ? load(p) : load_partial(p, lanes);
            CONVKIT_UNROLL
            for (int tap = 0; tap < kTaps; ++tap) sum[tap] += load(at[tap] + j * step) * gradient;
        }
    }
    CONVKIT_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
        store(sums + tap * kLanes<T>, load(sums + tap * kLanes<T>) + sum[tap]);
    }
}

constexpr int kMostTaps = 9;  // whose sums stay in registers together: a 3 x 3 kernel's

template <class T, int kTaps = kMostTaps, class... Arguments>
static void correlate_some_taps(int64_t count, T* sums, const int64_t* offsets,
                                Arguments... arguments) {
    if (count == kTaps) {
        correlate_taps<T, kTaps>(offsets, arguments..., sums);
    } else if constexpr (kTaps > 1) {
        correlate_some_taps<T, kTaps - 1>(count, sums, offsets, arguments...);
    }
}

// Adds the gradients of some outputs to sum (kLanes), in four chains.
template <class T>
static void sum_gradients(const T* dy, int64_t dy_row, int64_t dy_step, int64_t lanes, int64_t rows,
                          int64_t columns, T* sum) {
    Vec<T> chains[4] = {};
    for (int64_t i = 0; i < rows; ++i, dy += dy_row) {
        for (int64_t j = 0; j < columns; ++j) {
            const T* p = dy + j * dy_step;
            chains[j % 4] += lanes >= kLanes<T> ? load(p) : load_partial(p, lanes);
        }
    }
    store(sum, load(sum) + ((chains[0] + chains[1]) + (chains[2] + chains[3])));
}

// ---- tiles of a picture -------------------------------------------------------------------------

// How rows of outputs, each `span` rows of the picture tall and `stride` below the one before, are
// cut into bands, and the channels into blocks of registers; a tile has so many planes of each.
template <class T>
struct TileCut {
    int64_t outputs, columns, planes;
    int64_t rows = 0;  // of a tile, at most; 0: none is small enough
    int64_t bands = 0, registers = 1, blocks = 0;

    TileCut(int64_t outputs, int64_t stride, int64_t span, int64_t columns, int64_t channels,
            int64_t planes)
        : outputs(outputs), columns(columns), planes(planes) {
        constexpr int64_t kValues = (int64_t{1} << 18) / static_cast<int64_t>(sizeof(T));
        constexpr int64_t kTallEnough = 8;
        if (columns > kValues || span > kValues || planes > kValues) return;
        // Neighbours in the picture go together, unless the bands would become low.
        const int64_t size = columns * planes * kLanes<T>;
        const auto most = [&](int64_t together) { return kValues / (size * together); };
        if (planes == 1) registers = std::min<int64_t>(4, divide_up(channels, kLanes<T>));
        while (registers > 1 && most(registers) < span + (kTallEnough - 1) * stride) --registers;
        if (most(registers) < span) return;
        bands = divide_up(outputs, (most(registers) - span) / stride + 1);
        rows = span + (divide_up(outputs, bands) - 1) * stride;
        blocks = divide_up(channels, registers * kLanes<T>);
    }

    int64_t plane() const { return rows * columns * kLanes<T>; }
    int64_t size() const { return registers * planes * plane(); }
    Range band(int64_t i) const { return {cut(outputs, bands, i), cut(outputs, bands, i + 1)}; }
};

// What stands in the lanes of a tile: `count` channels from `first`. A plane is the next register
// of them, each value of a pixel `repeats` times; or, with `every` > 1, every so many-th value, a
// plane for those that begin with the first, the second and so on.
template <class T>
struct TileLanes {
    int64_t first, count, repeats, every;

    Vec<T> read(const T* pixel, int64_t plane) const {
        const int64_t begin = first + (every == 1 ? plane * kLanes<T> : 0);
        const int64_t lanes = std::min<int64_t>(kLanes<T>, first + count - begin);
        if (repeats == 1 && every == 1) {
            return lanes == kLanes<T> ? load(pixel + begin) : load_partial(pixel + begin, lanes);
        }
        Vec<T> values{};
        for (int64_t i = 0; i < lanes; ++i) {
            values[i] = pixel[every == 1 ? (begin + i) / repeats : (begin + i) * every + plane];
        }
        return values;
    }
};

// Rows from `top`, columns from `left` of a picture (height, width, channels), zeros beside it.
template <class T>
static void fill_tile(const T* picture, int64_t height, int64_t width, int64_t channels,
                      int64_t top, int64_t left, const TileCut<T>& cut, const TileLanes<T>& lanes,
                      T* tile) {
    const int64_t planes = divide_up(lanes.count, kLanes<T>) * cut.planes;
    const int64_t begin = std::clamp<int64_t>(-left, 0, cut.columns);
    const int64_t end = std::clamp<int64_t>(width - left, begin, cut.columns);
    for (int64_t i = 0; i < cut.rows; ++i, tile += cut.columns * kLanes<T>) {
        const int64_t ih = top + i;
        const bool inside = ih >= 0 && ih < height;
        const int64_t filled = inside ? end : begin;
        for (int64_t plane = 0; plane < planes; ++plane) {
            T* line = tile + plane * cut.plane();
            for (int64_t j = 0; j < begin; ++j) store(line + j * kLanes<T>, Vec<T>{});
            for (int64_t j = filled; j < cut.columns; ++j) store(line + j * kLanes<T>, Vec<T>{});
        }
        if (filled == begin) continue;
        const T* pixel = picture + (ih * width + left + begin) * channels;
        for (int64_t j = begin; j < filled; ++j, pixel += channels) {
            for (int64_t plane = 0; plane < planes; ++plane) {
                store(tile + plane * cut.plane() + j * kLanes<T>, lanes.read(pixel, plane));
            }
        }
    }
}

// ---- the convolution ----------------------------------------------------------------------------

template <class T>
struct Depthwise {
    const Conv2d& s;
    T floor;
    int64_t units, taps;
    TileCut<T> forward, backward;  // the latter of the input's gradient

    explicit Depthwise(const Conv2d& s, Epilogue<T> epilogue = {})
        : s(s),
          floor(epilogue.floor),
          units(s.filters / s.groups),
          taps(s.kernel_height * s.kernel_width),
          forward(s.out_height, s.stride_height, span(s.kernel_height, s.dilation_height),
                  (s.out_width - 1) * s.stride_width + span(s.kernel_width, s.dilation_width),
                  s.filters, 1),
          backward(places(s.height, s.pad_top, s.stride_height), 1, reach_down() + 1,
                   places(s.width, s.pad_left, s.stride_width) + reach_across(), s.channels, units),
          possible_(epilogue.pool == 1 && s.groups == s.channels && s.groups > 1) {}

    bool forward_pays() const { return possible_ && forward.rows > 0; }
    bool backward_pays() const { return possible_ && backward.rows > 0; }

    void run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias,
             T* y) const;
    void run_backward_input(const Context& context, int64_t n, const T* dy, const T* kernel,
                            T* dx) const;
    void run_backward_kernel(const Context& context, int64_t n, const T* dy, const T* x, T* dkernel,
                             T* dbias) const;

 private:
    bool possible_;

    // Of the input's gradient: along an axis, place i of the picture meets output q - shift through
    // a tap, where q and `phase` are quotient and remainder of (i + padding) / stride. The taps of
    // a phase are those with the same remainder, tap * dilation = shift * stride + phase; shifts
    // are at most `reach`. So the places of a phase are a convolution of their own.
    int64_t reach_down() const {
        return (s.kernel_height - 1) * s.dilation_height / s.stride_height;
    }
    int64_t reach_across() const {
        return (s.kernel_width - 1) * s.dilation_width / s.stride_width;
    }
    static int64_t places(int64_t size, int64_t padding, int64_t stride) {
        return (size - 1 + padding) / stride - padding / stride + 1;
    }
    // The q of a phase that lie in the picture.
    static Range inside_places(int64_t size, int64_t padding, int64_t stride, int64_t phase) {
        const int64_t first = padding > phase ? divide_up(padding - phase, stride) : 0;
        const int64_t last = size - 1 + padding - phase;
        return {first, last < 0 ? first : std::max(first, last / stride + 1)};
    }

    static int64_t span(int64_t kernel, int64_t dilation) { return (kernel - 1) * dilation + 1; }

    // The taps of a phase down and across, for the registers of these channels; returns how many.
    int64_t fill_taps(const T* kernel, const TileLanes<T>& lanes, int64_t down, int64_t across,
                      int64_t* offsets, T* weights) const {
        int64_t count = 0;
        for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
            const int64_t ih = kh * s.dilation_height;
            if (ih % s.stride_height != down) continue;
            for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                const int64_t iw = kw * s.dilation_width;
                if (iw % s.stride_width != across) continue;
                const int64_t row = reach_down() - ih / s.stride_height;
                const int64_t column = reach_across() - iw / s.stride_width;
                const T* filters = kernel + (kh * s.kernel_width + kw) * s.filters;
                for (int64_t unit = 0; unit < units; ++unit, ++count) {
                    offsets[count] =
                        unit * backward.plane() + (row * backward.columns + column) * kLanes<T>;
                    store(weights + count * kLanes<T>, lanes.read(filters, unit));
                }
            }
        }
        return count;
    }

    void fill_offsets(int64_t* offsets) const {
        for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
            for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                const int64_t at = kh * s.dilation_height * forward.columns + kw * s.dilation_width;
                *offsets++ = at * kLanes<T>;
            }
        }
    }
    void fill_picture(const T* x, int64_t sample, int64_t oh, const TileLanes<T>& lanes,
                      T* tile) const {
        fill_tile(x + sample * s.input_size(), s.height, s.width, s.channels,
                  oh * s.stride_height - s.pad_top, -s.pad_left, forward, lanes, tile);
    }
    TileLanes<T> forward_lanes(int64_t block) const {
        const int64_t size = forward.registers * kLanes<T>, first = block * size;
        return {first, std::min(size, s.filters - first), units, 1};
    }
};

template <class T>
void Depthwise<T>::run(const Context& context, int64_t n, const T* x, const T* kernel,
                       const T* bias, T* y) const {
    const int64_t tasks = n * forward.bands * forward.blocks;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* tile = scratch<T>(kPackA, forward.size());
        T* weights = scratch<T>(kPackB, forward.registers * taps * kLanes<T>);
        int64_t* offsets = scratch<int64_t>(kLocal, taps);
        fill_offsets(offsets);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t block = task % forward.blocks, image = task / forward.blocks;
            const int64_t sample = image / forward.bands;
            const Range band = forward.band(image % forward.bands);
            const TileLanes<T> lanes = forward_lanes(block);
            fill_picture(x, sample, band.begin, lanes, tile);
            for (int64_t f = 0, plane = 0; f < lanes.count; f += kLanes<T>, ++plane) {
                const TileLanes<T> filters = {lanes.first + f, lanes.count - f, 1, 1};
                for (int64_t tap = 0; tap < taps; ++tap) {
                    store(weights + tap * kLanes<T>, filters.read(kernel + tap * s.filters, 0));
                }
                const int64_t row = sample * s.out_height + band.begin;
                correlate_tile<T>(
                    {offsets, weights, taps}, tile + plane * forward.plane(),
                    s.stride_height * forward.columns * kLanes<T>, s.stride_width * kLanes<T>,
                    bias ? filters.read(bias, 0) : Vec<T>{}, floor,
                    y + row * s.out_width * s.filters + filters.first, s.out_width * s.filters,
                    s.filters, filters.count, band.end - band.begin, s.out_width);
            }
        }
    });
}

template <class T>
void Depthwise<T>::run_backward_input(const Context& context, int64_t n, const T* dy,
                                      const T* kernel, T* dx) const {
    const int64_t tasks = n * backward.bands * backward.blocks, all = taps * units;
    const int64_t first_row = s.pad_top / s.stride_height;
    const int64_t first_column = s.pad_left / s.stride_width;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* tile = scratch<T>(kPackA, backward.size());
        T* weights = scratch<T>(kPackB, all * kLanes<T>);
        int64_t* offsets = scratch<int64_t>(kLocal, all);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t block = task % backward.blocks, image = task / backward.blocks;
            const int64_t sample = image / backward.bands, size = backward.registers * kLanes<T>;
            const Range places = backward.band(image % backward.bands);
            const Range band = {first_row + places.begin, first_row + places.end};
            const TileLanes<T> lanes = {block * size, std::min(size, s.channels - block * size), 1,
                                        units};
            fill_tile(dy + sample * s.output_size(), s.out_height, s.out_width, s.filters,
                      band.begin - reach_down(), first_column - reach_across(), backward, lanes,
                      tile);
            for (int64_t c = 0, plane = 0; c < lanes.count; c += kLanes<T>, plane += units) {
                const TileLanes<T> some = {lanes.first + c, lanes.count - c, 1, units};
                for (int64_t down = 0; down < s.stride_height; ++down) {
                    const Range inner = inside_places(s.height, s.pad_top, s.stride_height, down);
                    const int64_t top = std::max(inner.begin, band.begin);
                    const int64_t rows = std::min(inner.end, band.end) - top;
                    if (rows <= 0) continue;
                    for (int64_t across = 0; across < s.stride_width; ++across) {
                        const Range inside =
                            inside_places(s.width, s.pad_left, s.stride_width, across);
                        const int64_t columns = inside.end - inside.begin;
                        if (columns <= 0) continue;
                        const int64_t count =
                            fill_taps(kernel, some, down, across, offsets, weights);
                        const int64_t ih = top * s.stride_height + down - s.pad_top;
                        const int64_t iw = inside.begin * s.stride_width + across - s.pad_left;
                        const int64_t at =
                            (top - band.begin) * backward.columns + inside.begin - first_column;
                        const int64_t row = sample * s.height + ih;
                        correlate_tile<T>({offsets, weights, count},
                                          tile + plane * backward.plane() + at * kLanes<T>,
                                          backward.columns * kLanes<T>, kLanes<T>, Vec<T>{},
                                          Epilogue<T>().floor,
                                          dx + (row * s.width + iw) * s.channels + some.first,
                                          s.stride_height * s.width * s.channels,
                                          s.stride_width * s.channels, some.count, rows, columns);
                    }
                }
            }
        }
    });
}

// Images go to slots, by shape only; a slot sums on its own, and the slots are added in order.
template <class T>
void Depthwise<T>::run_backward_kernel(const Context& context, int64_t n, const T* dy, const T* x,
                                       T* dkernel, T* dbias) const {
    const int64_t images = n * forward.bands, block_size = forward.registers * kLanes<T>;
    const int64_t size = (taps + 1) * forward.blocks * block_size;  // of a slot
    const int64_t slots =
        std::clamp<int64_t>((int64_t{1} << 20) / size, 1, std::clamp<int64_t>(images, 1, 16));
    T* sums = scratch<T>(kShared, slots * size);
    const double work = static_cast<double>(n) * s.multiply_adds() / (slots * forward.blocks);
    parallel_for(
        context, slots * forward.blocks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
            T* tile = scratch<T>(kPackA, forward.size());
            int64_t* offsets = scratch<int64_t>(kLocal, taps);
            fill_offsets(offsets);
            for (int64_t task = begin; task < end; ++task) {
                const int64_t block = task % forward.blocks, slot = task / forward.blocks;
                const TileLanes<T> lanes = forward_lanes(block);
                // (registers, taps and the bias, kLanes)
                T* block_sums = sums + slot * size + block * block_size * (taps + 1);
                fill_zero(block_sums, block_size * (taps + 1));
                for (int64_t i = cut(images, slots, slot); i < cut(images, slots, slot + 1); ++i) {
                    const int64_t sample = i / forward.bands;
                    const Range band = forward.band(i % forward.bands);
                    const int64_t row = sample * s.out_height + band.begin;
                    const T* gradients = dy + row * s.out_width * s.filters + lanes.first;
                    fill_picture(x, sample, band.begin, lanes, tile);
                    for (int64_t f = 0, plane = 0; f < lanes.count; f += kLanes<T>, ++plane) {
                        T* sum = block_sums + plane * (taps + 1) * kLanes<T>;
                        const int64_t count = std::min<int64_t>(kLanes<T>, lanes.count - f);
                        for (int64_t tap = 0; tap < taps; tap += kMostTaps) {
                            correlate_some_taps<T>(
                                std::min<int64_t>(kMostTaps, taps - tap), sum + tap * kLanes<T>,
                                offsets + tap, tile + plane * forward.plane(),
                                s.stride_height * forward.columns * kLanes<T>,
                                s.stride_width * kLanes<T>, gradients + f, s.out_width * s.filters,
                                s.filters, count, band.end - band.begin, s.out_width);
                        }
                        if (!dbias) continue;
                        sum_gradients(gradients + f, s.out_width * s.filters, s.filters, count,
                                      band.end - band.begin, s.out_width, sum + taps * kLanes<T>);
                    }
                }
            }
        });
    for (int64_t tap = 0; tap <= taps; ++tap) {
        T* to = tap < taps ? dkernel + tap * s.filters : dbias;
        for (int64_t f = 0; to && f < s.filters; f += kLanes<T>) {
            const T* from = sums + (f / kLanes<T> * (taps + 1) + tap) * kLanes<T>;
            Vec<T> total = load(from);
            for (int64_t slot = 1; slot < slots; ++slot) total += load(from + slot * size);
            const int64_t count = s.filters - f;
            count >= kLanes<T> ? store(to + f, total) : store_partial(to + f, total, count);
        }
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
