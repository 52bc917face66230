// Convolution with a few registers of filters: windows are multiplied where they lie in the
// picture, the kernel where it lies too. Formula and shapes as in conv.cpp. To copy windows into
// rows, as conv.cpp does otherwise, would cost as much as the products here.
#pragma once

#include "gemm.h"
#include "lanes.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// Where the windows of a tile lie. A window is `lines` rows of the kernel, `line_step` apart in the
// picture, each of `runs` runs of `length` neighbouring values, `run_step` apart. Windows are
// `pixel_step` apart, from one row of y to the next `row_step`. Rows of the kernel and pixels of y
// are `filters` apart, rows of y `y_step`.
struct WindowShape {
    int64_t lines, line_step, runs, run_step, length;
    int64_t pixel_step, row_step, filters, y_step;
};

// M pixels of each of R rows of y, V registers of filters: `columns` of them, which fill the
// registers if kWhole. Memory of the kernel ends at kernel_end. If `alone`, what is written too far
// behind a pixel belongs to the next one, which follows.
template <class T, int R, int M, int V, bool kWhole>
static void direct_tile(const WindowShape& w, const T* x, const T* kernel, const T* kernel_end,
                        const T* bias, int64_t columns, bool alone, T* y) {
    constexpr int64_t kLast = (V - 1) * kLanes<T>;
    constexpr int kPointers = (M + 2) / 3;
    const int64_t rest = columns - kLast, step = w.pixel_step;
    Vec<T> sum[R][M][V];
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m) {
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) sum[r][m][v] = Vec<T>{};
        }
    }
    for (int64_t line = 0; line < w.lines; ++line, x += w.line_step) {
        for (int64_t run = 0; run < w.runs; ++run) {
            // A pointer for every three pixels: so many registers there are.
            const T* values[R][kPointers];
            CONVKIT_UNROLL
            for (int r = 0; r < R; ++r) {
                CONVKIT_UNROLL
                for (int i = 0; i < kPointers; ++i) {
                    values[r][i] = x + run * w.run_step + r * w.row_step + 3 * i * w.pixel_step;
                }
            }
            for (int64_t k = 0; k < w.length; ++k, kernel += w.filters) {
                Vec<T> lanes[V];
                CONVKIT_UNROLL
                for (int v = 0; v < V; ++v) {
                    const T* p = kernel + v * kLanes<T>;
                    lanes[v] = kWhole || v < V - 1 ? load(p) : load_run(p, kernel_end, rest);
                }
                CONVKIT_UNROLL
                for (int r = 0; r < R; ++r) {
                    CONVKIT_UNROLL
                    for (int m = 0; m < M; ++m) {
                        const Vec<T> value = broadcast(values[r][m / 3][m % 3 * step]);
                        CONVKIT_UNROLL
                        for (int v = 0; v < V; ++v) sum[r][m][v] += value * lanes[v];
                    }
                    CONVKIT_UNROLL
                    for (int i = 0; i < kPointers; ++i) ++values[r][i];
                }
            }
        }
    }
    Vec<T> shift[V] = {};
    if (bias) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            const T* p = bias + v * kLanes<T>;
            shift[v] = kWhole || v < V - 1 ? load(p) : load_partial(p, rest);
        }
    }
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        T* pixel = y + r * w.y_step;
        const T* end = pixel + (alone ? M * w.filters : 0);
        CONVKIT_UNROLL
        for (int m = 0; m < M; ++m, pixel += w.filters) {
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) {
                const Vec<T> value = bias ? sum[r][m][v] + shift[v] : sum[r][m][v];
                T* p = pixel + v * kLanes<T>;
                kWhole || v < V - 1 ? store(p, value) : store_run(p, end, value, rest);
            }
        }
    }
}

template <class T>
using DirectTile = void (*)(const WindowShape&, const T*, const T*, const T*, const T*, int64_t,
                            bool, T*);

template <class T, int R, int V, bool kWhole, size_t... M>
static DirectTile<T> pick_direct_tile(int64_t pixels, std::index_sequence<M...>) {
    static constexpr DirectTile<T> table[] = {
        direct_tile<T, R, static_cast<int>(M) + 1, V, kWhole>...};
    return table[pixels - 1];
}

