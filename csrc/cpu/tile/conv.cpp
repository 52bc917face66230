// Convolution of a tile, with bias, max-pooling and activation while the sums are in registers, and
// the way back through activation and pooling.
//
//   z[oh, ow, f] = bias[f] + sum over kh, kw, c of
//       x[oh * stride - pad + kh * dilation, ow * stride - pad + kw * dilation, c]
//       * kernel[kh, kw, c, f], where the pixel lies in the picture
//   y[h, w, f] = activation(the largest z of window h, w), mask: which it was
//   dz[oh, ow, f] = activation'(y) * dy[h, w, f] where mask says so, else 0
//
// x (height, width, channels, kTile), kernel (kernel_height, kernel_width, channels / groups,
// filters), bias (filters), may be null; y, dy and mask, which may be null in the forward pass,
// (pooled_height, pooled_width, filters, kTile); dz (out_height, out_width, filters, kTile).
#include <limits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu_kernels.h"
#include "tile/block.h"
#include "tile/tile.h"
#include "tile/winograd.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// ---- masks: small integers in the lanes of T, bytes in memory -----------------------------------
// Where there is no instruction for it, the compiler converts well only in steps of one width.
template <class E, class T>
struct LanesOf {
    typedef E type __attribute__((vector_size(sizeof(E) * kLanes<T>)));
};
template <class E, class T>
using Lanewise = typename LanesOf<E, T>::type;

template <class T>
static inline void store_bytes(uint8_t* p, Ints<T> v) {
#if defined(__AVX512F__)
    const auto bits = reinterpret_cast<__m512i>(v);
    const __m128i bytes = sizeof(T) == 4 ? _mm512_maskz_cvtepi32_epi8(0xffff, bits)
                                         : _mm512_maskz_cvtepi64_epi8(0xff, bits);
    std::memcpy(p, &bytes, kLanes<T>);
#else
    const auto words = __builtin_convertvector(v, Lanewise<int32_t, T>);
    const auto halves = __builtin_convertvector(words, Lanewise<int16_t, T>);
    const auto bytes = __builtin_convertvector(halves, Lanewise<uint8_t, T>);
    std::memcpy(p, &bytes, sizeof bytes);
#endif
}

template <class T>
static inline Ints<T> load_bytes(const uint8_t* p) {
#if defined(__AVX2__)
    __m128i bytes = {};
    std::memcpy(&bytes, p, kLanes<T>);
#if defined(__AVX512F__)
    return reinterpret_cast<Ints<T>>(sizeof(T) == 4 ? _mm512_maskz_cvtepu8_epi32(0xffff, bytes)
                                                    : _mm512_maskz_cvtepu8_epi64(0xff, bytes));
#else
    return reinterpret_cast<Ints<T>>(sizeof(T) == 4 ? _mm256_cvtepu8_epi32(bytes)
                                                    : _mm256_cvtepu8_epi64(bytes));
#endif
#else
    Lanewise<uint8_t, T> bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    const auto halves = __builtin_convertvector(bytes, Lanewise<int16_t, T>);
    const auto words = __builtin_convertvector(halves, Lanewise<int32_t, T>);
    return __builtin_convertvector(words, Ints<T>);
#endif
}

// ---- forward ------------------------------------------------------------------------------------
// What the blocks of one call share.
template <class T>
struct Layer {
    const Conv2d& s;
    const T* kernel;
    const T* bias;
    T floor;  // of the outputs: 0 for relu, else -infinity

    int64_t channels() const { return s.channels / s.groups; }
    int64_t units() const { return s.filters / s.groups; }
};

// Whether z takes the place of the largest so far: the first of equals stays, and so does a NaN.
template <class T>
static inline CONVKIT_INLINE Ints<T> beats(Vec<T> z, Vec<T> best) {
    return ~(z <= best) & (best == best);
}

// The largest of a window of 2 x 2, and which it was. By value: as an array the sums would be kept
// in memory.
template <class T>
static inline CONVKIT_INLINE void store_largest(Vec<T> first, Vec<T> second, Vec<T> third,
                                                Vec<T> fourth, Vec<T> floor, T* y, uint8_t* mask) {
    Vec<T> best = first;
    Ints<T> at{};
    const auto challenge = [&](Vec<T> z, int i) CONVKIT_INLINE {
        const Ints<T> better = beats<T>(z, best);
        best = better ? z : best;
        at = better ? Ints<T>{} + i : at;
    };
    challenge(second, 1);
    challenge(third, 2);
    challenge(fourth, 3);
    store(y, best < floor ? floor : best);
    if (mask) store_bytes<T>(mask, at);
}

