// Convolution with a few registers of filters: windows are multiplied where they lie in the
// picture, the kernel where it lies too. Formula and shapes as in conv.cpp. To copy windows into
// rows, as conv.cpp does otherwise, would cost as much as the products here.
#pragma once

#include "epilogue.h"
#include "gemm.h"
#include "lanes.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// Where the windows of a tile lie. A window is `lines` rows of the kernel, `line_step` apart in the
// picture, each of `runs` runs of `length` neighbouring values, `run_step` apart. Windows are
// `pixel_step` apart, from one row of y to the next `row_step`. Rows of the kernel and pixels of y
// are `filters` apart, rows of y `y_step`.
//
// Of the filters there are `columns`, with bias (may be null), and outputs are at least `floor`.
// Memory of the kernel ends at kernel_end. If `alone`, what is written too far behind a pixel
// belongs to the next one, which follows.
template <class T>
struct WindowShape {
    int64_t lines, line_step, runs, run_step, length;
    int64_t pixel_step, row_step, filters, y_step;
    const T *bias, *kernel_end;
    int64_t columns;
    bool alone;
    bool past;  // the caches, with whole registers
    T floor;
};

// Adds a row of windows to the sums of M pixels of each of R rows of outputs. If kShared, all meet
// the row of the picture at x, with a row of the kernel each: the first with that at `kernel`, the
// next with the one before it. Else each meets its own row of the picture, with the same of the
// kernel.
template <class T, int R, int M, int V, bool kWhole, bool kShared>
static inline CONVKIT_INLINE void add_line(const WindowShape<T>& w, const T* x, const T* kernel,
                                           Vec<T> (*sum)[M][V]) {
    constexpr int kPointers = (M + 2) / 3, kPictures = kShared ? 1 : R, kKernels = kShared ? R : 1;
    const int64_t rest = w.columns - (V - 1) * kLanes<T>;
    const int64_t step = w.pixel_step, before = w.runs * w.length * w.filters;
    for (int64_t run = 0; run < w.runs; ++run) {
        // A pointer for every three pixels: so many registers there are.
        const T* values[kPictures][kPointers];
        CONVKIT_UNROLL
        for (int r = 0; r < kPictures; ++r) {
            CONVKIT_UNROLL
            for (int i = 0; i < kPointers; ++i) {
                values[r][i] = x + run * w.run_step + r * w.row_step + 3 * i * step;
            }
        }
        for (int64_t k = 0; k < w.length; ++k, kernel += w.filters) {
            Vec<T> lanes[kKernels][V];
            CONVKIT_UNROLL
            for (int r = 0; r < kKernels; ++r) {
                CONVKIT_UNROLL
                for (int v = 0; v < V; ++v) {
                    const T* p = kernel - r * before + v * kLanes<T>;
                    lanes[r][v] = kWhole || v < V - 1 ? load(p) : load_run(p, w.kernel_end, rest);
                }
            }
            CONVKIT_UNROLL
            for (int m = 0; m < M; ++m) {
                CONVKIT_UNROLL
                for (int r = 0; r < R; ++r) {
                    const T* pixels = values[kShared ? 0 : r][m / 3];
                    const Vec<T> value = broadcast(pixels[m % 3 * step]);
                    CONVKIT_UNROLL
                    for (int v = 0; v < V; ++v) sum[r][m][v] += value * lanes[kShared ? r : 0][v];
                }
            }
            CONVKIT_UNROLL
            for (int r = 0; r < kPictures; ++r) {
                CONVKIT_UNROLL
                for (int i = 0; i < kPointers; ++i) ++values[r][i];
            }
        }
    }
}

