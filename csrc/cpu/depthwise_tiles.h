// Tiles of a picture, channels in the lanes: for convolution in groups of one channel.
//
// Rows of the picture are copied to a tile of (row, column, kLanes channels), padded with zeros,
// shortly before they are met, so that a tap is a shift whatever the padding, stride and dilation,
// and reads are aligned and close together. The tile holds as many rows as are met together, each
// in the place of the one that is met no more. A task takes several registers of channels at once,
// which lie side by side in the picture.
#pragma once

#include "gemm.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {

// Few tasks are made more by cutting pictures into bands; what two of them meet is copied for both.
static inline int64_t tile_bands(int64_t tasks, int64_t rows) {
    return tasks >= 16 ? 1 : divide_up(rows, 16);
}

// What stands in the lanes of a tile: `count` channels from `first`. A plane is the next register
// of them, each value of a pixel `repeats` times; or, with `every` > 1, every so many-th value, a
// plane for those that begin with the first, the second and so on.
template <class T>
struct TileLanes {
    int64_t first, count, repeats, every;

    int64_t registers() const { return divide_up(count, kLanes<T>); }
    int64_t planes() const { return every == 1 ? registers() : every; }
    // Of register r.
    int64_t lanes(int64_t r) const { return std::min<int64_t>(kLanes<T>, count - r * kLanes<T>); }

    Vec<T> read(const T* pixel, int64_t plane) const {
        const int64_t r = every == 1 ? plane : 0, begin = first + r * kLanes<T>;
        if (repeats == 1 && every == 1) {
            return lanes(r) == kLanes<T> ? load(pixel + begin)
                                         : load_partial(pixel + begin, lanes(r));
        }
        Vec<T> values{};
        for (int64_t i = 0; i < lanes(r); ++i) {
            values[i] = pixel[every == 1 ? (begin + i) / repeats : (begin + i) * every + plane];
        }
        return values;
    }
};

// kRegisters neighbouring registers of some pixels to a plane each; of the last, `lanes` values.
template <class T, int kRegisters>
static void split_pixels(const T* pixels, int64_t step, int64_t count, int64_t lanes, T* to,
                         int64_t plane) {
    for (int64_t j = 0; j < count; ++j, pixels += step, to += kLanes<T>) {
        CONVKIT_UNROLL
        for (int r = 0; r < kRegisters; ++r) {
            const T* from = pixels + r * kLanes<T>;
            const bool whole = r < kRegisters - 1 || lanes == kLanes<T>;
            store(to + r * plane, whole ? load(from) : load_partial(from, lanes));
        }
    }
}

// `columns` pixels from `left` of a line (width, channels), zeros beside it; of no line (null),
// zeros.
template <class T>
static void fill_line(const T* line, int64_t width, int64_t channels, int64_t left, int64_t columns,
                      const TileLanes<T>& lanes, T* to, int64_t plane) {
    const int64_t begin = std::clamp<int64_t>(-left, 0, columns);
    const int64_t end = line ? std::clamp<int64_t>(width - left, begin, columns) : begin;
    for (int64_t i = 0; i < lanes.planes(); ++i) {
        fill_zero(to + i * plane, begin * kLanes<T>);
        fill_zero(to + i * plane + end * kLanes<T>, (columns - end) * kLanes<T>);
    }
    if (begin == end) return;
    const T* pixels = line + (left + begin) * channels;
    to += begin * kLanes<T>;
    if (lanes.repeats == 1 && lanes.every == 1) {
        const int64_t registers = lanes.registers();
        const auto split = registers == 4   ? split_pixels<T, 4>
                           : registers == 3 ? split_pixels<T, 3>
                           : registers == 2 ? split_pixels<T, 2>
                                            : split_pixels<T, 1>;
        return split(pixels + lanes.first, channels, end - begin, lanes.lanes(registers - 1), to,
                     plane);
    }
    for (int64_t j = begin; j < end; ++j, pixels += channels, to += kLanes<T>) {
        for (int64_t i = 0; i < lanes.planes(); ++i) {
            store(to + i * plane, lanes.read(pixels, i));
        }
    }
}

// The rows of a picture that are met at a time, as a ring: row i lies in place i % rows.
template <class T>
struct TileRing {
    int64_t rows, columns, planes;      // planes of each register
    int64_t registers = 1, blocks = 0;  // of the channels; 0: a tile would be too large

    TileRing(int64_t rows, int64_t columns, int64_t channels, int64_t planes)
        : rows(rows), columns(columns), planes(planes) {
        // What leaves room in a second-level cache; what is tolerable.
        constexpr int64_t kValues = (128 << 10) / sizeof(T), kMost = (256 << 10) / sizeof(T);
        if (std::max({rows, columns, planes}) > kMost) return;
        const int64_t size = rows * columns * planes * kLanes<T>;
        if (size > kMost) return;
        const int64_t all = divide_up(channels, kLanes<T>);
        if (planes == 1)
            registers = std::clamp<int64_t>(kValues / size, 1, std::min<int64_t>(4, all));
        blocks = divide_up(all, registers);
        registers = divide_up(all, blocks);
    }

    int64_t line() const { return columns * kLanes<T>; }
    int64_t plane() const { return rows * line(); }
    int64_t size() const { return registers * planes * plane(); }
    // Of row i >= 0 in a plane.
    int64_t at(int64_t i) const { return i % rows * line(); }
    TileLanes<T> lanes(int64_t block, int64_t channels, int64_t repeats, int64_t every) const {
        const int64_t most = registers * kLanes<T>;
        return {block * most, std::min(most, channels - block * most), repeats, every};
    }
};

// A picture (height, width, channels) whose rows are brought into a ring. Row i of the ring is row
// i - top of the picture, and its columns begin at `left`.
template <class T>
struct TilePicture {
    const T* x;
    int64_t height, width, channels, top, left;
    const TileRing<T>& ring;
    TileLanes<T> lanes;
    T* tile;
    int64_t next;  // row

    // Rows begin .. end are wanted.
    void bring(int64_t begin, int64_t end) {
        for (next = std::max(next, begin); next < end; ++next) {
            const int64_t row = next - top;
            const T* line = row >= 0 && row < height ? x + row * width * channels : nullptr;
            fill_line(line, width, channels, left, ring.columns, lanes, tile + ring.at(next),
                      ring.plane());
        }
    }
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
