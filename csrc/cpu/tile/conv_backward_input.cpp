// dx (height, width, channels, kTile) of a tile's convolution from dy (out_height, out_width,
// filters, kTile) and the kernel (kernel_height, kernel_width, channels / groups, filters):
// dx[ih][iw][c] = sum over kh, kw, f of dy[oh][ow][f] kernel[kh][kw][c][f], where
// oh * stride_height + kh * dilation_height = ih + pad_top, and the like for ow.
//
// Blocks of pixels of a row and channels are summed in registers. At the borders a tap meets
// outputs with some of a block's pixels only; the sum then runs over these alone, since zeros
// around dy would double the work of a 5 x 5 kernel on 10 x 10 outputs. With strides, the pixels of
// a block are those that the same taps meet: they lie as far apart as the stride.
#include <limits>

#include "cpu_kernels.h"
#include "gemm.h"
#include "tile/tile.h"
#include "tile/winograd.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Registers of a value that one pass works on, and pixels and channels of a block.
template <class T>
constexpr int kRegisters = std::min(kParts<T>, 2);
template <class T>
constexpr int64_t kPassLanes = kRegisters<T> * kLanes<T>;
constexpr int kBlockChannels = 6;
template <class T>
constexpr int get_pixels(int64_t channels) {
    return std::max(1, std::min(4, kSums / static_cast<int>(channels * kRegisters<T>)));
}

// A row or a column of the kernel, as a place of dx meets it: offsets into the kernel and dy. Of
// the pixels of a block it meets low .. high; dy is that of pixel low.
struct Tap {
    int64_t kernel, dy;
    int low, high;
};

// A row of pixels, or the columns of a block: its offset into dx, and which taps it meets.
struct Place {
    int64_t dx;
    const Tap* taps;
    int64_t count;
    int pixels;
};

// Distances between neighbours of a block and in a sum.
struct Steps {
    int64_t dy_pixel, dx_pixel, kernel_channel, filters;
};

template <class T, int C, int P>
using Sums = Vec<T>[P][kRegisters<T>][C];

// Pixels kLow .. kHigh: sum += dy kernel, over the filters.
template <class T, int C, int P, int kLow, int kHigh>
static inline CONVKIT_INLINE void add_products(const Steps& s, const T* dy, const T* kernel,
                                               Sums<T, C, P>& sum) {
    constexpr int V = kRegisters<T>;
    for (int64_t f = 0; f < s.filters; ++f) {
        Vec<T> gradient[P][V];
        CONVKIT_UNROLL
        for (int p = kLow; p < kHigh; ++p) {
            CONVKIT_UNROLL
            for (int v = 0; v < V; ++v) {
                gradient[p][v] = load(dy + (p - kLow) * s.dy_pixel + f * kTile + v * kLanes<T>);
            }
        }
        CONVKIT_UNROLL
        for (int c = 0; c < C; ++c) {
            const Vec<T> weight = broadcast(kernel[c * s.kernel_channel + f]);
            CONVKIT_UNROLL
            for (int p = kLow; p < kHigh; ++p) {
                CONVKIT_UNROLL
                for (int v = 0; v < V; ++v) sum[p][v][c] += weight * gradient[p][v];
            }
        }
    }
}

// The same for pixels tap.low .. tap.high: the instance for these, looked for from kLow upwards,
// then from kHigh downwards.
template <class T, int C, int P, int kLow = 0, int kHigh = P>
static inline CONVKIT_INLINE void add_tap(const Tap& tap, const Steps& s, const T* dy,
                                          const T* kernel, Sums<T, C, P>& sum) {
    if constexpr (kHigh == P && kLow + 1 < P) {
        if (tap.low > kLow) return add_tap<T, C, P, kLow + 1, P>(tap, s, dy, kernel, sum);
    }
    if constexpr (kHigh > kLow + 1) {
        if (tap.high < kHigh) {
            return add_tap<T, C, P, kLow, kHigh - 1>(tap, s, dy, kernel, sum);
        }
    }
    add_products<T, C, P, kLow, kHigh>(s, dy, kernel, sum);
}

