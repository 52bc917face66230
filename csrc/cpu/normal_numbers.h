// Normal numbers from Philox's, many at a time: csrc/heading.h says how.
#pragma once

#include "heading.h"
#include "math.h"
#include "philox.h"

namespace convkit {
namespace CONVKIT_ISA {

// value[i][k]: the normal number in place of word i of call k.
template <class T, int kCalls>
struct Normals {
    alignas(kVectorBytes) T value[4][kCalls];
};

// kNormalsAtOnce pairs from as many pairs of words. A function of its own: within different loops
// the compiler would fuse other products with sums, and bits would not be the same.
constexpr int kNormalsAtOnce = 16;
template <class T>
[[gnu::noinline]] static void normal_pairs(const uint32_t* u, const uint32_t* v, T* first,
                                           T* second) {
    alignas(kVectorBytes) T radius[kNormalsAtOnce];
    for (int k = 0; k < kNormalsAtOnce; ++k) radius[k] = above_zero<T>(u[k]);
    for (int k = 0; k < kNormalsAtOnce; k += kLanes<T>) {
        store(radius + k, square_root<T>(log<T>(load(radius + k)) * -2));
    }
    for (int k = 0; k < kNormalsAtOnce; ++k) {
        const Heading<T> d = heading<T>(v[k]);
        first[k] = radius[k] * d.cosine;
        second[k] = radius[k] * d.sine;
    }
}

// Words 0 and 1 of a call make a pair, 2 and 3 another.
template <class T, int kCalls>
static inline void normal_numbers(const Philox<kCalls>& words, Normals<T, kCalls>& normals) {
    static_assert(kCalls % kNormalsAtOnce == 0, "whole pieces");
    for (int i = 0; i < 4; i += 2) {
        for (int k = 0; k < kCalls; k += kNormalsAtOnce) {
            normal_pairs(words.value[i] + k, words.value[i + 1] + k, normals.value[i] + k,
                         normals.value[i + 1] + k);
        }
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
