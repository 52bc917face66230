// Philox4x32-10: four random 32-bit numbers as a function of a counter and a key (Salmon, Moraes,
// Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011). One call at a time;
// csrc/cpu/philox.h makes the same numbers many at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include "anywhere.h"

namespace convkit {

// The numbers of one stream at one step. The key takes 64 bits, so the stream is mixed into the
// seed's upper half; seeds below 2^32 never meet.
class Philox4x32 {
 public:
    CONVKIT_ANYWHERE Philox4x32(int64_t seed, int64_t step, int64_t stream)
        : key_0_(static_cast<uint32_t>(seed)),
          key_1_(static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32) ^
                 static_cast<uint32_t>(stream)),
          step_(static_cast<uint64_t>(step)) {}

    // Those of elements 4 block .. 4 block + 3.
    CONVKIT_ANYWHERE void draw(int64_t block, uint32_t (&numbers)[4]) const {
        uint32_t c0 = static_cast<uint32_t>(block);
        uint32_t c1 = static_cast<uint32_t>(static_cast<uint64_t>(block) >> 32);
        uint32_t c2 = static_cast<uint32_t>(step_), c3 = static_cast<uint32_t>(step_ >> 32);
        uint32_t key_0 = key_0_, key_1 = key_1_;
        CONVKIT_UNROLL
        for (int round = 0; round < 10; ++round) {
            const uint64_t a = uint64_t{0xD2511F53} * c0, b = uint64_t{0xCD9E8D57} * c2;
            c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ key_0;
            c1 = static_cast<uint32_t>(b);
            c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ key_1;
            c3 = static_cast<uint32_t>(a);
            key_0 += 0x9E3779B9;
            key_1 += 0xBB67AE85;
        }
        numbers[0] = c0;
        numbers[1] = c1;
        numbers[2] = c2;
        numbers[3] = c3;
    }

    // A number in [0, 1) on a grid of 2^-24, the same for float and double, is one of these times
    // 2^-24. It is below `rate` where this is below `below(rate)`.
    CONVKIT_ANYWHERE static uint32_t on_grid(uint32_t number) { return number >> 8; }
    static uint32_t below(double rate) {
        return static_cast<uint32_t>(std::ceil(rate * (1 << 24)));
    }

 private:
    uint32_t key_0_, key_1_;
    uint64_t step_;
};

}  // namespace convkit
