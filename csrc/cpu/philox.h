// Philox4x32-10: four random 32-bit numbers as a function of a counter and a key (Salmon, Moraes,
// Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011).
#pragma once

#include <cmath>
#include <cstdint>

#include "simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace convkit {
namespace CONVKIT_ISA {

// 32-bit words, each in the lower half of a lane; what stands in the upper half is junk.
using Words = Vec<uint64_t>;
typedef uint32_t Numbers __attribute__((vector_size(kVectorBytes / 2)));  // the lower halves

static inline Words product(Words x, uint32_t factor) {
#if defined(__AVX512F__)
    constexpr __mmask8 kAll = 0xff;  // the form without a mask draws a false warning from GCC
    return reinterpret_cast<Words>(_mm512_maskz_mul_epu32(
        kAll, reinterpret_cast<__m512i>(x), _mm512_set1_epi32(static_cast<int>(factor))));
#elif defined(__AVX2__)
    return reinterpret_cast<Words>(_mm256_mul_epu32(reinterpret_cast<__m256i>(x),
                                                    _mm256_set1_epi32(static_cast<int>(factor))));
#elif defined(__x86_64__)
    return reinterpret_cast<Words>(
        _mm_mul_epu32(reinterpret_cast<__m128i>(x), _mm_set1_epi32(static_cast<int>(factor))));
#elif defined(__aarch64__)
    return reinterpret_cast<Words>(vmull_n_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(x)), factor));
#else
    return (x & 0xFFFFFFFF) * factor;
#endif
}

static inline void philox4x32(Words (&counter)[4], uint32_t key_0, uint32_t key_1) {
    auto& [c0, c1, c2, c3] = counter;
    for (int round = 0; round < 10; ++round) {
        const Words a = product(c0, 0xD2511F53), b = product(c2, 0xCD9E8D57);
        c0 = (b >> 32) ^ c1 ^ key_0;
        c1 = b;
        c2 = (a >> 32) ^ c3 ^ key_1;
        c3 = a;
        key_0 += 0x9E3779B9;
        key_1 += 0xBB67AE85;
    }
}

// value[i][k] is word i of call k.
template <int kCalls>
struct Philox {
    uint32_t value[4][kCalls];
};

// The numbers of so many blocks of one stream at one step; block b has those of elements 4 b ..
// 4 b + 3. The key takes 64 bits, so the stream is mixed into the seed's upper half; seeds below
// 2^32 never meet.
template <int kCalls>
static inline Philox<kCalls> philox_blocks(int64_t seed, int64_t step, int64_t stream,
                                           const int64_t (&block)[kCalls]) {
    constexpr int kAtOnce = kLanes<uint64_t>;
    static_assert(kCalls % kAtOnce == 0, "whole vectors");
    const auto key = static_cast<uint64_t>(seed), steps = static_cast<uint64_t>(step);
    const auto key_0 = static_cast<uint32_t>(key);
    const auto key_1 = static_cast<uint32_t>(key >> 32) ^ static_cast<uint32_t>(stream);
    Philox<kCalls> result;
    for (int k = 0; k < kCalls; k += kAtOnce) {
        const Words blocks = reinterpret_cast<Words>(load(block + k));
        Words counter[4] = {blocks, blocks >> 32, broadcast(steps), broadcast(steps >> 32)};
        philox4x32(counter, key_0, key_1);
        for (int i = 0; i < 4; ++i) {
            const Numbers numbers = __builtin_convertvector(counter[i], Numbers);
            std::memcpy(result.value[i] + k, &numbers, sizeof numbers);
        }
    }
    return result;
}

// A number in [0, 1) on a grid of 2^-24, the same for float and double, is value >> 8 times 2^-24.
constexpr double kPhiloxGrid = 1 << 24;

// The number is below `rate` where value >> 8 is below this.
static inline uint32_t philox_below(double rate) {
    return static_cast<uint32_t>(std::ceil(rate * kPhiloxGrid));
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
