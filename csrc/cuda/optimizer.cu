// Optimizers, on one parameter as a flat array of `size` values; n plays no part. The formulas are
// those of csrc/cpu/optimizer.cpp:
//   next_step  the last number of counter (size) goes up by one
//   sgd        without momentum (velocity null): p -= lr g
//              with: v = momentum v - lr g; p += v, or with Nesterov p += momentum v - lr g
//   adam       alpha = lr sqrt(1 - beta_2^step) / (1 - beta_1^step), step counted from 1
//              m += (g - m) (1 - beta_1); v += (g^2 - v) (1 - beta_2); p -= alpha m / (sqrt(v) +
//              eps)
// Learning rate and step are read on the device, so that a recorded step can be run again.
#include "activate.cuh"
#include "cuda_kernels.h"
#include "vectors.cuh"

namespace convkit {
namespace cuda {
namespace {

struct AddOne {
    int64_t* counter;

    __device__ void operator()(int64_t) const { *counter += 1; }
};

// ---- stochastic gradient descent ----------------------------------------------------------------

template <class T>
struct SgdUpdate {
    const T *learning_rate, *gradient;
    T *velocity, *parameter;  // velocity may be null
    T momentum;
    bool nesterov;

    template <int kCount>
    __device__ void update(int64_t i) const {
        const T rate = *learning_rate;
        const auto g = load_vector<T, kCount>(gradient + i);
        auto p = load_vector<T, kCount>(parameter + i);
        if (velocity) {
            auto v = load_vector<T, kCount>(velocity + i);
            for (int k = 0; k < kCount; ++k) {
                const T change = -(g.value[k] * rate);
                v.value[k] = v.value[k] * momentum + change;
                p.value[k] += nesterov ? v.value[k] * momentum + change : v.value[k];
            }
            store_vector<T, kCount>(velocity + i, v);
        } else {
            for (int k = 0; k < kCount; ++k) p.value[k] += -(g.value[k] * rate);
        }
        store_vector<T, kCount>(parameter + i, p);
    }
};

// ---- Adam ---------------------------------------------------------------------------------------

template <class T>
struct AdamUpdate {
    const T* gradient;
    T *m, *v, *parameter;
    T rest_1, rest_2, epsilon, alpha;

    template <int kCount>
    __device__ void update(int64_t i) const {
        const auto g = load_vector<T, kCount>(gradient + i);
        auto first = load_vector<T, kCount>(m + i), second = load_vector<T, kCount>(v + i);
        auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) {
            first.value[k] += (g.value[k] - first.value[k]) * rest_1;
            second.value[k] += (g.value[k] * g.value[k] - second.value[k]) * rest_2;
            p.value[k] -= first.value[k] * alpha / (sqrt_of(second.value[k]) + epsilon);
        }
        store_vector<T, kCount>(m + i, first);
        store_vector<T, kCount>(v + i, second);
        store_vector<T, kCount>(parameter + i, p);
    }
};

// What differs from step to step, made once by each block: powers in double take long.
template <class T>
struct AdamRate {
    const T* learning_rate;
    const int64_t* step;
    double beta_1, beta_2;

    // By all threads of a block; `result` is one value of shared memory.
    __device__ T alpha(T* result) const {
        if (threadIdx.x < kWarp) {
            // Both powers at the same time, beta_2's in odd lanes.
            const double power =
                ::pow(threadIdx.x % 2 ? beta_2 : beta_1, static_cast<double>(*step));
            const double other = __shfl_down_sync(kAllLanes, power, 1);
            if (threadIdx.x == 0)
                *result = static_cast<T>(static_cast<double>(*learning_rate) * ::sqrt(1 - other) /
                                         (1 - power));
        }
        __syncthreads();
        return *result;
    }
};

// ---- over all values ----------------------------------------------------------------------------

// Vectors of kCount values, and one by one what is left.
template <int kCount, class Update>
__device__ void update_all(int64_t size, const Update& f) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kCount;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    int64_t i = thread * kCount;
    for (; i + kCount <= size; i += step) f.template update<kCount>(i);
    for (; i < size; ++i) f.template update<1>(i);
}

template <int kCount, class T>
__global__ void sgd_kernel(int64_t size, SgdUpdate<T> update) {
    update_all<kCount>(size, update);
}

template <int kCount, class T>
__global__ void adam_kernel(int64_t size, AdamRate<T> rate, AdamUpdate<T> update) {
    SHARED(T, alpha, 1);
    update.alpha = rate.alpha(alpha);
    update_all<kCount>(size, update);
}

dim3 grid_for(int64_t size, int count) {
    const int64_t blocks = divide_up<int64_t>(size, int64_t{kThreads} * count);
    return dim3(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
}

template <class T>
constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(T));

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void next_step(const Context& context, const Elementwise& s, int64_t, int64_t* counter) {
    for_each(context, "next_step", 1, AddOne{counter + s.size - 1});
}

template <class T>
void sgd(const Context& context, const Sgd& s, int64_t, const T* learning_rate, const T* gradient,
         T* velocity, T* parameter) {
    constexpr int kCount = kVector<T>;
    const SgdUpdate<T> update{
        learning_rate, gradient, velocity, parameter, static_cast<T>(s.momentum), s.nesterov != 0};
    const bool vectors = in_vectors<kCount>(gradient) && in_vectors<kCount>(velocity) &&
                         in_vectors<kCount>(parameter);
    launch(context, "sgd", vectors ? sgd_kernel<kCount, T> : sgd_kernel<1, T>,
           grid_for(s.size, vectors ? kCount : 1), dim3(kThreads), 0, s.size, update);
}

template <class T>
void adam(const Context& context, const Adam& s, int64_t, const T* learning_rate,
          const int64_t* step, const T* gradient, T* m, T* v, T* parameter) {
    constexpr int kCount = kVector<T>;
    const AdamRate<T> rate{learning_rate, step, s.beta_1, s.beta_2};
    const AdamUpdate<T> update{gradient,
                               m,
                               v,
                               parameter,
                               static_cast<T>(1 - s.beta_1),
                               static_cast<T>(1 - s.beta_2),
                               static_cast<T>(s.epsilon),
                               T(0)};
    const bool vectors = in_vectors<kCount>(gradient) && in_vectors<kCount>(m) &&
                         in_vectors<kCount>(v) && in_vectors<kCount>(parameter);
    launch(context, "adam", vectors ? adam_kernel<kCount, T> : adam_kernel<1, T>,
           grid_for(s.size, vectors ? kCount : 1), dim3(kThreads), 0, s.size, rate, update);
}

INSTANTIATE(next_step)
INSTANTIATE(sgd)
INSTANTIATE(adam)

}  // namespace cuda
}  // namespace convkit
