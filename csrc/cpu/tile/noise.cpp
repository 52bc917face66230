// Noise and augmentation of samples in the lanes, with the numbers that noise.cpp and augment.cpp
// draw for the whole batch.
//   tile_spatial_dropout   x (tiles, rows, channels, kTile) -> y
//   tile_gaussian_noise    x (tiles, size, kTile) -> y
//   tile_random_transform  x (tiles, height, width, channels, kTile) ->
//                          y (tiles, out_height, out_width, channels, kTile)
//   tile_random_contrast   x (tiles, rows, channels, kTile) -> y
// All but tile_random_transform may work in place.
#include <algorithm>

#include "contrast.h"
#include "cpu_kernels.h"
#include "normal_numbers.h"
#include "philox.h"
#include "tile/tile.h"
#include "tile/transpose.h"
#include "transform.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr int kDrawnAtOnce = 16;  // values of each lane
// Calls of Philox that have them, wherever in a call they begin.
constexpr int kCallsEach = kDrawnAtOnce / 4 + 1;

// Calls for elements element[lane] .. element[lane] + kDrawnAtOnce - 1; call i of a lane is
// i kTile + lane.
Philox<kCallsEach * kTile> draw(int64_t stream, const int64_t* random,
                                const int64_t (&element)[kTile]) {
    int64_t block[kCallsEach * kTile];
    for (int64_t i = 0; i < kCallsEach * kTile; ++i) block[i] = element[i % kTile] / 4 + i / kTile;
    return philox_blocks(random[0], random[1], stream, block);
}

// Of all that was drawn, what the lanes' element number i takes.
template <class Value>
void pick(const Value (&drawn)[4][kCallsEach * kTile], const int64_t (&element)[kTile], int64_t i,
          Value (&picked)[kTile]) {
    const auto number = [&](int64_t k, int64_t lane) { return drawn[k % 4][k / 4 * kTile + lane]; };
    for (int64_t lane = 0; lane < kTile; ++lane) {
        const int64_t phase = element[lane] % 4;
        picked[lane] = number(i, lane);
        picked[lane] = phase == 1 ? number(i + 1, lane) : picked[lane];
        picked[lane] = phase == 2 ? number(i + 2, lane) : picked[lane];
        picked[lane] = phase == 3 ? number(i + 3, lane) : picked[lane];
    }
}

// The tile's samples one after the other, and back.
template <class T>
void to_rows(int64_t size, const T* tile, T* rows) {
    constexpr int kSide = kLanes<T>;
    if (size < kSide) {
        for (int64_t i = 0; i < size * kTile; ++i) rows[i % kTile * size + i / kTile] = tile[i];
        return;
    }
    for (int64_t k = 0; k < size; k += kSide) {
        const int64_t begin = std::min(k, size - kSide);  // the last may cover some once more
        for (int64_t part = 0; part < kTile; part += kSide) {
            Square<T> square;
#pragma GCC unroll 16
            for (int i = 0; i < kSide; ++i) square.row[i] = load(tile + (begin + i) * kTile + part);
            transpose_square(square);
#pragma GCC unroll 16
            for (int i = 0; i < kSide; ++i) store(rows + (part + i) * size + begin, square.row[i]);
        }
    }
}

template <class T>
void to_tile(int64_t size, const T* rows, T* tile) {
    constexpr int kSide = kLanes<T>;
    if (size < kSide) {
        for (int64_t i = 0; i < size * kTile; ++i) tile[i] = rows[i % kTile * size + i / kTile];
        return;
    }
    for (int64_t k = 0; k < size; k += kSide) {
        const int64_t begin = std::min(k, size - kSide);
        for (int64_t part = 0; part < kTile; part += kSide) {
            Square<T> square;
#pragma GCC unroll 16
            for (int i = 0; i < kSide; ++i) square.row[i] = load(rows + (part + i) * size + begin);
            transpose_square(square);
#pragma GCC unroll 16
            for (int i = 0; i < kSide; ++i) store(tile + (begin + i) * kTile + part, square.row[i]);
        }
    }
}

}  // namespace

