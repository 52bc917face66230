// Optimizers with a rate of their own for each value, on one parameter as a flat array of `size`
// values; n plays no part. g is the gradient, p the parameter, lr the learning rate, t the step,
// counted from 1.
//   rmsprop         v = rho v + (1 - rho) g^2; d = v + eps, or with `average` (centred)
//                   a = rho a + (1 - rho) g; d = v - a^2 + eps
//                   p -= lr g / sqrt(d), or with `momentum` k = momentum k + lr g / sqrt(d); p -= k
//   nadam_products  u(t) = beta_1 (1 - 0.96^t / 2); products (3) = u(t), u(t + 1), and what was
//                   there last, 1 before the first step, times u(t)
//   nadam           m += (g - m) (1 - beta_1); v += (g^2 - v) (1 - beta_2)
//                   h = u(t + 1) m / (1 - U u(t + 1)) + (1 - u(t)) g / (1 - U), U = products[2]
//                   p -= lr h / (sqrt(v / (1 - beta_2^t)) + eps)
//   amsgrad         adam (optimizer.cpp) with `largest`, the largest v so far, in place of v
//   adagrad         s += g^2; p -= lr g / sqrt(s + eps)
//   adadelta        s = rho s + (1 - rho) g^2; d = g sqrt(e + eps) / sqrt(s + eps)
//                   e = rho e + (1 - rho) d^2; p -= lr d
//   lion            p -= lr sign(beta_1 m + (1 - beta_1) g); m = beta_2 m + (1 - beta_2) g
// As Keras 3 has them. RMSprop: Hinton, Srivastava and Swersky, 2012; centred: Graves, 2013. Nadam:
// Dozat, 2016. AMSGrad: Reddi, Kale and Kumar, 2018. Adagrad: Duchi, Hazan and Singer, 2011.
// Adadelta: Zeiler, 2012. Lion: Chen et al., 2023.
#include <cmath>

#include "cpu_kernels.h"
#include "lanes.h"
#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// 1, 0 or -1; NaN stays.
template <class T>
Vec<T> sign(Vec<T> v) {
    const Vec<T> size = v > Vec<T>{} ? broadcast<T>(1) : broadcast<T>(-1);
    return (v > Vec<T>{}) | (v < Vec<T>{}) ? size : v;
}

double nadam_u(double beta_1, double step) { return beta_1 * (1 - 0.5 * std::pow(0.96, step)); }

}  // namespace

template <class T>
void rmsprop(const Context& context, const Rmsprop& s, int64_t, const T* learning_rate,
             const T* gradient, T* velocity, T* momentum, T* average, T* parameter) {
    const T rate = learning_rate[0], epsilon = static_cast<T>(s.epsilon);
    const T rho = static_cast<T>(s.rho), rest = static_cast<T>(1 - s.rho);
    const T kept = static_cast<T>(s.momentum);
    parallel_for(context, s.size, 0.6, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part);
            const Vec<T> v = get(velocity + i, part) * rho + g * g * rest;
            put(velocity + i, v, part);
            Vec<T> variance = v;
            if (average) {
                const Vec<T> a = get(average + i, part) * rho + g * rest;
                put(average + i, a, part);
                // Never below 0 but for rounding.
                variance = larger<T>(v - a * a, 0);
            }
            Vec<T> change = g * rate / square_root<T>(variance + epsilon);
            if (momentum) {
                change += get(momentum + i, part) * kept;
                put(momentum + i, change, part);
            }
            put(parameter + i, get(parameter + i, part) - change, part);
        });
    });
}

template <class T>
void nadam_products(const Context&, const Nadam& s, int64_t, const int64_t* step,
                    double* products) {
    const double t = static_cast<double>(step[0]);
    products[0] = nadam_u(s.beta_1, t);
    products[1] = nadam_u(s.beta_1, t + 1);
    products[2] *= products[0];
}

