// Up-sampling by whole factors, x (n, height, width, channels) ->
// y (n, height * scale_height, width * scale_width, channels).
//   nearest   y[i, j] = x[i / scale_height, j / scale_width]
//   bilinear  y[i, j] interpolates x at ((i + 0.5) / scale - 0.5), clamped to the edges, per axis
// Backward, dy (as y) -> dx (as x): each value of dx gathers from the outputs that it took part in,
// rows first, then columns.
#include <algorithm>

#include "cpu_kernels.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

double row_cost(const Upsample2d& s) {
    return 0.3 * s.scale_height * s.scale_width * s.width * static_cast<double>(s.channels + 2);
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
};

Outputs outputs(int64_t in, int64_t scale, int64_t size) {
    const int64_t begin = in * scale - scale / 2;
    return {std::max<int64_t>(begin, 0), std::min(in * scale + 3 * scale / 2, size * scale)};
}

template <class T>
const Source<T>* column_sources(const Upsample2d& s) {
    const int64_t out_width = s.width * s.scale_width;
    Source<T>* table = scratch<Source<T>>(kPackA, out_width);
    for (int64_t out = 0; out < out_width; ++out) {
        table[out] = source<T>(out, s.scale_width, s.width);
    }
    return table;
}

template <class T>
T weight(int64_t in, const Source<T>& from) {
    return from.first == in ? 1 - from.share : from.share;
}

template <class T>
void nearest(const Context& context, const Upsample2d& s, int64_t n, const T* x, T* y) {
    const T* x_end = x + n * s.input_size();
    const int64_t line = s.width * s.scale_width * s.channels;
    parallel_for(context, n * s.height, row_cost(s), [&](int64_t begin, int64_t end) {
        const T* y_end = y + end * s.scale_height * line;
        for (int64_t row = begin; row < end; ++row) {
            T* top = y + row * s.scale_height * line;
            for (int64_t out = 0; out < s.width * s.scale_width; ++out) {
                const T* from = x + (row * s.width + out / s.scale_width) * s.channels;
                copy_run(top + out * s.channels, y_end, from, x_end, s.channels);
            }
            for (int64_t i = 1; i < s.scale_height; ++i) {
                std::memcpy(top + i * line, top, static_cast<size_t>(line) * sizeof(T));
            }
        }
    });
}

template <class T>
void bilinear(const Context& context, const Upsample2d& s, int64_t n, const T* x, T* y) {
    const int64_t line = s.width * s.channels, out_height = s.height * s.scale_height;
    const int64_t out_width = s.width * s.scale_width;
    parallel_for(
        context, n * out_height, row_cost(s) / s.scale_height, [&](int64_t begin, int64_t end) {
            T* mixed = scratch<T>(kLocal, line + kLanes<T>);
            const Source<T>* sources = column_sources<T>(s);
            const T* y_end = y + end * out_width * s.channels;
            for (int64_t row = begin; row < end; ++row) {
                const T* image = x + row / out_height * s.input_size();
                const Source<T> rows = source<T>(row % out_height, s.scale_height, s.height);
                for_each_vector(mixed, 0, line, [&](int64_t i, auto part) {
                    const Vec<T> a = get(image + rows.first * line + i, part);
                    const Vec<T> b = get(image + rows.second * line + i, part);
                    put(mixed + i, a * (1 - rows.share) + b * rows.share, part);
                });
                for (int64_t out = 0; out < out_width; ++out) {
                    const Source<T>& columns = sources[out];
                    T* pixel = y + (row * out_width + out) * s.channels;
                    for (int64_t c = 0; c < s.channels; c += kLanes<T>) {
                        const int64_t count = s.channels - c;
                        const Vec<T> a = load(mixed + columns.first * s.channels + c);
                        const Vec<T> b = load(mixed + columns.second * s.channels + c);
                        store_run(pixel + c, y_end, a * (1 - columns.share) + b * columns.share,
                                  count);
                    }
                }
            }
        });
}

template <class T>
void backward(const Context& context, const Upsample2d& s, int64_t n, const T* dy, T* dx) {
    const int64_t out_height = s.height * s.scale_height, out_width = s.width * s.scale_width;
    const int64_t line = out_width * s.channels;
    parallel_for(context, n * s.height, row_cost(s), [&](int64_t begin, int64_t end) {
        T* gathered = scratch<T>(kLocal, line + kLanes<T>);
        const Source<T>* sources = s.bilinear ? column_sources<T>(s) : nullptr;
        const T* dx_end = dx + end * s.width * s.channels;
        for (int64_t row = begin; row < end; ++row) {
            const T* image = dy + row / s.height * out_height * line;
            const int64_t in_row = row % s.height;
            const Outputs rows =
                s.bilinear ? outputs(in_row, s.scale_height, s.height)
                           : Outputs{in_row * s.scale_height, (in_row + 1) * s.scale_height};
            for_each_vector(gathered, 0, line, [&](int64_t i, auto part) {
                Vec<T> v{};
                for (int64_t out = rows.begin; out < rows.end; ++out) {
                    const T share = s.bilinear
                                        ? weight(in_row, source<T>(out, s.scale_height, s.height))
                                        : T(1);
                    v += get(image + out * line + i, part) * share;
                }
                put(gathered + i, v, part);
            });
            for (int64_t in = 0; in < s.width; ++in) {
                const Outputs columns = s.bilinear
                                            ? outputs(in, s.scale_width, s.width)
                                            : Outputs{in * s.scale_width, (in + 1) * s.scale_width};
                T* pixel = dx + (row * s.width + in) * s.channels;
                for (int64_t c = 0; c < s.channels; c += kLanes<T>) {
                    const int64_t count = s.channels - c;
                    Vec<T> v{};
                    for (int64_t out = columns.begin; out < columns.end; ++out) {
                        const T share = s.bilinear ? weight(in, sources[out]) : T(1);
                        v += load(gathered + out * s.channels + c) * share;
                    }
                    store_run(pixel + c, dx_end, v, count);
                }
            }
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
