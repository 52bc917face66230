// How the work of a convolution is cut for the threads of a block, by its shape alone.
#pragma once

#include <algorithm>
#include <climits>

#include "stretch_conv.cuh"

namespace convkit {
namespace cuda {

// What parts of sums may take of shared memory, in numbers.
constexpr int64_t kMostParts = 12288;

inline int32_t small(int64_t v) { return static_cast<int32_t>(v); }

// A convolution over the whole picture is a dense layer.
inline bool is_dense(const Conv2d& s) {
    return s.groups == 1 && s.out_height == 1 && s.out_width == 1 && s.kernel_height == s.height &&
           s.kernel_width == s.width && s.pad_top == 0 && s.pad_left == 0 &&
           (s.dilation_height == 1 || s.kernel_height == 1) &&
           (s.dilation_width == 1 || s.kernel_width == 1);
}
inline Dense as_dense(const Conv2d& s) { return {1, s.input_size(), s.filters}; }

// What a sliding kernel sees: pictures of `channels` to pictures of `filters`.
struct Picture {
    int64_t height, width, channels;
    int64_t out_height, out_width, filters;
    int64_t kernel_height, kernel_width, top, left;
};
inline Picture forward_picture(const Conv2d& s) {
    return {s.height,  s.width,         s.channels,     s.out_height, s.out_width,
            s.filters, s.kernel_height, s.kernel_width, s.pad_top,    s.pad_left};
}
inline Picture backward_picture(const Conv2d& s) {
    return {s.out_height,
            s.out_width,
            s.filters,
            s.height,
            s.width,
            s.channels,
            s.kernel_height,
            s.kernel_width,
            s.kernel_height - 1 - s.pad_top,
            s.kernel_width - 1 - s.pad_left};
}
inline bool can_slide(const Conv2d& s, const Picture& p) {
    return s.groups == 1 && s.stride_height == 1 && s.stride_width == 1 && s.dilation_height == 1 &&
           s.dilation_width == 1 && p.left >= 0 && (s.kernel_width == 3 || s.kernel_width == 5);
}

// How the work is cut, and what it takes by rough count of instructions of a scheduler.
struct Cut {
    int64_t pixels = 0, filters = 0, groups = 0, strips = 0;
    int64_t channel_parts = 1, row_parts = 1;
    int64_t items = 0, cost = INT64_MAX;

