// Convolution in groups of one channel: channels in the lanes. Formula and shapes as in conv.cpp;
// filter f belongs to channel f / units.
//
// Rows of the picture come through tiles (depthwise_tiles.h); windows of 3 x 3 have a form of their
// own (depthwise_window.h).
//
// An infinity or NaN in a weight meets the zeros of the padding.
#pragma once

#include "depthwise_tiles.h"
#include "depthwise_window.h"
#include "epilogue.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// ---- sums over taps -----------------------------------------------------------------------------

// Taps of a row of outputs: where each lies in a plane of the tile, from an output's place.
template <class T>
struct TileTaps {
    const int64_t* offsets;
    const T* weights;  // (count, kLanes)
    int64_t count;
};

// Where outputs go: `step` apart, so many channels of each; past the caches, these are a whole,
// aligned register. With each, a line of memory is fetched that is met soon, unless `ahead` is
// null.
template <class T>
struct TileResults {
    T* y;
    int64_t step, lanes;
    bool past;
    const T* ahead;
    int64_t ahead_step;
};

// kColumns neighbouring outputs: at least `floor`, bias + the sum over the taps. They are `step`
// apart in the tile (kStep, unless that is 0).
template <class T, int kColumns, int64_t kStep>
static inline CONVKIT_INLINE void correlate_columns(const TileTaps<T>& taps, const T* tile,
                                                    int64_t step, Vec<T> bias, T floor,
                                                    const TileResults<T>& to) {
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
    if (to.ahead) {
        CONVKIT_UNROLL
        for (int i = 0; i < kColumns; ++i) __builtin_prefetch(to.ahead + i * to.ahead_step);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < kColumns; ++i) {
        const Vec<T> value = larger<T>(sum[i], floor);
        if (to.past) {
            store_past(to.y + i * to.step, value);
        } else if (to.lanes >= kLanes<T>) {
            store(to.y + i * to.step, value);
        } else {
            store_partial(to.y + i * to.step, value, to.lanes);
        }
    }
}

// A row of outputs, at most kColumns at a time.
template <class T, int64_t kStep, int kColumns = 8>
static void correlate_columns(const TileTaps<T>& taps, const T* tile, int64_t step, Vec<T> bias,
                              T floor, TileResults<T> to, int64_t columns) {
    for (; columns >= kColumns; columns -= kColumns) {
        correlate_columns<T, kColumns, kStep>(taps, tile, step, bias, floor, to);
        tile += kColumns * step;
        to.y += kColumns * to.step;
        if (to.ahead) to.ahead += kColumns * to.ahead_step;
    }
    if constexpr (kColumns > 1) {
        if (columns > 0) {
            correlate_columns<T, kStep, kColumns - 1>(taps, tile, step, bias, floor, to, columns);
        }
    }
}

template <class T>
static void correlate_row(const TileTaps<T>& taps, const T* tile, int64_t step, Vec<T> bias,
                          T floor, const TileResults<T>& to, int64_t columns) {
    const auto correlate = step == kLanes<T>       ? correlate_columns<T, kLanes<T>>
                           : step == 2 * kLanes<T> ? correlate_columns<T, 2 * kLanes<T>>
                                                   : correlate_columns<T, 0>;
    correlate(taps, tile, step, bias, floor, to, columns);
}

// Adds to sums (kTaps, kLanes) the products of a row of gradients dy (columns, kLanes) with what
// the taps of their outputs met.
template <class T, int kTaps>
static void correlate_taps(const int64_t* offsets, const T* tile, int64_t step, const T* dy,
                           int64_t columns, T* sums) {
    Vec<T> sum[kTaps] = {};
    const T* at[kTaps];
    CONVKIT_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) at[tap] = tile + offsets[tap];
    for (int64_t j = 0; j < columns; ++j) {
        const Vec<T> gradient = load(dy + j * kLanes<T>);
        CONVKIT_UNROLL
        for (int tap = 0; tap < kTaps; ++tap) sum[tap] += load(at[tap] + j * step) * gradient;
    }
    CONVKIT_UNROLL
    for (int tap = 0; tap < kTaps; ++tap) {
        store(sums + tap * kLanes<T>, load(sums + tap * kLanes<T>) + sum[tap]);
    }
}

