// The order of an epoch: a pseudorandom permutation of 0 .. n - 1 of which each element is a
// function of the seed and its place alone, so that any thread, or a GPU, makes any part of it.
//
// The numbers below a power of two go through a Feistel network; one that comes out as n or more
// goes through again until it is in range ("cycle walking"; less than twice on average, except for
// small n). The network is VariablePhilox (Mitchell, Stokes, Frank, Holmes: Bandwidth-Optimal
// Random Shuffling for GPUs; ACM Transactions on Parallel Computing, 2022, arXiv:2106.06161) with
// its 24 rounds: Philox's rounds on halves of any width. A round multiplies one half; the product's
// low bits take its place, its high bits and a key change the other half. Here the halves take
// turns in place of being swapped, and a product has 32 bits. As in every such network, orders of
// exactly a power of two, from 2^8 on, are even permutations.
#pragma once

#include <cstdint>

#include "anywhere.h"

namespace convkit {

// What an order follows from: the halves' widths for n, and the keys for the seed.
struct Shuffle {
    static constexpr int kRounds = 24;
    // With 2^4, the orders of few samples are visibly uneven; with 2^8 a million orders of 2 .. 7
    // samples are as even as chance.
    static constexpr int kLeastBits = 8;

    uint64_t n;
    int left_bits, right_bits;
    uint32_t left_mask, right_mask;
    uint32_t keys[kRounds];  // for the right half and the left in turns

    // n is 0 .. 2^62.
    Shuffle(int64_t count, uint64_t seed) : n(static_cast<uint64_t>(count)) {
        int bits = kLeastBits;
        while (n > uint64_t{1} << bits) ++bits;
        right_bits = bits / 2;
        left_bits = bits - right_bits;
        left_mask = ~uint32_t{0} >> (32 - left_bits);
        right_mask = ~uint32_t{0} >> (32 - right_bits);
        for (int i = 0; i < kRounds; ++i) {
            // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)
            uint64_t mixed = seed += 0x9E3779B97F4A7C15;
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9;
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB;
            mixed ^= mixed >> 31;
            keys[i] = static_cast<uint32_t>(mixed >> 32) & (i % 2 ? left_mask : right_mask);
        }
    }
};

// Sends each x through the network. Several take little longer than one: a round waits for the one
// before, but not for those of the others. Loops are unrolled so that all halves are in registers.
template <int kCount>
CONVKIT_ANYWHERE inline void encipher(const Shuffle& shuffle, uint64_t (&x)[kCount]) {
    constexpr uint32_t kMultiplier = 0xD256D193;  // of Philox2x32
    uint32_t left[kCount], right[kCount];
    CONVKIT_UNROLL
    for (int k = 0; k < kCount; ++k) {
        left[k] = static_cast<uint32_t>(x[k] >> shuffle.right_bits);
        right[k] = static_cast<uint32_t>(x[k]) & shuffle.right_mask;
    }
    for (int i = 0; i < Shuffle::kRounds; i += 2) {
        CONVKIT_UNROLL
        for (int k = 0; k < kCount; ++k) {
            const uint32_t product = left[k] * kMultiplier;
            right[k] ^= product >> (32 - shuffle.right_bits) ^ shuffle.keys[i];
            left[k] = product & shuffle.left_mask;
        }
        CONVKIT_UNROLL
        for (int k = 0; k < kCount; ++k) {
            const uint32_t product = right[k] * kMultiplier;
            left[k] ^= product >> (32 - shuffle.left_bits) ^ shuffle.keys[i + 1];
            right[k] = product & shuffle.right_mask;
        }
    }
    CONVKIT_UNROLL
    for (int k = 0; k < kCount; ++k)
        x[k] = static_cast<uint64_t>(left[k]) << shuffle.right_bits | right[k];
}

// Element i of the order, for 0 <= i < n.
CONVKIT_ANYWHERE inline int64_t shuffled(const Shuffle& shuffle, int64_t i) {
    uint64_t x[1] = {static_cast<uint64_t>(i)};
    do {
        encipher(shuffle, x);
    } while (x[0] >= shuffle.n);
    return static_cast<int64_t>(x[0]);
}

// Elements begin .. end of the order, each at its place in `order`.
inline void fill_shuffled(const Shuffle& shuffle, int64_t begin, int64_t end, int64_t* order) {
    constexpr int kAtOnce = 8;
    int64_t next = begin;
    if (end - begin > kAtOnce) {
        // x[k] is on its way to place[k]. What is stored before it is in range is overwritten.
        uint64_t x[kAtOnce];
        int64_t place[kAtOnce];
        for (int k = 0; k < kAtOnce; ++k) x[k] = static_cast<uint64_t>(place[k] = next++);
        while (next + kAtOnce <= end) {
            encipher(shuffle, x);
            CONVKIT_UNROLL
            for (int k = 0; k < kAtOnce; ++k) {
                order[place[k]] = static_cast<int64_t>(x[k]);
                // Without a branch, which nothing could foresee.
                const int64_t in_range = x[k] < shuffle.n, take_next = -in_range;
                place[k] ^= (place[k] ^ next) & take_next;
                x[k] ^= (x[k] ^ static_cast<uint64_t>(next)) & static_cast<uint64_t>(take_next);
                next += in_range;
            }
        }
        for (const int64_t i : place) order[i] = shuffled(shuffle, i);
    }
    for (; next < end; ++next) order[next] = shuffled(shuffle, next);
}

}  // namespace convkit
