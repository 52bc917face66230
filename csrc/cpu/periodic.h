// Loops over values of which every `period`-th is treated alike: the channels of pixels.
#pragma once

#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {

// Memory for a pattern of `period` values.
template <class T>
static inline int64_t pattern_size(int64_t period) {
    return period + kLanes<T>;
}

// Repeats the pattern's first values behind it, so that a vector can begin at each.
template <class T>
static inline void extend_pattern(int64_t period, T* pattern) {
    for (int64_t i = period; i < period + kLanes<T>; ++i) pattern[i] = pattern[i - period];
}

// body(i, at, part) for 0 <= i < count in vectors; `at` is i % period, where the pattern stands.
template <class T, class Body>
static inline void for_each_repeated(int64_t period, int64_t count, Body body) {
    const int64_t step = kLanes<T> % period;
    int64_t at = 0, i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) {
        body(i, at, Whole{});
        at += step;
        if (at >= period) at -= period;
    }
    if (i < count) body(i, at, Part{count - i});
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
