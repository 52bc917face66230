// Dense layers of a tile: x (rows, inputs, kTile), kernel (inputs, units), bias (units) -> y (rows,
// units, kTile). Gradients of kernel and bias are added to what dkernel and dbias hold.
#include "cpu_kernels.h"
#include "tile/tile.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void tile_dense(const Context&, const FusedDense& s, int64_t n, const T* x, const T* kernel,
                const T* bias, T* y) {
    const Dense& d = s.dense;
    const T slope = static_cast<T>(s.slope);
    for (int64_t row = 0; row < in_tiles(n) / kTile * d.rows; ++row) {
        for (int64_t u = 0; u < d.units; ++u) {
            for (int part = 0; part < kParts<T>; ++part) {
                Vec<T> sum = broadcast(bias ? bias[u] : T(0));
                for (int64_t i = 0; i < d.inputs; ++i) {
                    sum += load(x + i * kTile + part * kLanes<T>) * kernel[i * d.units + u];
                }
                store(y + u * kTile + part * kLanes<T>, activate<T>(s.activation, slope, sum));
            }
        }
        x += d.inputs * kTile;
        y += d.units * kTile;
    }
}

template <class T>
void tile_dense_backward_input(const Context&, const Dense& s, int64_t n, const T* dy,
                               const T* kernel, T* dx) {
    for (int64_t row = 0; row < in_tiles(n) / kTile * s.rows; ++row) {
        for (int64_t i = 0; i < s.inputs; ++i) {
            for (int part = 0; part < kParts<T>; ++part) {
                Vec<T> sum{};
                for (int64_t u = 0; u < s.units; ++u) {
                    sum += load(dy + u * kTile + part * kLanes<T>) * kernel[i * s.units + u];
                }
                store(dx + i * kTile + part * kLanes<T>, sum);
            }
        }
        dy += s.units * kTile;
        dx += s.inputs * kTile;
    }
}

template <class T>
void tile_dense_backward_kernel(const Context&, const Dense& s, int64_t n, const T* dy, const T* x,
                                T* dkernel, T* dbias) {
    for (int64_t row = 0; row < in_tiles(n) / kTile * s.rows; ++row) {
        for (int64_t u = 0; u < s.units; ++u) {
            for (int64_t lane = 0; dbias && lane < kTile; ++lane) dbias[u] += dy[u * kTile + lane];
            for (int64_t i = 0; i < s.inputs; ++i) {
                T sum = 0;
                for (int64_t lane = 0; lane < kTile; ++lane) {
                    sum += x[i * kTile + lane] * dy[u * kTile + lane];
                }
                dkernel[i * s.units + u] += sum;
            }
        }
        dy += s.units * kTile;
        x += s.inputs * kTile;
    }
}

INSTANTIATE(tile_dense)
INSTANTIATE(tile_dense_backward_input)
INSTANTIATE(tile_dense_backward_kernel)

}  // namespace CONVKIT_ISA
}  // namespace convkit