// The same for any number of taps: so many at a time (a 3 x 3 kernel's) whose sums stay in
// registers.
template <class T, int kTaps = 9>
static void correlate_taps(int64_t count, const int64_t* offsets, const T* tile, int64_t step,
                           const T* dy, int64_t columns, T* sums) {
    for (; count >= kTaps; count -= kTaps, offsets += kTaps, sums += kTaps * kLanes<T>) {
        correlate_taps<T, kTaps>(offsets, tile, step, dy, columns, sums);
    }
    if constexpr (kTaps > 1) {
        if (count > 0) {
            correlate_taps<T, kTaps - 1>(count, offsets, tile, step, dy, columns, sums);
        }
    }
}

// ---- the convolution ----------------------------------------------------------------------------

// Of the input's gradient: along an axis, place i of the picture meets output q - shift through
// a tap, where q and `phase` are quotient and remainder of (i + padding) / stride. The taps of
// a phase are those with its remainder, tap * dilation = shift * stride + phase; shifts are at
// most `reach`. So the places of a phase are a convolution of their own, with stride 1.
struct Phases {
    int64_t size, padding, stride;
    int64_t first, places;  // of q
    int64_t reach;

    Phases(int64_t size, int64_t padding, int64_t stride, int64_t kernel, int64_t dilation)
        : size(size),
          padding(padding),
          stride(stride),
          first(padding / stride),
          places((size - 1 + padding) / stride - first + 1),
          reach((kernel - 1) * dilation / stride) {}

    // The q that lie in the picture.
    Range inside(int64_t phase) const {
        const int64_t begin = padding > phase ? divide_up(padding - phase, stride) : 0;
        const int64_t last = size - 1 + padding - phase;
        return {begin, last < 0 ? begin : std::max(begin, last / stride + 1)};
    }
    int64_t place(int64_t q, int64_t phase) const { return q * stride + phase - padding; }
};

template <class T>
struct Depthwise {
    const Conv2d& s;
    T floor;
    int64_t units, taps;
    int64_t span_height;  // of the rows that a row of outputs meets
    Phases down, across;
    TileRing<T> pictures, outputs;  // of x, as outputs meet it; of dy, as its input's gradient does

    explicit Depthwise(const Conv2d& s, T floor = Epilogue<T>().floor)
        : s(s),
          floor(floor),
          units(s.filters / s.groups),
          taps(s.kernel_height * s.kernel_width),
          span_height((s.kernel_height - 1) * s.dilation_height + 1),
          down(s.height, s.pad_top, s.stride_height, s.kernel_height, s.dilation_height),
          across(s.width, s.pad_left, s.stride_width, s.kernel_width, s.dilation_width),
          pictures(span_height,
                   (s.out_width - 1) * s.stride_width + (s.kernel_width - 1) * s.dilation_width + 1,
                   s.filters, 1),
          outputs(down.reach + 1, across.places + across.reach, s.channels, units),
          possible_(s.groups == s.channels && s.groups > 1 &&
                    s.stride_height * s.stride_width <= kMostPhases) {}

    bool forward_possible() const { return possible_ && pictures.blocks > 0; }
    bool backward_possible() const { return possible_ && outputs.blocks > 0; }

