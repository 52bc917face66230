// Max- and average pooling, x (n, height, width, channels) -> y (n, out_height, out_width,
// channels).
//   max  y = max over the window's taps inside x; padding never wins; NaN counts as the maximum
//   avg  y = sum over the window's taps inside x / divisor
// Backward, dy (as y) -> dx (as x): max gives dy to the first maximum of the window (row by row),
// found again from x; avg gives dy / divisor to every tap.
//
// Forward works on lines: a vertical pass over whole lines of x, then a horizontal one over the
// line that it leaves, whose borders stand for the padding. Backward works on windows. Lanes hold
// channels; where there are fewer channels than lanes, a vector also covers pixels to the right:
// junk in forward (the next store overwrites it), zeros in backward.
#include <algorithm>
#include <limits>

#include "cpu_kernels.h"
#include "epilogue.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// The taps of a window along one axis; tap k is at origin + k * dilation, inside the input for
// first <= k < last.
struct Taps {
    int64_t origin, first, last;
};

CONVKIT_INLINE inline Taps taps(int64_t out, int64_t stride, int64_t pad, int64_t dilation,
                                int64_t window, int64_t size) {
    Taps t{out * stride - pad, 0, window};
    if (t.origin < 0) t.first = std::min(window, (-t.origin + dilation - 1) / dilation);
    if (t.origin + (window - 1) * dilation >= size) {
        const int64_t inside = (size - t.origin + dilation - 1) / dilation;
        t.last = std::max(t.first, std::min(window, inside));
    }
    return t;
}

CONVKIT_INLINE inline Taps row_taps(const Pool2d& s, int64_t out) {
    return taps(out, s.stride_height, s.pad_top, s.dilation_height, s.pool_height, s.height);
}

CONVKIT_INLINE inline Taps column_taps(const Pool2d& s, int64_t out) {
    return taps(out, s.stride_width, s.pad_left, s.dilation_width, s.pool_width, s.width);
}

// How many values of one axis an average is taken over: inside x, or inside the padded x.
CONVKIT_INLINE inline int64_t counted(int64_t origin, int64_t window, int64_t size,
                                      int64_t pad_after, bool with_pad) {
    if (with_pad) return std::min(window, size + pad_after - origin);
    return std::max<int64_t>(0, std::min(origin + window, size) - std::max<int64_t>(origin, 0));
}

CONVKIT_INLINE inline int64_t divisor(const Pool2d& s, int64_t top, int64_t left) {
    const bool with_pad = s.count_include_pad != 0;
    return counted(top, s.pool_height, s.height, s.pad_bottom, with_pad) *
           counted(left, s.pool_width, s.width, s.pad_right, with_pad);
}

// Average pooling has no dilation.
Pool2d undilated(Pool2d s) {
    s.dilation_height = s.dilation_width = 1;
    return s;
}

// Calls body(first, count) for the channels in vectors. The last vector of many channels goes back
// so far that it is full; it does some channels twice.
template <class T, class Body>
CONVKIT_INLINE inline void for_each_channel_vector(int64_t channels, Body body) {
    for (int64_t c = 0; c < channels; c += kLanes<T>) {
        const int64_t first = std::min(c, std::max<int64_t>(0, channels - kLanes<T>));
        body(first, channels - first);
    }
}

// ---- forward ------------------------------------------------------------------------------------
template <class T>
struct Max {
    static T start() { return -std::numeric_limits<T>::infinity(); }
    static Vec<T> add(Vec<T> best, Vec<T> v) { return larger_or_nan<T>(best, v); }
    static Vec<T> finish(Vec<T> best, int64_t) { return best; }
};

template <class T>
struct Average {
    static T start() { return 0; }
    static Vec<T> add(Vec<T> sum, Vec<T> v) { return sum + v; }
    static Vec<T> finish(Vec<T> sum, int64_t count) {
        return sum / broadcast(static_cast<T>(count));
    }
};

