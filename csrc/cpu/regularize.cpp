// What surrounds an update: penalties and limits of parameters and gradients, on flat arrays of
// `size` values, and the learning rate of a step.
//   weight_decay  p -= lr rate p
//   clip_value    y = min(max(g, -limit), limit)
//   square_sum    y (1) = before + sum x^2; without `before` (null) 0 + sum x^2
//   clip_norm     y = g limit / max(norm, limit), norm = sqrt(squares); NaN where that is infinite
//   regularize    y = g + l1 sign(p) + 2 l2 p
//   penalty       total (2): n (l1 sum |p| + l2 sum p^2), n added to what it holds. In a program n
//                 is the size of the batch (context.batch).
//   constrain     p (outer, size, inner), norm over size:
//                 kNonNegative  p = max(p, 0)
//                 kUnitNorm     p = p / (norm + 1e-7)
//                 kMinMaxNorm   p = p (rate min(max(norm, low), high) + (1 - rate) norm) /
//                               (norm + 1e-7)
//   rate_of_step  rate (1) = table[step - first] of (size), its first or last entry outside
// As Keras 3 has them; 1e-7 is its epsilon. Sums over a whole array are added in double, by chunks
// that its size alone decides.
#include <algorithm>
#include <cmath>

#include "cpu_kernels.h"
#include "lanes.h"
#include "math.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr int64_t kChunk = 16384;  // values that one thread adds up
constexpr double kNormEpsilon = 1e-7;

struct Square {
    double operator()(double x) const { return x * x; }
};

struct Absolute {
    double operator()(double x) const { return std::fabs(x); }
};

// By eight interleaved sums that are added in a fixed order.
template <class T, class F>
double sum_of(const T* x, int64_t count, F f) {
    constexpr int64_t kSums = 8;
    double sums[kSums] = {};
    int64_t i = 0;
    for (; i + kSums <= count; i += kSums) {
        for (int64_t k = 0; k < kSums; ++k) sums[k] += f(static_cast<double>(x[i + k]));
    }
    for (int64_t k = 0; i + k < count; ++k) sums[k] += f(static_cast<double>(x[i + k]));
    return ((sums[0] + sums[4]) + (sums[1] + sums[5])) +
           ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

// The sum of f(x) over an array.
template <class T, class F>
double total_of(const Context& context, const T* x, int64_t size, F f) {
    const int64_t chunks = (size + kChunk - 1) / kChunk;
    if (chunks <= 1) return sum_of(x, size, f);
    double* const sums = scratch<double>(kShared, chunks);
    parallel_for(context, chunks, 0.3 * kChunk, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            const int64_t first = chunk * kChunk;
            sums[chunk] = sum_of(x + first, std::min(kChunk, size - first), f);
        }
    });
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) total += sums[chunk];
    return total;
}

// 1, 0 or -1; NaN stays.
template <class T>
Vec<T> sign(Vec<T> v) {
    const Vec<T> size = v > Vec<T>{} ? broadcast<T>(1) : broadcast<T>(-1);
    return (v > Vec<T>{}) | (v < Vec<T>{}) ? size : v;
}

// What values of this norm are to be multiplied by.
template <class T>
T norm_factor(const Constraint& s, T norm) {
    const double size = static_cast<double>(norm);
    double wanted = 1;
    if (s.kind == kMinMaxNorm) {
        const double held = size < s.low ? s.low : size > s.high ? s.high : size;  // NaN stays
        wanted = s.rate * held + (1 - s.rate) * size;
    }
    return static_cast<T>(wanted / (kNormEpsilon + size));
}

// Columns column .. column + kLanes of one of `outer`, side by side; count of them.
template <class T>
void constrain_columns(const Constraint& s, T* p, int64_t count) {
    const auto walk = [&](auto part) {
        Vec<T> squares{};
        for (int64_t i = 0; i < s.size; ++i) {
            const Vec<T> v = get(p + i * s.inner, part);
            squares += v * v;
        }
        Vec<T> factor = square_root<T>(squares);
        for (int lane = 0; lane < kLanes<T>; ++lane) factor[lane] = norm_factor(s, factor[lane]);
        for (int64_t i = 0; i < s.size; ++i) {
            T* const at = p + i * s.inner;
            put(at, get(at, part) * factor, part);
        }
    };
    if (count == kLanes<T>) {
        walk(Whole{});
    } else {
        walk(Part{count});
    }
}

// One row, its values side by side.
template <class T>
void constrain_row(const Constraint& s, T* p) {
    Vec<T> squares{};
    int64_t i = 0;
    for (; i + kLanes<T> <= s.size; i += kLanes<T>) squares += load(p + i) * load(p + i);
    if (i < s.size) {
        const Vec<T> rest = load_partial(p + i, s.size - i);
        squares += rest * rest;
    }
    const T factor = norm_factor(s, std::sqrt(sum<T>(squares)));
    for_each_vector(p, 0, s.size,
                    [&](int64_t k, auto part) { put(p + k, get(p + k, part) * factor, part); });
}

}  // namespace

