// A warp's product on tensor cores, c += a b, of factors rounded to tf32 (10 bits of fraction) or
// to bf16 (7 bits), with sums in float32: mma.sync of PTX, which GPUs from compute capability 8.0
// on have. The emulator has the same in plain code, lane by lane.
//
// All lanes of the warp come together, each with its share of the three matrices ("fragments", PTX
// ISA, "Matrix Fragments for mma.m16n8k8" and "... mma.m16n8k16"). With g = lane / 4, t = lane % 4:
//
//   c (16 x 8)            c[0], c[1]: row g,     columns 2t, 2t + 1
//                         c[2], c[3]: row g + 8, the same columns
//   a (16 x 8), tf32      a[0]: row g, k t          a[2]: row g, k t + 4
//                         a[1], a[3]: the same of row g + 8
//   b (8 x 8), tf32       b[0]: k t, column g       b[1]: k t + 4, column g
//   a (16 x 16), bf16     a[0]: row g, k 2t, 2t + 1     a[2]: row g, k 2t + 8, 2t + 9
//                         a[1], a[3]: the same of row g + 8
//   b (16 x 8), bf16      b[0]: k 2t, 2t + 1, column g  b[1]: k 2t + 8, 2t + 9, column g
//
// Of two bf16 values in a register the first is in the lower half.
#pragma once

#include "launch.cuh"

// Not where device code is for a GPU that has none.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define CONVKIT_TENSOR_CORES
#endif

namespace convkit {
namespace cuda {

#ifdef CONVKIT_EMULATED

// To the nearest, of two as near that away from zero.
inline uint32_t round_tf32(float v) {
    const uint32_t bits = __float_as_uint(v);
    if (v != v) return 0x7fffffffu;
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

// To the nearest, of two as near the even one.
inline uint32_t round_bf16(float v) {
    const uint32_t bits = __float_as_uint(v);
    if (v != v) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
inline uint32_t round_bf16(float first, float second) {
    return round_bf16(first) | round_bf16(second) << 16;
}

// kEach values in a register, kEach * 4 of k in half a fragment: these are added in the order of k.
template <int kEach>
inline void multiply_warp(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const auto pair = [](uint32_t low, uint32_t high) {
        return static_cast<uint64_t>(high) << 32 | low;
    };
    const auto value = [](uint64_t from, int high, int i) {
        const uint32_t bits = static_cast<uint32_t>(from >> 32 * high);
        return __uint_as_float(kEach == 1 ? bits : i == 0 ? bits << 16 : bits & 0xffff0000u);
    };
    const uint64_t rows[2] = {pair(a[0], a[1]), pair(a[2], a[3])}, columns = pair(b[0], b[1]);
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    uint64_t left[2][4], right[2][4];  // by halves of k, and by columns
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 2; ++j) {
            left[j][i] = __shfl_sync(kAllLanes, rows[j], g * 4 + i);
            right[j][i] = __shfl_sync(kAllLanes, columns, (2 * t + j) * 4 + i);
        }
    }
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 4 * kEach; ++i)
            for (int j = 0; j < 4; ++j)
                c[j] += value(left[half][i / kEach], j / 2, i % kEach) *
                        value(right[j % 2][i / kEach], half, i % kEach);
}

inline void multiply_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply_warp<1>(c, a, b);
}
inline void multiply_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply_warp<2>(c, a, b);
}

#elif defined(CONVKIT_TENSOR_CORES)

__device__ __forceinline__ uint32_t round_tf32(float v) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(v));
    return rounded;
}

__device__ __forceinline__ uint32_t round_bf16(float first, float second) {
    uint32_t rounded;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(rounded) : "f"(second), "f"(first));
    return rounded;
}

#define CONVKIT_MULTIPLY(name, shape)                                                     \
    __device__ __forceinline__ void name(float (&c)[4], const uint32_t (&a)[4],           \
                                         const uint32_t (&b)[2]) {                        \
        asm volatile("mma.sync.aligned." shape                                            \
                     " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"   \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                     \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
    }
CONVKIT_MULTIPLY(multiply_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
CONVKIT_MULTIPLY(multiply_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
#undef CONVKIT_MULTIPLY

#endif

}  // namespace cuda
}  // namespace convkit
