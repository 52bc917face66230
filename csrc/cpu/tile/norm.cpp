// Normalisation of tiles, and what else has a number for each channel (norm.cpp has the formulas).
// x, y, dy, dx are (tiles, rows, channels or size, kTile).
//   tile_channel_affine, tile_layer_norm, tile_prelu    as for a batch; and backward
//   tile_broadcast   x (size) -> y (tiles, size, kTile): every sample is x
//     backward       dx = sum of dy over the samples
// Gradients of what has no samples are added to what is there, or stored where context.fresh. Lanes
// beyond the n-th sample have no gradient, so they add nothing.
#include <algorithm>

#include "cpu_kernels.h"
#include "norm_lanes.h"
#include "tile/tile.h"
#include "tile/transpose.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// For sums of `count` registers' lanes: target[i] += the sum of register i, or = where it is fresh.
// Registers up to a multiple of kLanes are read.
template <class T>
void add_lanes(const T* registers, int64_t count, bool fresh, T* target) {
    for (int64_t i = 0; i < count; i += kLanes<T>, registers += kLanes<T> * kLanes<T>) {
        Square<T> square;
        CONVKIT_UNROLL_SUMS
        for (int k = 0; k < kLanes<T>; ++k) square.row[k] = load(registers + k * kLanes<T>);
        transpose_square(square);
        CONVKIT_UNROLL_SUMS
        for (int half = kLanes<T> / 2; half > 0; half /= 2) {
            CONVKIT_UNROLL_SUMS
            for (int k = 0; k < half; ++k) square.row[k] += square.row[k + half];
        }
        const Vec<T> sums = square.row[0];
        if (count - i >= kLanes<T>) {
            store(target + i, fresh ? sums : load(target + i) + sums);
        } else {
            const Vec<T> before = fresh ? Vec<T>{} : load_partial(target + i, count - i);
            store_partial(target + i, before + sums, count - i);
        }
    }
}

// The registers that add_lanes reads, in values.
template <class T>
int64_t lanes_of(int64_t columns) {
    return (columns + kLanes<T> - 1) / kLanes<T> * kLanes<T> * kLanes<T>;
}

constexpr int kColumns = 4;  // at once
constexpr int64_t kManyColumns = 12;

// body(at, column, sums) for kCount columns from `first` of all rows: the value at `at` is of
// `column`, and what body adds to its kSums sums ends in registers of the column.
template <class T, int kSums, int kCount, class Body>
void sum_some(int64_t rows, int64_t columns, int64_t first, T* const (&registers)[kSums],
              Body body) {
    Vec<T> sums[kCount][kSums] = {};
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = (row * columns + first) * kTile;
        CONVKIT_UNROLL_SUMS
        for (int c = 0; c < kCount; ++c) {
            CONVKIT_UNROLL_SUMS
            for (int part = 0; part < kParts<T>; ++part) {
                body(at + c * kTile + part * kLanes<T>, first + c, sums[c]);
            }
        }
    }
    for (int c = 0; c < kCount; ++c) {
        for (int k = 0; k < kSums; ++k) store(registers[k] + (first + c) * kLanes<T>, sums[c][k]);
    }
}

// The same for all columns, row by row as they lie in memory: with many columns, sums that wait in
// memory cost less than rows that are far apart.
template <class T, int kSums, class Body>
void sum_rows(int64_t rows, int64_t columns, T* const (&registers)[kSums], Body body) {
    for (T* sums : registers) std::fill(sums, sums + columns * kLanes<T>, T(0));
    int64_t at = 0;
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t c = 0; c < columns; ++c) {
            Vec<T> sums[kSums];
            for (int k = 0; k < kSums; ++k) sums[k] = load(registers[k] + c * kLanes<T>);
            CONVKIT_UNROLL_SUMS
            for (int part = 0; part < kParts<T>; ++part, at += kLanes<T>) body(at, c, sums);
            for (int k = 0; k < kSums; ++k) store(registers[k] + c * kLanes<T>, sums[k]);
        }
    }
}

