// dkernel (kernel_height, kernel_width, channels / groups, filters) and dbias (filters) of a tile's
// convolution, added to what they hold, from dy (out_height, out_width, filters, kTile) and x
// (height, width, channels, kTile).
#include "cpu_kernels.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void tile_conv2d_backward_kernel(const Context&, const Conv2d& s, int64_t n, const T* dy,
                                 const T* x, T* dkernel, T* dbias) {
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        for (int64_t oh = 0; oh < s.out_height; ++oh) {
            for (int64_t ow = 0; ow < s.out_width; ++ow) {
                const T* g = dy + (oh * s.out_width + ow) * s.filters * kTile;
                for (int64_t f = 0; dbias && f < s.filters; ++f) {
                    for (int64_t lane = 0; lane < kTile; ++lane) dbias[f] += g[f * kTile + lane];
                }
                for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
                    const int64_t ih = oh * s.stride_height + kh * s.dilation_height - s.pad_top;
                    if (ih < 0 || ih >= s.height) continue;
                    for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                        const int64_t iw = ow * s.stride_width + kw * s.dilation_width - s.pad_left;
                        if (iw < 0 || iw >= s.width) continue;
                        for (int64_t f = 0; f < s.filters; ++f) {
                            for (int64_t c = 0; c < channels; ++c) {
                                const T* from = x + ((ih * s.width + iw) * s.channels +
                                                     f / units * channels + c) *
                                                        kTile;
                                T sum = 0;
                                for (int64_t lane = 0; lane < kTile; ++lane) {
                                    sum += from[lane] * g[f * kTile + lane];
                                }
                                dkernel[((kh * s.kernel_width + kw) * channels + c) * s.filters +
                                        f] += sum;
                            }
                        }
                    }
                }
            }
        }
        dy += s.output_size() * kTile;
        x += s.input_size() * kTile;
    }
}

INSTANTIATE(tile_conv2d_backward_kernel)

}  // namespace CONVKIT_ISA
}  // namespace convkit
