// dx (height, width, channels, kTile) of a tile's convolution from dy (out_height, out_width,
// filters, kTile) and the kernel.
#include "cpu_kernels.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void tile_conv2d_backward_input(const Context&, const Conv2d& s, int64_t n, const T* dy,
                                const T* kernel, T* dx) {
    const int64_t channels = s.channels / s.groups, units = s.filters / s.groups;
    std::memset(dx, 0, sizeof(T) * in_tiles(n) * s.input_size());
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        for (int64_t oh = 0; oh < s.out_height; ++oh) {
            for (int64_t ow = 0; ow < s.out_width; ++ow) {
                for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
                    const int64_t ih = oh * s.stride_height + kh * s.dilation_height - s.pad_top;
                    if (ih < 0 || ih >= s.height) continue;
                    for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
                        const int64_t iw = ow * s.stride_width + kw * s.dilation_width - s.pad_left;
                        if (iw < 0 || iw >= s.width) continue;
                        for (int64_t c = 0; c < s.channels; ++c) {
                            T* to = dx + ((ih * s.width + iw) * s.channels + c) * kTile;
                            const int64_t group = c / channels;
                            const T* weight =
                                kernel +
                                ((kh * s.kernel_width + kw) * channels + c % channels) * s.filters;
                            for (int64_t f = group * units; f < (group + 1) * units; ++f) {
                                for (int64_t lane = 0; lane < kTile; ++lane) {
                                    to[lane] +=
                                        dy[((oh * s.out_width + ow) * s.filters + f) * kTile +
                                           lane] *
                                        weight[f];
                                }
                            }
                        }
                    }
                }
            }
        }
        dy += s.output_size() * kTile;
        dx += s.input_size() * kTile;
    }
}

INSTANTIATE(tile_conv2d_backward_input)

}  // namespace CONVKIT_ISA
}  // namespace convkit
