// Images that are flipped, cropped, shifted, turned or zoomed: one sample at a time, for
// random_transform (augment.cpp) and tile_random_transform.
#pragma once

#include <algorithm>

#include "lanes.h"
#include "philox.h"
#include "placement.h"

namespace convkit {
namespace CONVKIT_ISA {

// The placements of samples first .. first + kCount - 1.
template <int kCount>
static inline void draw_placements(const RandomTransform& s, const int64_t* random, int64_t first,
                                   Placement (&placements)[kCount]) {
    constexpr int kCallsEach = kDrawnForPlacement / 4;
    constexpr int kCalls = (kCount * kCallsEach + 7) / 8 * 8;
    int64_t block[kCalls];
    for (int k = 0; k < kCalls; ++k) block[k] = first * kCallsEach + k;
    const auto numbers = philox_blocks(random[0], random[1], s.stream, block);
    for (int sample = 0; sample < kCount; ++sample) {
        uint32_t drawn[kDrawnForPlacement];
        for (int i = 0; i < kDrawnForPlacement; ++i) {
            drawn[i] = numbers.value[i % 4][sample * kCallsEach + i / 4];
        }
        placements[sample] = placement(s, drawn);
    }
}

// kChannels: how many, where the compiler is to know; 0 where not.
template <int kChannels, class T>
static inline void copy_pixel(int64_t channels, const T* from, T* to) {
    for (int64_t c = 0; c < (kChannels > 0 ? kChannels : channels); ++c) to[c] = from[c];
}

// A row of pixels that are copied one by one, from the left or from the right.
template <int kChannels, class T>
static inline void copy_row(const RandomTransform& s, const Placement& p, const T* line, T* to) {
    const int64_t channels = kChannels > 0 ? kChannels : s.channels;
    const T* from = line + pixel_before(p.column) * channels;
    if (p.column_by_column > 0) {
        std::memcpy(to, from, static_cast<size_t>(s.out_width * channels) * sizeof(T));
        return;
    }
    for (int64_t j = 0; j < s.out_width; ++j) {
        copy_pixel<kChannels>(channels, from - j * channels, to + j * channels);
    }
}

template <int kChannels, class T>
static inline void nearest_row(const RandomTransform& s, const Placement& p, int64_t i, const T* x,
                               T* to) {
    const int64_t channels = kChannels > 0 ? kChannels : s.channels;
    int64_t row = p.row + i * p.row_by_row, column = p.column + i * p.column_by_row;
    for (int64_t j = 0; j < s.out_width; ++j, to += channels) {
        const int64_t from_row = filled(s.fill, nearest_pixel(row), s.height);
        const int64_t from_column = filled(s.fill, nearest_pixel(column), s.width);
        if (from_row >= 0 && from_column >= 0) {
            copy_pixel<kChannels>(channels, x + (from_row * s.width + from_column) * channels, to);
        } else {
            for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<T>(s.fill_value);
        }
        row += p.row_by_column;
        column += p.column_by_column;
    }
}

template <class T>
static inline CONVKIT_INLINE T mixed(T a, T b, T share) {
    return a + (b - a) * share;
}

template <int kChannels, class T>
static inline void bilinear_row(const RandomTransform& s, const Placement& p, int64_t i, const T* x,
                                T* to) {
    const int64_t channels = kChannels > 0 ? kChannels : s.channels, line = s.width * channels;
    int64_t row = p.row + i * p.row_by_row, column = p.column + i * p.column_by_row;
    for (int64_t j = 0; j < s.out_width; ++j, to += channels) {
        const int64_t above = pixel_before(row), left = pixel_before(column);
        const T down = share_of_next<T>(row), right = share_of_next<T>(column);
        if (above >= 0 && above < s.height - 1 && left >= 0 && left < s.width - 1) {
            const T* from = x + above * line + left * channels;
            for (int64_t c = 0; c < channels; ++c) {
                const T upper = mixed(from[c], from[channels + c], right);
                const T lower = mixed(from[line + c], from[line + channels + c], right);
                to[c] = mixed(upper, lower, down);
            }
        } else {
            const int64_t rows[2] = {filled(s.fill, above, s.height),
                                     filled(s.fill, above + 1, s.height)};
            const int64_t columns[2] = {filled(s.fill, left, s.width),
                                        filled(s.fill, left + 1, s.width)};
            for (int64_t c = 0; c < channels; ++c) {
                const auto value = [&](int down_one, int right_one) {
                    const int64_t r = rows[down_one], q = columns[right_one];
                    return r < 0 || q < 0 ? static_cast<T>(s.fill_value)
                                          : x[r * line + q * channels + c];
                };
                const T upper = mixed(value(0, 0), value(0, 1), right);
                const T lower = mixed(value(1, 0), value(1, 1), right);
                to[c] = mixed(upper, lower, down);
            }
        }
        row += p.row_by_column;
        column += p.column_by_column;
    }
}

template <int kChannels, class T>
static inline void transform_rows_of(const RandomTransform& s, const Placement& p, int64_t begin,
                                     int64_t end, const T* x, T* y) {
    const bool copies = copies_pixels(s);
    for (int64_t i = begin; i < end; ++i) {
        T* to = y + i * s.out_width * s.channels;
        if (copies) {
            const int64_t row = pixel_before(p.row + i * p.row_by_row);
            copy_row<kChannels>(s, p, x + row * s.width * s.channels, to);
        } else if (s.bilinear) {
            bilinear_row<kChannels>(s, p, i, x, to);
        } else {
            nearest_row<kChannels>(s, p, i, x, to);
        }
    }
}

// Rows begin .. end of one sample's result.
template <class T>
static inline void transform_rows(const RandomTransform& s, const Placement& p, int64_t begin,
                                  int64_t end, const T* x, T* y) {
    if (s.channels == 1) return transform_rows_of<1>(s, p, begin, end, x, y);
    if (s.channels == 3) return transform_rows_of<3>(s, p, begin, end, x, y);
    transform_rows_of<0>(s, p, begin, end, x, y);
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