// One register of filters leaves room for two rows of y.
template <class T>
static DirectTile<T> get_direct_tile(int64_t rows, int64_t pixels, int64_t columns) {
    constexpr auto all = std::make_index_sequence<kTileRows>();
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
// out. Where there is padding, the outputs are cut into bands of rows, and the rows of the picture
// under a band copied.
template <class T>
struct Direct {
    const Conv2d& s;
    int64_t channels, units, taps;
    int64_t line, line_spare;  // values of a row with its padding; of these, beside the picture's
    int64_t bands;

    explicit Direct(const Conv2d& s)
        : s(s),
          channels(s.channels / s.groups),
          units(s.filters / s.groups),
          taps(s.kernel_height * s.kernel_width * channels) {
        constexpr int64_t kValues = 1 << 14;
        const int64_t reach =
            (s.out_width - 1) * s.stride_width + (s.kernel_width - 1) * s.dilation_width + 1;
        line = std::max(s.pad_left + s.width, reach) * s.channels;
        line_spare = line - s.width * s.channels;
        bands = std::min(s.out_height, divide_up(s.out_height * s.stride_height * line, kValues));
    }

    int64_t band_size() const {
        return ((divide_up(s.out_height, bands) - 1) * s.stride_height +
                (s.kernel_height - 1) * s.dilation_height + 1) *
               line;
    }

    bool pays() const {
        constexpr int64_t kMostTaps = 1 << 10, kMostValues = 1 << 16;
        const int64_t pixels = s.out_width / divide_up(s.out_width, kTileRows);
        return taps <= kMostTaps && s.filters <= 4 * kLanes<T> && pixels >= 4 &&
               band_size() <= kMostValues;
    }

    // The rows of the picture under rows begin .. end of y, with padding; returns the first one.
    int64_t copy_lines(const T* picture, int64_t begin, int64_t end, T* lines) const {
        const int64_t reach = (s.kernel_height - 1) * s.dilation_height + 1;
        const int64_t first = std::max<int64_t>(0, begin * s.stride_height - s.pad_top);
        const int64_t last = std::min(s.height, (end - 1) * s.stride_height - s.pad_top + reach);
        const int64_t size = s.width * s.channels, before = s.pad_left * s.channels;
        for (int64_t ih = first; ih < last; ++ih, lines += line) {
            fill_zero(lines, before);
            std::memcpy(lines + before, picture + ih * size, static_cast<size_t>(size) * sizeof(T));
            fill_zero(lines + before + size, line_spare - before);
        }
        return first;
    }

    // Rows begin .. end of y, of which this is row 0, from a picture whose first row is `first`.
    void rows(const T* picture, int64_t first, int64_t begin, int64_t end, const T* kernel,
              const T* bias, T* y) const {
        constexpr int64_t kColumns = 2 * kLanes<T>;
        for (int64_t group = 0; group < s.groups; ++group) {
            for (int64_t j = 0; j < units; j += kColumns) {
                const int64_t filter = group * units + j;
                const int64_t columns = std::min(kColumns, units - j);
                const bool pairs = columns <= kLanes<T>;
                for (int64_t oh = begin; oh < end;) {
                    const Range inner = kernel_rows(oh);
                    bool two = pairs && oh + 1 < end;
                    if (two) {
                        const Range next = kernel_rows(oh + 1);
                        two = next.begin == inner.begin && next.end == inner.end;
                    }
                    const int64_t top =
                        oh * s.stride_height - s.pad_top + inner.begin * s.dilation_height - first;
                    row(two ? 2 : 1, inner, picture + top * line + group * channels,
                        kernel + filter, kernel + s.kernel_size(), bias ? bias + filter : nullptr,
                        columns, y + oh * s.out_width * s.filters + filter);
                    oh += two ? 2 : 1;
                }
            }
        }
    }

 private:
    Range kernel_rows(int64_t oh) const {
        return inside(oh * s.stride_height - s.pad_top, s.dilation_height, s.height,
                      s.kernel_height);
    }

    // One or two rows of y from those of the kernel that lie inside the picture.
    void row(int64_t rows, Range inner, const T* x, const T* kernel, const T* kernel_end,
             const T* bias, int64_t columns, T* y) const {
        const bool together = s.groups == 1 && s.dilation_width == 1;
        const WindowShape w = {inner.end - inner.begin,
                               s.dilation_height * line,
                               together ? 1 : s.kernel_width,
                               s.dilation_width * s.channels,
                               together ? s.kernel_width * channels : channels,
                               s.stride_width * s.channels,
                               s.stride_height * line,
                               s.filters,
                               s.out_width * s.filters};
        kernel += inner.begin * s.kernel_width * channels * s.filters;
        const int64_t tiles = divide_up(s.out_width, kTileRows);
        for (int64_t i = 0; i < tiles; ++i) {
            const int64_t ow = cut(s.out_width, tiles, i);
            const int64_t pixels = cut(s.out_width, tiles, i + 1) - ow;
            get_direct_tile<T>(rows, pixels, columns)(w, x + ow * w.pixel_step, kernel, kernel_end,
                                                      bias, columns, columns == s.filters,
                                                      y + ow * s.filters);
        }
    }
};

template <class T>
static void conv2d_direct(const Context& context, const Direct<T>& d, int64_t n, const T* x,
                          const T* kernel, const T* bias, T* y) {
    const Conv2d& s = d.s;
    const int64_t tasks = n * d.bands;
    const double work = static_cast<double>(n) * s.multiply_adds() / tasks;
    parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
        T* lines = d.line_spare > 0 ? scratch<T>(kPackA, d.band_size()) : nullptr;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t sample = i / d.bands, band = i % d.bands;
            const int64_t top = cut(s.out_height, d.bands, band);
            const int64_t bottom = cut(s.out_height, d.bands, band + 1);
            const T* picture = x + sample * s.input_size();
            int64_t first = 0;
            if (lines) {
                first = d.copy_lines(picture, top, bottom, lines);
                picture = lines;
            }
            d.rows(picture, first, top, bottom, kernel, bias, y + sample * s.output_size());
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
