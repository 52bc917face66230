// The arithmetic peak of one core, as a kernel: `size` rounds of 24 x 16 multiply-adds on registers
// that depend on nothing but themselves, from x (16) and back to it.
#include "cpu_kernels.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void multiply_add_peak(const Context&, const Elementwise& s, int64_t, T* x) {
    // As many sums as hide the latency of a multiply-add and leave two registers free.
#if defined(__AVX512F__) || defined(__aarch64__)
    constexpr int kSums = 24;
#else
    constexpr int kSums = 12;
#endif
    constexpr int64_t kRepeats = 24 * 16 / (kSums * kLanes<T>);
    const Vec<T> factor = broadcast(x[0]), step = broadcast(x[1]);
    Vec<T> sums[kSums];
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i)
        sums[i] = broadcast(x[i % 16] + T(i));  // equal sums would become one
    for (int64_t round = 0; round < s.size * kRepeats; ++round) {
#pragma GCC unroll 24
        for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + step;
    }
    Vec<T> total{};
    for (int i = 0; i < kSums; ++i) total += sums[i];
    x[0] = sum<T>(total);
}

INSTANTIATE(multiply_add_peak)

}  // namespace CONVKIT_ISA
}  // namespace convkit