// Rows begin .. end of y, counted through all samples.
template <class T, class Reduction>
void pool_rows(const Pool2d s, const T* x, const T* x_end, T* y, int64_t begin, int64_t end) {
    const int64_t channels = s.channels, line_size = s.width * channels;
    const int64_t reach =
        (s.out_width - 1) * s.stride_width + (s.pool_width - 1) * s.dilation_width + 1;
    const int64_t padded = std::max(reach, s.pad_left + s.width) * channels + kLanes<T>;
    T* line = scratch<T>(kLocal, padded);
    std::fill(line, line + padded, Reduction::start());
    T* inside = line + s.pad_left * channels;
    T* pixel = y + begin * s.out_width * channels;
    const T* y_end = y + end * s.out_width * channels;
    for (int64_t row = begin; row < end; ++row) {
        const T* image = x + row / s.out_height * s.input_size();
        const Taps rows = row_taps(s, row % s.out_height);
        for (int64_t k = 0; k < line_size; k += kLanes<T>) {
            Vec<T> v = broadcast(Reduction::start());
            for (int64_t i = rows.first; i < rows.last; ++i) {
                const T* p = image + (rows.origin + i * s.dilation_height) * line_size + k;
                v = Reduction::add(v, load_run(p, x_end, line_size - k));
            }
            store(inside + k, v);
        }
        std::fill(inside + line_size, line + padded, Reduction::start());
        for (int64_t out = 0; out < s.out_width; ++out, pixel += channels) {
            const int64_t left = out * s.stride_width - s.pad_left;
            const T* taps = inside + left * channels;
            for_each_channel_vector<T>(channels, [&](int64_t c, int64_t count) CONVKIT_INLINE {
                Vec<T> v = load(taps + c);
                for (int64_t j = 1; j < s.pool_width; ++j) {
                    v = Reduction::add(v, load(taps + j * s.dilation_width * channels + c));
                }
                const Vec<T> result = Reduction::finish(v, divisor(s, rows.origin, left));
                store_run(pixel + c, y_end, result, count);
            });
        }
    }
}

// The usual windows of 2 x 2, all inside x: straight from x, added up in the same order.
bool pairs(const Pool2d& s) {
    return s.pool_height == 2 && s.pool_width == 2 && s.dilation_height == 1 &&
           s.dilation_width == 1 && s.pad_top == 0 && s.pad_left == 0 &&
           (s.out_height - 1) * s.stride_height + 2 <= s.height &&
           (s.out_width - 1) * s.stride_width + 2 <= s.width;
}

template <class T, class Reduction, class Extent>
CONVKIT_INLINE inline void pool_pair(const T* x, int64_t right, int64_t down, T* y, Extent extent) {
    const Vec<T> first = Reduction::add(get(x, extent), get(x + down, extent));
    const Vec<T> second = Reduction::add(get(x + right, extent), get(x + right + down, extent));
    put(y, Reduction::finish(Reduction::add(first, second), 4), extent);
}

template <class T, class Reduction>
void pool_rows_of_pairs(const Pool2d s, const T* x, const T* x_end, T* y, int64_t begin,
                        int64_t end) {
    const int64_t channels = s.channels, step = s.stride_width * channels;
    const int64_t line_size = s.width * channels;
    const int64_t reach = line_size + channels + kLanes<T>;  // of a window's whole vectors
    const T* const y_end = y + end * s.out_width * channels;
    T* pixel = y + begin * s.out_width * channels;
    for (int64_t row = begin; row < end; ++row) {
        const int64_t top = row % s.out_height * s.stride_height;
        const T* window = x + row / s.out_height * s.input_size() + top * line_size;
        const T* const stop = window + s.out_width * step;
        if (channels >= kLanes<T>) {
            for (; window < stop; window += step, pixel += channels) {
                for_each_channel_vector<T>(channels, [&](int64_t c, int64_t) CONVKIT_INLINE {
                    pool_pair<T, Reduction>(window + c, channels, line_size, pixel + c, Whole{});
                });
            }
            continue;
        }
        for (; window < stop && x_end - window >= reach && y_end - pixel >= kLanes<T>;
             window += step, pixel += channels) {
            pool_pair<T, Reduction>(window, channels, line_size, pixel, Whole{});
        }
        for (; window < stop; window += step, pixel += channels) {
            pool_pair<T, Reduction>(window, channels, line_size, pixel, Part{channels});
        }
    }
}

template <class T, class Reduction>
void pool(const Context& context, const Pool2d& s, int64_t n, const T* x, T* y) {
    const double cost = 0.05 * static_cast<double>(s.pool_height * s.width * s.channels) +
                        0.6 * static_cast<double>(s.out_width * s.pool_width) *
                            static_cast<double>(1 + s.channels / kLanes<T>);
    parallel_for(context, n * s.out_height, cost, [&](int64_t begin, int64_t end) {
        const T* x_end = x + n * s.input_size();
        if (pairs(s)) {
            pool_rows_of_pairs<T, Reduction>(s, x, x_end, y, begin, end);
        } else {
            pool_rows<T, Reduction>(s, x, x_end, y, begin, end);
        }
    });
}

// ---- backward -----------------------------------------------------------------------------------
// One window of one sample: the taps inside x, their distances and their numbers (row by row).
struct Window {
    Taps rows, columns;
    int64_t dilation_height, dilation_width, pool_width;
    int64_t line_size, channels;