template <class T>
void nadam(const Context& context, const Nadam& s, int64_t, const T* learning_rate,
           const int64_t* step, const double* products, const T* gradient, T* m, T* v,
           T* parameter) {
    const double u = products[0], next = products[1], product = products[2];
    const double power = std::pow(s.beta_2, static_cast<double>(step[0]));
    const T rate = learning_rate[0], epsilon = static_cast<T>(s.epsilon);
    const T of_m = static_cast<T>(next / (1 - product * next));
    const T of_g = static_cast<T>((1 - u) / (1 - product));
    const T of_v = static_cast<T>(1 / (1 - power));
    const T rest_1 = static_cast<T>(1 - s.beta_1), rest_2 = static_cast<T>(1 - s.beta_2);
    parallel_for(context, s.size, 0.7, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part);
            Vec<T> first = get(m + i, part), second = get(v + i, part);
            first += (g - first) * rest_1;
            second += (g * g - second) * rest_2;
            put(m + i, first, part);
            put(v + i, second, part);
            const Vec<T> ahead = first * of_m + g * of_g;
            const Vec<T> change = ahead * rate / (square_root<T>(second * of_v) + epsilon);
            put(parameter + i, get(parameter + i, part) - change, part);
        });
    });
}

template <class T>
void amsgrad(const Context& context, const Adam& s, int64_t, const T* learning_rate,
             const int64_t* step, const T* gradient, T* m, T* v, T* largest, T* parameter) {
    const double t = static_cast<double>(step[0]);
    const T alpha =
        static_cast<T>(static_cast<double>(learning_rate[0]) *
                       std::sqrt(1 - std::pow(s.beta_2, t)) / (1 - std::pow(s.beta_1, t)));
    const T rest_1 = static_cast<T>(1 - s.beta_1), rest_2 = static_cast<T>(1 - s.beta_2);
    const T epsilon = static_cast<T>(s.epsilon);
    parallel_for(context, s.size, 0.7, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part);
            Vec<T> first = get(m + i, part), second = get(v + i, part);
            first += (g - first) * rest_1;
            second += (g * g - second) * rest_2;
            const Vec<T> most = maximum<T>(get(largest + i, part), second);
            put(m + i, first, part);
            put(v + i, second, part);
            put(largest + i, most, part);
            const Vec<T> change = first * alpha / (square_root<T>(most) + epsilon);
            put(parameter + i, get(parameter + i, part) - change, part);
        });
    });
}

template <class T>
void adagrad(const Context& context, const Adagrad& s, int64_t, const T* learning_rate,
             const T* gradient, T* accumulator, T* parameter) {
    const T rate = learning_rate[0], epsilon = static_cast<T>(s.epsilon);
    parallel_for(context, s.size, 0.5, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part);
            const Vec<T> total = get(accumulator + i, part) + g * g;
            put(accumulator + i, total, part);
            const Vec<T> change = g * rate / square_root<T>(total + epsilon);
            put(parameter + i, get(parameter + i, part) - change, part);
        });
    });
}

template <class T>
void adadelta(const Context& context, const Adadelta& s, int64_t, const T* learning_rate,
              const T* gradient, T* accumulated_gradient, T* accumulated_delta, T* parameter) {
    const T rate = learning_rate[0], epsilon = static_cast<T>(s.epsilon);
    const T rho = static_cast<T>(s.rho), rest = static_cast<T>(1 - s.rho);
    parallel_for(context, s.size, 0.8, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part);
            const Vec<T> squares = get(accumulated_gradient + i, part) * rho + g * g * rest;
            const Vec<T> before = get(accumulated_delta + i, part);
            const Vec<T> delta =
                g * square_root<T>(before + epsilon) / square_root<T>(squares + epsilon);
            put(accumulated_gradient + i, squares, part);
            put(accumulated_delta + i, before * rho + delta * delta * rest, part);
            put(parameter + i, get(parameter + i, part) - delta * rate, part);
        });
    });
}

template <class T>
void lion(const Context& context, const Lion& s, int64_t, const T* learning_rate, const T* gradient,
          T* m, T* parameter) {
    const T rate = learning_rate[0];
    const T beta_1 = static_cast<T>(s.beta_1), rest_1 = static_cast<T>(1 - s.beta_1);
    const T beta_2 = static_cast<T>(s.beta_2), rest_2 = static_cast<T>(1 - s.beta_2);
    parallel_for(context, s.size, 0.5, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part), before = get(m + i, part);
            const Vec<T> change = sign<T>(before * beta_1 + g * rest_1) * rate;
            put(m + i, before * beta_2 + g * rest_2, part);
            put(parameter + i, get(parameter + i, part) - change, part);
        });
    });
}

INSTANTIATE(rmsprop)
INSTANTIATE(nadam_products)
INSTANTIATE(nadam)
INSTANTIATE(amsgrad)
INSTANTIATE(adagrad)
INSTANTIATE(adadelta)
INSTANTIATE(lion)

}  // namespace CONVKIT_ISA
}  // namespace convkit
