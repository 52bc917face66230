// Max- and average pooling, x (n, height, width, channels) -> y (n, out_height, out_width,
// channels).
//   max  y = max over the window's taps inside x; padding never wins; NaN counts as the maximum
//   avg  y = sum over the window's taps inside x / divisor
// Backward, dy (as y) -> dx (as x): max gives dy to the first maximum of the window (row by row),
// found again from x; avg gives dy / divisor to every tap.
//
// A thread takes a vector of channels: of a window forward, of a pixel of x backward, where it goes
// through the windows over that pixel. Two by two windows have a kernel of their own backward, in
// which a thread writes what one window covers.
#include <algorithm>
#include <cmath>

#include "activate.cuh"
#include "cuda_kernels.h"
#include "index.cuh"

namespace convkit {
namespace cuda {
namespace {

// ---- geometry
// ------------------------------------------------------------------------------------

// Windows with a kernel that knows their size: 2 x 2 with all taps inside x, and 3 x 3.
enum WindowKind { kAnyWindow, kPair, kThree };

bool all_inside(const Pool2d& s) {
    const int64_t reach_height = (s.pool_height - 1) * s.dilation_height + 1;
    const int64_t reach_width = (s.pool_width - 1) * s.dilation_width + 1;
    return s.pad_top == 0 && s.pad_left == 0 &&
           (s.out_height - 1) * s.stride_height + reach_height <= s.height &&
           (s.out_width - 1) * s.stride_width + reach_width <= s.width;
}

WindowKind kind_of(const Pool2d& s) {
    if (s.pool_height == 2 && s.pool_width == 2 && s.dilation_height == 1 &&
        s.dilation_width == 1 && all_inside(s))
        return kPair;
    return s.pool_height == 3 && s.pool_width == 3 ? kThree : kAnyWindow;
}

// The largest number that a place along an axis comes to.
int64_t largest_place(const Pool2d& s) {
    return std::max(
        s.out_height * s.stride_height + s.pool_height * s.dilation_height + s.height + s.pad_top,
        s.out_width * s.stride_width + s.pool_width * s.dilation_width + s.width + s.pad_left);
}

// Average pooling has no dilation.
Pool2d undilated(Pool2d s) {
    s.dilation_height = s.dilation_width = 1;
    return s;
}

// One axis of a pooling.
template <class I>
struct Axis {
    I size, windows, window, stride, dilation, pad, pad_after;
    Divisor<I> by_stride, by_dilation;

    Axis(int64_t size, int64_t windows, int64_t window, int64_t stride, int64_t dilation,
         int64_t pad, int64_t pad_after)
        : size(static_cast<I>(size)),
          windows(static_cast<I>(windows)),
          window(static_cast<I>(window)),
          stride(static_cast<I>(stride)),
          dilation(static_cast<I>(dilation)),
          pad(static_cast<I>(pad)),
          pad_after(static_cast<I>(pad_after)),
          by_stride(stride),
          by_dilation(dilation) {}

    // Where the first tap of a window is.
    __device__ I origin(I out) const { return out * stride - pad; }
    __device__ bool inside(I place) const { return place >= 0 && place < size; }

    __device__ I first_inside(I origin) const {
        I tap = 0;
        while (origin + tap * dilation < 0) ++tap;
        return tap;
    }

    // How many places an average is taken over: inside x, or inside the padded x.
    __device__ I counted(I origin, bool with_pad) const {
        const I end = origin + window;
        if (with_pad) return min(window, size + pad_after - origin);
        return max(I(0), min(end, size) - max(origin, I(0)));
    }

    // The windows that may have a tap at a place of x.
    __device__ I first_window(I place) const {
        const I behind = place + pad - (window - 1) * dilation;
        return behind <= 0 ? 0 : by_stride.quotient(behind + stride - 1);
    }
    __device__ I last_window(I place) const {
        return min(by_stride.quotient(place + pad), windows - 1);
    }

    // Which tap of the window is there; -1: none.
    __device__ I tap(I place, I out) const {
        const I distance = place - origin(out), tap = by_dilation.quotient(distance);
        return tap * dilation == distance ? tap : -1;
    }
};

template <class I>
struct Windows {
    Axis<I> rows, columns;
    Places<I> outputs, inputs;
    Divisor<I> by_pool_width;
    int64_t channels, line;         // from a pixel to its neighbour, to the one below
    int64_t row_step, column_step;  // from a tap to the next
    bool with_pad;

