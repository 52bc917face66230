// Max- and average pooling, x (n, height, width, channels) -> y (n, out_height, out_width,
// channels).
//   max  y = max over the window's taps inside x; padding never wins; NaN counts as the maximum
//   avg  y = sum over the window's taps inside x / divisor
// Backward, dy (as y) -> dx (as x): max gives dy to the first maximum of the window (row by row),
// found again from x; avg gives dy / divisor to every tap.
//
// Forward goes from window to window, or, where channels do not fill a vector or windows share
// much, over lines: a vertical pass over whole lines of x, then a horizontal one over the line that
// it leaves, whose borders stand for the padding. There lanes also cover pixels to the right: junk
// that the next store overwrites. Backward goes from window to window too, where they never meet;
// elsewhere see pool_gather.h. The usual windows have a way of their own: see pool_halves.h.
#include <algorithm>
#include <limits>

#include "cpu_kernels.h"
#include "epilogue.h"
#include "lanes.h"
#include "pool_gather.h"
#include "pool_halves.h"
#include "stream.h"
#include "windows.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Average pooling has no dilation.
Pool2d undilated(Pool2d s) {
    s.dilation_height = s.dilation_width = 1;
    return s;
}

// ---- forward ------------------------------------------------------------------------------------
// kFetches: whether it gains by what is wanted next being fetched meanwhile. Comparisons leave a
// processor less room to see ahead than additions do.
template <class T>
struct Max {
    static constexpr bool kFetches = true;
    static T start() { return -std::numeric_limits<T>::infinity(); }
    static Vec<T> add(Vec<T> best, Vec<T> v) { return larger_or_nan<T>(best, v); }
    static Vec<T> finish(Vec<T> best, int64_t) { return best; }
};

template <class T>
struct Average {
    static constexpr bool kFetches = false;
    static T start() { return 0; }
    static Vec<T> add(Vec<T> sum, Vec<T> v) { return sum + v; }
    static Vec<T> finish(Vec<T> sum, int64_t count) {
        return sum / broadcast(static_cast<T>(count));
    }
};

// One window of all channels: a column's taps from above, then the columns from the left. kHeight,
// kWidth: of a window that lies inside x, for the compiler to unroll by; or 0.
template <int kHeight, int kWidth, class Reduction, class T>
CONVKIT_INLINE inline void pool_window(const T* window, int64_t height, int64_t width, int64_t down,
                                       int64_t right, int64_t channels, int64_t divisor, T* y) {
    const int64_t rows = kHeight ? kHeight : height, columns = kWidth ? kWidth : width;
    for_each_channel_vector<T>(channels, [&](int64_t c, int64_t) CONVKIT_INLINE {
        Vec<T> total = broadcast(Reduction::start());
        for (int64_t j = 0; j < columns; ++j) {
            const T* const tap = window + j * right + c;
            Vec<T> column = load(tap);
            for (int64_t i = 1; i < rows; ++i)
                column = Reduction::add(column, load(tap + i * down));
            total = j == 0 ? column : Reduction::add(total, column);
        }
        store(y + c, Reduction::finish(total, divisor));
    });
}

int64_t divisor_of(const Pool2d& s, int64_t top, int64_t left) {
    return counted_rows(s, top) * counted_columns(s, left);
}

// So many windows side by side whose taps are all inside x.
template <int kHeight, int kWidth, class Reduction, class T>
void pool_inside(int64_t count, const T* window, int64_t step, int64_t height, int64_t width,
                 int64_t down, int64_t right, int64_t channels, int64_t divisor,
                 const NextLines& next, T* y) {
    for (int64_t i = 0; i < count; ++i, window += step, y += channels) {
        next.fetch(window, step);
        pool_window<kHeight, kWidth, Reduction>(window, height, width, down, right, channels,
                                                divisor, y);
    }
}

// The rows of x that the next row of windows meets and this one does not.
NextLines next_rows(const Pool2d& s) {
    const int64_t reach = (s.pool_height - 1) * s.dilation_height + 1;
    const int64_t line_size = s.width * s.channels;
    return {std::max(reach, s.stride_height) * line_size, std::min(reach, s.stride_height),
            line_size};
}

