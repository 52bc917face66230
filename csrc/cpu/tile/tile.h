// A value of a tile: kTile samples, in as many registers as that takes.
#pragma once

#include "activate.h"
#include "lanes.h"
#include "specs.h"

// For loops over sums in registers.
#if defined(__clang__)
#define CONVKIT_UNROLL_SUMS _Pragma("clang loop unroll(full)")
#else
#define CONVKIT_UNROLL_SUMS _Pragma("GCC unroll 32")
#endif

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
constexpr int kParts = static_cast<int>(kTile) / kLanes<T>;

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr bool kManyRegisters = true;  // 32, not 16
#else
constexpr bool kManyRegisters = false;
#endif
// Registers that hold sums; the others hold operands.
constexpr int kSums = kManyRegisters ? 24 : 12;

// y = f(y) for whole registers.
template <class T>
static inline void activate_values(int64_t kind, T slope, int64_t count, T* y) {
    if (kind == kLinear) return;
    with_kind(kind, [&](auto constant) {
        for (int64_t i = 0; i < count; i += kLanes<T>) {
            store(y + i, activate<T>(decltype(constant)::value, slope, load(y + i)));
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
