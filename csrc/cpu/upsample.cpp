// Up-sampling by whole factors, x (n, height, width, channels) ->
// y (n, height * scale_height, width * scale_width, channels).
//   nearest   y[i, j] = x[i / scale_height, j / scale_width]
//   bilinear  y[i, j] interpolates x at ((i + 0.5) / scale - 0.5), clamped to the edges, per axis
// Backward, dy (as y) -> dx (as x): each value of dx gathers from the outputs that it took part in,
// rows first, then columns.
//
// All of them work on lines: a vertical pass over whole lines, then a horizontal one over the line
// that it leaves, which stays in the nearest cache.
#include <algorithm>

#include "cpu_kernels.h"
#include "lanes.h"
#include "stream.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

double row_cost(const Upsample2d& s) {  // of a row of x
    return 0.1 * s.scale_height * s.scale_width * s.width * static_cast<double>(s.channels + 4);
}

// The two inputs that output `out` lies between, and the share of the second.
template <class T>
struct Source {
    int64_t first, second;
    T share;
};

template <class T>
Source<T> source(int64_t out, int64_t scale, int64_t size) {
    const int64_t position = 2 * out + 1 - scale;  // in units of 1 / (2 scale)
    if (position <= 0) return {0, 0, T(0)};
    const int64_t first = position / (2 * scale);
    if (first >= size - 1) return {size - 1, size - 1, T(0)};
    return {first, first + 1, static_cast<T>(position % (2 * scale)) / static_cast<T>(2 * scale)};
}

// The outputs that input `in` takes part in: at most 2 * scale of them.
struct Outputs {
    int64_t begin, end;

    int64_t count() const { return end - begin; }
};

Outputs outputs(const Upsample2d& s, int64_t in, int64_t scale, int64_t size) {
    if (!s.bilinear) return {in * scale, (in + 1) * scale};
    const int64_t begin = in * scale - scale / 2;
    return {std::max<int64_t>(begin, 0), std::min(in * scale + 3 * scale / 2, size * scale)};
}

// What input `in` has of output `out`.
template <class T>
T weight(const Upsample2d& s, int64_t in, int64_t out, int64_t scale, int64_t size) {
    if (!s.bilinear) return 1;
    const Source<T> from = source<T>(out, scale, size);
    return from.first == in ? 1 - from.share : from.share;
}

// f(Count<outputs>): the usual numbers of them, for the compiler to unroll by, or 0.
template <int kValue>
struct Count {
    static constexpr int value = kValue;
};

template <class F>
void with_count(int64_t count, F f) {
    if (count == 2) return f(Count<2>{});
    if (count == 4) return f(Count<4>{});
    f(Count<0>{});
}

// ---- forward ------------------------------------------------------------------------------------
// line = each of `width` pixels of x, so many times, past the caches.
template <class T>
void repeat_pixels_past(int64_t width, int64_t channels, int64_t scale, const T* x, T* line) {
    for (int64_t in = 0; in < width; ++in, x += channels) {
        for (int64_t k = 0; k < scale; ++k, line += channels) {
            for (int64_t c = 0; c < channels; c += kLanes<T>) store_past(line + c, load(x + c));
        }
    }
}

// The same, into the caches.
template <class T>
void repeat_pixels(int64_t width, int64_t channels, int64_t scale, const T* x, const T* x_end,
                   T* line, const T* line_end) {
    for (int64_t in = 0; in < width; ++in, x += channels) {
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
            const int64_t count = channels - c;
            const Vec<T> v = load_run(x + c, x_end, count);
            if (count >= kLanes<T>) {
                for (int64_t k = 0; k < scale; ++k) store(line + k * channels + c, v);
            } else if (c == 0) {
                for (int64_t k = 0; k < scale; ++k) {
                    store_run(line + k * channels, line_end, v, count);
                }
            } else {  // whole vectors would write over what the next pixel begins with
                for (int64_t k = 0; k < scale; ++k) {
                    store_partial(line + k * channels + c, v, count);
                }
            }
        }
        line += scale * channels;
    }
}

