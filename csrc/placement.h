// Where the pixels of an augmented image come from, for processors and GPUs alike.
//
// Row i and column j of the image are read at row + i row_by_row + j row_by_column, and so on.
// These are integers, in units of 2^-32 pixels: sums of them are exact, so that every backend finds
// the same pixels, also half-way between two, and a turn by a right angle copies them.
#pragma once

#include <cmath>
#include <cstdint>

#include "anywhere.h"
#include "specs.h"

namespace convkit {

constexpr int kPixelBits = 32;
constexpr int64_t kPixel = int64_t{1} << kPixelBits;
constexpr int kDrawnForPlacement = 8;  // numbers of each sample: two calls of Philox

struct Placement {
    int64_t row, row_by_row, row_by_column;
    int64_t column, column_by_row, column_by_column;
};

// A number of Philox as one in low .. high, on a grid of 2^-24.
CONVKIT_ANYWHERE static inline double between(double low, double high, uint32_t number) {
    return low + static_cast<double>(number >> 8) * (1.0 / (1 << 24)) * (high - low);
}

// A number of Philox as one of 0 .. count - 1.
CONVKIT_ANYWHERE static inline int64_t one_of(int64_t count, uint32_t number) {
    return static_cast<int64_t>((static_cast<uint64_t>(count) * number) >> 32);
}

// Whether pixels are copied, each to one place: flips and crops alone.
CONVKIT_ANYWHERE static inline bool copies_pixels(const RandomTransform& s) {
    const bool still = s.angle_low == 0 && s.angle_high == 0 && s.shift_height_low == 0 &&
                       s.shift_height_high == 0 && s.shift_width_low == 0 &&
                       s.shift_width_high == 0;
    const bool as_large = s.zoom_height_low == 1 && s.zoom_height_high == 1 &&
                          s.zoom_width_low == 1 && s.zoom_width_high == 1;
    return s.crop != 0 || (still && as_large && s.out_height == s.height && s.out_width == s.width);
}

CONVKIT_ANYWHERE static inline int64_t in_pixels(double value) {
    return static_cast<int64_t>(::floor(value * static_cast<double>(kPixel) + 0.5));
}

// The image is shifted, then zoomed, turned and flipped about its centre.
CONVKIT_ANYWHERE static inline Placement placement(const RandomTransform& s,
                                                   const uint32_t (&drawn)[kDrawnForPlacement]) {
    const int across = between(0, 1, drawn[0]) < s.flip_horizontal ? -1 : 1;
    const int down = between(0, 1, drawn[1]) < s.flip_vertical ? -1 : 1;
    if (copies_pixels(s)) {
        const int64_t top = one_of(s.height - s.out_height + 1, drawn[3]);
        const int64_t left = one_of(s.width - s.out_width + 1, drawn[4]);
        return {(down < 0 ? top + s.out_height - 1 : top) * kPixel,
                down * kPixel,
                0,
                (across < 0 ? left + s.out_width - 1 : left) * kPixel,
                0,
                across * kPixel};
    }
    const double angle = between(s.angle_low, s.angle_high, drawn[2]);
    const double row_shift =
        static_cast<double>(s.height) * between(s.shift_height_low, s.shift_height_high, drawn[3]);
    const double column_shift =
        static_cast<double>(s.width) * between(s.shift_width_low, s.shift_width_high, drawn[4]);
    const double tall = between(s.zoom_height_low, s.zoom_height_high, drawn[5]);
    const double wide = s.zoom_both ? tall : between(s.zoom_width_low, s.zoom_width_high, drawn[6]);
    const double cosine = ::cos(angle), sine = ::sin(angle);
    const double row_by_row = tall * cosine * down, row_by_column = tall * sine * across;
    const double column_by_row = -wide * sine * down, column_by_column = wide * cosine * across;
    const double middle_row = 0.5 * static_cast<double>(s.out_height - 1);
    const double middle_column = 0.5 * static_cast<double>(s.out_width - 1);
    const double row = 0.5 * static_cast<double>(s.height - 1) - row_shift -
                       row_by_row * middle_row - row_by_column * middle_column;
    const double column = 0.5 * static_cast<double>(s.width - 1) - column_shift -
                          column_by_row * middle_row - column_by_column * middle_column;
    return {in_pixels(row),    in_pixels(row_by_row),    in_pixels(row_by_column),
            in_pixels(column), in_pixels(column_by_row), in_pixels(column_by_column)};
}

// ---- along one axis ----------------------------------------------------------------------------

// How far a place is from the pixel before it to the next, 0 .. 1.
template <class T>
CONVKIT_ANYWHERE static inline T share_of_next(int64_t place) {
    const auto part = static_cast<int32_t>(static_cast<uint32_t>(place) >> 1);
    return static_cast<T>(part) * static_cast<T>(1.0 / (int64_t{1} << (kPixelBits - 1)));
}

CONVKIT_ANYWHERE static inline int64_t pixel_before(int64_t place) { return place >> kPixelBits; }

// Half-way, the one farther from 0.
CONVKIT_ANYWHERE static inline int64_t nearest_pixel(int64_t place) {
    return place < 0 ? -((kPixel / 2 - place) >> kPixelBits) : (place + kPixel / 2) >> kPixelBits;
}

// The pixel that stands for place i of an axis that goes on beyond its ends; below 0: none does.
CONVKIT_ANYWHERE static inline int64_t filled(int64_t fill, int64_t i, int64_t size) {
    if (i >= 0 && i < size) return i;
    if (fill == kConstant) return -1;
    if (fill == kNearest) return i < 0 ? 0 : size - 1;
    const int64_t period = fill == kReflect ? 2 * size : size;
    const int64_t rest = i % period, at = rest < 0 ? rest + period : rest;
    return at < size ? at : period - 1 - at;
}

}  // namespace convkit