    void run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias,
             T* y) const;
    void run_backward_input(const Context& context, int64_t n, const T* dy, const T* kernel,
                            T* dx) const;
    void run_backward_kernel(const Context& context, int64_t n, const T* dy, const T* x, T* dkernel,
                             T* dbias) const;

 private:
    // Of the input's gradient: each is looked at for each of its rows.
    static constexpr int64_t kMostPhases = 64;
    // Values that a second-level cache holds: of more, what is met next is fetched.
    static constexpr int64_t kNear = (int64_t{1} << 20) / static_cast<int64_t>(sizeof(T));

    TilePicture<T> picture(const T* x, int64_t sample, const TileLanes<T>& lanes, T* tile) const {
        return {x + sample * s.input_size(),
                s.height,
                s.width,
                s.channels,
                s.pad_top,
                -s.pad_left,
                pictures,
                lanes,
                tile,
                0};
    }

    // The taps of the outputs in row oh.
    void fill_offsets(int64_t oh, int64_t* offsets) const {
        for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
            const int64_t line = pictures.at(oh * s.stride_height + kh * s.dilation_height);
            for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                *offsets++ = line + kw * s.dilation_width * kLanes<T>;
            }
        }
    }

    // use(tap, shift down, shift across) for the taps of two phases.
    template <class Use>
    void for_each_tap(int64_t below, int64_t beside, Use use) const {
        for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
            const int64_t ih = kh * s.dilation_height;
            for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                const int64_t iw = kw * s.dilation_width;
                if (ih % s.stride_height != below || iw % s.stride_width != beside) continue;
                use(kh * s.kernel_width + kw, ih / s.stride_height, iw / s.stride_width);
            }
        }
    }

    bool possible_;
};

template <class T>
void Depthwise<T>::run(const Context& context, int64_t n, const T* x, const T* kernel,
                       const T* bias, T* y) const {
    const bool past = streams_rows(n * s.out_height * s.out_width, s.filters, y);
    if (!past && DepthwiseWindow<T>::fits(s)) {
        return DepthwiseWindow<T>::of_outputs(s).template run<false>(context, n, x, kernel, bias,
                                                                     floor, y);
    }
    const int64_t blocks = pictures.blocks, cuts = tile_bands(n * blocks, s.out_height);
    const int64_t tasks = n * blocks * cuts;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    const bool far = n * s.input_size() > kNear;
    parallel_stores(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* tile = scratch<T>(kPackA, pictures.size());
        T* weights = scratch<T>(kPackB, pictures.registers * taps * kLanes<T>);
        int64_t* offsets = scratch<int64_t>(kLocal, taps);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t block = task % blocks, band = task / blocks % cuts;
            const int64_t sample = task / blocks / cuts;
            const TileLanes<T> lanes = pictures.lanes(block, s.filters, units, 1);
            const TileLanes<T> filters = pictures.lanes(block, s.filters, 1, 1);
            for (int64_t r = 0; r < filters.registers(); ++r) {
                for (int64_t tap = 0; tap < taps; ++tap) {
                    store(weights + (r * taps + tap) * kLanes<T>,
                          filters.read(kernel + tap * s.filters, r));
                }
            }
            TilePicture<T> rows = picture(x, sample, lanes, tile);
            const int64_t last = cut(s.out_height, cuts, band + 1);
            for (int64_t oh = cut(s.out_height, cuts, band); oh < last; ++oh) {
                rows.bring(oh * s.stride_height, oh * s.stride_height + span_height);
                fill_offsets(oh, offsets);
                T* out = y + (sample * s.out_height + oh) * s.out_width * s.filters + filters.first;
                // The first row that the next outputs meet for the first time.
                const int64_t ih = oh * s.stride_height - s.pad_top + span_height;
                const T* const next =
                    far ? x + (sample * s.height + ih) * s.width * s.channels : nullptr;
                for (int64_t r = 0; r < filters.registers(); ++r) {
                    correlate_row<T>({offsets, weights + r * taps * kLanes<T>, taps},
                                     tile + r * pictures.plane(), s.stride_width * kLanes<T>,
                                     bias ? filters.read(bias, r) : Vec<T>{}, floor,
                                     {out + r * kLanes<T>, s.filters, filters.lanes(r), past,
                                      next ? next + (lanes.first + r * kLanes<T>) / units : nullptr,
                                      s.stride_width * s.channels},
                                     s.out_width);
                }
            }
        }
    });
}