// One tile after the other; each adds its sums, of which there are kSums for each column, to
// targets (columns), which may be null.
template <class T, int kSums, class Body>
void sum_tiles(const Context& context, int64_t n, int64_t rows, int64_t columns,
               T* const (&targets)[kSums], Body body) {
    const int64_t tile_size = rows * columns * kTile, room = lanes_of<T>(columns);
    T* memory = scratch<T>(kLocal, kSums * room);
    T* registers[kSums];
    for (int k = 0; k < kSums; ++k) registers[k] = memory + k * room;
    if (n == 0 && context.fresh) {
        for (T* target : targets) {
            if (target) std::fill(target, target + columns, T(0));
        }
    }
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        const auto add = [&](int64_t at, int64_t column, Vec<T>(&sums)[kSums]) {
            body(tile * tile_size + at, column, sums);
        };
        int64_t c = columns < kManyColumns ? 0 : columns;
        if (c > 0) sum_rows<T, kSums>(rows, columns, registers, add);
        for (; c + kColumns <= columns; c += kColumns) {
            sum_some<T, kSums, kColumns>(rows, columns, c, registers, add);
        }
        for (; c < columns; ++c) sum_some<T, kSums, 1>(rows, columns, c, registers, add);
        for (int k = 0; k < kSums; ++k) {
            if (targets[k]) {
                add_lanes(registers[k], columns, context.fresh && tile == 0, targets[k]);
            }
        }
    }
}

// body(at, column) for all registers of all tiles.
template <class T, class Body>
void for_each_register(int64_t n, int64_t rows, int64_t columns, Body body) {
    int64_t at = 0;
    for (int64_t row = 0; row < in_tiles(n) / kTile * rows; ++row) {
        for (int64_t column = 0; column < columns; ++column) {
            CONVKIT_UNROLL_SUMS
            for (int part = 0; part < kParts<T>; ++part, at += kLanes<T>) body(at, column);
        }
    }
}

}  // namespace

template <class T>
void tile_channel_affine(const Context&, const ChannelAffine& s, int64_t n, const T* x,
                         const T* scale, const T* shift, T* y) {
    if (!scale) {
        for_each_register<T>(n, s.rows, s.channels, [&](int64_t at, int64_t c) {
            store(y + at, shift ? load(x + at) + shift[c] : load(x + at));
        });
        return;
    }
    for_each_register<T>(n, s.rows, s.channels, [&](int64_t at, int64_t c) {
        const Vec<T> v = load(x + at) * scale[c];
        store(y + at, shift ? v + shift[c] : v);
    });
}

template <class T>
void tile_channel_affine_backward(const Context& context, const ChannelAffine& s, int64_t n,
                                  const T* dy, const T* x, const T* scale, T* dx, T* dscale,
                                  T* dshift) {
    const auto put_dx = [&](int64_t at, int64_t c, Vec<T> g) {
        if (dx) store(dx + at, scale ? g * scale[c] : g);
    };
    if (dscale) {
        sum_tiles<T, 2>(context, n, s.rows, s.channels, {dscale, dshift},
                        [&](int64_t at, int64_t c, Vec<T>(&sums)[2]) {
                            const Vec<T> g = load(dy + at);
                            sums[0] += g * load(x + at);
                            sums[1] += g;
                            put_dx(at, c, g);
                        });
    } else if (dshift) {
        sum_tiles<T, 1>(context, n, s.rows, s.channels, {dshift},
                        [&](int64_t at, int64_t c, Vec<T>(&sums)[1]) {
                            const Vec<T> g = load(dy + at);
                            sums[0] += g;
                            put_dx(at, c, g);
                        });
    } else {
        for_each_register<T>(n, s.rows, s.channels,
                             [&](int64_t at, int64_t c) { put_dx(at, c, load(dy + at)); });
    }
}

template <class T>
void tile_layer_norm(const Context&, const LayerNorm& s, int64_t n, const T* x, const T* gamma,
                     const T* beta, T* y) {
    for (int64_t row = 0; row < in_tiles(n) / kTile * s.rows; ++row) {
        for (int part = 0; part < kParts<T>; ++part) {
            const int64_t at = row * s.size * kTile + part * kLanes<T>;
            normalise_lanes(x + at, s.size, kTile, s.epsilon, gamma, beta, y + at);
        }
    }
}