// M pixels of each of R rows of outputs, V registers of filters, which fill the registers if
// kWhole. y has the outputs, or if kPool the largest of each 2 x 2.
template <class T, int R, int M, int V, bool kWhole, bool kPool>
static void direct_tile(const WindowShape<T>& w, const T* x, const T* kernel, T* y) {
    static_assert(!kPool || (R == 2 && M % 2 == 0), "whole windows");
    constexpr int64_t kLast = (V - 1) * kLanes<T>;
    constexpr int kPixels = kPool ? M / 2 : M;
    const int64_t rest = w.columns - kLast, kernel_line = w.runs * w.length * w.filters;
    Vec<T> sum[R][M][V];
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m) {
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) sum[r][m][v] = Vec<T>{};
        }
    }
    // Sums that one row alone adds to at a time: fewer would wait for each other.
    constexpr bool kEnough = M * V >= 8;
    if (R == 2 && kEnough && w.row_step == w.line_step && w.lines > 0) {
        // The second row of outputs is one row of the picture behind: what is read serves both.
        add_line<T, 1, M, V, kWhole, true>(w, x, kernel, sum);
        for (int64_t line = 1; line < w.lines; ++line) {
            x += w.line_step;
            kernel += kernel_line;
            add_line<T, R, M, V, kWhole, true>(w, x, kernel, sum);
        }
        add_line<T, 1, M, V, kWhole, true>(w, x + w.line_step, kernel, sum + R - 1);
    } else {
        for (int64_t line = 0; line < w.lines; ++line) {
            add_line<T, R, M, V, kWhole, false>(w, x, kernel, sum);
            x += w.line_step;
            kernel += kernel_line;
        }
    }
    if constexpr (kPool) {
        CONVKIT_UNROLL
        for (int m = 0; m < M; m += 2) {
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) {
                const Vec<T> left = larger_or_nan<T>(sum[0][m][v], sum[1][m][v]);
                const Vec<T> right = larger_or_nan<T>(sum[0][m + 1][v], sum[1][m + 1][v]);
                sum[0][m / 2][v] = larger_or_nan<T>(left, right);
            }
        }
    }
    Vec<T> shift[V] = {};
    if (w.bias) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            const T* p = w.bias + v * kLanes<T>;
            shift[v] = kWhole || v < V - 1 ? load(p) : load_partial(p, rest);
        }
    }
    CONVKIT_UNROLL
    for (int r = 0; r < (kPool ? 1 : R); ++r) {
        T* pixel = y + r * w.y_step;
        const T* end = pixel + (w.alone ? kPixels * w.filters : 0);
        CONVKIT_UNROLL
        for (int m = 0; m < kPixels; ++m, pixel += w.filters) {
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) {
                const Vec<T> z = w.bias ? sum[r][m][v] + shift[v] : sum[r][m][v];
                const Vec<T> value = larger<T>(z, w.floor);
                T* p = pixel + v * kLanes<T>;
                if (kWhole && w.past) {
                    store_past(p, value);
                } else if (kWhole || v < V - 1) {
                    store(p, value);
                } else {
                    store_run(p, end, value, rest);
                }
            }
        }
    }
}

template <class T>
using DirectTile = void (*)(const WindowShape<T>&, const T*, const T*, T*);

template <class T, int R, int V, bool kWhole, size_t... M>
static DirectTile<T> pick_direct_tile(int64_t pixels, std::index_sequence<M...>) {
    static constexpr DirectTile<T> table[] = {
        direct_tile<T, R, static_cast<int>(M) + 1, V, kWhole, false>...};
    return table[pixels - 1];
}

// `pixels` of each of two rows: an even number.
template <class T, bool kWhole, size_t... M>
static DirectTile<T> pick_pooling_tile(int64_t pixels, std::index_sequence<M...>) {
    static constexpr DirectTile<T> table[] = {
        direct_tile<T, 2, 2 * static_cast<int>(M) + 2, 1, kWhole, true>...};
    return table[pixels / 2 - 1];
}

