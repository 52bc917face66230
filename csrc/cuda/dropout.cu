// Dropout, x (n, size) -> y = u < rate ? 0 : x / (1 - rate), with u in [0, 1) a function of seed,
// step, stream and element alone: the numbers of csrc/cpu/dropout.cpp. It is its own gradient.
// random: (seed, step), read on the device. May work in place.
#include "cuda_kernels.h"
#include "index.cuh"
#include "philox.cuh"

namespace convkit {
namespace cuda {
namespace {

constexpr int kDrawn = 4;  // numbers of one call of Philox

// A thread takes the values of one call.
template <class T, int kWidth>
__global__ void dropout_kernel(int64_t count, const T* x, const int64_t* random, int64_t stream,
                               uint32_t dropped_below, T scale, T* y) {
    const int64_t block = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t first = block * kDrawn;
    if (first >= count) return;
    const bool whole = count - first >= kDrawn;
    Vector<T, kWidth> values[kDrawn / kWidth]{};
    CONVKIT_UNROLL
    for (int k = 0; k < kDrawn / kWidth; ++k) {
        if (whole || (kWidth == 1 && first + k < count))
            values[k] = load_vector<T, kWidth>(x + first + k * kWidth);
    }
    uint32_t numbers[kDrawn];
    Philox4x32(random[0], random[1], stream).draw(block, numbers);
    CONVKIT_UNROLL
    for (int k = 0; k < kDrawn; ++k) numbers[k] = Philox4x32::on_grid(numbers[k]);
    if (kWidth > 1 && !whole) {
        CONVKIT_UNROLL
        for (int k = 0; k < kDrawn; ++k) {
            if (first + k < count)
                y[first + k] = numbers[k] < dropped_below ? T(0) : x[first + k] * scale;
        }
        return;
    }
    CONVKIT_UNROLL
    for (int k = 0; k < kDrawn / kWidth; ++k) {
        if (!whole && first + k >= count) return;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) {
            const bool dropped = numbers[k * kWidth + e] < dropped_below;
            values[k].value[e] = dropped ? T(0) : values[k].value[e] * scale;
        }
        write_vector<T, kWidth>(y + first + k * kWidth, values[k]);
    }
}

}  // namespace

template <class T>
void dropout(const Context& context, const Dropout& s, int64_t n, const T* x, const int64_t* random,
             T* y) {
    constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
    const int64_t count = n * s.size;
    const bool aligned = in_vectors<kWidth>(x) && in_vectors<kWidth>(y);
    launch(context, "dropout", aligned ? dropout_kernel<T, kWidth> : dropout_kernel<T, 1>,
           blocks_for(count, kThreads * kDrawn), dim3(kThreads), 0, count, x, random, s.stream,
           Philox4x32::below(s.rate), static_cast<T>(1 / (1 - s.rate)), y);
}

INSTANTIATE(dropout)

}  // namespace cuda
}  // namespace convkit