    Windows(const Pool2d& s, int64_t n, int width)
        : rows(s.height, s.out_height, s.pool_height, s.stride_height, s.dilation_height, s.pad_top,
               s.pad_bottom),
          columns(s.width, s.out_width, s.pool_width, s.stride_width, s.dilation_width, s.pad_left,
                  s.pad_right),
          outputs(n, s.out_height, s.out_width, s.channels / width),
          inputs(n, s.height, s.width, s.channels / width),
          by_pool_width(s.pool_width),
          channels(s.channels),
          line(s.width * s.channels),
          row_step(s.dilation_height * line),
          column_step(s.dilation_width * channels),
          with_pad(s.count_include_pad != 0) {}

    // Of a pixel of x, which may lie outside, and a channel.
    __device__ int64_t offset(I sample, I row, I column, int64_t channel) const {
        const int64_t above = static_cast<int64_t>(sample) * rows.size + row;
        return above * line + column * channels + channel;
    }
    // Of a window and a channel.
    __device__ int64_t output(I sample, I row, I column, int64_t channel) const {
        const int64_t above = static_cast<int64_t>(sample) * rows.windows + row;
        return (above * columns.windows + column) * channels + channel;
    }
    __device__ I divisor(I top, I left) const {
        return rows.counted(top, with_pad) * columns.counted(left, with_pad);
    }
};

// ---- what becomes of a window's values
// -----------------------------------------------------------

template <class T>
struct Max {
    using Result = T;
    T best;

    // What changes nothing: it stands for taps outside x.
    static __device__ T neutral() { return -static_cast<T>(INFINITY); }
    __device__ void start(int64_t) { best = neutral(); }
    __device__ void add(int64_t, T v) { best = larger_or_nan(best, v); }
    __device__ void merge(const Max& other) { best = larger_or_nan(best, other.best); }
    template <class I>
    __device__ Result result(const Windows<I>&, I, I) const {
        return best;
    }
};

template <class T>
struct Average {
    using Result = T;
    T sum;

    static __device__ T neutral() { return T(0); }
    __device__ void start(int64_t) { sum = 0; }
    __device__ void add(int64_t, T v) { sum += v; }
    __device__ void merge(const Average& other) { sum += other.sum; }
    template <class I>
    __device__ Result result(const Windows<I>& w, I top, I left) const {
        return sum / static_cast<T>(w.divisor(top, left));
    }
};

// The number of the first maximum's tap, row by row; the first tap inside x where all are -inf.
template <class T, class Tap>
struct Winner {
    using Result = Tap;
    T best;
    int32_t tap;  // windows have up to 2^24

    static __device__ T neutral() { return -static_cast<T>(INFINITY); }
    __device__ void start(int64_t first) {
        best = neutral();
        tap = static_cast<int32_t>(first);
    }
    __device__ void add(int64_t number, T v) {
        if (!(v <= best) && best == best) {
            best = v;
            tap = static_cast<int32_t>(number);
        }
    }
    __device__ void merge(const Winner& other) {
        const bool nan = best != best, other_nan = other.best != other.best;
        const bool alike = nan || other_nan ? nan && other_nan : best == other.best;
        if (alike) {
            tap = min(tap, other.tap);
        } else if (other_nan || other.best > best) {
            *this = other;
        }
    }
    template <class I>
    __device__ Result result(const Windows<I>&, I, I) const {
        return static_cast<Tap>(tap);
    }
};

// ---- over windows
// --------------------------------------------------------------------------------

// A vector of channels of a window.
template <class T, int kWidth, int kKind, class I>
class Window {
 public:
    I top, left;

    __device__ Window(const Windows<I>& w, const Place<I>& p)
        : top(w.rows.origin(p.row)),
          left(w.columns.origin(p.column)),
          first_(w.offset(p.sample, top, left, static_cast<int64_t>(p.vector) * kWidth)) {}

    template <class Reduction>
    __device__ void start(const Windows<I>& w, Reduction (&found)[kWidth]) const {
        I first = 0;
        if (kKind != kPair) {
            first = w.rows.first_inside(top) * w.columns.window + w.columns.first_inside(left);
        }
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) found[e].start(first);
    }

    // The tap in a row and a column of the window.
    template <class Reduction>
    __device__ void add(const Windows<I>& w, I i, I j, const T* x,
                        Reduction (&found)[kWidth]) const {
        const bool there = kKind == kPair || (w.rows.inside(top + i * w.rows.dilation) &&
                                              w.columns.inside(left + j * w.columns.dilation));
        Vector<T, kWidth> values;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) values.value[e] = Reduction::neutral();
        if (there)
            values = load_vector<T, kWidth>(x + (first_ + i * w.row_step + j * w.column_step));
        const I columns = kKind == kPair ? 2 : kKind == kThree ? 3 : w.columns.window;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) found[e].add(i * columns + j, values.value[e]);
    }

