// Optimizers with a rate of their own for each value, on one parameter as a flat array of `size`
// values; n plays no part. The formulas are those of csrc/cpu/adaptive.cpp, g being the gradient, p
// the parameter, lr the learning rate, t the step, counted from 1:
//   rmsprop         v = rho v + (1 - rho) g^2; d = v + eps, or with `average` (centred)
//                   a = rho a + (1 - rho) g; d = v - a^2 + eps
//                   p -= lr g / sqrt(d), or with `momentum` k = momentum k + lr g / sqrt(d); p -= k
//   nadam_products  u(t) = beta_1 (1 - 0.96^t / 2); products (3) = u(t), u(t + 1), and what was
//                   there last, 1 before the first step, times u(t)
//   nadam           m += (g - m) (1 - beta_1); v += (g^2 - v) (1 - beta_2)
//                   h = u(t + 1) m / (1 - U u(t + 1)) + (1 - u(t)) g / (1 - U), U = products[2]
//                   p -= lr h / (sqrt(v / (1 - beta_2^t)) + eps)
//   amsgrad         adam (optimizer.cu) with `largest`, the largest v so far, in place of v
//   adagrad         s += g^2; p -= lr g / sqrt(s + eps)
//   adadelta        s = rho s + (1 - rho) g^2; d = g sqrt(e + eps) / sqrt(s + eps)
//                   e = rho e + (1 - rho) d^2; p -= lr d
//   lion            p -= lr sign(beta_1 m + (1 - beta_1) g); m = beta_2 m + (1 - beta_2) g
// Learning rate and step are read on the device, so that a recorded step can be run again.
#include "cuda_kernels.h"
#include "update.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class T>
struct RmspropUpdate : AtOnce {
    const T *learning_rate, *gradient;
    T *velocity, *momentum, *average, *parameter;  // momentum and average may be null
    T rho, rest, kept, epsilon;

    template <int kCount>
    __device__ void update(int64_t i) const {
        const T rate = *learning_rate;
        const auto g = load_vector<T, kCount>(gradient + i);
        auto v = load_vector<T, kCount>(velocity + i), p = load_vector<T, kCount>(parameter + i);
        Vector<T, kCount> change;
        for (int k = 0; k < kCount; ++k)
            v.value[k] = v.value[k] * rho + g.value[k] * g.value[k] * rest;
        store_vector<T, kCount>(velocity + i, v);
        if (average) {
            auto a = load_vector<T, kCount>(average + i);
            for (int k = 0; k < kCount; ++k) {
                a.value[k] = a.value[k] * rho + g.value[k] * rest;
                const T variance = v.value[k] - a.value[k] * a.value[k];
                v.value[k] = variance < T(0) ? T(0) : variance;  // never but for rounding
            }
            store_vector<T, kCount>(average + i, a);
        }
        for (int k = 0; k < kCount; ++k)
            change.value[k] = g.value[k] * rate / sqrt_of(v.value[k] + epsilon);
        if (momentum) {
            const auto before = load_vector<T, kCount>(momentum + i);
            for (int k = 0; k < kCount; ++k) change.value[k] += before.value[k] * kept;
            store_vector<T, kCount>(momentum + i, change);
        }
        for (int k = 0; k < kCount; ++k) p.value[k] -= change.value[k];
        store_vector<T, kCount>(parameter + i, p);
    }
};

__device__ double nadam_u(double beta_1, double step) {
    return beta_1 * (1 - 0.5 * ::pow(0.96, step));
}

struct NadamProducts {
    const int64_t* step;
    double* products;
    double beta_1;

    __device__ void operator()(int64_t) const {
        const double t = static_cast<double>(*step), u = nadam_u(beta_1, t);
        products[0] = u;
        products[1] = nadam_u(beta_1, t + 1);
        products[2] *= u;
    }
};

template <class T>
struct NadamUpdate {
    const T* learning_rate;
    const int64_t* step;
    const double* products;
    const T* gradient;
    T *m, *v, *parameter;
    double beta_2;
    T rest_1, rest_2, epsilon;
    T of_m, of_g, of_v;  // by begin

    __device__ void begin(double* shared) {
        if (threadIdx.x == 0) {
            const double u = products[0], next = products[1], product = products[2];
            shared[0] = next / (1 - product * next);
            shared[1] = (1 - u) / (1 - product);
            shared[2] = 1 / (1 - ::pow(beta_2, static_cast<double>(*step)));
        }
        __syncthreads();
        of_m = static_cast<T>(shared[0]);
        of_g = static_cast<T>(shared[1]);
        of_v = static_cast<T>(shared[2]);
    }