template <class T>
void weight_decay(const Context& context, const Decay& s, int64_t, const T* learning_rate,
                  T* parameter) {
    const T share = static_cast<T>(static_cast<double>(learning_rate[0]) * s.rate);
    parallel_for(context, s.size, 0.2, [&](int64_t begin, int64_t end) {
        for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
            const Vec<T> p = get(parameter + i, part);
            put(parameter + i, p - p * share, part);
        });
    });
}

template <class T>
void clip_value(const Context& context, const Clip& s, int64_t, const T* gradient, T* y) {
    const T limit = static_cast<T>(s.limit);
    parallel_for(context, s.size, 0.3, [&](int64_t begin, int64_t end) {
        for_each_vector(y, begin, end, [&](int64_t i, auto part) {
            put(y + i, smaller<T>(larger<T>(get(gradient + i, part), -limit), limit), part);
        });
    });
}

template <class T>
void square_sum(const Context& context, const Elementwise& s, int64_t, const T* x, const T* before,
                T* y) {
    const double total = total_of(context, x, s.size, Square{});
    y[0] = static_cast<T>(before ? static_cast<double>(before[0]) + total : total);
}

template <class T>
void clip_norm(const Context& context, const Clip& s, int64_t, const T* gradient, const T* squares,
               T* y) {
    const double norm = std::sqrt(static_cast<double>(squares[0]));
    // What is added is 0, or NaN where the norm is infinite or NaN.
    const T factor = static_cast<T>((norm > s.limit ? s.limit / norm : 1) + (norm - norm));
    parallel_for(context, s.size, 0.3, [&](int64_t begin, int64_t end) {
        for_each_vector(y, begin, end, [&](int64_t i, auto part) {
            put(y + i, get(gradient + i, part) * factor, part);
        });
    });
}

template <class T>
void regularize(const Context& context, const Regularizer& s, int64_t, const T* gradient,
                const T* parameter, T* y) {
    const T l1 = static_cast<T>(s.l1), twice_l2 = static_cast<T>(2 * s.l2);
    parallel_for(context, s.size, 0.4, [&](int64_t begin, int64_t end) {
        for_each_vector(y, begin, end, [&](int64_t i, auto part) {
            const Vec<T> p = get(parameter + i, part);
            put(y + i, get(gradient + i, part) + sign<T>(p) * l1 + p * twice_l2, part);
        });
    });
}

template <class T>
void penalty(const Context& context, const Regularizer& s, int64_t n, const T* parameter,
             double* total) {
    double sum = 0;
    if (s.l1 != 0) sum += s.l1 * total_of(context, parameter, s.size, Absolute{});
    if (s.l2 != 0) sum += s.l2 * total_of(context, parameter, s.size, Square{});
    const auto samples = static_cast<double>(context.batch > 0 ? context.batch : n);
    total[0] += samples * sum;
    total[1] += samples;
}

template <class T>
void constrain(const Context& context, const Constraint& s, int64_t, T* parameter) {
    if (s.kind == kNonNegative) {
        parallel_for(context, s.total(), 0.2, [&](int64_t begin, int64_t end) {
            for_each_vector(parameter, begin, end, [&](int64_t i, auto part) {
                put(parameter + i, larger<T>(get(parameter + i, part), 0), part);
            });
        });
        return;
    }
    if (s.inner == 1) {
        parallel_for(context, s.outer, 0.3 * s.size, [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; ++row) constrain_row(s, parameter + row * s.size);
        });
        return;
    }
    const int64_t vectors = (s.inner + kLanes<T> - 1) / kLanes<T>;
    parallel_for(context, s.outer * vectors, 2.0 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t column = item % vectors * kLanes<T>;
            constrain_columns(s, parameter + item / vectors * s.size * s.inner + column,
                              std::min<int64_t>(kLanes<T>, s.inner - column));
        }
    });
}

template <class T>
void rate_of_step(const Context&, const Elementwise& s, int64_t, const int64_t* step,
                  const int64_t* first, const T* table, T* rate) {
    const int64_t place = std::min(std::max<int64_t>(step[0] - first[0], 0), s.size - 1);
    if (place >= 0) rate[0] = table[place];
}

INSTANTIATE(weight_decay)
INSTANTIATE(clip_value)
INSTANTIATE(square_sum)
INSTANTIATE(clip_norm)
INSTANTIATE(regularize)
INSTANTIATE(penalty)
INSTANTIATE(constrain)
INSTANTIATE(rate_of_step)

}  // namespace CONVKIT_ISA
}  // namespace convkit
