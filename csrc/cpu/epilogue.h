// What becomes of the sums of a convolution or a dense layer while they are in registers.
#pragma once

#include <limits>

#include "math.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// The larger of two: the first if they are equal, NaN if either is. Compilers do not find the
// instruction that leaves only NaN in v to be looked after.
template <class T>
static inline Vec<T> larger_or_nan(Vec<T> best, Vec<T> v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const auto a = reinterpret_cast<__m512>(v), b = reinterpret_cast<__m512>(best);
        const __mmask16 numbers = _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q);
        return reinterpret_cast<Vec<T>>(_mm512_mask_max_ps(a, numbers, a, b));
    } else {
        const auto a = reinterpret_cast<__m512d>(v), b = reinterpret_cast<__m512d>(best);
        const __mmask8 numbers = _mm512_cmp_pd_mask(a, a, _CMP_ORD_Q);
        return reinterpret_cast<Vec<T>>(_mm512_mask_max_pd(a, numbers, a, b));
    }
#else
    return ((best >= v) | (best != best)) ? best : v;
#endif
}

// The largest of each window of pool x pool sums, then + bias, then at least `floor`. In this order
// the values are those of bias, floor and pooling: neither rounding nor the floor reverses an
// order.
template <class T>
struct Epilogue {
    int64_t pool = 1;  // 1 (no pooling) or 2
    T floor = -std::numeric_limits<T>::infinity();
};

// Of the activations, what an epilogue does itself.
template <class T>
static inline T floor_of(int64_t activation) {
    return activation == kRelu ? T(0) : Epilogue<T>().floor;
}
static inline bool is_floor(int64_t activation) {
    return activation == kRelu || activation == kLinear;
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
