// What surrounds an update: penalties and limits of parameters and gradients, on flat arrays of
// `size` values, and the learning rate of a step. The formulas are those of
// csrc/cpu/regularize.cpp:
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
// Learning rates and steps are read on the device, so that a recorded step can be run again.
#include "cuda_kernels.h"
#include "totals.cuh"
#include "update.cuh"

namespace convkit {
namespace cuda {
namespace {

constexpr double kNormEpsilon = 1e-7;

// ---- values -------------------------------------------------------------------------------------

template <class T>
struct DecayUpdate {
    const T* learning_rate;
    T* parameter;
    double rate;
    T share;  // by begin

    __device__ void begin(double*) {
        share = static_cast<T>(static_cast<double>(*learning_rate) * rate);
    }

    template <int kCount>
    __device__ void update(int64_t i) const {
        auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) p.value[k] -= p.value[k] * share;
        store_vector<T, kCount>(parameter + i, p);
    }
};

template <class T>
struct ClipValue : AtOnce {
    const T* gradient;
    T *y, limit;

    template <int kCount>
    __device__ void update(int64_t i) const {
        auto g = load_vector<T, kCount>(gradient + i);
        for (int k = 0; k < kCount; ++k) {
            const T v = g.value[k];
            g.value[k] = v < -limit ? -limit : v > limit ? limit : v;
        }
        store_vector<T, kCount>(y + i, g);
    }
};

template <class T>
struct ClipNorm {
    const T *gradient, *squares;
    T* y;
    double limit;
    T factor;  // by begin

    __device__ void begin(double* shared) {
        if (threadIdx.x == 0) {
            const double norm = ::sqrt(static_cast<double>(*squares));
            // What is added is 0, or NaN where the norm is infinite or NaN.
            *shared = (norm > limit ? limit / norm : 1) + (norm - norm);
        }
        __syncthreads();
        factor = static_cast<T>(*shared);
    }

    template <int kCount>
    __device__ void update(int64_t i) const {
        auto g = load_vector<T, kCount>(gradient + i);
        for (int k = 0; k < kCount; ++k) g.value[k] *= factor;
        store_vector<T, kCount>(y + i, g);
    }
};

template <class T>
struct Regularize : AtOnce {
    const T *gradient, *parameter;
    T *y, l1, twice_l2;

    template <int kCount>
    __device__ void update(int64_t i) const {
        auto g = load_vector<T, kCount>(gradient + i);
        const auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k)
            g.value[k] += sign_of(p.value[k]) * l1 + p.value[k] * twice_l2;
        store_vector<T, kCount>(y + i, g);
    }
};

template <class T>
struct NonNegative : AtOnce {
    T* parameter;

    template <int kCount>
    __device__ void update(int64_t i) const {
        auto p = load_vector<T, kCount>(parameter + i);
        for (int k = 0; k < kCount; ++k) p.value[k] = p.value[k] < T(0) ? T(0) : p.value[k];
        store_vector<T, kCount>(parameter + i, p);
    }
};

// ---- sums ---------------------------------------------------------------------------------------

struct Square {
    __device__ double operator()(double x) const { return x * x; }
};

struct PenaltyOf {
    double l1, l2;

    __device__ double operator()(double x) const { return l1 * ::fabs(x) + l2 * (x * x); }
};

template <class T>
struct AddBefore {
    const T* before;  // may be null
    T* y;

    __device__ void operator()(int64_t, double sum) const {
        *y = static_cast<T>(before ? static_cast<double>(*before) + sum : sum);
    }
};

struct AddPenalty {
    double* total;
    double samples;

    __device__ void operator()(int64_t, double sum) const {
        total[0] += samples * sum;
        total[1] += samples;
    }
};

// ---- norms --------------------------------------------------------------------------------------

struct NormFactor {
    bool held;  // between low and high; else 1
    double low, high, rate;

