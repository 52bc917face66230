// Blocks of sums of a tile's convolution, held in registers: which pixels and filters they have,
// and which stretches of x and of the kernel they run over. Pixels at the border of the picture run
// over just the part of the kernel that lies inside it.
#pragma once

#include <algorithm>

#include "gemm.h"
#include "lanes.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// How many filters of four pixels fit the registers as sums. float64, less in use, has smaller
// blocks, for less code.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisterFilters = 6;
#elif defined(__AVX2__)
constexpr int kRegisterFilters = 3;
#else
constexpr int kRegisterFilters = 2;
#endif

// The most filters in a block of 1, 2, 4 or 8 pixels. Pixels and filters that are both few would
// give too few sums to keep the multiply-adds busy, hence up to 8 pixels of a single filter.
template <class T>
constexpr int most_filters(int pixels) {
    constexpr int kMost = kRegisterFilters * 4 / static_cast<int>(sizeof(T));
    return pixels > 4 ? 1 : pixels > 1 ? 4 * kMost / pixels : std::min(12, 4 * kMost);
}

constexpr int kMostPixels = 8;

// Steps k < count of a sum: x[place + k * kTile] * kernel[weight + k * filters].
struct Run {
    int64_t place, weight, count;
};

// Neighbouring pixels of one row of outputs, or of two, and the runs that make their sums. Places
// count from where the window of the first pixel begins.
struct Patch {
    int columns;
    int64_t output;           // the first, counted along the row
    int64_t left;             // where in its row of x the first window begins
    int64_t at[kMostPixels];  // where the windows of all pixels begin
    // First the runs that all pixels have; then, to end[0], what only the first pixel has, to
    // end[1] what only the second has ..., which is nothing away from the borders.
    const Run* runs;
    int64_t common, end[kMostPixels];
};

// A row of outputs, cut into patches: of single pixels (rows = 1), whose columns are column_step
// apart, or of windows of 2 x 2 pixels (rows = 2, column_step = 1). It lives in the scratch of
// kPackA and kPackB, so there is one at a time.
class PatchRow {
 public:
    int64_t count = 0;
    const Patch* patches = nullptr;

    // Patches have `widest` columns, a power of two, as long as they fit.
    PatchRow(const Conv2d& spec, int row_count, int64_t output_count, int64_t step,
             int widest_patch)
        : s(spec),
          rows(row_count),
          widest(widest_patch),
          outputs(output_count),
          column_step(step) {}

    // Goes to the row of outputs whose first pixel is (row, column).
    void go(int64_t row, int64_t column) {
        Range now[2] = {};
        bool same = patches && column == first;
        for (int i = 0; i < rows; ++i) {
            now[i] = inside((row + i) * s.stride_height - s.pad_top, s.dilation_height, s.height,
                            s.kernel_height);
            same &= now[i].begin == taps[i].begin && now[i].end == taps[i].end;
        }
        if (same) return;  // as most rows, so plans cost little
        first = column;
        taps[0] = now[0];
        taps[1] = now[1];
        plan();
    }

 private:
    const Conv2d& s;
    int rows, widest;
    int64_t outputs, column_step;
    int64_t first = 0;   // column of pixels
    Range taps[2] = {};  // rows of the kernel inside the picture, for each row of pixels

    int64_t pixel() const { return s.channels * kTile; }

    __attribute__((noinline)) void plan() {
        Patch* patch = scratch<Patch>(kPackA, outputs);
        // Each patch has up to 1 + its pixels times as many runs as the kernel has taps.
        Run* list =
            scratch<Run>(kPackB, outputs * (1 + rows * rows) * s.kernel_height * s.kernel_width);
        patches = patch;
        const Patch* inner = nullptr;  // the last away from the borders
        int columns = widest;
        for (int64_t output = 0; output < outputs; ++patch) {
            while (columns > (outputs - output) * rows) columns /= 2;
            const int64_t left =
                (first + output * rows * column_step) * s.stride_width - s.pad_left;
            const int64_t reach = (columns - 1) * column_step * s.stride_width +
                                  (s.kernel_width - 1) * s.dilation_width;
            const bool within = left >= 0 && left + reach < s.width;
            if (within && inner && inner->columns == columns) {
                *patch = *inner;
            } else {
                patch->columns = columns;
                list = add_runs(left, *patch, list);
            }
            if (within) inner = patch;
            patch->output = output;
            patch->left = left * pixel();
            output += columns / rows;
        }
        count = patch - patches;
    }

