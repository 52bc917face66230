// Winograd's method: convolutions of tiles with 3 x 3 or 5 x 5 kernels, stride 1, in windows of
// 2 x 2 outputs. A window takes 16 or 36 products per channel and filter where the sums take 36 or
// 100 (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015):
//
//   z = A' [(G w G') * (B' d B)] A, of a patch d of 4 x 4 or 6 x 6 values and a kernel w
//
// where A, B and G follow from the places at which polynomials are evaluated and multiplied:
//
// F(2 x 2, 3 x 3): 0, 1, -1, infinity. Nothing but 0, 1, -1 and halves: on small integers results
// are exact, and rounding errors are about those of the sums.
//
// F(2 x 2, 5 x 5): 0, 3/4, -3/4, 3/2, -3/2, infinity. Errors are about 2 times those of the sums,
// where the customary 0, 1, -1, 2, -2, infinity have 3 to 4 times. (A, B exact in binary; a small
// spread around 1, as Barabasz and others advise: Error Analysis and Improving the Accuracy of
// Winograd Convolution for Deep Neural Networks, 2020.)
//
// An output takes part of its own values alone, so a NaN reaches no others, as in the sums.
// But an infinity mostly becomes a NaN, since it meets itself in differences; and what is not
// finite in the kernel reaches outputs at the border from the zeros beyond it too.
#pragma once

#include "gemm.h"
#include "specs.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {

// A convolution of x (height, width, channels, kTile) in rows x columns windows.
struct Winograd {
    int64_t taps;  // of the kernel, over each axis
    int64_t height, width, channels;
    int64_t out_height, out_width, filters;
    int64_t pad_top, pad_left;
    int64_t rows, columns;
    int64_t channel_step, filter_step;  // between weights of one place of the kernel
    bool turned;                        // the kernel, by 180 degrees

    // The convolution itself; windows that reach out of the picture are left out where outputs are
    // pooled.
    static Winograd forward(const Conv2d& s, bool pooled) {
        const int64_t rest = pooled ? 0 : 1;
        const int64_t rows = (s.out_height + rest) / 2, columns = (s.out_width + rest) / 2;
        return {s.kernel_height, s.height,  s.width,   s.channels, s.out_height,
                s.out_width,     s.filters, s.pad_top, s.pad_left, rows,
                columns,         s.filters, 1,         false};
    }

    // From dy to dx.
    static Winograd backward_input(const Conv2d& s) {
        const int64_t rows = divide_up(s.height, 2), columns = divide_up(s.width, 2);
        const int64_t reach = s.kernel_height - 1;
        return {s.kernel_height,    s.out_height, s.out_width, s.filters,
                s.height,           s.width,      s.channels,  reach - s.pad_top,
                reach - s.pad_left, rows,         columns,     1,
                s.filters,          true};
    }

    // Whether this can be used for `s`, and is expected to be clearly faster than the sums: by 15 %
    // or more, where it was measured. Costs are in multiply-adds of a value. That of transforming a
    // channel or filter of a window is an upper one of those measured: it waits for the cache, so
    // the wider the registers, the more multiply-adds are done meanwhile.
    static bool pays(const Conv2d& s, const Winograd& shape) {
        const bool large = shape.taps == 5;
        const int64_t points = shape.points(), transform = large ? kLargeTransform : kTransform;
        if (s.algorithm != static_cast<int64_t>(ConvAlgorithm::kAutomatic) || only_direct() ||
            (shape.taps != 3 && !large) || s.kernel_width != shape.taps || s.stride_height != 1 ||
            s.stride_width != 1 || s.dilation_height != 1 || s.dilation_width != 1 ||
            s.groups != 1 || std::min(s.channels, s.filters) < kLeast) {
            return false;
        }
        const int64_t products = s.channels * s.filters, windows = shape.rows * shape.columns;
        const int64_t sums =
            shape.met(2 * shape.rows, shape.out_height, shape.height, shape.pad_top) *
            shape.met(2 * shape.columns, shape.out_width, shape.width, shape.pad_left);
        const int64_t cost = (points * windows + kKernelTransform) * products +
                             transform * windows * (s.channels + s.filters);
        return cost < sums * products;
    }

    // Values over an axis of a patch, and of a patch.
    int64_t side() const { return taps + 1; }
    int64_t points() const { return side() * side(); }

 private:
    static constexpr int64_t kTransform = kVectorBytes == 64 ? 160 : 2 * kVectorBytes;
    static constexpr int64_t kLargeTransform = kVectorBytes == 64 ? 200 : 4 * kVectorBytes;
    static constexpr int64_t kKernelTransform = 10, kLeast = 6;

    // Places of the kernel that meet x, over one axis of outputs.
    int64_t met(int64_t covered, int64_t outputs, int64_t size, int64_t pad) const {
        int64_t count = 0;
        for (int64_t tap = 0; tap < taps; ++tap) {
            const Range range = inside(tap - pad, 1, size, std::min(covered, outputs));
            count += range.end - range.begin;
        }
        return count;
    }
};