// The sums of kFilters filters at a patch, for one part of the lanes. With two rows of pixels the
// outputs are the largest of 2 x 2 windows, else the sums themselves. x is where the window of the
// first pixel begins: it may lie outside the picture, so it is a place and no pointer.
template <class T, int kRows, int kColumns, int kFilters>
__attribute__((noinline)) void block(const Layer<T>& layer, const Patch& patch, const T* x,
                                     int64_t place, int64_t f, T* y, uint8_t* mask) {
    constexpr int kPixels = kRows * kColumns;
    const int64_t step = layer.s.filters;
    const T* kernel = layer.kernel + f;
    Vec<T> sums[kPixels][kFilters];
    CONVKIT_UNROLL
    for (int i = 0; i < kFilters; ++i) {
        const Vec<T> shift = broadcast(layer.bias ? layer.bias[f + i] : T(0));
        CONVKIT_UNROLL
        for (int p = 0; p < kPixels; ++p) sums[p][i] = shift;
    }
    const Run* run = patch.runs;
    constexpr int64_t none = 0;
    for (const Run* end = run + patch.common; run != end; ++run) {
        add_run<T, kPixels, kFilters>(x + (place + run->place), patch.at, kernel + run->weight,
                                      step, run->count, sums);
    }
    if (patch.end[kPixels - 1] != patch.common) {
        CONVKIT_UNROLL
        for (int p = 0; p < kPixels; ++p) {
            for (const Run* end = patch.runs + patch.end[p]; run != end; ++run) {
                add_run<T, 1, kFilters>(x + (place + run->place), &none, kernel + run->weight, step,
                                        run->count, sums + p);
            }
        }
    }
    const Vec<T> floor = broadcast(layer.floor);
    if constexpr (kRows == 1) {
        CONVKIT_UNROLL
        for (int p = 0; p < kPixels; ++p) {
            CONVKIT_UNROLL
            for (int i = 0; i < kFilters; ++i) {
                const Vec<T> z = sums[p][i];
                store(y + (p * step + i) * kTile, z < floor ? floor : z);
            }
        }
    } else {
        CONVKIT_UNROLL
        for (int p = 0; p < kColumns; p += 2) {
            CONVKIT_UNROLL
            for (int i = 0; i < kFilters; ++i) {
                const int64_t to = (p / 2 * step + i) * kTile;
                store_largest<T>(sums[p][i], sums[p + 1][i], sums[kColumns + p][i],
                                 sums[kColumns + p + 1][i], floor, y + to,
                                 mask ? mask + to : nullptr);
            }
        }
    }
}

// The block of as many filters as `filters` says.
template <class T, int kRows, int kColumns, int kFilters = most_filters<T>(kRows * kColumns)>
static inline void block_of(int64_t filters, const Layer<T>& layer, const Patch& patch, const T* x,
                            int64_t place, int64_t f, T* y, uint8_t* mask) {
    if (kFilters == 1 || filters == kFilters) {
        block<T, kRows, kColumns, kFilters>(layer, patch, x, place, f, y, mask);
    } else if constexpr (kFilters > 1) {
        block_of<T, kRows, kColumns, kFilters - 1>(filters, layer, patch, x, place, f, y, mask);
    }
}

// All filters at a patch, in blocks of about the same size.
template <class T, int kRows, int kColumns>
void all_filters(const Layer<T>& layer, const Patch& patch, const T* x, int64_t place, T* y,
                 uint8_t* mask) {
    for (int64_t group = 0; group < layer.s.groups; ++group, x += layer.channels() * kTile) {
        const int64_t end = (group + 1) * layer.units();
        for (int64_t f = group * layer.units(), count = 0; f < end; f += count) {
            count = divide_up(end - f, divide_up(end - f, most_filters<T>(kRows * kColumns)));
            for (int part = 0; part < kParts<T>; ++part) {
                const int64_t lane = part * kLanes<T>, to = f * kTile + lane;
                const T* from = x + lane;
                uint8_t* const at = mask ? mask + to : nullptr;
                block_of<T, kRows, kColumns>(count, layer, patch, from, place, f, y + to, at);
            }
        }
    }
}