// Rows begin .. end of y, counted through all samples; channels fill a vector.
template <class T, class Reduction>
void pool_windows(const Pool2d& s, int64_t n, const T* x, T* y, bool past, int64_t begin,
                  int64_t end) {
    const int64_t channels = s.channels, line_size = s.width * channels;
    const bool fetches = Reduction::kFetches && far<T>(n * s.input_size());
    const NextLines next = fetches ? next_rows(s) : NextLines{};
    const int64_t down = s.dilation_height * line_size, right = s.dilation_width * channels;
    const int64_t size = s.out_width * channels, step = s.stride_width * channels;
    const Line<T> line(past, size);
    for (int64_t row = begin; row < end; ++row) {
        const Taps rows = row_taps(s, row % s.out_height);
        const T* const top = x + row / s.out_height * s.input_size() +
                             (rows.origin + rows.first * s.dilation_height) * line_size;
        T* const to = line.at(y + row * size);
        const int64_t height = rows.count();
        for (int64_t out = 0; out < s.out_width;) {
            const Taps columns = column_taps(s, out);
            const T* const window =
                top + (columns.origin + columns.first * s.dilation_width) * channels;
            const int64_t divisor = divisor_of(s, rows.origin, columns.origin);
            const int64_t width = columns.count();
            // Windows that lie inside x are alike.
            int64_t alike = 1;
            if (width == s.pool_width) {
                const int64_t reach = (width - 1) * s.dilation_width + 1;
                alike = (s.width - reach - columns.origin) / s.stride_width + 1;
                alike = std::min(alike, s.out_width - out);
            }
            T* const pixel = to + out * channels;
            if (height == 3 && width == 3) {
                pool_inside<3, 3, Reduction>(alike, window, step, 3, 3, down, right, channels,
                                             divisor, next, pixel);
            } else if (height == 2 && width == 2) {
                pool_inside<2, 2, Reduction>(alike, window, step, 2, 2, down, right, channels,
                                             divisor, next, pixel);
            } else {
                pool_inside<0, 0, Reduction>(alike, window, step, height, height > 0 ? width : 0,
                                             down, right, channels, divisor, next, pixel);
            }
            out += alike;
        }
        line.copy_to(y + row * size);
    }
}

// The same over lines, for any number of channels.
template <class T, class Reduction>
void pool_lines(const Pool2d& s, const T* x, T* y, bool past, int64_t begin, int64_t end) {
    const int64_t channels = s.channels, line_size = s.width * channels;
    const int64_t down = s.dilation_height * line_size, right = s.dilation_width * channels;
    const int64_t size = s.out_width * channels;
    const int64_t reach =
        (s.out_width - 1) * s.stride_width + (s.pool_width - 1) * s.dilation_width + 1;
    const int64_t padded = std::max(reach, s.pad_left + s.width) * channels + kLanes<T>;
    T* const memory = scratch<T>(kLocal, padded);
    std::fill(memory, memory + padded, Reduction::start());
    T* const inside = memory + s.pad_left * channels;
    const Line<T> line(past, size);
    for (int64_t row = begin; row < end; ++row) {
        const Taps rows = row_taps(s, row % s.out_height);
        const T* const top = x + row / s.out_height * s.input_size() +
                             (rows.origin + rows.first * s.dilation_height) * line_size;
        const auto reduce = [&](int64_t height) CONVKIT_INLINE {
            for_each_vector(inside, 0, line_size, [&](int64_t k, auto part) CONVKIT_INLINE {
                Vec<T> v = get(top + k, part);
                for (int64_t i = 1; i < height; ++i) {
                    v = Reduction::add(v, get(top + i * down + k, part));
                }
                put(inside + k, v, part);
            });
        };
        if (rows.count() == 3) {
            reduce(3);
        } else if (rows.count() > 0) {
            reduce(rows.count());
        } else {
            std::fill_n(inside, line_size, Reduction::start());
        }
        T* const to = line.at(y + row * size);
        const T* const to_end = past ? to + size : y + end * size;
        T* pixel = to;
        const int64_t counted_down = counted_rows(s, rows.origin);
        for (int64_t out = 0; out < s.out_width; ++out, pixel += channels) {
            const int64_t left = out * s.stride_width - s.pad_left;
            const int64_t divisor = counted_down * counted_columns(s, left);
            const T* const taps = inside + left * channels;
            for_each_channel_vector<T>(channels, [&](int64_t c, int64_t count) CONVKIT_INLINE {
                Vec<T> v = load(taps + c);
                for (int64_t j = 1; j < s.pool_width; ++j) {
                    v = Reduction::add(v, load(taps + j * right + c));
                }
                store_run(pixel + c, to_end, Reduction::finish(v, divisor), count);
            });
        }
        line.copy_to(y + row * size);
    }
}