// One register of filters leaves room for two rows of outputs.
template <class T>
static DirectTile<T> get_direct_tile(bool pool, int64_t rows, int64_t pixels, int64_t columns) {
    constexpr auto all = std::make_index_sequence<kTileRows>();
    if (pool) {
        constexpr auto even = std::make_index_sequence<kTileRows / 2>();
        return columns == kLanes<T> ? pick_pooling_tile<T, true>(pixels, even)
                                    : pick_pooling_tile<T, false>(pixels, even);
    }
    if (columns > kLanes<T>) {
        return columns % kLanes<T> == 0 ? pick_direct_tile<T, 1, 2, true>(pixels, all)
                                        : pick_direct_tile<T, 1, 2, false>(pixels, all);
    }
    if (rows == 1) {
        return columns == kLanes<T> ? pick_direct_tile<T, 1, 1, true>(pixels, all)
                                    : pick_direct_tile<T, 1, 1, false>(pixels, all);
    }
    return columns == kLanes<T> ? pick_direct_tile<T, 2, 1, true>(pixels, all)
                                : pick_direct_tile<T, 2, 1, false>(pixels, all);
}

// Only the columns of the picture need their padding: rows of the kernel beyond its border are left
// out, unless two rows of outputs, which may differ in that, are pooled. Where there is padding,
// the outputs are cut into bands of rows, and the rows of the picture under a band copied.
template <class T>
struct Direct {
    const Conv2d& s;
    Epilogue<T> epilogue;
    int64_t pool, height, width;  // y (height, width, filters) is pooled by pool x pool
    int64_t channels, units, taps;
    int64_t line, line_spare;  // values of a row with its padding; of these, beside the picture's
    int64_t bands;
    bool copied;  // the rows of the picture, for their padding

    explicit Direct(const Conv2d& s, Epilogue<T> epilogue = {})
        : s(s),
          epilogue(epilogue),
          pool(epilogue.pool),
          height(divide(s.out_height, pool)),
          width(divide(s.out_width, pool)),
          channels(divide(s.channels, s.groups)),
          units(divide(s.filters, s.groups)),
          taps(s.kernel_height * s.kernel_width * channels) {
        constexpr int64_t kValues = 1 << 14;
        const int64_t reach =
            (s.out_width - 1) * s.stride_width + (s.kernel_width - 1) * s.dilation_width + 1;
        line = std::max(s.pad_left + s.width, reach) * s.channels;
        line_spare = line - s.width * s.channels;
        bands = std::min(height, divide_up(s.out_height * s.stride_height * line, kValues));
        const bool above = s.pad_top > 0, below = last_line(height) > s.height;
        copied = line_spare > 0 || (pool > 1 && (above || below));
    }

    int64_t output_size() const { return height * width * s.filters; }
    int64_t band_size() const {
        return ((pool * divide_up(height, bands) - 1) * s.stride_height +
                (s.kernel_height - 1) * s.dilation_height + 1) *
               line;
    }

    bool possible() const { return band_size() <= 1 << 16; }
    bool pays() const {
        constexpr int64_t kMostTaps = (1 << 18) / kVectorBytes;  // weights of a register
        // Tiles that are pooled have one register of filters: with few rows, two were better.
        const bool pooling = pool == 1 || kTileRows >= 8 || units <= kLanes<T>;
        return taps <= kMostTaps && s.filters <= 8 * kLanes<T> && possible() && pooling;
    }

    // The rows of the picture under rows begin .. end of y, with padding; returns the first one.
    int64_t copy_lines(const T* picture, int64_t begin, int64_t end, T* lines) const {
        int64_t first = pool * begin * s.stride_height - s.pad_top, last = last_line(end);
        if (pool == 1) first = std::max<int64_t>(0, first), last = std::min(s.height, last);
        const int64_t size = s.width * s.channels, before = s.pad_left * s.channels;
        for (int64_t ih = first; ih < last; ++ih, lines += line) {
            if (ih < 0 || ih >= s.height) {
                fill_zero(lines, line);
                continue;
            }
            fill_zero(lines, before);
            std::memcpy(lines + before, picture + ih * size, static_cast<size_t>(size) * sizeof(T));
            fill_zero(lines + before + size, line_spare - before);
        }
        return first;
    }

