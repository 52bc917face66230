// Convolution of a tile: x (height, width, channels, kTile), kernel (kernel_height, kernel_width,
// channels / groups, filters) -> y (pooled_height, pooled_width, filters, kTile), with bias,
// max-pooling and activation while the sums are in registers.
#include "cpu_kernels.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// The sum of one output, one part of its lanes.
template <class T>
Vec<T> convolve(const Conv2d& s, const T* x, const T* kernel, const T* bias, int64_t oh, int64_t ow,
                int64_t f) {
    const int64_t channels = s.channels / s.groups, group = f / (s.filters / s.groups);
    Vec<T> sum = broadcast(bias ? bias[f] : T(0));
    for (int64_t kh = 0; kh < s.kernel_height; ++kh) {
        const int64_t ih = oh * s.stride_height + kh * s.dilation_height - s.pad_top;
        if (ih < 0 || ih >= s.height) continue;
        for (int64_t kw = 0; kw < s.kernel_width; ++kw) {
            const int64_t iw = ow * s.stride_width + kw * s.dilation_width - s.pad_left;
            if (iw < 0 || iw >= s.width) continue;
            const T* from = x + ((ih * s.width + iw) * s.channels + group * channels) * kTile;
            const T* weight = kernel + (kh * s.kernel_width + kw) * channels * s.filters + f;
            for (int64_t c = 0; c < channels; ++c) {
                sum += load(from + c * kTile) * weight[c * s.filters];
            }
        }
    }
    return sum;
}

}  // namespace

template <class T>
void tile_conv2d(const Context&, const FusedConv2d& s, int64_t n, const T* x, const T* kernel,
                 const T* bias, T* y, uint8_t* mask) {
    const T slope = static_cast<T>(s.slope);
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        const T* from = x + tile * s.conv.input_size() * kTile;
        for (int64_t h = 0; h < s.pooled_height(); ++h) {
            for (int64_t w = 0; w < s.pooled_width(); ++w) {
                for (int64_t f = 0; f < s.conv.filters; ++f) {
                    for (int part = 0; part < kParts<T>; ++part) {
                        Vec<T> best{};
                        Ints<T> at{};
                        for (int64_t i = 0; i < s.pool_height * s.pool_width; ++i) {
                            const Vec<T> z = convolve(s.conv, from + part * kLanes<T>, kernel, bias,
                                                      h * s.pool_height + i / s.pool_width,
                                                      w * s.pool_width + i % s.pool_width, f);
                            const auto beats = i == 0 ? Vec<T>{} == Vec<T>{}
                                                      : (z > best) | ((z != z) & (best == best));
                            best = beats ? z : best;
                            at = beats ? at * 0 + static_cast<int>(i) : at;
                        }
                        store(y + part * kLanes<T>, activate<T>(s.activation, slope, best));
                        if (mask) {
                            for (int lane = 0; lane < kLanes<T>; ++lane) {
                                mask[part * kLanes<T> + lane] = static_cast<uint8_t>(at[lane]);
                            }
                        }
                    }
                    y += kTile;
                    if (mask) mask += kTile;
                }
            }
        }
    }
}

template <class T>
void tile_unpool2d(const Context&, const FusedConv2d& s, int64_t n, const T* dy, const T* y,
                   const uint8_t* mask, T* dz) {
    const T slope = static_cast<T>(s.slope);
    const int64_t row = s.conv.out_width * s.conv.filters * kTile;
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        std::memset(dz, 0, sizeof(T) * s.conv.output_size() * kTile);
        for (int64_t h = 0; h < s.pooled_height(); ++h) {
            for (int64_t w = 0; w < s.pooled_width(); ++w) {
                T* to = dz + h * s.pool_height * row + w * s.pool_width * s.conv.filters * kTile;
                for (int64_t i = 0; i < s.conv.filters * kTile; ++i) {
                    const Vec<T> g = activate_backward<T>(s.activation, slope, broadcast(dy[i]),
                                                          broadcast(y[i]));
                    to[mask[i] / s.pool_width * row +
                       mask[i] % s.pool_width * s.conv.filters * kTile + i] = g[0];
                }
                dy += s.conv.filters * kTile;
                y += s.conv.filters * kTile;
                mask += s.conv.filters * kTile;
            }
        }
        dz += s.conv.output_size() * kTile;
    }
}

INSTANTIATE(tile_conv2d)
INSTANTIATE(tile_unpool2d)

}  // namespace CONVKIT_ISA
}  // namespace convkit