template <class T>
void Depthwise<T>::run_backward_input(const Context& context, int64_t n, const T* dy,
                                      const T* kernel, T* dx) const {
    const bool past = streams_rows(n * s.height * s.width, s.channels, dx);
    if (!past && DepthwiseWindow<T>::fits(s)) {
        return DepthwiseWindow<T>::of_inputs(s).template run<true>(context, n, dy, kernel, nullptr,
                                                                   Epilogue<T>().floor, dx);
    }
    const int64_t blocks = outputs.blocks, cuts = tile_bands(n * blocks, down.places);
    const int64_t tasks = n * blocks * cuts, all = taps * units;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    const bool far = n * s.output_size() > kNear;
    parallel_stores(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* tile = scratch<T>(kPackA, outputs.size());
        T* weights = scratch<T>(kPackB, outputs.registers * all * kLanes<T>);
        int64_t* offsets = scratch<int64_t>(kLocal, all);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t block = task % blocks, band = task / blocks % cuts;
            const int64_t sample = task / blocks / cuts;
            const TileLanes<T> lanes = outputs.lanes(block, s.channels, 1, units);
            T* weight = weights;
            for (int64_t r = 0; r < lanes.registers(); ++r) {
                for (int64_t phase = 0; phase < s.stride_height * s.stride_width; ++phase) {
                    for_each_tap(phase / s.stride_width, phase % s.stride_width,
                                 [&](int64_t tap, int64_t, int64_t) {
                                     for (int64_t unit = 0; unit < units; ++unit) {
                                         const int64_t plane = units == 1 ? r : unit;
                                         store(weight, lanes.read(kernel + tap * s.filters, plane));
                                         weight += kLanes<T>;
                                     }
                                 });
                }
            }
            TilePicture<T> rows = {
                dy + sample * s.output_size(), s.out_height, s.out_width, s.filters, down.reach,
                across.first - across.reach,   outputs,      lanes,       tile,      0};
            const int64_t last = down.first + cut(down.places, cuts, band + 1);
            for (int64_t q = down.first + cut(down.places, cuts, band); q < last; ++q) {
                rows.bring(q, q + down.reach + 1);
                const T* const next =
                    far ? dy + (sample * s.out_height + q + 1) * s.out_width * s.filters +
                              lanes.first * units
                        : nullptr;
                int64_t before = 0;  // taps
                for (int64_t below = 0; below < s.stride_height; ++below) {
                    const int64_t ih = down.place(q, below);
                    for (int64_t beside = 0; beside < s.stride_width; ++beside) {
                        int64_t count = 0;
                        for_each_tap(below, beside, [&](int64_t, int64_t up, int64_t left) {
                            const int64_t at =
                                outputs.at(q + down.reach - up) + (across.reach - left) * kLanes<T>;
                            for (int64_t unit = 0; unit < units; ++unit) {
                                offsets[count++] = unit * outputs.plane() + at;
                            }
                        });
                        const Range inside = across.inside(beside);
                        const T* some = weights + before * kLanes<T>;
                        const T* const ahead = before == 0 ? next : nullptr;  // once is enough
                        before += count;
                        if (ih < 0 || ih >= s.height || inside.begin == inside.end) continue;
                        T* out = dx + (sample * s.height + ih) * s.width * s.channels +
                                 across.place(inside.begin, beside) * s.channels + lanes.first;
                        for (int64_t r = 0; r < lanes.registers(); ++r) {
                            correlate_row<T>(
                                {offsets, some + r * all * kLanes<T>, count},
                                tile + r * outputs.plane() +
                                    (inside.begin - across.first) * kLanes<T>,
                                kLanes<T>, Vec<T>{}, Epilogue<T>().floor,
                                {out + r * kLanes<T>, s.stride_width * s.channels, lanes.lanes(r),
                                 past, ahead ? ahead + r * units * kLanes<T> : nullptr, s.filters},
                                inside.end - inside.begin);
                        }
                    }
                }
            }
        }
    });
}