    template <class Reduction>
    __device__ void add_all(const Windows<I>& w, const T* x, Reduction (&found)[kWidth]) const {
        if constexpr (kKind == kAnyWindow) {
            for (I i = 0; i < w.rows.window; ++i) {
                for (I j = 0; j < w.columns.window; ++j) add(w, i, j, x, found);
            }
        } else {
            constexpr I kSide = kKind == kPair ? 2 : 3;
            CONVKIT_UNROLL
            for (I i = 0; i < kSide; ++i) {
                CONVKIT_UNROLL
                for (I j = 0; j < kSide; ++j) add(w, i, j, x, found);
            }
        }
    }

    template <class Reduction>
    __device__ Vector<typename Reduction::Result, kWidth> results(
        const Windows<I>& w, const Reduction (&found)[kWidth]) const {
        Vector<typename Reduction::Result, kWidth> results;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) results.value[e] = found[e].result(w, top, left);
        return results;
    }

 private:
    int64_t first_;
};

template <class T, class Reduction, int kWidth, int kKind, class I>
__global__ void pool_kernel(Windows<I> w, const T* x, typename Reduction::Result* y) {
    const I item = item_of_thread<I>();
    if (item >= w.outputs.count) return;
    const Window<T, kWidth, kKind, I> window(w, w.outputs.at(item));
    Reduction found[kWidth];
    window.start(w, found);
    window.add_all(w, x, found);
    write_vector<typename Reduction::Result, kWidth>(y + static_cast<int64_t>(item) * kWidth,
                                                     window.results(w, found));
}

// Large windows, of which there may be few: many threads each. Neighbours take neighbouring
// channels or windows, so that they read together.
constexpr int kLargeWindow = 64, kParts = 32, kTogether = kThreads / kParts;

template <class T, class Reduction, int kWidth, class I>
__global__ void pool_large_kernel(Windows<I> w, const T* x, typename Reduction::Result* y) {
    SHARED(Reduction, shared, kThreads * kWidth);
    const int place = static_cast<int>(threadIdx.x) % kTogether;
    const int part = static_cast<int>(threadIdx.x) / kTogether;
    const I item = static_cast<I>(blockIdx.x) * kTogether + place;
    const bool there = item < w.outputs.count;
    const Window<T, kWidth, kAnyWindow, I> window(w, w.outputs.at(there ? item : 0));
    Reduction found[kWidth];
    window.start(w, found);
    if (there) {
        const I taps = w.rows.window * w.columns.window;
        for (I tap = part; tap < taps; tap += kParts)
            window.add(w, w.by_pool_width.quotient(tap), w.by_pool_width.remainder(tap), x, found);
    }
    for (int parts = kParts / 2; parts > 0; parts /= 2) {
        if (part >= parts && part < 2 * parts) {
            CONVKIT_UNROLL
            for (int e = 0; e < kWidth; ++e) shared[e * kThreads + threadIdx.x] = found[e];
        }
        __syncthreads();
        if (part < parts) {
            CONVKIT_UNROLL
            for (int e = 0; e < kWidth; ++e)
                found[e].merge(shared[e * kThreads + threadIdx.x + parts * kTogether]);
        }
    }
    if (there && part == 0) {
        write_vector<typename Reduction::Result, kWidth>(y + static_cast<int64_t>(item) * kWidth,
                                                         window.results(w, found));
    }
}

template <class T, class Reduction>
void pool(const Context& context, const char* name, const Pool2d& s, int64_t n, const T* x,
          typename Reduction::Result* y) {
    const int64_t outputs = n * s.output_size();
    if (outputs == 0) return;
    // Bytes that stand for taps are aligned wherever the values are.
    const T* const aligned_as = sizeof *y == sizeof(T) ? reinterpret_cast<const T*>(y) : nullptr;
    const int width = vector_width<T>(s.channels, {x, aligned_as});
    with_variant<T>(width, std::max(outputs, largest_place(s) * width), [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Windows<I> w(s, n, kWidth);
        if (s.pool_height * s.pool_width >= kLargeWindow) {
            launch(context, name, pool_large_kernel<T, Reduction, kWidth, I>,
                   blocks_for(w.outputs.count, kTogether), dim3(kThreads), 0, w, x, y);
            return;
        }
        auto kernel = pool_kernel<T, Reduction, kWidth, kAnyWindow, I>;
        if constexpr (sizeof(I) == 4) {
            if (kind_of(s) == kPair) kernel = pool_kernel<T, Reduction, kWidth, kPair, I>;
            if (kind_of(s) == kThree) kernel = pool_kernel<T, Reduction, kWidth, kThree, I>;
        }
        launch(context, name, kernel, blocks_for(w.outputs.count), dim3(kThreads), 0, w, x, y);
    });
}

