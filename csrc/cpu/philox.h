// Philox4x32-10: four random 32-bit numbers as a function of a counter and a key (Salmon, Moraes,
// Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011).
#pragma once

#include <cstdint>

namespace convkit {
namespace CONVKIT_ISA {

// kWidth calls side by side, so that the compiler can use vectors: value[i][k] is word i of call k.
template <int kWidth>
struct Philox {
    uint32_t value[4][kWidth];
};

template <int kWidth>
static inline Philox<kWidth> philox4x32(Philox<kWidth> counter, uint32_t key_0, uint32_t key_1) {
    auto& [c0, c1, c2, c3] = counter.value;
    for (int round = 0; round < 10; ++round) {
        for (int k = 0; k < kWidth; ++k) {
            const uint64_t a = uint64_t{0xD2511F53} * c0[k], b = uint64_t{0xCD9E8D57} * c2[k];
            c0[k] = static_cast<uint32_t>(b >> 32) ^ c1[k] ^ key_0;
            c1[k] = static_cast<uint32_t>(b);
            c2[k] = static_cast<uint32_t>(a >> 32) ^ c3[k] ^ key_1;
            c3[k] = static_cast<uint32_t>(a);
        }
        key_0 += 0x9E3779B9;
        key_1 += 0xBB67AE85;
    }
    return counter;
}

// Blocks block .. block + kWidth - 1 of one stream at one step; block b has the four numbers of
// elements 4 b .. 4 b + 3. The key takes 64 bits, so the stream is mixed into the seed's upper
// half; seeds below 2^32 never meet.
template <int kWidth>
static inline Philox<kWidth> philox_blocks(int64_t seed, int64_t step, int64_t stream,
                                           int64_t block) {
    const auto low = [](int64_t v) { return static_cast<uint32_t>(v); };
    const auto high = [](int64_t v) {
        return static_cast<uint32_t>(static_cast<uint64_t>(v) >> 32);
    };
    Philox<kWidth> counter;
    for (int k = 0; k < kWidth; ++k) {
        counter.value[0][k] = low(block + k);
        counter.value[1][k] = high(block + k);
        counter.value[2][k] = low(step);
        counter.value[3][k] = high(step);
    }
    return philox4x32(counter, low(seed), high(seed) ^ low(stream));
}

// A number in [0, 1) on a grid of 2^-24, the same for float and double, is value >> 8 times 2^-24.
constexpr double kPhiloxGrid = 1 << 24;

}  // namespace CONVKIT_ISA
}  // namespace convkit