// One axis of the transforms: of x, and back.
template <int kTaps>
struct WinogradAxis;

template <>
struct WinogradAxis<3> {
    template <class V>
    static CONVKIT_INLINE void patch(const V (&d)[4], V (&to)[4]) {
        to[0] = d[0] - d[2];
        to[1] = d[1] + d[2];
        to[2] = d[2] - d[1];
        to[3] = d[1] - d[3];
    }
    template <class V>
    static CONVKIT_INLINE void outputs(const V (&m)[4], V (&z)[2]) {
        z[0] = m[0] + m[1] + m[2];
        z[1] = m[1] - m[2] - m[3];
    }
};

template <>
struct WinogradAxis<5> {
    // kA = 3/4, kB = 3/2; squares, and their sum and product.
    static constexpr double kA = 0.75, kB = 1.5, kAA = kA * kA, kBB = kB * kB;
    static constexpr double kSum = kAA + kBB, kProduct = kAA * kBB;

    template <class V>
    static CONVKIT_INLINE void patch(const V (&d)[6], V (&to)[6]) {
        using T = std::decay_t<decltype(d[0][0])>;
        const V even_a = d[4] - T(kBB) * d[2], odd_a = d[3] - T(kBB) * d[1];
        const V even_b = d[4] - T(kAA) * d[2], odd_b = d[3] - T(kAA) * d[1];
        to[0] = T(kProduct) * d[0] + (d[4] - T(kSum) * d[2]);
        to[1] = even_a + T(kA) * odd_a;
        to[2] = even_a - T(kA) * odd_a;
        to[3] = even_b + T(kB) * odd_b;
        to[4] = even_b - T(kB) * odd_b;
        to[5] = T(kProduct) * d[1] + (d[5] - T(kSum) * d[3]);
    }
    template <class V>
    static CONVKIT_INLINE void outputs(const V (&m)[6], V (&z)[2]) {
        using T = std::decay_t<decltype(m[0][0])>;
        z[0] = (m[0] + (m[1] + m[2])) + (m[3] + m[4]);
        z[1] = (m[5] + T(kA) * (m[1] - m[2])) + T(kB) * (m[3] - m[4]);
    }
};

// Computes windows strip by strip, in the scratch of kPackA, kPackB and kLocal.
template <class T>
class WinogradTiles {
 public:
    // A window, and its sums in the transformed domain.
    struct Window {
        int64_t tile, row, column;
        const T* products;
        int64_t step;  // between the points

        // Its 2 x 2 outputs, at `at` of (filters, kTile).
        template <int kTaps>
        CONVKIT_INLINE void get(int64_t at, Vec<T> (&z)[4]) const {
            constexpr int kSide = kTaps + 1;
            Vec<T> half[2][kSide];
            CONVKIT_UNROLL
            for (int j = 0; j < kSide; ++j) {
                Vec<T> m[kSide], pair[2];
                CONVKIT_UNROLL
                for (int i = 0; i < kSide; ++i) m[i] = load(products + at + (i * kSide + j) * step);
                WinogradAxis<kTaps>::outputs(m, pair);
                half[0][j] = pair[0];
                half[1][j] = pair[1];
            }
            CONVKIT_UNROLL
            for (int i = 0; i < 2; ++i) {
                Vec<T> pair[2];
                WinogradAxis<kTaps>::outputs(half[i], pair);
                z[2 * i] = pair[0];
                z[2 * i + 1] = pair[1];
            }
        }
    };

    WinogradTiles(const Winograd& s, int64_t tiles, const T* kernel);

    // use(window) for every window of every tile of x.
    template <class Use>
    void for_each_window(const T* x, Use use) {
        const int64_t windows = s.rows * s.columns;
        for (int64_t first = 0; first < tiles * windows; first += strip) {
            const int64_t count = std::min(strip, tiles * windows - first);
            multiply(x, first, count);
            for (int64_t i = 0; i < count; ++i) {
                const int64_t tile = (first + i) / windows, place = (first + i) % windows;
                use(Window{tile, place / s.columns, place % s.columns,
                           products + i * s.filters * kTile, product_step});
            }
        }
    }

    // Stores a window's outputs that lie in the picture, + bias, not less than floor.
    void store_window(const Window& window, const T* bias, T floor, T* y) const;

    // use(k, z) for the window's outputs z at every k of (filters, kTile), a register each.
    template <class Use>
    void for_each_output(const Window& window, Use use) const {
        const auto each = [&](auto taps) CONVKIT_INLINE {
            for (int64_t k = 0; k < s.filters * kTile; k += kLanes<T>) {
                Vec<T> z[4];
                window.template get<decltype(taps)::value>(k, z);
                use(k, z);
            }
        };
        if (s.taps == 3) return each(std::integral_constant<int, 3>());
        each(std::integral_constant<int, 5>());
    }

 private:
    // The products of so many windows.
    void multiply(const T* x, int64_t first, int64_t count);

    const Winograd s;
    const int64_t tiles;
    int64_t strip, weight_step, patch_step, product_step;
    T *weights, *patches, *products, *zeros;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