template <class T>
void nearest(const Context& context, const Upsample2d& s, int64_t n, const T* x, T* y) {
    const T* x_end = x + n * s.input_size();
    const int64_t width = s.width * s.channels, size = width * s.scale_width;
    const bool past = streams<T>(n * s.output_size(), y, x);
    const bool whole = past && straight(s.channels, y);
    parallel_stores(context, n * s.height, row_cost(s), [&](int64_t begin, int64_t end) {
        const Line<T> line(past, size);
        for (int64_t row = begin; row < end; ++row) {
            T* to = y + row * s.scale_height * size;
            if (whole) {
                for (int64_t i = 0; i < s.scale_height; ++i, to += size) {
                    repeat_pixels_past(s.width, s.channels, s.scale_width, x + row * width, to);
                }
                continue;
            }
            T* const top = line.at(to);
            repeat_pixels(s.width, s.channels, s.scale_width, x + row * width, x_end, top,
                          past ? top + size : y + end * s.scale_height * size);
            for (int64_t i = 0; i < s.scale_height; ++i, to += size) {
                if (past) {
                    line.copy_to(to);
                } else if (i > 0) {
                    std::memcpy(to, top, static_cast<size_t>(size) * sizeof(T));
                }
            }
        }
    });
}

// Between each two neighbours of so many pairs of pixels `count` pixels, the second's shares in
// them `shares`; `apart`: from the first to the second. The line may be read beyond its end. kPast:
// straight past the caches.
template <int kCount, bool kPast, class T>
void mix_pixels(int64_t count, const T* shares, int64_t pairs, const T* line, int64_t apart,
                int64_t channels, T* pixel, const T* pixel_end) {
    const int64_t outputs = kCount ? kCount : count;
    Vec<T> first[kCount + 1], second[kCount + 1];
    for (int k = 0; k < kCount; ++k) {
        first[k] = broadcast(1 - shares[k]);
        second[k] = broadcast(shares[k]);
    }
    for (int64_t pair = 0; pair < pairs; ++pair, line += channels, pixel += outputs * channels) {
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
            const Vec<T> a = load(line + c), b = load(line + apart + c);
            for (int64_t k = 0; k < outputs; ++k) {
                const Vec<T> v = kCount ? a * first[k] + b * second[k]
                                        : a * broadcast(1 - shares[k]) + b * broadcast(shares[k]);
                T* const to = pixel + k * channels + c;
                if (kPast) {
                    store_past(to, v);
                } else if (c == 0 || channels - c >= kLanes<T>) {
                    store_run(to, pixel_end, v, channels - c);
                } else {  // a whole vector would write over what the next pixel begins with
                    store_partial(to, v, channels - c);
                }
            }
        }
    }
}

// line = `mixed` (width, channels) and what lies between its pixels; before the first and after the
// last it goes on as they are. shares: of a pair, and as many zeros.
template <bool kPast, class T>
void mix_columns(const Upsample2d& s, const T* mixed, const T* shares, T* line, const T* line_end) {
    const int64_t channels = s.channels, scale = s.scale_width, before = scale / 2;
    mix_pixels<0, kPast>(before, shares + scale, 1, mixed, 0, channels, line, line_end);
    line += before * channels;
    with_count(scale, [&](auto count) {
        mix_pixels<decltype(count)::value, kPast>(scale, shares, s.width - 1, mixed, channels,
                                                  channels, line, line_end);
    });
    line += (s.width - 1) * scale * channels;
    mix_pixels<0, kPast>(scale - before, shares + scale, 1, mixed + (s.width - 1) * channels, 0,
                         channels, line, line_end);
}

