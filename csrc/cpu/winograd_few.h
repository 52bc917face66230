// Few windows, of a picture or two: what takes time is to fetch the weights. They are read once, in
// wide rows of filters, channel by channel as they lie in memory; transformed in registers; and
// multiplied into sums (filters / kLanes, places, windows, kLanes) that stay in the first cache.
#pragma once

#include "winograd_windows.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int64_t kFewWindows = 4;
constexpr int64_t kFewSums = 40 * 1024;  // bytes of a task
constexpr int64_t kAheadChannels = 12;   // from those that are added to those that are fetched

// Filters of a task: their sums fit the first cache.
template <class T>
static inline int64_t few_windows_filters(const Windowed& s, int64_t windows) {
    const int64_t registers = kFewSums / (s.places() * windows * kVectorBytes);
    const int64_t most = std::max<int64_t>(1, registers) * kLanes<T>;
    return std::min(most, round_up(divide_up(s.filters, 4), kLanes<T>));
}

// Adds kChannels channels of one register of filters, `row` apart in the kernel, and fetches as
// many further on: into the second-level cache, since they would drive the sums out of the first.
// `patches` are those of the first channel.
template <class T, int kOutputs, int kTaps, int kWindows, int kChannels>
static inline void add_channels(const T* kernel, int64_t tap, int64_t row, const T* patches,
                                int64_t patch_step, T* sums) {
    constexpr int kSide = kOutputs + kTaps - 1;
    using Axis = FastAxis<kOutputs, kTaps>;
    Vec<T> half[kChannels][kSide][kTaps];
    CONVKIT_UNROLL
    for (int c = 0; c < kChannels; ++c, kernel += row) {
        CONVKIT_UNROLL
        for (int j = 0; j < kTaps; ++j) {
            Vec<T> line[kTaps], to[kSide];
            CONVKIT_UNROLL
            for (int i = 0; i < kTaps; ++i) {
                const T* from = kernel + (i * kTaps + j) * tap;
                __builtin_prefetch(from + kAheadChannels * row, 0, 2);
                line[i] = load(from);
            }
            Axis::template taps<T>(line, to);
            CONVKIT_UNROLL
            for (int i = 0; i < kSide; ++i) half[c][i][j] = to[i];
        }
    }
    for (int i = 0; i < kSide; ++i) {
        Vec<T> weights[kChannels][kSide];
        CONVKIT_UNROLL
        for (int c = 0; c < kChannels; ++c) Axis::template taps<T>(half[c][i], weights[c]);
        CONVKIT_UNROLL
        for (int j = 0; j < kSide; ++j, patches += patch_step) {
            CONVKIT_UNROLL
            for (int w = 0; w < kWindows; ++w, sums += kLanes<T>) {
                Vec<T> sum = load(sums);
                CONVKIT_UNROLL
                for (int c = 0; c < kChannels; ++c) {
                    sum += broadcast(patches[w * kWinogradBlock + c]) * weights[c][j];
                }
                store(sums, sum);
            }
        }
    }
}

// Sums of filters begin .. end, whole registers. Patches as in winograd_conv.cpp: (places, blocks
// of channels, windows, block), places patch_step apart.
template <class T, int kOutputs, int kTaps, int kWindows>
static void add_few_windows(const Windowed& s, const T* kernel, int64_t begin, int64_t end,
                            const T* patches, int64_t patch_step, T* sums) {
    constexpr int64_t kSums = (kOutputs + kTaps - 1) * (kOutputs + kTaps - 1) * kWindows;
    const int64_t row = s.filters, tap = s.channels * row;
    fill_zero(sums, (end - begin) * kSums);
    const auto add = [&](int64_t c, auto channels) CONVKIT_INLINE {
        const T* values =
            patches + c / kWinogradBlock * kWindows * kWinogradBlock + c % kWinogradBlock;
        for (int64_t f = begin; f < end; f += kLanes<T>) {
            add_channels<T, kOutputs, kTaps, kWindows, decltype(channels)::value>(
                kernel + c * row + f, tap, row, values, patch_step, sums + (f - begin) * kSums);
        }
        // Where rows are not aligned, the last register of those that follow ends in one more line.
        constexpr int64_t kChannels = decltype(channels)::value;
        for (int64_t i = 0; i < kTaps * kTaps * kChannels; ++i) {
            const int64_t next = c + kAheadChannels + i % kChannels;
            __builtin_prefetch(kernel + i / kChannels * tap + next * row + end - 1, 0, 2);
        }
    };
    constexpr int kTogether = 4;  // channels, for which sums are loaded and stored once
    int64_t c = 0;
    for (; c + kTogether <= s.channels; c += kTogether) {
        add(c, std::integral_constant<int, kTogether>());
    }
    for (; c < s.channels; ++c) add(c, std::integral_constant<int, 1>());
}

// The same for 1 .. kFewWindows windows.
template <class T, int kOutputs, int kTaps>
static void add_few_windows(const Windowed& s, const T* kernel, int64_t windows, int64_t begin,
                            int64_t end, const T* patches, int64_t patch_step, T* sums) {
    static_assert(kFewWindows == 4, "one function each");
    using Add = void (*)(const Windowed&, const T*, int64_t, int64_t, const T*, int64_t, T*);
    static constexpr Add table[] = {
        add_few_windows<T, kOutputs, kTaps, 1>, add_few_windows<T, kOutputs, kTaps, 2>,
        add_few_windows<T, kOutputs, kTaps, 3>, add_few_windows<T, kOutputs, kTaps, 4>};
    table[windows - 1](s, kernel, begin, end, patches, patch_step, sums);
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