template <class T>
void tile_spatial_dropout(const Context& context, const SpatialDropout& s, int64_t n, const T* x,
                          const int64_t* random, T* y) {
    const T scale = static_cast<T>(1 / (1 - s.rate));
    const uint32_t dropped_below = philox_below(s.rate);
    for (int64_t first = 0; first < n; first += kTile) {
        for (int64_t c = 0; c < s.channels; c += kDrawnAtOnce) {
            int64_t element[kTile];
            for (int64_t lane = 0; lane < kTile; ++lane) {
                element[lane] = (context.first + first + lane) * s.channels + c;
            }
            const auto words = draw(s.stream, random, element);
            const int64_t channels = std::min<int64_t>(kDrawnAtOnce, s.channels - c);
            T factors[kDrawnAtOnce][kTile];
            for (int64_t i = 0; i < channels; ++i) {
                uint32_t drawn[kTile];
                pick(words.value, element, i, drawn);
                for (int64_t lane = 0; lane < kTile; ++lane) {
                    factors[i][lane] = (drawn[lane] >> 8) < dropped_below ? T(0) : scale;
                }
            }
            for (int64_t row = 0; row < s.rows; ++row) {
                const int64_t at = first * s.total() + (row * s.channels + c) * kTile;
                for (int64_t i = 0; i < channels * kTile; i += kLanes<T>) {
                    const Vec<T> factor = load(factors[0] + i);
                    const Vec<T> scaled = load(x + at + i) * factor;
                    store(y + at + i, factor == Vec<T>{} ? Vec<T>{} : scaled);
                }
            }
        }
    }
}

template <class T>
void tile_gaussian_noise(const Context& context, const GaussianNoise& s, int64_t n, const T* x,
                         const int64_t* random, T* y) {
    const T deviation = static_cast<T>(s.stddev);
    for (int64_t first = 0; first < n; first += kTile) {
        for (int64_t k = 0; k < s.size; k += kDrawnAtOnce) {
            int64_t element[kTile];
            for (int64_t lane = 0; lane < kTile; ++lane) {
                element[lane] = (context.first + first + lane) * s.size + k;
            }
            Normals<T, kCallsEach * kTile> normals;
            normal_numbers(draw(s.stream, random, element), normals);
            const int64_t values = std::min<int64_t>(kDrawnAtOnce, s.size - k);
            for (int64_t i = 0; i < values; ++i) {
                const int64_t at = first * s.size + (k + i) * kTile;
                T drawn[kTile];
                pick(normals.value, element, i, drawn);
                T noisy[kTile];  // apart from y, which may be x
                for (int64_t lane = 0; lane < kTile; ++lane) {
                    noisy[lane] = x[at + lane] + deviation * drawn[lane];
                }
                std::memcpy(y + at, noisy, sizeof noisy);
            }
        }
    }
}

template <class T>
void tile_random_transform(const Context& context, const RandomTransform& s, int64_t n, const T* x,
                           const int64_t* random, T* y) {
    const int64_t input = s.input_size(), output = s.output_size();
    if (output == 0) return;
    T* images = scratch<T>(kLocal, kTile * (input + output));
    T* results = images + kTile * input;
    for (int64_t first = 0; first < n; first += kTile) {
        Placement placements[kTile];
        draw_placements(s, random, context.first + first, placements);
        to_rows(input, x + first * input, images);
        for (int64_t lane = 0; lane < kTile; ++lane) {
            transform_rows(s, placements[lane], 0, s.out_height, images + lane * input,
                           results + lane * output);
        }
        to_tile(output, results, y + first * output);
    }
}

template <class T>
void tile_random_contrast(const Context& context, const RandomContrast& s, int64_t n, const T* x,
                          const int64_t* random, T* y) {
    const int64_t channels = kTile * s.channels, size = pattern_size<T>(channels);
    if (s.total() == 0) return;
    T* factors = scratch<T>(kLocal, size + contrast_size<T>(channels));
    for (int64_t first = 0; first < n; first += kTile) {
        int64_t block[kTile];
        for (int64_t lane = 0; lane < kTile; ++lane) block[lane] = context.first + first + lane;
        const auto numbers = philox_blocks(random[0], random[1], s.stream, block);
        for (int64_t i = 0; i < channels; ++i) {
            factors[i] = static_cast<T>(between(s.low, s.high, numbers.value[0][i % kTile]));
        }
        extend_pattern(channels, factors);
        adjust_contrast(s.rows, channels, factors, static_cast<T>(s.value_low),
                        static_cast<T>(s.value_high), x + first * s.total(), factors + size,
                        y + first * s.total());
    }
}

INSTANTIATE(tile_spatial_dropout)
INSTANTIATE(tile_gaussian_noise)
INSTANTIATE(tile_random_transform)
INSTANTIATE(tile_random_contrast)

}  // namespace CONVKIT_ISA
}  // namespace convkit