    // Rows begin .. end of y, of which this is row 0, from a picture whose first row is `first`.
    void rows(const T* picture, int64_t first, int64_t begin, int64_t end, const T* kernel,
              const T* bias, bool past, T* y) const {
        const int64_t most = (pool == 1 ? 2 : 1) * kLanes<T>;
        for (int64_t group = 0; group < s.groups; ++group) {
            for (int64_t j = 0; j < units; j += most) {
                const int64_t filter = group * units + j;
                const int64_t columns = std::min(most, units - j);
                const bool pairs = pool == 1 && columns <= kLanes<T>;
                for (int64_t oh = begin; oh < end;) {
                    const Range inner = kernel_rows(oh);
                    bool two = pairs && oh + 1 < end;
                    if (two) {
                        const Range next = kernel_rows(oh + 1);
                        two = next.begin == inner.begin && next.end == inner.end;
                    }
                    const int64_t top = pool * oh * s.stride_height - s.pad_top +
                                        inner.begin * s.dilation_height - first;
                    row(two ? 2 : 1, inner, picture + top * line + group * channels,
                        kernel + filter, kernel + s.kernel_size(), bias ? bias + filter : nullptr,
                        columns, past, y + oh * width * s.filters + filter);
                    oh += two ? 2 : 1;
                }
            }
        }
    }

 private:
    // Where the windows of the rows before `end` of y come to.
    int64_t last_line(int64_t end) const {
        return (pool * end - 1) * s.stride_height - s.pad_top +
               (s.kernel_height - 1) * s.dilation_height + 1;
    }

    Range kernel_rows(int64_t oh) const {
        if (pool > 1) return {0, s.kernel_height};
        return inside(oh * s.stride_height - s.pad_top, s.dilation_height, s.height,
                      s.kernel_height);
    }

    // One or two rows of y, or a pooled one, from those of the kernel that lie inside the picture.
    void row(int64_t rows, Range inner, const T* x, const T* kernel, const T* kernel_end,
             const T* bias, int64_t columns, bool past, T* y) const {
        const bool together = s.groups == 1 && s.dilation_width == 1;
        const WindowShape<T> w = {inner.end - inner.begin,
                                  s.dilation_height * line,
                                  together ? 1 : s.kernel_width,
                                  s.dilation_width * s.channels,
                                  together ? s.kernel_width * channels : channels,
                                  s.stride_width * s.channels,
                                  s.stride_height * line,
                                  s.filters,
                                  width * s.filters,
                                  bias,
                                  kernel_end,
                                  columns,
                                  columns == s.filters,
                                  past,
                                  epilogue.floor};
        kernel += inner.begin * s.kernel_width * channels * s.filters;
        const int64_t tiles = divide_up(pool * width, kTileRows);
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t column = cut(width, tiles, i);
            const int64_t pixels = pool * (cut(width, tiles, i + 1) - column);
            get_direct_tile<T>(pool > 1, rows, pixels, columns)(w, x + pool * column * w.pixel_step,
                                                                kernel, y + column * s.filters);
        }
    }
};

template <class T>
static void conv2d_direct(const Context& context, const Direct<T>& d, int64_t n, const T* x,
                          const T* kernel, const T* bias, T* y) {
    const Conv2d& s = d.s;
    const int64_t tasks = n * d.bands;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    const bool past =
        d.units % kLanes<T> == 0 && streams_rows(n * d.height * d.width, s.filters, y);
    parallel_stores(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* lines = d.copied ? scratch<T>(kPackA, d.band_size()) : nullptr;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t sample = divide(i, d.bands), band = i - sample * d.bands;
            const int64_t top = cut(d.height, d.bands, band);
            const int64_t bottom = cut(d.height, d.bands, band + 1);
            const T* picture = x + sample * s.input_size();
            int64_t first = 0;
            if (lines) {
                first = d.copy_lines(picture, top, bottom, lines);
                picture = lines;
            }
            d.rows(picture, first, top, bottom, kernel, bias, past, y + sample * d.output_size());
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
