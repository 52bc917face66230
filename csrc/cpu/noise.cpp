// Noise, a function of seed, step, stream and element or channel alone. random: (seed, step).
//   spatial_dropout  x (n, rows, channels) -> y = u < rate ? 0 : x / (1 - rate), with one u in
//                    [0, 1) for each sample and channel. Its own gradient: dy -> dx.
//   gaussian_noise   x (n, size) -> y = x + stddev z, z standard normal
// Both may work in place.
#include <algorithm>

#include "cpu_kernels.h"
#include "normal_numbers.h"
#include "periodic.h"
#include "philox.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// What the channels of a sample are multiplied by; 0 for those that are dropped.
template <class T>
void draw_factors(const SpatialDropout& s, int64_t sample, const int64_t* random, T* factors) {
    constexpr int kCalls = 8;
    const T scale = static_cast<T>(1 / (1 - s.rate));
    const uint32_t dropped_below = philox_below(s.rate);
    const int64_t first = sample * s.channels, last = first + s.channels;
    for (int64_t begin = first / 4; 4 * begin < last; begin += kCalls) {
        int64_t block[kCalls];
        for (int k = 0; k < kCalls; ++k) block[k] = begin + k;
        const auto numbers = philox_blocks(random[0], random[1], s.stream, block);
        const int64_t end = std::min(last, 4 * (begin + kCalls));
        for (int64_t i = std::max(first, 4 * begin); i < end; ++i) {
            const uint32_t drawn = numbers.value[i % 4][i / 4 - begin] >> 8;
            factors[i - first] = drawn < dropped_below ? T(0) : scale;
        }
    }
}

}  // namespace

template <class T>
void spatial_dropout(const Context& context, const SpatialDropout& s, int64_t n, const T* x,
                     const int64_t* random, T* y) {
    if (n * s.total() == 0) return;
    constexpr int64_t kPiece = 32768;                                // values
    const int64_t most = std::max<int64_t>(1, kPiece / s.channels);  // rows
    const int64_t pieces = (s.rows + most - 1) / most;
    const double cost = 100 + 2.0 * s.channels + 0.15 * std::min(most, s.rows) * s.channels;
    parallel_for(context, n * pieces, cost, [&](int64_t begin, int64_t end) {
        T* factors = scratch<T>(kLocal, pattern_size<T>(s.channels));
        for (int64_t item = begin; item < end; ++item) {
            const int64_t sample = item / pieces, row = item % pieces * most;
            draw_factors(s, sample, random, factors);
            extend_pattern(s.channels, factors);
            const int64_t first = sample * s.total() + row * s.channels;
            const int64_t count = std::min(most, s.rows - row) * s.channels;
            for_each_repeated<T>(s.channels, count, [&](int64_t i, int64_t at, auto part) {
                const Vec<T> factor = load(factors + at);
                const Vec<T> scaled = get(x + first + i, part) * factor;
                // A NaN is dropped, too.
                put(y + first + i, factor == Vec<T>{} ? Vec<T>{} : scaled, part);
            });
        }
    });
}

template <class T>
void gaussian_noise(const Context& context, const GaussianNoise& s, int64_t n, const T* x,
                    const int64_t* random, T* y) {
    constexpr int kCalls = 64;  // of Philox at once
    constexpr int64_t kChunk = 4 * kCalls;
    const int64_t count = n * s.size, seed = random[0], step = random[1];
    const T deviation = static_cast<T>(s.stddev);
    const int64_t chunks = (count + kChunk - 1) / kChunk;
    parallel_for(context, chunks, 1.5 * kChunk, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            int64_t block[kCalls];
            for (int k = 0; k < kCalls; ++k) block[k] = chunk * kCalls + k;
            Normals<T, kCalls> normals;
            normal_numbers(philox_blocks(seed, step, s.stream, block), normals);
            T drawn[kChunk];
            for (int k = 0; k < kCalls; ++k) {
                for (int i = 0; i < 4; ++i) drawn[4 * k + i] = normals.value[i][k];
            }
            const int64_t first = chunk * kChunk, size = std::min(kChunk, count - first);
            for (int64_t i = 0; i < size; ++i) y[first + i] = x[first + i] + deviation * drawn[i];
        }
    });
}

INSTANTIATE(spatial_dropout)
INSTANTIATE(gaussian_noise)

}  // namespace CONVKIT_ISA
}  // namespace convkit
