// Headings for normal numbers, for processors and GPUs alike: of two independent uniform numbers
// u and v, sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v) is a pair of independent normal ones (Box and
// Muller: A note on the generation of random normal deviates, 1958).
#pragma once

#include <cstdint>

#include "anywhere.h"

namespace convkit {

template <class T>
struct Heading {
    T cosine, sine;
};

// u, in (0, 1] on a grid of 2^-24: both types hold it exactly.
template <class T>
CONVKIT_ANYWHERE static inline T above_zero(uint32_t number) {
    return static_cast<T>(static_cast<int32_t>((number >> 8) + 1)) * static_cast<T>(0x1p-24);
}

// The heading after v = (number >> 8) 2^-24 turns. The nearest quarter of a turn is taken off in
// integers; of what is left, at most an eighth, the series of sine and cosine are used.
template <class T>
CONVKIT_ANYWHERE static inline Heading<T> heading(uint32_t number) {
    constexpr int kSineTerms = sizeof(T) == 4 ? 5 : 9, kCosineTerms = sizeof(T) == 4 ? 6 : 10;
    const auto turn = static_cast<int32_t>(number >> 8);
    const int32_t quarter = (turn + (1 << 21)) >> 22;
    const T angle =
        static_cast<T>(turn - (quarter << 22)) * static_cast<T>(3.14159265358979323846 * 0x1p-23);
    const T square = angle * angle;
    T sine = 1, cosine = 1;
    CONVKIT_UNROLL
    for (int i = kSineTerms - 1; i > 0; --i)
        sine = T(1) - sine * square * static_cast<T>(1.0 / (2 * i * (2 * i + 1)));
    CONVKIT_UNROLL
    for (int i = kCosineTerms - 1; i > 0; --i)
        cosine = T(1) - cosine * square * static_cast<T>(1.0 / (2 * i * (2 * i - 1)));
    sine *= angle;
    const T first = quarter & 1 ? sine : cosine, second = quarter & 1 ? cosine : sine;
    return {(quarter + 1) & 2 ? -first : first, quarter & 2 ? -second : second};
}

}  // namespace convkit