    __device__ double operator()(double norm) const {
        double wanted = 1;
        if (held) {
            const double within = norm < low ? low : norm > high ? high : norm;  // NaN stays
            wanted = rate * within + (1 - rate) * norm;
        }
        return wanted / (kNormEpsilon + norm);
    }
};

// A block takes `columns` (a power of two) neighbours of `inner`; the threads of a column share
// what is to be added up for it.
template <class T>
__global__ void constrain_kernel(int64_t outer, int64_t size, int64_t inner, int columns,
                                 NormFactor factor_of, T* parameter) {
    SHARED(T, partial, kThreads);
    const int column = static_cast<int>(threadIdx.x) % columns;
    const int first = static_cast<int>(threadIdx.x) / columns, step = kThreads / columns;
    const int64_t groups = divide_up<int64_t>(inner, columns);
    for (int64_t item = blockIdx.x; item < outer * groups; item += gridDim.x) {
        const int64_t at = item % groups * columns + column;
        T* const p = parameter + item / groups * size * inner + at;
        const int64_t count = at < inner ? size : 0;
        T squares = 0;
        for (int64_t i = first; i < count; i += step) squares += p[i * inner] * p[i * inner];
        partial[threadIdx.x] = squares;
        __syncthreads();
        for (int half = kThreads / 2; half >= columns; half /= 2) {
            if (static_cast<int>(threadIdx.x) < half)
                partial[threadIdx.x] += partial[threadIdx.x + half];
            __syncthreads();
        }
        const T factor = static_cast<T>(factor_of(static_cast<double>(sqrt_of(partial[column]))));
        for (int64_t i = first; i < count; i += step) p[i * inner] *= factor;
        __syncthreads();  // the sums are read
    }
}

// ---- the rate -----------------------------------------------------------------------------------

template <class T>
struct RateOfStep {
    const int64_t *step, *first;
    const T* table;
    T* rate;
    int64_t size;

    __device__ void operator()(int64_t) const {
        const int64_t at = *step - *first, last = size - 1;
        *rate = table[at < 0 ? 0 : at < last ? at : last];
    }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void weight_decay(const Context& context, const Decay& s, int64_t, const T* learning_rate,
                  T* parameter) {
    update_values<T>(context, "weight_decay", s.size, {parameter},
                     DecayUpdate<T>{learning_rate, parameter, s.rate, T(0)});
}

template <class T>
void clip_value(const Context& context, const Clip& s, int64_t, const T* gradient, T* y) {
    update_values<T>(context, "clip_value", s.size, {gradient, y},
                     ClipValue<T>{{}, gradient, y, static_cast<T>(s.limit)});
}

template <class T>
void square_sum(const Context& context, const Elementwise& s, int64_t, const T* x, const T* before,
                T* y) {
    sum_of(context, "square_sum", x, s.size, Square{}, AddBefore<T>{before, y});
}

template <class T>
void clip_norm(const Context& context, const Clip& s, int64_t, const T* gradient, const T* squares,
               T* y) {
    update_values<T>(context, "clip_norm", s.size, {gradient, y},
                     ClipNorm<T>{gradient, squares, y, s.limit, T(0)});
}

template <class T>
void regularize(const Context& context, const Regularizer& s, int64_t, const T* gradient,
                const T* parameter, T* y) {
    update_values<T>(
        context, "regularize", s.size, {gradient, parameter, y},
        Regularize<T>{{}, gradient, parameter, y, static_cast<T>(s.l1), static_cast<T>(2 * s.l2)});
}

template <class T>
void penalty(const Context& context, const Regularizer& s, int64_t n, const T* parameter,
             double* total) {
    const auto samples = static_cast<double>(context.batch > 0 ? context.batch : n);
    sum_of(context, "penalty", parameter, s.size, PenaltyOf{s.l1, s.l2},
           AddPenalty{total, samples});
}

template <class T>
void constrain(const Context& context, const Constraint& s, int64_t, T* parameter) {
    if (s.kind == kNonNegative) {
        update_values<T>(context, "constrain", s.total(), {parameter},
                         NonNegative<T>{{}, parameter});
        return;
    }
    int columns = 1;
    while (columns < s.inner && columns < kWarp) columns *= 2;
    const int64_t blocks = s.outer * divide_up<int64_t>(s.inner, columns);
    const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
    launch(context, "constrain", constrain_kernel<T>, grid, dim3(kThreads), 0, s.outer, s.size,
           s.inner, columns, NormFactor{s.kind == kMinMaxNorm, s.low, s.high, s.rate}, parameter);
}

template <class T>
void rate_of_step(const Context& context, const Elementwise& s, int64_t, const int64_t* step,
                  const int64_t* first, const T* table, T* rate) {
    if (s.size == 0) return;
    for_each(context, "rate_of_step", 1, RateOfStep<T>{step, first, table, rate, s.size});
}

INSTANTIATE(weight_decay)
INSTANTIATE(clip_value)
INSTANTIATE(square_sum)
INSTANTIATE(clip_norm)
INSTANTIATE(regularize)
INSTANTIATE(penalty)
INSTANTIATE(constrain)
INSTANTIATE(rate_of_step)

}  // namespace cuda
}  // namespace convkit