template <class T>
void tile_layer_norm_backward(const Context& context, const LayerNorm& s, int64_t n, const T* dy,
                              const T* x, const T* gamma, T* dx, T* dgamma, T* dbeta) {
    const bool with_sums = dgamma || dbeta;
    const int64_t room = lanes_of<T>(s.size);
    T* gamma_sums = with_sums ? scratch<T>(kLocal, 2 * room) : nullptr;
    T* beta_sums = with_sums ? gamma_sums + room : nullptr;
    if (n == 0 && context.fresh) {
        if (dgamma) std::fill(dgamma, dgamma + s.size, T(0));
        if (dbeta) std::fill(dbeta, dbeta + s.size, T(0));
    }
    for (int64_t tile = 0; tile < in_tiles(n) / kTile; ++tile) {
        if (with_sums) std::fill(gamma_sums, gamma_sums + 2 * room, T(0));
        for (int64_t row = 0; row < s.rows; ++row) {
            for (int part = 0; part < kParts<T>; ++part) {
                const int64_t at = (tile * s.rows + row) * s.size * kTile + part * kLanes<T>;
                normalise_lanes_backward<T>(dy + at, x + at, s.size, kTile, kLanes<T>, s.epsilon,
                                            gamma, dx ? dx + at : nullptr, gamma_sums, beta_sums);
            }
        }
        const bool fresh = context.fresh && tile == 0;
        if (dgamma) add_lanes(gamma_sums, s.size, fresh, dgamma);
        if (dbeta) add_lanes(beta_sums, s.size, fresh, dbeta);
    }
}

template <class T>
void tile_prelu(const Context&, const PRelu& s, int64_t n, const T* x, const T* alpha, T* y) {
    for_each_register<T>(n, s.rows, s.size, [&](int64_t at, int64_t i) {
        const Vec<T> v = load(x + at);
        store(y + at, v > Vec<T>{} ? v : v * alpha[i]);
    });
}

template <class T>
void tile_prelu_backward(const Context& context, const PRelu& s, int64_t n, const T* dy, const T* x,
                         const T* alpha, T* dx, T* dalpha) {
    const auto put_dx = [&](int64_t at, int64_t i, Vec<T> v, Vec<T> g) {
        if (dx) store(dx + at, v > Vec<T>{} ? g : g * alpha[i]);
    };
    if (!dalpha) {
        for_each_register<T>(n, s.rows, s.size, [&](int64_t at, int64_t i) {
            put_dx(at, i, load(x + at), load(dy + at));
        });
        return;
    }
    sum_tiles<T, 1>(context, n, s.rows, s.size, {dalpha},
                    [&](int64_t at, int64_t i, Vec<T>(&sums)[1]) {
                        const Vec<T> v = load(x + at), g = load(dy + at);
                        sums[0] += v > Vec<T>{} ? Vec<T>{} : v * g;
                        put_dx(at, i, v, g);
                    });
}

template <class T>
void tile_broadcast(const Context&, const Elementwise& s, int64_t n, const T* x, T* y) {
    for_each_register<T>(n, 1, s.size,
                         [&](int64_t at, int64_t i) { store(y + at, broadcast(x[i])); });
}

template <class T>
void tile_broadcast_backward(const Context& context, const Elementwise& s, int64_t n, const T* dy,
                             T* dx) {
    sum_tiles<T, 1>(context, n, 1, s.size, {dx},
                    [&](int64_t at, int64_t, Vec<T>(&sums)[1]) { sums[0] += load(dy + at); });
}

INSTANTIATE(tile_channel_affine)
INSTANTIATE(tile_channel_affine_backward)
INSTANTIATE(tile_layer_norm)
INSTANTIATE(tile_layer_norm_backward)
INSTANTIATE(tile_prelu)
INSTANTIATE(tile_prelu_backward)
INSTANTIATE(tile_broadcast)
INSTANTIATE(tile_broadcast_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