// All patches of the row of outputs whose first pixel is (row, column).
template <class T, int kRows>
void convolve_row(const Layer<T>& layer, PatchRow& line, const T* x, int64_t row, int64_t column,
                  T* y, uint8_t* mask) {
    const Conv2d& s = layer.s;
    const int64_t pixel = s.filters * kTile;
    const int64_t top = (row * s.stride_height - s.pad_top) * s.width * s.channels * kTile;
    line.go(row, column);
    for (int64_t i = 0; i < line.count; ++i) {
        const Patch& patch = line.patches[i];
        T* const to = y + patch.output * pixel;
        uint8_t* const at = mask ? mask + patch.output * pixel : nullptr;
        const int64_t place = top + patch.left;
        switch (patch.columns) {
            case 8:
                if constexpr (kRows == 1) all_filters<T, 1, 8>(layer, patch, x, place, to, at);
                break;
            case 4:
                all_filters<T, kRows, 4>(layer, patch, x, place, to, at);
                break;
            case 2:
                all_filters<T, kRows, 2>(layer, patch, x, place, to, at);
                break;
            default:
                if constexpr (kRows == 1) all_filters<T, 1, 1>(layer, patch, x, place, to, at);
        }
    }
}

// best = the larger of best and z, mask = `position` where z was.
template <class T>
void keep_larger(const T* z, int64_t size, int position, T* best, uint8_t* mask) {
    for (int64_t i = 0; i < size; i += kLanes<T>) {
        const Vec<T> value = load(z + i), before = load(best + i);
        const Ints<T> better = beats<T>(value, before);
        store(best + i, better ? value : before);
        if (mask) {
            const Ints<T> at = load_bytes<T>(mask + i);
            store_bytes<T>(mask + i, better ? Ints<T>{} + position : at);
        }
    }
}

// One row of outputs before the activation, of windows of any size: the largest so far stands in y.
template <class T>
void pool_row(const FusedConv2d& s, const Layer<T>& layer, PatchRow& line, const T* x, int64_t h,
              T* y, uint8_t* mask) {
    const int64_t size = s.pooled_width() * s.conv.filters * kTile;
    for (int64_t i = 0; i < s.pool_height * s.pool_width; ++i) {
        T* z = i == 0 ? y : scratch<T>(kLocal, size);
        convolve_row<T, 1>(layer, line, x, h * s.pool_height + i / s.pool_width, i % s.pool_width,
                           z, nullptr);
        if (i > 0) keep_larger(z, size, static_cast<int>(i), y, mask);
    }
}

// All tiles by Winograd's method, without pooling or with windows of 2 x 2.
template <class T>
void convolve_windows(const Winograd& shape, const Layer<T>& layer, bool pooled, int64_t tiles,
                      const T* x, T* y, uint8_t* mask) {
    const int64_t pixel = layer.s.filters * kTile;
    WinogradTiles<T> work(shape, tiles, layer.kernel);
    work.for_each_window(x, [&](const typename WinogradTiles<T>::Window& window) {
        if (!pooled) return work.store_window(window, layer.bias, layer.floor, y);
        const Vec<T> floor = broadcast(layer.floor);
        const int64_t place =
            ((window.tile * shape.rows + window.row) * shape.columns + window.column) * pixel;
        work.for_each_output(window, [&](int64_t k, const Vec<T>(&z)[4]) CONVKIT_INLINE {
            const Vec<T> shift = broadcast(layer.bias ? layer.bias[k / kTile] : T(0));
            store_largest<T>(z[0] + shift, z[1] + shift, z[2] + shift, z[3] + shift, floor,
                             y + place + k, mask ? mask + place + k : nullptr);
        });
    });
}