template <class T>
void bilinear(const Context& context, const Upsample2d& s, int64_t n, const T* x, T* y) {
    const int64_t width = s.width * s.channels, out_height = s.height * s.scale_height;
    const int64_t size = width * s.scale_width, scale = s.scale_width;
    const bool past = streams<T>(n * s.output_size(), y, x);
    const bool whole = past && straight(s.channels, y);
    parallel_stores(
        context, n * out_height, row_cost(s) / s.scale_height, [&](int64_t begin, int64_t end) {
            T* const mixed = scratch<T>(kLocal, width + kLanes<T>);
            T* const shares = scratch<T>(kPackA, 2 * scale);
            std::fill(shares + scale, shares + 2 * scale, T(0));
            for (int64_t k = 0; k < scale; ++k) {
                shares[k] = static_cast<T>(2 * k + 1 - scale % 2) / static_cast<T>(2 * scale);
            }
            const Line<T> line(past, size);
            for (int64_t row = begin; row < end; ++row) {
                const Source<T> rows = source<T>(row % out_height, s.scale_height, s.height);
                const T* const image = x + row / out_height * s.input_size();
                const T* const top = image + rows.first * width;
                const T* const bottom = image + rows.second * width;
                for_each_vector(mixed, 0, width, [&](int64_t i, auto part) CONVKIT_INLINE {
                    const Vec<T> a = get(top + i, part), b = get(bottom + i, part);
                    put(mixed + i, a * (1 - rows.share) + b * rows.share, part);
                });
                if (whole) {
                    mix_columns<true>(s, mixed, shares, y + row * size, y + end * size);
                    continue;
                }
                T* const to = line.at(y + row * size);
                mix_columns<false>(s, mixed, shares, to, past ? to + size : y + end * size);
                line.copy_to(y + row * size);
            }
        });
}

// ---- backward -----------------------------------------------------------------------------------
// What the inputs of one axis gather, with which weights: all alike but for the first and the last.
template <class T>
struct Axis {
    struct Inputs {
        Outputs outputs;  // of the first of them
        const T* weights;
    };
    const Upsample2d& s;
    int64_t scale, size;
    Inputs kinds[3];  // the first, those between, the last

    // `memory` has room for 6 scale weights.
    Axis(const Upsample2d& s, int64_t scale, int64_t size, T* memory)
        : s(s), scale(scale), size(size) {
        const int64_t inputs[3] = {0, 1, size - 1};
        for (int kind = 0; kind < 3; ++kind, memory += 2 * scale) {
            const int64_t in = std::min(inputs[kind], size - 1);
            const Outputs from = outputs(s, in, scale, size);
            for (int64_t out = from.begin; out < from.end; ++out) {
                memory[out - from.begin] = weight<T>(s, in, out, scale, size);
            }
            kinds[kind] = {from, memory};
        }
    }
    Inputs of(int64_t in) const {
        Inputs inputs = kinds[in == 0 ? 0 : in == size - 1 ? 2 : 1];
        if (in > 0 && in < size - 1) {
            inputs.outputs.begin += (in - 1) * scale;
            inputs.outputs.end += (in - 1) * scale;
        }
        return inputs;
    }
};

// line (size) = the sum of `count` lines of dy, `size` apart, by their weights; kCount: their
// number, 0 if only `count` knows it.
template <int kCount, class T>
void gather_lines(int64_t count, const T* dy, const T* weights, int64_t size, T* line) {
    const int64_t lines = kCount ? kCount : count;
    Vec<T> known[kCount + 1];
    for (int k = 0; k < kCount; ++k) known[k] = broadcast(weights[k]);
    for_each_vector(line, 0, size, [&](int64_t i, auto part) CONVKIT_INLINE {
        Vec<T> v{};
        for (int64_t k = 0; k < lines; ++k) {
            v += get(dy + k * size + i, part) * (kCount ? known[k] : broadcast(weights[k]));
        }
        put(line + i, v, part);
    });
}

// pixels (size, channels), each the sum of `count` pixels of the line, the next `step` values
// further on; the line may be read beyond its end. Meanwhile the lines after those that begin at
// `dy` are fetched.
template <int kCount, class T>
void gather_pixels(int64_t count, const T* line, const T* weights, int64_t size, int64_t step,
                   int64_t channels, const T* dy, const NextLines& next, T* pixel,
                   const T* pixel_end) {
    const int64_t outputs = kCount ? kCount : count;
    Vec<T> known[kCount + 1];
    for (int k = 0; k < kCount; ++k) known[k] = broadcast(weights[k]);
    for (int64_t in = 0; in < size; ++in, line += step, pixel += channels, dy += step) {
        next.fetch(dy, step);
        for (int64_t c = 0; c < channels; c += kLanes<T>) {
            Vec<T> v{};
            for (int64_t k = 0; k < outputs; ++k) {
                v += load(line + k * channels + c) * (kCount ? known[k] : broadcast(weights[k]));
            }
            store_run(pixel + c, pixel_end, v, channels - c);
        }
    }
}