// ---- over pixels of x
// ----------------------------------------------------------------------------

// What a window has for the pixels under its taps: its gradient, and which tap is to get it.
template <class T, class Tap, int kWidth>
struct Given {
    Vector<T, kWidth> gradient;
    Vector<Tap, kWidth> winner;

    __device__ void add_to(Vector<T, kWidth>& sum, int64_t tap) const {
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) {
            const bool wins = winner.value[e] == static_cast<Tap>(tap);
            sum.value[e] += wins ? gradient.value[e] : T(0);
        }
    }
};

template <class T, int kWidth>
struct Given<T, void, kWidth> {
    Vector<T, kWidth> gradient;

    __device__ void add_to(Vector<T, kWidth>& sum, int64_t) const {
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) sum.value[e] += gradient.value[e];
    }
};

template <class T, class Tap>
struct MaxShare {
    const T* dy;
    const Tap* winners;

    template <class I>
    __device__ I places(const Axis<I>&, bool, I) const {
        return 1;
    }
    template <class I>
    __device__ T one_over(I) const {
        return T(1);
    }
    template <int kWidth>
    __device__ Given<T, Tap, kWidth> given(int64_t at, T) const {
        return {load_vector<T, kWidth>(dy + at), load_vector<Tap, kWidth>(winners + at)};
    }
    template <int kWidth>
    __device__ Given<T, Tap, kWidth> nothing() const {
        return {};
    }
    template <int kWidth>
    __device__ void finish(Vector<T, kWidth>&) const {}
};

template <class T>
struct AverageShare {
    const T* dy;
    T same;  // one over the divisor of all windows; 0: they differ

    // A window's divisor is the product of these for its rows and its columns.
    template <class I>
    __device__ I places(const Axis<I>& axis, bool with_pad, I window) const {
        return axis.counted(axis.origin(window), with_pad);
    }
    template <class I>
    __device__ T one_over(I places) const {
        return same == T(0) ? T(1) / static_cast<T>(places) : T(1);
    }
    template <int kWidth>
    __device__ Given<T, void, kWidth> given(int64_t at, T share) const {
        Given<T, void, kWidth> given{load_vector<T, kWidth>(dy + at)};
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) given.gradient.value[e] *= share;
        return given;
    }
    template <int kWidth>
    __device__ Given<T, void, kWidth> nothing() const {
        return {};
    }
    template <int kWidth>
    __device__ void finish(Vector<T, kWidth>& sum) const {
        if (same == T(0)) return;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) sum.value[e] *= same;
    }
};

template <class T, class Share, int kWidth, class I>
__global__ void gather_kernel(Windows<I> w, Share share, T* dx) {
    const I item = item_of_thread<I>();
    if (item >= w.inputs.count) return;
    const Place<I> p = w.inputs.at(item);
    const I last_row = w.rows.last_window(p.row), last_column = w.columns.last_window(p.column);
    const I first_column = w.columns.first_window(p.column);
    Vector<T, kWidth> sum{};
    for (I row = w.rows.first_window(p.row); row <= last_row; ++row) {
        const I i = w.rows.tap(p.row, row);
        if (i < 0) continue;
        const I row_places = share.places(w.rows, w.with_pad, row);
        for (I column = first_column; column <= last_column; ++column) {
            const I j = w.columns.tap(p.column, column);
            if (j < 0) continue;
            const int64_t at = w.output(p.sample, row, column, p.vector * kWidth);
            const I places = row_places * share.places(w.columns, w.with_pad, column);
            const auto given = share.template given<kWidth>(at, share.one_over(places));
            given.add_to(sum, i * w.columns.window + j);
        }
    }
    share.finish(sum);
    write_vector<T, kWidth>(dx + static_cast<int64_t>(item) * kWidth, sum);
}

// 3 x 3 windows in steps of 1 or 2: a thread takes the pixels from the first row and column of a
// window to those of the next, so that it looks at each window over them once.
constexpr int kSide = 3;