    int64_t offset(int64_t i, int64_t j) const {
        return (rows.origin + i * dilation_height) * line_size +
               (columns.origin + j * dilation_width) * channels;
    }
};

double backward_cost(const Pool2d& s) {  // of a row of windows
    return static_cast<double>(s.out_width * s.pool_height * s.pool_width) *
           (2 + 0.2 * static_cast<double>(s.channels));
}

// Where a window's gradient goes: share(tap) is what tap number `tap` (row by row) gets.
template <class T>
struct MaxShare {
    Vec<T> dy, winner;

    Vec<T> operator()(int64_t tap) const {
        return winner == broadcast(static_cast<T>(tap)) ? dy : Vec<T>{};
    }
};

template <class T>
struct AverageShare {
    Vec<T> dy;

    Vec<T> operator()(int64_t) const { return dy; }
};

template <class T>
struct MaxGradient {
    const T *x, *x_end;

    CONVKIT_INLINE inline MaxShare<T> operator()(const Pool2d& s, int64_t sample, const Window& w,
                                                 int64_t c, int64_t count, Vec<T> dy) const {
        const T* image = x + sample * s.input_size() + c;
        Vec<T> best = broadcast(-std::numeric_limits<T>::infinity());
        Vec<T> winner = broadcast(static_cast<T>(w.rows.first * w.pool_width + w.columns.first));
        for (int64_t i = w.rows.first; i < w.rows.last; ++i) {
            for (int64_t j = w.columns.first; j < w.columns.last; ++j) {
                const Vec<T> v = load_run(image + w.offset(i, j), x_end, count);
                const auto wins = (v > best) | ((v != v) & (best == best));
                best = wins ? v : best;
                winner = wins ? broadcast(static_cast<T>(i * w.pool_width + j)) : winner;
            }
        }
        return {dy, winner};
    }
};

template <class T>
struct AverageGradient {
    CONVKIT_INLINE inline AverageShare<T> operator()(const Pool2d& s, int64_t, const Window& w,
                                                     int64_t, int64_t, Vec<T> dy) const {
        return {dy / broadcast(static_cast<T>(divisor(s, w.rows.origin, w.columns.origin)))};
    }
};

// Windows that never meet: every value of dx is written once. A row of windows owns the input rows
// down to the next row of windows. With few channels its lines are put together in scratch memory,
// left to right, since a vector's zeros would run over the end of a line into the next.
template <class T, class Gradient>
void disjoint_rows(const Pool2d s, const T* dy, const T* dy_end, T* dx, const Gradient gradient,
                   int64_t begin, int64_t end) {
    const int64_t line_size = s.width * s.channels, pitch = line_size + kLanes<T>;
    const bool direct = s.channels >= kLanes<T>;
    const bool columns_covered = s.stride_width == s.pool_width && s.dilation_width == 1 &&
                                 s.out_width * s.stride_width >= s.pad_left + s.width;
    const bool two_by_two =
        s.pool_height == 2 && s.pool_width == 2 && s.dilation_height == 1 && s.dilation_width == 1;
    T* lines = direct ? nullptr : scratch<T>(kLocal, s.pool_height * pitch);
    const T* pixel = dy + begin * s.out_width * s.channels;
    for (int64_t row = begin; row < end; ++row) {
        const int64_t sample = row / s.out_height, out_row = row % s.out_height;
        T* image = dx + sample * s.input_size();
        const Taps rows = row_taps(s, out_row);
        const int64_t next = rows.origin + s.stride_height;
        const int64_t top = out_row == 0 ? 0 : std::clamp<int64_t>(rows.origin, 0, s.height);
        const int64_t bottom =
            out_row + 1 == s.out_height ? s.height : std::clamp<int64_t>(next, 0, s.height);
        if (rows.last - rows.first != bottom - top || (direct && !columns_covered)) {
            std::fill(image + top * line_size, image + bottom * line_size, T(0));
        }
        if (!direct && !columns_covered) std::fill(lines, lines + s.pool_height * pitch, T(0));

        T* first_line = direct ? image + rows.origin * line_size : lines;
        const int64_t line_step = direct ? s.dilation_height * line_size : pitch;
        const auto do_window = [&](const Window& w) CONVKIT_INLINE {
            for_each_channel_vector<T>(s.channels, [&](int64_t c, int64_t count) CONVKIT_INLINE {
                const Vec<T> all = load_run(pixel + c, dy_end, count);
                const auto share = gradient(s, sample, w, c, count, first_lanes<T>(all, count));
                for (int64_t i = w.rows.first; i < w.rows.last; ++i) {
                    T* line = first_line + i * line_step + w.columns.origin * s.channels + c;
                    for (int64_t j = w.columns.first; j < w.columns.last; ++j) {
                        store(line + j * w.dilation_width * s.channels,
                              share(i * w.pool_width + j));
                    }
                }
            });
        };
        for (int64_t out = 0; out < s.out_width; ++out, pixel += s.channels) {
            const Taps columns = column_taps(s, out);
            if (two_by_two && rows.last - rows.first == 2 && columns.last - columns.first == 2) {
                // The usual window, with constants for the compiler to unroll by.
                do_window(
                    {{rows.origin, 0, 2}, {columns.origin, 0, 2}, 1, 1, 2, line_size, s.channels});
            } else {
                do_window({rows, columns, s.dilation_height, s.dilation_width, s.pool_width,
                           line_size, s.channels});
            }
        }
        for (int64_t i = rows.first; !direct && i < rows.last; ++i) {
            std::memcpy(image + (rows.origin + i * s.dilation_height) * line_size,
                        lines + i * pitch, static_cast<size_t>(line_size) * sizeof(T));
        }
    }
}

