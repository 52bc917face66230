// Dropout, x (n, size) -> y = u < rate ? 0 : x / (1 - rate), with u in [0, 1) a function of seed,
// step, stream and element alone. It is its own gradient: dy -> dx with the same numbers.
// random: (seed, step). May work in place.
#include <algorithm>

#include "cpu_kernels.h"
#include "philox.h"
#include "simd.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void dropout(const Context& context, const Dropout& s, int64_t n, const T* x, const int64_t* random,
             T* y) {
    constexpr int kWidth = 64;  // calls of Philox at once
    constexpr int64_t kChunk = 4 * kWidth;
    const int64_t count = n * s.size, seed = random[0], step = random[1];
    const T scale = static_cast<T>(1 / (1 - s.rate));
    const uint32_t dropped_below = philox_below(s.rate);
    const int64_t chunks = (count + kChunk - 1) / kChunk;
    parallel_for(context, chunks, 0.5 * kChunk, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            int64_t block[kWidth];
            for (int k = 0; k < kWidth; ++k) block[k] = chunk * kWidth + k;
            const auto numbers = philox_blocks(seed, step, s.stream, block);
            uint32_t drawn[kChunk];
            for (int k = 0; k < kWidth; ++k) {
                for (int i = 0; i < 4; ++i) drawn[4 * k + i] = numbers.value[i][k] >> 8;
            }
            const int64_t first = chunk * kChunk, size = std::min(kChunk, count - first);
            for (int64_t i = 0; i < size; ++i) {
                const T scaled = x[first + i] * scale;  // in any case: a branch would be a gamble
                y[first + i] = drawn[i] < dropped_below ? T(0) : scaled;
            }
        }
    });
}

INSTANTIATE(dropout)

}  // namespace CONVKIT_ISA
}  // namespace convkit