// Bands of samples go to slots, by shape only; a slot sums on its own, and the slots are added in
// order.
template <class T>
void Depthwise<T>::run_backward_kernel(const Context& context, int64_t n, const T* dy, const T* x,
                                       T* dkernel, T* dbias) const {
    const int64_t blocks = pictures.blocks, cuts = tile_bands(n, s.out_height), images = n * cuts;
    const int64_t register_size = (taps + 1) * kLanes<T>;  // sums of the taps and of the bias
    const int64_t block_size = pictures.registers * register_size, size = blocks * block_size;
    const int64_t slots =
        std::clamp<int64_t>((int64_t{1} << 20) / size, 1, std::clamp<int64_t>(images, 1, 16));
    T* sums = scratch<T>(kShared, slots * size);
    const double work = static_cast<double>(n) * s.multiply_adds() / (slots * blocks);
    const bool windows = DepthwiseWindow<T>::fits(s);
    const bool fetches = far<T>(n * s.input_size());
    parallel_for(context, slots * blocks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        const int64_t line = s.out_width * kLanes<T>;
        T* tile = scratch<T>(kPackA, pictures.size());
        T* gradients = scratch<T>(kPackB, pictures.registers * line);
        int64_t* offsets = scratch<int64_t>(kLocal, taps);
        for (int64_t task = begin; task < end; ++task) {
            const int64_t block = task % blocks, slot = task / blocks;
            const TileLanes<T> lanes = pictures.lanes(block, s.filters, units, 1);
            const TileLanes<T> filters = pictures.lanes(block, s.filters, 1, 1);
            T* block_sums = sums + slot * size + block * block_size;
            fill_zero(block_sums, block_size);
            for (int64_t i = cut(images, slots, slot); i < cut(images, slots, slot + 1); ++i) {
                const int64_t sample = i / cuts, band = i % cuts;
                TilePicture<T> rows = picture(x, sample, lanes, tile);
                const int64_t last = cut(s.out_height, cuts, band + 1);
                for (int64_t oh = cut(s.out_height, cuts, band); oh < last; ++oh) {
                    rows.bring(oh * s.stride_height, oh * s.stride_height + span_height);
                    fill_offsets(oh, offsets);
                    const T* from = dy + (sample * s.out_height + oh) * s.out_width * s.filters;
                    if (windows) {
                        // The row that the next outputs meet for the first time.
                        const int64_t ih = oh - s.pad_top + kWindow;
                        const T* const next =
                            fetches ? x + (sample * s.height + ih) * s.width * s.channels : nullptr;
                        for (int64_t r = 0; r < filters.registers(); ++r) {
                            const T* lines[kWindow];
                            for (int64_t kh = 0; kh < kWindow; ++kh) {
                                lines[kh] = tile + r * pictures.plane() + offsets[kh * kWindow];
                            }
                            const int64_t first = filters.first + r * kLanes<T>;
                            correlate_window_taps<T>(
                                lines, s.out_width,
                                {from + first, s.filters, s.out_width * s.filters, filters.lanes(r),
                                 next ? next + first : nullptr},
                                block_sums + r * register_size);
                        }
                        continue;
                    }
                    fill_line(from, s.out_width, s.filters, 0, s.out_width, filters, gradients,
                              line);
                    for (int64_t r = 0; r < filters.registers(); ++r) {
                        T* sum = block_sums + r * register_size;
                        const T* gradient = gradients + r * line;
                        correlate_taps<T>(taps, offsets, tile + r * pictures.plane(),
                                          s.stride_width * kLanes<T>, gradient, s.out_width, sum);
                        if (!dbias) continue;
                        Vec<T> total{};
                        for (int64_t j = 0; j < line; j += kLanes<T>) total += load(gradient + j);
                        T* bias = sum + taps * kLanes<T>;
                        store(bias, load(bias) + total);
                    }
                }
            }
        }
    });
    for (int64_t tap = 0; tap <= taps; ++tap) {
        T* to = tap < taps ? dkernel + tap * s.filters : dbias;
        for (int64_t f = 0; to && f < s.filters; f += kLanes<T>) {
            const T* from = sums + f / kLanes<T> * register_size + tap * kLanes<T>;
            Vec<T> total = load(from);
            for (int64_t slot = 1; slot < slots; ++slot) total += load(from + slot * size);
            const int64_t count = s.filters - f;
            count >= kLanes<T> ? store(to + f, total) : store_partial(to + f, total, count);
        }
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
