// Optimizers, on one parameter as a flat array of `size` values; n plays no part. The formulas are
// those of csrc/cpu/optimizer.cpp:
//   next_step  the last number of counter (size) goes up by one
//   sgd        without momentum (velocity null): p -= lr g
//              with: v = momentum v - lr g; p += v, or with Nesterov p += momentum v - lr g
//   adam       alpha = lr sqrt(1 - beta_2^step) / (1 - beta_1^step), step counted from 1
//              m += (g - m) (1 - beta_1); v += (g^2 - v) (1 - beta_2); p -= alpha m / (sqrt(v) +
//              eps)
// Learning rate and step are read on the device, so that a recorded step can be run again.
#include "cuda_kernels.h"
#include "update.cuh"

namespace convkit {
namespace cuda {
namespace {

struct AddOne {
    int64_t* counter;

    __device__ void operator()(int64_t) const { *counter += 1; }
};

template <class T>
struct SgdUpdate : AtOnce {
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

template <class T>
struct AdamUpdate {
    AdamRate<T> rate;
    const T* gradient;
    T *m, *v, *parameter;
    T rest_1, rest_2, epsilon;
    T alpha;  // by begin

    __device__ void begin(double* shared) { alpha = rate.alpha(shared); }

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

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void next_step(const Context& context, const Elementwise& s, int64_t, int64_t* counter) {
    for_each(context, "next_step", 1, AddOne{counter + s.size - 1});
}

template <class T>
void sgd(const Context& context, const Sgd& s, int64_t, const T* learning_rate, const T* gradient,
         T* velocity, T* parameter) {
    const SgdUpdate<T> update{{},
                              learning_rate,
                              gradient,
                              velocity,
                              parameter,
                              static_cast<T>(s.momentum),
                              s.nesterov != 0};
    update_values<T>(context, "sgd", s.size, {gradient, velocity, parameter}, update);
}

template <class T>
void adam(const Context& context, const Adam& s, int64_t, const T* learning_rate,
          const int64_t* step, const T* gradient, T* m, T* v, T* parameter) {
    const AdamUpdate<T> update{{learning_rate, step, s.beta_1, s.beta_2},
                               gradient,
                               m,
                               v,
                               parameter,
                               static_cast<T>(1 - s.beta_1),
                               static_cast<T>(1 - s.beta_2),
                               static_cast<T>(s.epsilon),
                               T(0)};
    update_values<T>(context, "adam", s.size, {gradient, m, v, parameter}, update);
}

INSTANTIATE(next_step)
INSTANTIATE(sgd)
INSTANTIATE(adam)

}  // namespace cuda
}  // namespace convkit