    int64_t parts() const { return channel_parts * row_parts; }
};
constexpr int64_t kPixelCounts[] = {7, 5, 4, 2}, kFilterCounts[] = {4, 3};

inline int64_t per_scheduler(int64_t items) {
    constexpr int64_t kSchedulers = 4;
    return divide_up<int64_t>(divide_up<int64_t>(items, kWarp), kSchedulers);
}

// The fewest parts that are done as soon as `most` of them.
inline int64_t even_parts(int64_t work, int64_t most) {
    const int64_t each = divide_up(work, std::max<int64_t>(std::min(most, work), 1));
    return divide_up(work, each);
}

// Between the pixels of sums: whole vectors, or an odd number that spreads over the banks.
inline int64_t pitch_of(const Cut& cut) {
    return cut.filters == kPacked ? cut.groups * kPacked : cut.groups * cut.filters | 1;
}

inline Cut cut_slide(const Picture& p) {
    Cut best;
    for (int64_t pixels : kPixelCounts) {
        for (int64_t filters : kFilterCounts) {
            Cut cut;
            if (pixels > p.out_width) continue;
            cut.pixels = pixels;
            cut.filters = filters;
            cut.groups = divide_up(p.filters, filters);
            cut.strips = divide_up(p.out_width, pixels);
            const int64_t tiles = p.out_height * cut.strips * cut.groups;
            const int64_t outputs = p.out_height * p.out_width;
            const int64_t room = kMostParts / (outputs * pitch_of(cut));
            const int64_t most = std::min(kStretchThreads / tiles, room);
            cut.channel_parts = even_parts(p.channels, most);
            cut.row_parts = even_parts(p.kernel_height, most / cut.channel_parts);
            cut.items = tiles * cut.parts();
            const int64_t terms = divide_up(p.channels, cut.channel_parts) *
                                  divide_up(p.kernel_height, cut.row_parts);
            const int64_t sums = pixels * filters;
            const int64_t step = sums * p.kernel_width + pixels + 2 * p.kernel_width + 5;
            const int64_t finish = divide_up<int64_t>(outputs * p.filters, kStretchThreads) *
                                   kStretchWarps / 4 * (cut.parts() + 8);
            cut.cost = per_scheduler(cut.items) * (terms * step + sums + 30) + finish;
            if (cut.cost < best.cost) best = cut;
        }
    }
    return best;
}
// The copy that a sliding kernel reads, if it needs one.
inline SpreadShape spread_for(const Picture& p, bool by_pixels) {
    constexpr int64_t kBadPitch = 8;
    const int64_t width = p.out_width + p.kernel_width - 1;
    const bool conflicts = by_pixels && p.channels % kBadPitch == 0;
    const bool needed = p.left > 0 || width > p.width || conflicts;
    const int64_t pixel = needed ? p.channels | 1 : p.channels;
    const int64_t row = needed ? (width * pixel) | 1 : p.width * p.channels;
    return {small(needed ? p.height * width * p.channels : 0),
            small(p.width),
            small(p.channels),
            small(p.left),
            small(row),
            small(pixel),
            Divisor<int32_t>(width * p.channels),
            Divisor<int32_t>(p.channels)};
}

inline ConvShape conv_shape(const Conv2d& s) {
    return {small(s.height),
            small(s.width),
            small(s.channels),
            small(s.kernel_height),
            small(s.kernel_width),
            small(s.filters),
            small(s.channels / s.groups),
            small(s.filters / s.groups),
            small(s.stride_height),
            small(s.stride_width),
            small(s.dilation_height),
            small(s.dilation_width),
            small(s.pad_top),
            small(s.pad_left),
            small(s.out_height),
            small(s.out_width),
            PixelShape(s.height, s.width, s.channels),
            PixelShape(s.out_height, s.out_width, s.filters),
            Divisor<int32_t>(s.channels / s.groups),
            Divisor<int32_t>(s.filters / s.groups),
            Divisor<int32_t>(s.stride_height),
            Divisor<int32_t>(s.stride_width)};
}

// How the gradient of a kernel is cut: `strips` are segments of a row, `channel_parts` parts.
inline Cut cut_kernel(const Picture& p) {
    Cut best;
    const int64_t size = p.kernel_height * p.kernel_width * p.channels * p.filters;
    for (int64_t pixels : kPixelCounts) {
        for (int64_t filters : kFilterCounts) {
            if (filters == kPacked && p.filters % kPacked != 0) continue;
            if (pixels > p.out_width && pixels > 2) continue;
            Cut cut;
            cut.pixels = pixels;
            cut.filters = filters;
            cut.groups = divide_up(p.filters, filters);
            cut.strips = divide_up(p.out_width, pixels);
            const int64_t tiles = cut.groups * p.kernel_height * p.channels;
            const int64_t segments = p.out_height * cut.strips;
            const int64_t room = kMostParts / size;
            cut.channel_parts = even_parts(segments, std::min(kStretchThreads / tiles, room));
            cut.items = tiles * cut.channel_parts;
            const int64_t sums = filters * p.kernel_width;
            const int64_t loads = filters == kPacked ? 2 : 1 + filters;
            const int64_t step = p.kernel_width + 8 + pixels * (sums + loads + 1);
            const int64_t finish = divide_up<int64_t>(size, kStretchThreads) * kStretchWarps / 4 *
                                   (cut.channel_parts + 8);
            cut.cost = per_scheduler(cut.items) *
                           (divide_up(segments, cut.channel_parts) * step + sums + 30) +
                       finish;
            if (cut.cost < best.cost) best = cut;
        }
    }
    return best;
}

}  // namespace cuda
}  // namespace convkit