// One pass over a block of C channels.
template <class T, int C>
void add_block(const Steps& s, const Place& row, const Place& column, const T* dy, const T* kernel,
               T* dx) {
    constexpr int P = get_pixels<T>(C), V = kRegisters<T>;
    Sums<T, C, P> sum;
    CONVKIT_UNROLL
    for (int p = 0; p < P; ++p) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            CONVKIT_UNROLL
            for (int c = 0; c < C; ++c) sum[p][v][c] = Vec<T>{};
        }
    }
    for (int64_t i = 0; i < row.count; ++i) {
        for (int64_t j = 0; j < column.count; ++j) {
            const Tap& tap = column.taps[j];
            add_tap<T, C, P>(tap, s, dy + row.taps[i].dy + tap.dy,
                             kernel + row.taps[i].kernel + tap.kernel, sum);
        }
    }
    CONVKIT_UNROLL
    for (int p = 0; p < P; ++p) {
        if (p >= column.pixels) break;
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) {
            CONVKIT_UNROLL
            for (int c = 0; c < C; ++c) {
                store(dx + p * s.dx_pixel + c * kTile + v * kLanes<T>, sum[p][v][c]);
            }
        }
    }
}

template <class T>
using AddBlock = void (*)(const Steps&, const Place&, const Place&, const T*, const T*, T*);

template <class T, size_t... C>
AddBlock<T> get_add_block(int64_t channels, std::index_sequence<C...>) {
    static constexpr AddBlock<T> table[] = {add_block<T, static_cast<int>(C) + 1>...};
    return table[channels - 1];
}

// Depthwise: every channel has its own filter. One pixel of C channels.
template <class T, int C>
void add_depthwise(const Place& row, const Place& column, const T* dy, const T* kernel, T* dx) {
    constexpr int V = kParts<T>;
    Vec<T> sum[C][V];
    CONVKIT_UNROLL
    for (int c = 0; c < C; ++c) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) sum[c][v] = Vec<T>{};
    }
    for (int64_t i = 0; i < row.count; ++i) {
        for (int64_t j = 0; j < column.count; ++j) {
            const T* from = dy + row.taps[i].dy + column.taps[j].dy;
            const T* weights = kernel + row.taps[i].kernel + column.taps[j].kernel;
            CONVKIT_UNROLL
            for (int c = 0; c < C; ++c) {
                const Vec<T> weight = broadcast(weights[c]);
                CONVKIT_UNROLL
                for (int v = 0; v < V; ++v) {
                    sum[c][v] += weight * load(from + c * kTile + v * kLanes<T>);
                }
            }
        }
    }
    CONVKIT_UNROLL
    for (int c = 0; c < C; ++c) {
        CONVKIT_UNROLL
        for (int v = 0; v < V; ++v) store(dx + c * kTile + v * kLanes<T>, sum[c][v]);
    }
}

// Taps that meet place `at` of an axis, padding counted, and their outputs. Of `pixels` places, a
// stride apart, at least one has an output.
struct Axis {
    int64_t taps, stride, dilation, outputs;
    int64_t kernel_step, dy_step;

    int64_t find(int64_t at, int pixels, Tap* found) const {
        int64_t count = 0;
        for (int64_t tap = 0; tap < taps; ++tap, at -= dilation) {
            const int64_t output = stride == 1 ? at : at / stride;
            if (output * stride != at) continue;
            const int64_t low = std::max<int64_t>(0, -output);
            const int64_t high = std::min<int64_t>(pixels, outputs - output);
            if (low >= high) continue;
            found[count++] = {tap * kernel_step, (output + low) * dy_step, static_cast<int>(low),
                              static_cast<int>(high)};
        }
        return count;
    }
};

// All places of dx, the same for every tile.
struct Places {
    const Place* rows;
    const Place* columns;
    int64_t row_count, column_count;
};

Places find_places(const Conv2d& s, int pixels) {
    const int64_t channels = s.channels / s.groups;
    const Axis down = {s.kernel_height,
                       s.stride_height,
                       s.dilation_height,
                       s.out_height,
                       s.kernel_width * channels * s.filters,
                       s.out_width * s.filters * kTile};
    const Axis right = {s.kernel_width, s.stride_width,       s.dilation_width,
                        s.out_width,    channels * s.filters, s.filters * kTile};
    Tap* taps = scratch<Tap>(kPackA, s.height * s.kernel_height + s.width * s.kernel_width);
    Place* rows = scratch<Place>(kPackB, s.height + s.width);
    Place* columns = rows + s.height;
    for (int64_t ih = 0; ih < s.height; ++ih) {
        const int64_t count = down.find(ih + s.pad_top, 1, taps);
        rows[ih] = {ih * s.width * s.channels * kTile, taps, count, 1};
        taps += count;
    }
    int64_t blocks = 0;
    for (int64_t phase = 0; phase < std::min(s.stride_width, s.width); ++phase) {
        for (int64_t iw = phase; iw < s.width; iw += pixels * s.stride_width) {
            const int64_t left = divide_up(s.width - iw, s.stride_width);
            const int used = static_cast<int>(std::min<int64_t>(pixels, left));
            const int64_t count = right.find(iw + s.pad_left, used, taps);
            columns[blocks++] = {iw * s.channels * kTile, taps, count, used};
            taps += count;
        }
    }
    return {rows, columns, s.height, blocks};
}

