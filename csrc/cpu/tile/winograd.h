// Winograd's F(2 x 2, 3 x 3): convolutions of tiles with 3 x 3 kernels, stride 1, in windows of
// 2 x 2 outputs, each of which takes 16 products per channel and filter where the sums take 36
// (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015):
//
//   z = A' [(G w G') * (B' d B)] A, of a patch d of 4 x 4 values and a kernel w, with
//
//        1  0 -1  0         1    0    0          1  0
//   B' = 0  1  1  0    G = 1/2  1/2  1/2    A =  1  1
//        0 -1  1  0        1/2 -1/2  1/2         1 -1
//        0  1  0 -1         0    0    1          0 -1
//
// Nothing but 0, 1, -1 and halves: on small integers results are exact, and rounding errors are
// about those of the sums. Of larger windows neither is true.
//
// An output takes part of its own 3 x 3 values alone, so a NaN reaches no others, as in the sums.
// But an infinity becomes a NaN, since it meets itself in differences; and what is not finite in
// the kernel reaches outputs at the border from the zeros beyond it too.
#pragma once

#include "gemm.h"
#include "specs.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {

// A convolution of x (height, width, channels, kTile) in rows x columns windows.
struct Winograd {
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
        return {s.height,   s.width, s.channels, s.out_height, s.out_width, s.filters, s.pad_top,
                s.pad_left, rows,    columns,    s.filters,    1,           false};
    }

    // From dy to dx.
    static Winograd backward_input(const Conv2d& s) {
        const int64_t rows = divide_up(s.height, 2), columns = divide_up(s.width, 2);
        return {s.out_height,  s.out_width,    s.filters, s.height, s.width, s.channels,
                2 - s.pad_top, 2 - s.pad_left, rows,      columns,  1,       s.filters,
                true};
    }

    // Whether this can be used for `s`, and is expected to be clearly faster than the sums: by 15 %
    // or more, where it was measured. Costs are in multiply-adds of a value. That of transforming a
    // channel or filter of a window is an upper one of those measured: it waits for the cache, so
    // the wider the registers, the more multiply-adds are done meanwhile.
    static bool pays(const Conv2d& s, const Winograd& shape) {
        constexpr int64_t kTransform = kVectorBytes == 64 ? 160 : 2 * kVectorBytes;
        constexpr int64_t kKernelTransform = 10, kLeast = 8;
        if (s.kernel_height != 3 || s.kernel_width != 3 || s.stride_height != 1 ||
            s.stride_width != 1 || s.dilation_height != 1 || s.dilation_width != 1 ||
            s.groups != 1 || std::min(s.channels, s.filters) < kLeast) {
            return false;
        }
        const int64_t products = s.channels * s.filters, windows = shape.rows * shape.columns;
        const int64_t sums = taps(2 * shape.rows, shape.out_height, shape.height, shape.pad_top) *
                             taps(2 * shape.columns, shape.out_width, shape.width, shape.pad_left);
        const int64_t cost = (16 * windows + kKernelTransform) * products +
                             kTransform * windows * (s.channels + s.filters);
        return cost < sums * products;
    }

 private:
    // Places of the kernel that meet x, over one axis of outputs.
    static int64_t taps(int64_t covered, int64_t outputs, int64_t size, int64_t pad) {
        int64_t count = 0;
        for (int64_t tap = 0; tap < 3; ++tap) {
            const Range met = inside(tap - pad, 1, size, std::min(covered, outputs));
            count += met.end - met.begin;
        }
        return count;
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
        int64_t step;  // between the 16 points

        // Its 2 x 2 outputs, at `at` of (filters, kTile).
        CONVKIT_INLINE void get(int64_t at, Vec<T> (&z)[4]) const {
            Vec<T> half[2][4];
            CONVKIT_UNROLL
            for (int j = 0; j < 4; ++j) {
                const T* m = products + at + j * step;
                const Vec<T> b = load(m + 4 * step), c = load(m + 8 * step);
                half[0][j] = load(m) + b + c;
                half[1][j] = b - c - load(m + 12 * step);
            }
            CONVKIT_UNROLL
            for (int i = 0; i < 2; ++i) {
                z[2 * i] = half[i][0] + half[i][1] + half[i][2];
                z[2 * i + 1] = half[i][1] - half[i][2] - half[i][3];
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