    // Writes the patch's runs to `list`, returns its end.
    Run* add_runs(int64_t left, Patch& patch, Run* list) const {
        Range columns[kMostPixels];
        for (int i = 0; i < patch.columns; ++i) {
            columns[i] = inside(left + i * column_step * s.stride_width, s.dilation_width, s.width,
                                s.kernel_width);
        }
        const Range all_rows = shared(taps, rows), all_columns = shared(columns, patch.columns);
        patch.runs = list;
        for (int64_t kh = all_rows.begin; kh < all_rows.end; ++kh) {
            list = add_line(kh, all_columns, 0, list);
        }
        patch.common = list - patch.runs;
        for (int p = 0; p < rows * patch.columns; ++p) {
            const int row = p / patch.columns, column = p % patch.columns;
            const Range own = columns[column];
            patch.at[p] =
                (row * s.stride_height * s.width + column * column_step * s.stride_width) * pixel();
            for (int64_t kh = taps[row].begin; kh < taps[row].end; ++kh) {
                const bool some = kh >= all_rows.begin && kh < all_rows.end;
                const Range done = some ? all_columns : Range{own.end, own.end};
                list = add_line(kh, {own.begin, std::min(done.begin, own.end)}, patch.at[p], list);
                list = add_line(kh, {std::max(done.end, own.begin), own.end}, patch.at[p], list);
            }
            patch.end[p] = list - patch.runs;
        }
        return list;
    }

    // Some columns of row kh of the kernel: one run, where they lie side by side in x.
    __attribute__((noinline)) Run* add_line(int64_t kh, Range columns, int64_t at,
                                            Run* list) const {
        const int64_t channels = s.channels / s.groups;
        const bool adjoin = s.groups == 1 && s.dilation_width == 1;
        for (int64_t kw = columns.begin, next = 0; kw < columns.end; kw = next) {
            next = adjoin ? columns.end : kw + 1;
            *list++ = {(kh * s.dilation_height * s.width + kw * s.dilation_width) * pixel() + at,
                       (kh * s.kernel_width + kw) * channels * s.filters, (next - kw) * channels};
        }
        return list;
    }

    // What all of the ranges have.
    static Range shared(const Range* ranges, int count) {
        Range all = ranges[0];
        for (int i = 1; i < count; ++i) {
            all = {std::max(all.begin, ranges[i].begin), std::min(all.end, ranges[i].end)};
        }
        return {all.begin, std::max(all.begin, all.end)};
    }
};

// sums[p][f] += sum over k < count of x[k * kTile + at[p]] * weights[k * step + f]
template <class T, int kPixels, int kFilters>
static inline CONVKIT_INLINE void add_run(const T* x, const int64_t* at, const T* weights,
                                          int64_t step, int64_t count, Vec<T> (*sums)[kFilters]) {
    for (int64_t k = 0; k < count; ++k, x += kTile, weights += step) {
        if constexpr (kPixels > kFilters) {  // the fewer of the two are held in registers
            Vec<T> weight[kFilters];
            CONVKIT_UNROLL
            for (int f = 0; f < kFilters; ++f) weight[f] = broadcast(weights[f]);
            CONVKIT_UNROLL
            for (int p = 0; p < kPixels; ++p) {
                const Vec<T> value = load(x + at[p]);
                CONVKIT_UNROLL
                for (int f = 0; f < kFilters; ++f) sums[p][f] += value * weight[f];
            }
        } else {
            Vec<T> value[kPixels];
            CONVKIT_UNROLL
            for (int p = 0; p < kPixels; ++p) value[p] = load(x + at[p]);
            CONVKIT_UNROLL
            for (int f = 0; f < kFilters; ++f) {
                const Vec<T> weight = broadcast(weights[f]);
                CONVKIT_UNROLL
                for (int p = 0; p < kPixels; ++p) sums[p][f] += value[p] * weight;
            }
        }
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