template <class T, class Share, int kWidth, int kStride, class I>
__global__ void gather_three_kernel(Windows<I> w, Places<I> cells, Share share, T* dx) {
    constexpr int kReach = (kSide + kStride - 1) / kStride;  // windows over a cell, along an axis
    const I item = item_of_thread<I>();
    if (item >= cells.count) return;
    const Place<I> p = cells.at(item);
    Vector<T, kWidth> sums[kStride * kStride]{};
    T row_parts[kReach], column_parts[kReach];
    CONVKIT_UNROLL
    for (int k = 0; k < kReach; ++k) {
        row_parts[k] = share.one_over(share.places(w.rows, w.with_pad, p.row - k));
        column_parts[k] = share.one_over(share.places(w.columns, w.with_pad, p.column - k));
    }
    CONVKIT_UNROLL
    for (int up = kReach - 1; up >= 0; --up) {
        CONVKIT_UNROLL
        for (int back = kReach - 1; back >= 0; --back) {
            const I row = p.row - up, column = p.column - back;
            auto given = share.template nothing<kWidth>();
            if (row >= 0 && row < w.rows.windows && column >= 0 && column < w.columns.windows) {
                const int64_t at = w.output(p.sample, row, column, p.vector * kWidth);
                given = share.template given<kWidth>(at, row_parts[up] * column_parts[back]);
            }
            CONVKIT_UNROLL
            for (int pixel = 0; pixel < kStride * kStride; ++pixel) {
                const int i = pixel / kStride + up * kStride, j = pixel % kStride + back * kStride;
                if (i < kSide && j < kSide) given.add_to(sums[pixel], i * kSide + j);
            }
        }
    }
    const I top = w.rows.origin(p.row), left = w.columns.origin(p.column);
    T* const to = dx + w.offset(p.sample, 0, 0, static_cast<int64_t>(p.vector) * kWidth);
    CONVKIT_UNROLL
    for (int pixel = 0; pixel < kStride * kStride; ++pixel) {
        const I row = top + pixel / kStride, column = left + pixel % kStride;
        if (!w.rows.inside(row) || !w.columns.inside(column)) continue;
        share.finish(sums[pixel]);
        write_vector<T, kWidth>(to + (row * w.line + column * w.channels), sums[pixel]);
    }
}

// Cells of the windows' stride, from the padding on, that cover x.
template <class I>
Places<I> cells_of(const Pool2d& s, int64_t n, int width) {
    return {n, divide_up(s.height + s.pad_top, s.stride_height),
            divide_up(s.width + s.pad_left, s.stride_width), s.channels / width};
}

template <class T, class Share>
void gather(const Context& context, const char* name, const Pool2d& s, int64_t n, const T* dy,
            const Share& share, T* dx) {
    const int width = vector_width<T>(s.channels, {dy, dx});
    const int64_t padded = n * (s.height + s.pad_top) * (s.width + s.pad_left) * s.channels;
    const int64_t most = std::max(padded, n * s.output_size());
    const bool in_cells = kind_of(s) == kThree && s.dilation_height == 1 && s.dilation_width == 1 &&
                          s.stride_height == s.stride_width && s.stride_height <= 2;
    with_variant<T>(width, std::max(most, largest_place(s) * width), [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Windows<I> w(s, n, kWidth);
        if constexpr (sizeof(I) == 4) {
            if (in_cells) {
                const auto cells = cells_of<I>(s, n, kWidth);
                const auto kernel = s.stride_height == 1
                                        ? gather_three_kernel<T, Share, kWidth, 1, I>
                                        : gather_three_kernel<T, Share, kWidth, 2, I>;
                launch(context, name, kernel, blocks_for(cells.count), dim3(kThreads), 0, w, cells,
                       share, dx);
                return;
            }
        }
        launch(context, name, gather_kernel<T, Share, kWidth, I>, blocks_for(w.inputs.count),
               dim3(kThreads), 0, w, share, dx);
    });
}

// ---- two by two
// ----------------------------------------------------------------------------------

