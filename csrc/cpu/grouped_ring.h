// What grouped.cpp and grouped_gradient.cpp have in common: the lines of a picture that are met at
// a time.
#pragma once

#include "grouped.h"
#include "grouped_tiles.h"

namespace convkit {
namespace CONVKIT_ISA {

// What leaves room in a second-level cache for lines and weights of a task; what is tolerable.
template <class T>
constexpr int64_t kGroupedRoom = (256 << 10) / sizeof(T);
// Tasks for some threads.
constexpr int64_t kGroupedTasks = 16;
// Rows that are worked on together: so many columns are enough to make up for what is done once.
static inline int64_t rows_together(int64_t columns, int64_t rows) {
    constexpr int64_t kColumns = 56;
    return std::clamp<int64_t>(divide_up(kColumns, columns), 1, std::max<int64_t>(rows, 1));
}

// Lines of a picture (height, width, channels) as parts meet them: row r of the ring, r % rows, is
// row r - before of the picture.
template <class T>
struct GroupedRing {
    const GroupedBlocks<T>& blocks;
    int64_t height, width, channels;
    int64_t above, beside;  // padding
    int64_t rows, columns;  // of a part that are filled
    int64_t line, part;     // values of a row and of all rows of a part; too large: beyond measure

    GroupedRing(const GroupedBlocks<T>& blocks, int64_t height, int64_t width,
                const GroupedAxis& down, const GroupedAxis& across, int64_t together)
        : blocks(blocks),
          height(height),
          width(width),
          channels(blocks.groups * blocks.inputs),
          above(down.before),
          beside(across.before - across.first * across.step),
          rows((together - 1) * down.step + down.span),
          columns((across.places - 1) * across.step + across.span),
          line(0),
          part(INT64_MAX) {
        constexpr int64_t kMost = 1 << 18;  // products of three such numbers fit
        if (std::max({rows, columns, across.step, blocks.pixel}) > kMost) return;
        // Tiles of a row reach beyond its end.
        constexpr int64_t kBeyond = kGroupedColumns[kGroupedSizes - 1] - 1;
        line = (columns + kBeyond * across.step) * blocks.pixel;
        part = rows * line;
    }

    // A permutation reads whole registers from each input on.
    int64_t size(int64_t parts) const { return parts * part + 2 * blocks.pixel; }
    int64_t at(int64_t row) const { return row % rows * line; }

    // Row `row` of the parts first .. last.
    void fill(const T* x, const T* x_end, int64_t row, int64_t first, int64_t last, T* ring) const {
        const int64_t ih = row - above;
        const bool outside = ih < 0 || ih >= height;
        const int64_t begin = outside ? columns : std::clamp<int64_t>(beside, 0, columns);
        const int64_t end = outside ? columns : std::clamp<int64_t>(width + beside, begin, columns);
        T* to = ring + at(row);
        for (int64_t i = 0; i < last - first; ++i) {
            fill_zero(to + i * part, begin * blocks.pixel);
            fill_zero(to + i * part + end * blocks.pixel, (columns - end) * blocks.pixel);
        }
        if (begin == end) return;
        const T* pixels = x + (ih * width + begin - beside) * channels;
        to += begin * blocks.pixel;
        for (int64_t i = first; i < last; ++i, to += part) {
            const int64_t count = blocks.inputs_of(i);
            const auto copy = count <= kLanes<T>       ? copy_pixels<1>
                              : count <= 2 * kLanes<T> ? copy_pixels<2>
                                                       : copy_pixels<0>;
            copy(pixels + blocks.first_input(i), x_end, channels, end - begin, count, to,
                 blocks.pixel);
        }
    }

    // Asks for what part `i` will have of a row.
    void ask_for(const T* x, int64_t row, int64_t i) const {
        const int64_t ih = row - above;
        if (ih < 0 || ih >= height) return;
        const int64_t begin = std::max<int64_t>(0, -beside);
        const int64_t end = std::min(width, columns - beside);
        const T* pixel = x + (ih * width + begin) * channels + blocks.first_input(i);
        for (int64_t j = begin; j < end; ++j, pixel += channels) {
            for (int64_t k = 0; k < blocks.pixel; k += kCacheLine) __builtin_prefetch(pixel + k);
        }
    }

 private:
    static constexpr int64_t kCacheLine = 64 / static_cast<int64_t>(sizeof(T));

    // Pixels of `values` each, `step` apart, to places `pixel` apart: kRegisters registers of
    // values, or any number if that is 0. What lies past the values is junk.
    template <int kRegisters>
    static void copy_pixels(const T* from, const T* from_end, int64_t step, int64_t count,
                            int64_t values, T* to, int64_t pixel) {
        const int64_t reach = (kRegisters ? kRegisters : divide_up(values, kLanes<T>)) * kLanes<T>;
        const int64_t room = from_end - from - reach;
        const int64_t safe = room < 0 ? 0 : std::min(count, room / step + 1);
        for (int64_t j = 0; j < safe; ++j, from += step, to += pixel) {
            for (int64_t i = 0; i < reach; i += kLanes<T>) store(to + i, load(from + i));
        }
        for (int64_t j = safe; j < count; ++j, from += step, to += pixel) {
            for (int64_t i = 0; i < values; i += kLanes<T>) {
                store(to + i, load_run(from + i, from_end, values - i));
            }
        }
    }
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