// The usual windows of 2 x 2, all inside x, of few channels: straight from x, a vector for each.
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
void pool_pairs(const Pool2d& s, const T* x, const T* x_end, T* y, bool past, int64_t begin,
                int64_t end) {
    const int64_t channels = s.channels, step = s.stride_width * channels;
    const int64_t line_size = s.width * channels, size = s.out_width * channels;
    const int64_t reach = line_size + channels + kLanes<T>;  // of a window's whole vectors
    const Line<T> line(past, size);
    for (int64_t row = begin; row < end; ++row) {
        const int64_t top = row % s.out_height * s.stride_height;
        const T* window = x + row / s.out_height * s.input_size() + top * line_size;
        T* pixel = line.at(y + row * size);
        const T* const line_end = pixel + size;
        const T* const to_end = past ? line_end : y + end * size;
        // As many as are sure to have room for whole vectors.
        const int64_t room = std::min((to_end - pixel - kLanes<T>) / channels + 1,
                                      (x_end - window - reach) / step + 1);
        const bool any = to_end - pixel >= kLanes<T> && x_end - window >= reach;
        const T* const whole = any ? pixel + std::min(room, s.out_width) * channels : pixel;
        for (; pixel < whole; window += step, pixel += channels) {
            pool_pair<T, Reduction>(window, channels, line_size, pixel, Whole{});
        }
        for (; pixel < line_end; window += step, pixel += channels) {
            pool_pair<T, Reduction>(window, channels, line_size, pixel, Part{channels});
        }
        line.copy_to(y + row * size);
    }
}

// Where windows share much, lines take fewer loads than windows.
bool by_window(const Pool2d& s) {
    return s.pool_height * s.pool_width <= s.stride_width * (s.pool_height + 1) + s.pool_width + 2;
}

template <class T, class Reduction>
void pool(const Context& context, const Pool2d& s, int64_t n, const T* x, T* y) {
    const double cost = 0.05 * static_cast<double>(s.pool_height * s.width * s.channels) +
                        0.6 * static_cast<double>(s.out_width * s.pool_width) *
                            static_cast<double>(1 + s.channels / kLanes<T>);
    const bool past = streams<T>(n * s.output_size(), y, x);
    parallel_stores(context, n * s.out_height, cost, [&](int64_t begin, int64_t end) {
        const T* const x_end = x + n * s.input_size();
        if (s.channels >= kLanes<T> && by_window(s)) {
            pool_windows<T, Reduction>(s, n, x, y, past, begin, end);
        } else if (s.channels < kLanes<T> && pairs(s)) {
            pool_pairs<T, Reduction>(s, x, x_end, y, past, begin, end);
        } else {
            pool_lines<T, Reduction>(s, x, y, past, begin, end);
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
    using Shares = MaxShares<T>;
    static constexpr bool kMax = true;
    const T *x, *x_end;

    CONVKIT_INLINE inline MaxShare<T> operator()(const Pool2d& s, int64_t sample, const Window& w,
                                                 int64_t c, int64_t count, Vec<T> dy) const {
        const T* image = x + sample * s.input_size() + c;
        const Winner<T> start{
            broadcast(-std::numeric_limits<T>::infinity()),
            broadcast(static_cast<T>(w.rows.first * w.pool_width + w.columns.first))};
        const Vec<T> winner = winning_tap(start, [&](auto meet) CONVKIT_INLINE {
            for (int64_t i = w.rows.first; i < w.rows.last; ++i) {
                for (int64_t j = w.columns.first; j < w.columns.last; ++j) {
                    meet(load_run(image + w.offset(i, j), x_end, count),
                         broadcast(static_cast<T>(i * w.pool_width + j)));
                }
            }
        });
        return {dy, winner};
    }
};

template <class T>
struct AverageGradient {
    using Shares = AverageShares<T>;
    static constexpr bool kMax = false;
    const T *x, *x_end;  // of no use

    CONVKIT_INLINE inline AverageShare<T> operator()(const Pool2d& s, int64_t, const Window& w,
                                                     int64_t, int64_t, Vec<T> dy) const {
        return {dy / broadcast(static_cast<T>(divisor_of(s, w.rows.origin, w.columns.origin)))};
    }
};

// Windows that never meet: every value of dx is written once. A row of windows owns the input rows
// down to the next row of windows. With few channels its lines are put together in scratch memory,
// left to right, since a vector's zeros would run over the end of a line into the next.
template <class T, class Gradient>
void disjoint_rows(const Pool2d& s, const T* dy, const T* dy_end, T* dx, const Gradient& gradient,
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
        if (rows.count() != bottom - top || (direct && !columns_covered)) {
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
            if (two_by_two && rows.count() == 2 && columns.count() == 2) {
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
void pool_backward(const Context& context, const Pool2d& s, int64_t n, const T* dy, T* dx,
                   const Gradient& gradient) {
    if (pool_halves<Gradient::kMax>(context, s, n, dy, gradient.x, dx)) return;
    const bool disjoint = s.stride_height > (s.pool_height - 1) * s.dilation_height &&
                          s.stride_width > (s.pool_width - 1) * s.dilation_width;
    if (!disjoint) {
        return gather_rows<typename Gradient::Shares>(context, s, n, dy, gradient.x, dx);
    }
    const double cost = static_cast<double>(s.out_width * s.pool_height * s.pool_width) *
                        (2 + 0.2 * static_cast<double>(s.channels));
    parallel_for(context, n * s.out_height, cost, [&](int64_t begin, int64_t end) {
        disjoint_rows(s, dy, dy + n * s.output_size(), dx, gradient, begin, end);
    });
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