    template <int kCount>
    __device__ void update(int64_t i) const {
        const T rate = *learning_rate;
        const auto g = load_vector<T, kCount>(gradient + i);
        auto first = load_vector<T, kCount>(m + i), second = load_vector<T, kCount>(v + i);
        auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) {
            first.value[k] += (g.value[k] - first.value[k]) * rest_1;
            second.value[k] += (g.value[k] * g.value[k] - second.value[k]) * rest_2;
            const T ahead = first.value[k] * of_m + g.value[k] * of_g;
            p.value[k] -= ahead * rate / (sqrt_of(second.value[k] * of_v) + epsilon);
        }
        store_vector<T, kCount>(m + i, first);
        store_vector<T, kCount>(v + i, second);
        store_vector<T, kCount>(parameter + i, p);
    }
};

template <class T>
struct AmsgradUpdate {
    AdamRate<T> rate;
    const T* gradient;
    T *m, *v, *largest, *parameter;
    T rest_1, rest_2, epsilon;
    T alpha;  // by begin

    __device__ void begin(double* shared) { alpha = rate.alpha(shared); }

    template <int kCount>
    __device__ void update(int64_t i) const {
        const auto g = load_vector<T, kCount>(gradient + i);
        auto first = load_vector<T, kCount>(m + i), second = load_vector<T, kCount>(v + i);
        auto most = load_vector<T, kCount>(largest + i), p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) {
            first.value[k] += (g.value[k] - first.value[k]) * rest_1;
            second.value[k] += (g.value[k] * g.value[k] - second.value[k]) * rest_2;
            most.value[k] = larger_or_nan(most.value[k], second.value[k]);
            p.value[k] -= first.value[k] * alpha / (sqrt_of(most.value[k]) + epsilon);
        }
        store_vector<T, kCount>(m + i, first);
        store_vector<T, kCount>(v + i, second);
        store_vector<T, kCount>(largest + i, most);
        store_vector<T, kCount>(parameter + i, p);
    }
};

template <class T>
struct AdagradUpdate : AtOnce {
    const T *learning_rate, *gradient;
    T *accumulator, *parameter;
    T epsilon;

    template <int kCount>
    __device__ void update(int64_t i) const {
        const T rate = *learning_rate;
        const auto g = load_vector<T, kCount>(gradient + i);
        auto total = load_vector<T, kCount>(accumulator + i);
        auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) {
            total.value[k] += g.value[k] * g.value[k];
            p.value[k] -= g.value[k] * rate / sqrt_of(total.value[k] + epsilon);
        }
        store_vector<T, kCount>(accumulator + i, total);
        store_vector<T, kCount>(parameter + i, p);
    }
};

template <class T>
struct AdadeltaUpdate : AtOnce {
    const T *learning_rate, *gradient;
    T *accumulated_gradient, *accumulated_delta, *parameter;
    T rho, rest, epsilon;

    template <int kCount>
    __device__ void update(int64_t i) const {
        const T rate = *learning_rate;
        const auto g = load_vector<T, kCount>(gradient + i);
        auto squares = load_vector<T, kCount>(accumulated_gradient + i);
        auto deltas = load_vector<T, kCount>(accumulated_delta + i);
        auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) {
            squares.value[k] = squares.value[k] * rho + g.value[k] * g.value[k] * rest;
            const T delta = g.value[k] * sqrt_of(deltas.value[k] + epsilon) /
                            sqrt_of(squares.value[k] + epsilon);
            deltas.value[k] = deltas.value[k] * rho + delta * delta * rest;
            p.value[k] -= delta * rate;
        }
        store_vector<T, kCount>(accumulated_gradient + i, squares);
        store_vector<T, kCount>(accumulated_delta + i, deltas);
        store_vector<T, kCount>(parameter + i, p);
    }
};

template <class T>
struct LionUpdate : AtOnce {
    const T *learning_rate, *gradient;
    T *m, *parameter;
    T beta_1, rest_1, beta_2, rest_2;