// Writes what lies under a window, and zeros from there to the next windows or the border. x is
// null for averages.
template <class T, bool kMax, int kWidth, class I>
__global__ void pair_backward_kernel(Windows<I> w, const T* dy, const T* x, T* dx) {
    const I item = item_of_thread<I>();
    if (item >= w.outputs.count) return;
    const Place<I> p = w.outputs.at(item);
    const Window<T, kWidth, kPair, I> window(w, p);
    auto gradient = load_vector<T, kWidth>(dy + static_cast<int64_t>(item) * kWidth);
    Winner<T, int32_t> found[kWidth];
    window.start(w, found);
    if constexpr (kMax) {
        window.add_all(w, x, found);
    } else {
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) gradient.value[e] /= T(4);
    }

    T* const to =
        dx + w.offset(p.sample, window.top, window.left, static_cast<int64_t>(p.vector) * kWidth);
    CONVKIT_UNROLL
    for (int tap = 0; tap < 4; ++tap) {
        Vector<T, kWidth> share = gradient;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) {
            if (kMax && found[e].tap != tap) share.value[e] = 0;
        }
        write_vector<T, kWidth>(to + tap / 2 * w.line + tap % 2 * w.channels, share);
    }
    const bool last_row = p.row + 1 == w.rows.windows;
    const bool last_column = p.column + 1 == w.columns.windows;
    const I height = last_row ? w.rows.size - window.top : w.rows.stride;
    const I width = last_column ? w.columns.size - window.left : w.columns.stride;
    for (I i = 0; i < height; ++i) {
        for (I j = i < 2 ? 2 : 0; j < width; ++j)
            write_vector<T, kWidth>(to + i * w.line + j * w.channels, Vector<T, kWidth>{});
    }
}

template <class T, bool kMax>
void pair_backward(const Context& context, const char* name, const Pool2d& s, int64_t n,
                   const T* dy, const T* x, T* dx) {
    const int width = vector_width<T>(s.channels, {dy, x, dx});
    const int64_t most = std::max(n * s.output_size(), largest_place(s) * width);
    with_variant<T>(width, most, [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Windows<I> w(s, n, kWidth);
        launch(context, name, pair_backward_kernel<T, kMax, kWidth, I>, blocks_for(w.outputs.count),
               dim3(kThreads), 0, w, dy, x, dx);
    });
}

// Of two by two windows that do not meet.
bool pairs_apart(const Pool2d& s) {
    return kind_of(s) == kPair && s.stride_height >= 2 && s.stride_width >= 2;
}

template <class T, class Tap>
void max_backward(const Context& context, const Pool2d& s, int64_t n, const T* dy, const T* x,
                  T* dx) {
    const size_t bytes = static_cast<size_t>(n * s.output_size()) * sizeof(Tap);
    Tap* const winners = static_cast<Tap*>(context.queue->workspace(bytes));
    pool<T, Winner<T, Tap>>(context, "max_pool2d_winners", s, n, x, winners);
    gather(context, "max_pool2d_backward", s, n, dy, MaxShare<T, Tap>{dy, winners}, dx);
}

}  // namespace

template <class T>
void max_pool2d(const Context& context, const Pool2d& s, int64_t n, const T* x, T* y) {
    pool<T, Max<T>>(context, "max_pool2d", s, n, x, y);
}

template <class T>
void max_pool2d_backward(const Context& context, const Pool2d& s, int64_t n, const T* dy,
                         const T* x, T* dx) {
    constexpr int64_t kMostInAByte = 256;
    if (n * s.input_size() == 0) return;
    if (pairs_apart(s)) {
        pair_backward<T, true>(context, "max_pool2d_backward", s, n, dy, x, dx);
    } else if (s.pool_height * s.pool_width <= kMostInAByte) {
        max_backward<T, uint8_t>(context, s, n, dy, x, dx);
    } else {
        max_backward<T, int32_t>(context, s, n, dy, x, dx);
    }
}

template <class T>
void avg_pool2d(const Context& context, const Pool2d& s, int64_t n, const T* x, T* y) {
    pool<T, Average<T>>(context, "avg_pool2d", undilated(s), n, x, y);
}

template <class T>
void avg_pool2d_backward(const Context& context, const Pool2d& given, int64_t n, const T* dy,
                         T* dx) {
    const Pool2d s = undilated(given);
    if (n * s.input_size() == 0) return;
    if (pairs_apart(s)) {
        pair_backward<T, false>(context, "avg_pool2d_backward", s, n, dy, nullptr, dx);
        return;
    }
    const T taps = static_cast<T>(s.pool_height * s.pool_width);
    gather(context, "avg_pool2d_backward", s, n, dy,
           AverageShare<T>{dy, all_inside(s) ? 1 / taps : T(0)}, dx);
}

INSTANTIATE(max_pool2d)
INSTANTIATE(max_pool2d_backward)
INSTANTIATE(avg_pool2d)
INSTANTIATE(avg_pool2d_backward)

}  // namespace cuda
}  // namespace convkit