// pixels (width, channels), each the sum of a square of dy: what the general way below would give,
// without a line between.
template <int kScale, class T>
void sum_squares(int64_t width, int64_t channels, const T* dy, T* pixel) {
    const int64_t size = width * kScale * channels;
    for (int64_t in = 0; in < width; ++in, dy += kScale * channels, pixel += channels) {
        for_each_vector(pixel, 0, channels, [&](int64_t c, auto part) CONVKIT_INLINE {
            Vec<T> sum{};
            for (int j = 0; j < kScale; ++j) {
                Vec<T> column{};
                for (int i = 0; i < kScale; ++i) {
                    column += get(dy + i * size + j * channels + c, part);
                }
                sum += column;
            }
            put(pixel + c, sum, part);
        });
    }
}

template <class T>
void backward(const Context& context, const Upsample2d& s, int64_t n, const T* dy, T* dx) {
    const int64_t out_height = s.height * s.scale_height, width = s.width * s.channels;
    const int64_t size = width * s.scale_width, step = s.scale_width * s.channels;
    const bool past = streams<T>(n * s.input_size(), dx, dy);
    const bool fetches = far<T>(n * s.output_size());
    parallel_stores(context, n * s.height, row_cost(s), [&](int64_t begin, int64_t end) {
        T* const gathered = scratch<T>(kLocal, size + kLanes<T>);
        T* const weights = scratch<T>(kPackA, 6 * (s.scale_height + s.scale_width));
        const Axis<T> rows(s, s.scale_height, s.height, weights);
        const Axis<T> columns(s, s.scale_width, s.width, weights + 6 * s.scale_height);
        const Line<T> line(past, width);
        const bool squares =
            !s.bilinear && s.scale_height == 2 && s.scale_width == 2 && s.channels >= kLanes<T>;
        for (int64_t row = begin; row < end; ++row) {
            if (squares) {
                T* const to = line.at(dx + row * width);
                sum_squares<2>(s.width, s.channels, dy + row * 2 * size, to);
                line.copy_to(dx + row * width);
                continue;
            }
            const auto down = rows.of(row % s.height);
            const T* const from = dy + (row / s.height * out_height + down.outputs.begin) * size;
            with_count(down.outputs.count(), [&](auto count) {
                gather_lines<decltype(count)::value>(down.outputs.count(), from, down.weights, size,
                                                     gathered);
            });
            const NextLines next =
                fetches ? NextLines{down.outputs.count() * size, s.scale_height, size}
                        : NextLines{};
            T* const to = line.at(dx + row * width);
            for (int64_t in = 0; in < s.width;) {
                const auto across = columns.of(in);
                // Those between the first and the last at once.
                const int64_t alike = in == 0 || in == s.width - 1 ? 1 : s.width - 1 - in;
                with_count(across.outputs.count(), [&](auto count) {
                    gather_pixels<decltype(count)::value>(
                        across.outputs.count(), gathered + across.outputs.begin * s.channels,
                        across.weights, alike, step, s.channels, from + in * step, next,
                        to + in * s.channels, past ? to + width : dx + end * width);
                });
                in += alike;
            }
            line.copy_to(dx + row * width);
        }
    });
}

}  // namespace

template <class T>
void upsample2d(const Context& context, const Upsample2d& s, int64_t n, const T* x, T* y) {
    if (s.bilinear) {
        bilinear(context, s, n, x, y);
    } else {
        nearest(context, s, n, x, y);
    }
}

template <class T>
void upsample2d_backward(const Context& context, const Upsample2d& s, int64_t n, const T* dy,
                         T* dx) {
    backward(context, s, n, dy, dx);
}

INSTANTIATE(upsample2d)
INSTANTIATE(upsample2d_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