template <class T, class Gradient>
void pool_backward_disjoint(const Context& context, const Pool2d& s, int64_t n, const T* dy, T* dx,
                            const Gradient& gradient) {
    parallel_for(context, n * s.out_height, backward_cost(s), [&](int64_t begin, int64_t end) {
        disjoint_rows(s, dy, dy + n * s.output_size(), dx, gradient, begin, end);
    });
}

// Windows that overlap: a sample's windows add to dx one after the other.
template <class T, class Gradient>
void pool_backward_overlapping(const Context& context, const Pool2d& s, int64_t n, const T* dy,
                               T* dx, Gradient gradient) {
    const T* dy_end = dy + n * s.output_size();
    const int64_t windows = s.out_height * s.out_width;
    const double cost = backward_cost(s) * static_cast<double>(s.out_height);
    parallel_for(context, n, cost, [&](int64_t begin, int64_t end) {
        std::fill(dx + begin * s.input_size(), dx + end * s.input_size(), T(0));
        const T* dx_end = dx + end * s.input_size();
        for (int64_t window = begin * windows; window < end * windows; ++window) {
            const int64_t sample = window / windows;
            const Window w{row_taps(s, window % windows / s.out_width),
                           column_taps(s, window % s.out_width),
                           s.dilation_height,
                           s.dilation_width,
                           s.pool_width,
                           s.width * s.channels,
                           s.channels};
            for (int64_t c = 0; c < s.channels; c += kLanes<T>) {
                const int64_t count = std::min<int64_t>(s.channels - c, kLanes<T>);
                const Vec<T> all = load_run(dy + window * s.channels + c, dy_end, count);
                const auto share = gradient(s, sample, w, c, count, first_lanes<T>(all, count));
                for (int64_t i = w.rows.first; i < w.rows.last; ++i) {
                    for (int64_t j = w.columns.first; j < w.columns.last; ++j) {
                        T* p = dx + sample * s.input_size() + w.offset(i, j) + c;
                        const Vec<T> sum = load_run(p, dx_end, count) + share(i * w.pool_width + j);
                        store_run(p, dx_end, sum, count);
                    }
                }
            }
        }
    });
}

template <class T, class Gradient>
void pool_backward(const Context& context, const Pool2d& s, int64_t n, const T* dy, T* dx,
                   Gradient gradient) {
    if (s.stride_height > (s.pool_height - 1) * s.dilation_height &&
        s.stride_width > (s.pool_width - 1) * s.dilation_width) {
        pool_backward_disjoint(context, s, n, dy, dx, gradient);
    } else {
        pool_backward_overlapping(context, s, n, dy, dx, gradient);
    }
}

}  // namespace

template <class T>
void max_pool2d(const Context& context, const Pool2d& s, int64_t n, const T* x, T* y) {
    pool<T, Max<T>>(context, s, n, x, y);
}

template <class T>
void max_pool2d_backward(const Context& context, const Pool2d& s, int64_t n, const T* dy,
                         const T* x, T* dx) {
    pool_backward(context, s, n, dy, dx, MaxGradient<T>{x, x + n * s.input_size()});
}

template <class T>
void avg_pool2d(const Context& context, const Pool2d& s, int64_t n, const T* x, T* y) {
    pool<T, Average<T>>(context, undilated(s), n, x, y);
}

template <class T>
void avg_pool2d_backward(const Context& context, const Pool2d& s, int64_t n, const T* dy, T* dx) {
    pool_backward(context, undilated(s), n, dy, dx, AverageGradient<T>{});
}

INSTANTIATE(max_pool2d)
INSTANTIATE(max_pool2d_backward)
INSTANTIATE(avg_pool2d)
INSTANTIATE(avg_pool2d_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