// ---- backward -----------------------------------------------------------------------------------
// A row of windows, of kPool x kPool pixels, or of any size where kPool is 0.
template <class T, int kPool>
void unpool_row(const FusedConv2d& s, const T* dy, const T* y, const uint8_t* mask, T* dz) {
    const T slope = static_cast<T>(s.slope);
    const int64_t kind = s.activation;
    const int64_t pixel = s.conv.filters * kTile, row = s.conv.out_width * pixel;
    const int64_t height = kPool ? kPool : s.pool_height, width = kPool ? kPool : s.pool_width;
    const int64_t covered = s.pooled_width() * width * pixel;
    for (int64_t w = 0; w < s.pooled_width(); ++w) {
        T* to = dz + w * width * pixel;
        for (int64_t i = 0; i < pixel; i += kLanes<T>) {
            const Vec<T> g = activate_backward<T>(kind, slope, load(dy + i), load(y + i));
            const Ints<T> at = load_bytes<T>(mask + i);
            int position = 0;
            for (int64_t a = 0; a < height; ++a) {
                for (int64_t b = 0; b < width; ++b, ++position) {
                    store(to + a * row + b * pixel + i, at == Ints<T>{} + position ? g : Vec<T>{});
                }
            }
        }
        dy += pixel;
        y += pixel;
        mask += pixel;
    }
    for (int64_t a = 0; a < height; ++a) {
        std::memset(dz + a * row + covered, 0, sizeof(T) * (row - covered));
    }
}

template <class T, int kPool>
void unpool_tile(const FusedConv2d& s, const T* dy, const T* y, const uint8_t* mask, T* dz) {
    const int64_t from = s.pooled_width() * s.conv.filters * kTile;
    const int64_t row = s.conv.out_width * s.conv.filters * kTile;
    for (int64_t h = 0; h < s.pooled_height(); ++h) {
        unpool_row<T, kPool>(s, dy + h * from, y + h * from, mask + h * from,
                             dz + h * s.pool_height * row);
    }
    const int64_t covered = s.pooled_height() * s.pool_height;
    std::memset(dz + covered * row, 0, sizeof(T) * (s.conv.out_height - covered) * row);
}

}  // namespace

template <class T>
void tile_conv2d(const Context&, const FusedConv2d& s, int64_t n, const T* x, const T* kernel,
                 const T* bias, T* y, uint8_t* mask) {
    const bool square = s.pool_height == 2 && s.pool_width == 2;
    const bool fused = s.activation == kRelu && (square || s.pool_height * s.pool_width == 1);
    const T slope = static_cast<T>(s.slope);
    const T floor = fused ? 0 : -std::numeric_limits<T>::infinity();
    const Layer<T> layer = {s.conv, kernel, bias, floor};
    const int64_t size = s.pooled_width() * s.conv.filters * kTile;
    if (mask && !square) std::memset(mask, 0, in_tiles(n) * s.output_size());
    const Winograd windows = Winograd::forward(s.conv, square);
    if ((square || s.pool_height * s.pool_width == 1) && Winograd::pays(s.conv, windows)) {
        convolve_windows(windows, layer, square, in_tiles(n) / kTile, x, y, mask);
        if (!fused) activate_values<T>(s.activation, slope, in_tiles(n) * s.output_size(), y);
        return;
    }
    int columns = 8;
    while (columns > 2 && layer.units() > most_filters<T>(columns)) columns /= 2;
    if (square) columns = std::max(4, columns) / 2;
    PatchRow line(s.conv, square ? 2 : 1, s.pooled_width(), square ? 1 : s.pool_width, columns);
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        for (int64_t h = 0; h < s.pooled_height(); ++h) {
            if (square) {
                convolve_row<T, 2>(layer, line, x, 2 * h, 0, y, mask);
            } else {
                pool_row(s, layer, line, x, h, y, mask);
            }
            if (!fused) activate_values<T>(s.activation, slope, size, y);
            y += size;
            if (mask) mask += size;
        }
        x += s.conv.input_size() * kTile;
    }
}

template <class T>
void tile_unpool2d(const Context&, const FusedConv2d& s, int64_t n, const T* dy, const T* y,
                   const uint8_t* mask, T* dz) {
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        if (s.pool_height == 2 && s.pool_width == 2) {
            unpool_tile<T, 2>(s, dy, y, mask, dz);
        } else if (s.pool_height == 1 && s.pool_width == 1) {
            unpool_tile<T, 1>(s, dy, y, mask, dz);
        } else {
            unpool_tile<T, 0>(s, dy, y, mask, dz);
        }
        dy += s.output_size() * kTile;
        y += s.output_size() * kTile;
        mask += s.output_size() * kTile;
        dz += s.conv.output_size() * kTile;
    }
}

INSTANTIATE(tile_conv2d)
INSTANTIATE(tile_unpool2d)

}  // namespace CONVKIT_ISA
}  // namespace convkit
