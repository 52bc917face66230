// Updates of a parameter as a flat array, a vector of values at a time.
//
// An update is a struct with `template <int kCount> __device__ void update(int64_t i) const` for
// the kCount values from i on, and `__device__ void begin(double* shared)`, which all threads of a
// block call first: what is the same for all values but has to be worked out on the device.
#pragma once

#include <initializer_list>

#include "activate.cuh"
#include "vectors.cuh"

namespace convkit {
namespace cuda {

// 1, 0 or -1; NaN stays.
template <class T>
__device__ inline T sign_of(T v) {
    return v > T(0) ? T(1) : v < T(0) ? T(-1) : v;
}

constexpr int kFactors = 4;  // doubles of shared memory that `begin` has

// An update that has nothing to work out first.
struct AtOnce {
    __device__ void begin(double*) const {}
};

// Vectors of kCount values, and one by one what is left.
template <int kCount, class Update>
__global__ void update_kernel(int64_t size, Update f) {
    SHARED(double, factors, kFactors);
    f.begin(factors);
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kCount;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    int64_t i = thread * kCount;
    for (; i + kCount <= size; i += step) f.template update<kCount>(i);
    for (; i < size; ++i) f.template update<1>(i);
}

// Updates `size` values; `arrays` are those that it reads and writes in vectors.
template <class T, class Update>
void update_values(const Context& context, const char* name, int64_t size,
                   std::initializer_list<const T*> arrays, const Update& update) {
    constexpr int kCount = kVectorBytes / static_cast<int>(sizeof(T));
    bool vectors = true;
    for (const T* array : arrays) vectors = vectors && in_vectors<kCount>(array);
    const int64_t blocks = divide_up<int64_t>(size, int64_t{kThreads} * (vectors ? kCount : 1));
    const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
    launch(context, name, vectors ? update_kernel<kCount, Update> : update_kernel<1, Update>, grid,
           dim3(kThreads), 0, size, update);
}

// The rate of Adam's step: powers in double take long, so a block makes it once.
template <class T>
struct AdamRate {
    const T* learning_rate;
    const int64_t* step;
    double beta_1, beta_2;

    // lr sqrt(1 - beta_2^step) / (1 - beta_1^step), by all threads of a block.
    __device__ T alpha(double* shared) const {
        if (threadIdx.x < kWarp) {
            // Both powers at the same time, beta_2's in odd lanes.
            const double power =
                ::pow(threadIdx.x % 2 ? beta_2 : beta_1, static_cast<double>(*step));
            const double other = __shfl_down_sync(kAllLanes, power, 1);
            if (threadIdx.x == 0)
                *shared = static_cast<double>(*learning_rate) * ::sqrt(1 - other) / (1 - power);
        }
        __syncthreads();
        return static_cast<T>(*shared);
    }
};

}  // namespace cuda
}  // namespace convkit
