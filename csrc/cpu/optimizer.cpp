// Optimizers, on one parameter as a flat array of `size` values; n plays no part.
//   next_step  the last number of counter (size) goes up by one
//   sgd        without momentum (velocity null): p -= lr g
//              with: v = momentum v - lr g; p += v, or with Nesterov p += momentum v - lr g
//   adam       alpha = lr sqrt(1 - beta_2^step) / (1 - beta_1^step), step counted from 1
//              m += (g - m) (1 - beta_1); v += (g^2 - v) (1 - beta_2); p -= alpha m / (sqrt(v) +
//              eps)
// As Keras 3 has them; Adam after Kingma and Ba, 2015, the form at the end of its section 2.
#include <cmath>

#include "cpu_kernels.h"
#include "lanes.h"
#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void next_step(const Context&, const Elementwise& s, int64_t, int64_t* counter) {
    counter[s.size - 1] += 1;
}

template <class T>
void sgd(const Context& context, const Sgd& s, int64_t, const T* learning_rate, const T* gradient,
         T* velocity, T* parameter) {
    const T rate = learning_rate[0], momentum = static_cast<T>(s.momentum);
    parallel_for(context, s.size, 0.3, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            Vec<T> change = -(get(gradient + i, part) * rate);
            if (velocity) {
                const Vec<T> v = get(velocity + i, part) * momentum + change;
                put(velocity + i, v, part);
                change = s.nesterov ? v * momentum + change : v;
            }
            put(parameter + i, get(parameter + i, part) + change, part);
        });
    });
}

template <class T>
void adam(const Context& context, const Adam& s, int64_t, const T* learning_rate,
          const int64_t* step, const T* gradient, T* m, T* v, T* parameter) {
    const double t = static_cast<double>(step[0]);
    const T alpha =
        static_cast<T>(static_cast<double>(learning_rate[0]) *
                       std::sqrt(1 - std::pow(s.beta_2, t)) / (1 - std::pow(s.beta_1, t)));
    const T rest_1 = static_cast<T>(1 - s.beta_1), rest_2 = static_cast<T>(1 - s.beta_2);
    const T epsilon = static_cast<T>(s.epsilon);
    parallel_for(context, s.size, 0.6, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> g = get(gradient + i, part);
            Vec<T> first = get(m + i, part), second = get(v + i, part);
            first += (g - first) * rest_1;
            second += (g * g - second) * rest_2;
            put(m + i, first, part);
            put(v + i, second, part);
            const Vec<T> change = first * alpha / (square_root<T>(second) + epsilon);
            put(parameter + i, get(parameter + i, part) - change, part);
        });
    });
}

INSTANTIATE(next_step)
INSTANTIATE(sgd)
INSTANTIATE(adam)

}  // namespace CONVKIT_ISA
}  // namespace convkit