template <class T>
void depthwise(const Conv2d& s, int64_t tiles, const T* dy, const T* kernel, T* dx) {
    constexpr int C = std::max(1, 8 / kParts<T>);
    const Places places = find_places(s, 1);
    for (int64_t i = 0; i < tiles * places.row_count; ++i) {
        const Place& row = places.rows[i % places.row_count];
        const T* from = dy + i / places.row_count * s.output_size() * kTile;
        T* to = dx + i / places.row_count * s.input_size() * kTile + row.dx;
        for (int64_t j = 0; j < places.column_count; ++j) {
            const Place& column = places.columns[j];
            int64_t c = 0;
            for (; c + C <= s.channels; c += C) {
                add_depthwise<T, C>(row, column, from + c * kTile, kernel + c,
                                    to + column.dx + c * kTile);
            }
            for (; c < s.channels; ++c) {
                add_depthwise<T, 1>(row, column, from + c * kTile, kernel + c,
                                    to + column.dx + c * kTile);
            }
        }
    }
}

// All tiles by Winograd's method.
template <class T>
void convolve_windows(const Winograd& shape, int64_t tiles, const T* dy, const T* kernel, T* dx) {
    WinogradTiles<T> work(shape, tiles, kernel);
    work.for_each_window(dy, [&](const typename WinogradTiles<T>::Window& window) {
        work.store_window(window, nullptr, -std::numeric_limits<T>::infinity(), dx);
    });
}

}  // namespace

template <class T>
void tile_conv2d_backward_input(const Context&, const Conv2d& s, int64_t n, const T* dy,
                                const T* kernel, T* dx) {
    const int64_t tiles = in_tiles(n) / kTile;
    const int64_t channels = s.channels / s.groups, filters = s.filters / s.groups;
    if (channels == 1 && filters == 1) return depthwise(s, tiles, dy, kernel, dx);
    const Winograd windows = Winograd::backward_input(s);
    if (Winograd::pays(s, windows)) return convolve_windows(windows, tiles, dy, kernel, dx);

    const int64_t blocks = divide_up(channels, kBlockChannels);
    const int64_t widest = divide_up(channels, blocks);
    const Places places = find_places(s, get_pixels<T>(widest));
    const Steps steps = {s.filters * kTile, s.stride_width * s.channels * kTile, s.filters,
                         filters};
    for (int64_t i = 0; i < tiles * places.row_count; ++i) {
        const Place& row = places.rows[i % places.row_count];
        const T* tile_dy = dy + i / places.row_count * s.output_size() * kTile;
        T* row_dx = dx + i / places.row_count * s.input_size() * kTile + row.dx;
        for (int64_t block = 0; block < s.groups * blocks; ++block) {
            const int64_t group = block / blocks;
            const int64_t begin = cut(channels, blocks, block % blocks);
            const int64_t end = cut(channels, blocks, block % blocks + 1);
            const AddBlock<T> add =
                get_add_block<T>(end - begin, std::make_index_sequence<kBlockChannels>());
            const T* from = tile_dy + group * filters * kTile;
            const T* weights = kernel + begin * s.filters + group * filters;
            T* to = row_dx + (group * channels + begin) * kTile;
            for (int64_t j = 0; j < places.column_count; ++j) {
                for (int64_t lane = 0; lane < kTile; lane += kPassLanes<T>) {
                    add(steps, row, places.columns[j], from + lane, weights,
                        to + places.columns[j].dx + lane);
                }
            }
        }
    }
}

INSTANTIATE(tile_conv2d_backward_input)

}  // namespace CONVKIT_ISA
}  // namespace convkit