    template <int kCount>
    __device__ void update(int64_t i) const {
        const T rate = *learning_rate;
        const auto g = load_vector<T, kCount>(gradient + i);
        auto first = load_vector<T, kCount>(m + i), p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) {
            p.value[k] -= sign_of(first.value[k] * beta_1 + g.value[k] * rest_1) * rate;
            first.value[k] = first.value[k] * beta_2 + g.value[k] * rest_2;
        }
        store_vector<T, kCount>(m + i, first);
        store_vector<T, kCount>(parameter + i, p);
    }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void rmsprop(const Context& context, const Rmsprop& s, int64_t, const T* learning_rate,
             const T* gradient, T* velocity, T* momentum, T* average, T* parameter) {
    const RmspropUpdate<T> update{{},
                                  learning_rate,
                                  gradient,
                                  velocity,
                                  momentum,
                                  average,
                                  parameter,
                                  static_cast<T>(s.rho),
                                  static_cast<T>(1 - s.rho),
                                  static_cast<T>(s.momentum),
                                  static_cast<T>(s.epsilon)};
    update_values<T>(context, "rmsprop", s.size, {gradient, velocity, momentum, average, parameter},
                     update);
}

template <class T>
void nadam_products(const Context& context, const Nadam& s, int64_t, const int64_t* step,
                    double* products) {
    for_each(context, "nadam_products", 1, NadamProducts{step, products, s.beta_1});
}

template <class T>
void nadam(const Context& context, const Nadam& s, int64_t, const T* learning_rate,
           const int64_t* step, const double* products, const T* gradient, T* m, T* v,
           T* parameter) {
    const NadamUpdate<T> update{learning_rate,
                                step,
                                products,
                                gradient,
                                m,
                                v,
                                parameter,
                                s.beta_2,
                                static_cast<T>(1 - s.beta_1),
                                static_cast<T>(1 - s.beta_2),
                                static_cast<T>(s.epsilon),
                                T(0),
                                T(0),
                                T(0)};
    update_values<T>(context, "nadam", s.size, {gradient, m, v, parameter}, update);
}

template <class T>
void amsgrad(const Context& context, const Adam& s, int64_t, const T* learning_rate,
             const int64_t* step, const T* gradient, T* m, T* v, T* largest, T* parameter) {
    const AmsgradUpdate<T> update{{learning_rate, step, s.beta_1, s.beta_2},
                                  gradient,
                                  m,
                                  v,
                                  largest,
                                  parameter,
                                  static_cast<T>(1 - s.beta_1),
                                  static_cast<T>(1 - s.beta_2),
                                  static_cast<T>(s.epsilon),
                                  T(0)};
    update_values<T>(context, "amsgrad", s.size, {gradient, m, v, largest, parameter}, update);
}

template <class T>
void adagrad(const Context& context, const Adagrad& s, int64_t, const T* learning_rate,
             const T* gradient, T* accumulator, T* parameter) {
    const AdagradUpdate<T> update{{},          learning_rate, gradient,
                                  accumulator, parameter,     static_cast<T>(s.epsilon)};
    update_values<T>(context, "adagrad", s.size, {gradient, accumulator, parameter}, update);
}

template <class T>
void adadelta(const Context& context, const Adadelta& s, int64_t, const T* learning_rate,
              const T* gradient, T* accumulated_gradient, T* accumulated_delta, T* parameter) {
    const AdadeltaUpdate<T> update{{},
                                   learning_rate,
                                   gradient,
                                   accumulated_gradient,
                                   accumulated_delta,
                                   parameter,
                                   static_cast<T>(s.rho),
                                   static_cast<T>(1 - s.rho),
                                   static_cast<T>(s.epsilon)};
    update_values<T>(context, "adadelta", s.size,
                     {gradient, accumulated_gradient, accumulated_delta, parameter}, update);
}

template <class T>
void lion(const Context& context, const Lion& s, int64_t, const T* learning_rate, const T* gradient,
          T* m, T* parameter) {
    const LionUpdate<T> update{{},
                               learning_rate,
                               gradient,
                               m,
                               parameter,
                               static_cast<T>(s.beta_1),
                               static_cast<T>(1 - s.beta_1),
                               static_cast<T>(s.beta_2),
                               static_cast<T>(1 - s.beta_2)};
    update_values<T>(context, "lion", s.size, {gradient, m, parameter}, update);
}

INSTANTIATE(rmsprop)
INSTANTIATE(nadam_products)
INSTANTIATE(nadam)
INSTANTIATE(amsgrad)
INSTANTIATE(adagrad)
INSTANTIATE(adadelta)
INSTANTIATE(lion)

}  // namespace cuda
}  // namespace convkit
