// The contrast of one image, or of those in the lanes of a tile, for random_contrast (augment.cpp)
// and tile_random_contrast: a tile is one image with kTile times the channels.
#pragma once

#include <algorithm>

#include "math.h"
#include "periodic.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int64_t kContrastParts = 16;  // of the sum of a channel

// Memory that adjust_contrast needs.
template <class T>
static inline int64_t contrast_size(int64_t channels) {
    return kContrastParts * channels + pattern_size<T>(channels);
}

// y = clip((x - mean) factor + mean), x and y (rows, channels); `factors` is a pattern of as many
// channels, extended. y may be x.
template <class T>
static inline void adjust_contrast(int64_t rows, int64_t channels, const T* factors, T low, T high,
                                   const T* x, T* memory, T* y) {
    // Row r goes to part r % kContrastParts, so sums have few terms each, in an order that lanes
    // do not change.
    const int64_t count = rows * channels, block = kContrastParts * channels;
    T *parts = memory, *means = memory + block;
    std::memset(parts, 0, static_cast<size_t>(block) * sizeof(T));
    for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t size = std::min(block, count - begin);
        for (int64_t i = 0; i < size; ++i) parts[i] += x[begin + i];
    }
    for (int64_t c = 0; c < channels; ++c) means[c] = parts[c];
    for (int64_t part = 1; part < kContrastParts; ++part) {
        for (int64_t c = 0; c < channels; ++c) means[c] += parts[part * channels + c];
    }
    for (int64_t c = 0; c < channels; ++c) means[c] /= static_cast<T>(rows);
    extend_pattern(channels, means);
    for_each_repeated<T>(channels, count, [&](int64_t i, int64_t at, auto part) {
        const Vec<T> mean = load(means + at), factor = load(factors + at);
        const Vec<T> v = (get(x + i, part) - mean) * factor + mean;
        put(y + i, larger<T>(smaller<T>(v, high), low), part);
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
