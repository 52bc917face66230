// What losses do with a row: see loss.cu. A team of threads (rows.cuh) takes a row; nothing is kept
// between its passes over the row, which is in the nearest memory, but computed again.
#pragma once

#include "rows.cuh"

namespace convkit {
namespace cuda {

template <class T>
constexpr T kLowest = static_cast<T>(1e-7);
template <class T>
constexpr T kHighest = static_cast<T>(1 - 1e-7);

template <class T>
__device__ T clip(T v) {  // a NaN stays
    const T low = v > kHighest<T> ? kHighest<T> : v;
    return low < kLowest<T> ? kLowest<T> : low;
}

// g where clip leaves v as it is, else 0 (NaN for a NaN in g).
template <class T>
__device__ T unless_clipped(T v, T g) {
    return v < kLowest<T> || v > kHighest<T> ? g * T(0) : g;
}

// ---- categorical --------------------------------------------------------------------------------
// What follows is called by all threads of a block; p is a function of the place in the row.

// The sum of t f(p); a term with t = 0 is 0.
template <class T, class P, class F>
__device__ T weighted_sum(const Team& team, const Row& row, const Values<T>& t, const P& p,
                          const F& f) {
    T sum = 0;
    for (int64_t i = team.lane; i < row.size; i += team.width) {
        const T weight = t(i);
        if (weight != T(0)) sum += weight * f(p(i));
    }
    return team.sum(sum);
}

template <class T, class P, class F>
__device__ T weighted_sum(const Team&, const Row&, const Label<T>& t, const P& p, const F& f) {
    return t.one() * f(t.known ? p(t.at) : T(0));
}

template <class T, class P>
__device__ T sum_of(const Team& team, const Row& row, const P& p) {
    T sum = 0;
    for (int64_t i = team.lane; i < row.size; i += team.width) sum += p(i);
    return team.sum(sum);
}

template <class T>
__device__ T sum_of_targets(const Team& team, const Row& row, const Values<T>& t) {
    return sum_of<T>(team, row, t);
}

template <class T>
__device__ T sum_of_targets(const Team&, const Row&, const Label<T>& t) {
    return t.one();
}

template <class T>
__device__ T top_of(const Team& team, const Row& row, const Values<T>& p) {
    T top = -static_cast<T>(INFINITY);
    for (int64_t i = team.lane; i < row.size; i += team.width) top = larger_or_nan(top, p(i));
    return team.join(top, LargerOrNan{});
}

template <class T>
struct Exponential {
    Values<T> p;
    T top;

    __device__ T operator()(int64_t i) const { return exp_of(p(i) - top); }
};

template <class T>
struct Softmaxed {
    Exponential<T> e;
    T total;

    __device__ T operator()(int64_t i) const { return e(i) / total; }
};

template <class T>
struct LogSoftmax {
    T top, log_total;

    __device__ T operator()(T p) const { return (p - top) - log_total; }
};

template <class T>
struct LogOfShare {
    T total;

    __device__ T operator()(T p) const { return log_of(clip(p / total)); }
};

template <class T, class Targets, class P>
__device__ T loss_of_probabilities(const Team& team, const Row& row, const Targets& t, const P& p) {
    return -weighted_sum(team, row, t, p, LogOfShare<T>{sum_of<T>(team, row, p)});
}

template <class T, class Target>
struct Categorical {
    const Target* target;
    const T* prediction;
    T* loss;
    bool from_logits;

    __device__ void operator()(const Team& team, const Row& row) const {
        const auto t = targets_of<T>(target, row);
        const Values<T> p{prediction + row.start, row.step};
        T value;
        if (from_logits) {
            const T top = top_of(team, row, p);
            const T total = sum_of<T>(team, row, Exponential<T>{p, top});
            value = -weighted_sum(team, row, t, p, LogSoftmax<T>{top, log_of(total)});
        } else {
            value = loss_of_probabilities<T>(team, row, t, p);
        }
        if (row.there && team.lane == 0) loss[row.index] = value;
    }
};

// d(loss)/dq, q = p / sum p.
template <class T>
__device__ T slope(T t, T q) {
    return t == T(0) ? T(0) : unless_clipped(q, -t / clip(q));
}

// The sum of slope q.
template <class T>
__device__ T sum_of_slopes(const Team& team, const Row& row, const Values<T>& t, const Values<T>& p,
                           T total) {
    T sum = 0;
    for (int64_t i = team.lane; i < row.size; i += team.width) {
        const T q = p(i) / total;
        sum += slope(t(i), q) * q;
    }
    return team.sum(sum);
}

// The other terms of a label's row are 0, even where the label is none.
template <class T>
__device__ T sum_of_slopes(const Team&, const Row&, const Label<T>& t, const Values<T>& p,
                           T total) {
    const T q = (t.known ? p(t.at) : T(0)) / total;
    return slope(t.one(), q) * q;
}

template <class T, class Target>
struct CategoricalBackward {
    const T* dloss;
    const Target* target;
    const T* prediction;
    T *dtarget, *dprediction;  // either may be null
    bool from_logits;

    __device__ void operator()(const Team& team, const Row& row) const {
        const auto t = targets_of<T>(target, row);
        const Values<T> p{prediction + row.start, row.step};
        const T d = row.there ? dloss[row.index] : T(0);
        if (from_logits) {
            of_logits(team, row, t, p, d);
        } else {
            of_probabilities(team, row, t, p, d);
        }
    }

 private:
    template <class Targets>
    __device__ void of_logits(const Team& team, const Row& row, const Targets& t,
                              const Values<T>& p, T d) const {
        const T top = top_of(team, row, p);
        const Exponential<T> e{p, top};
        const T total = sum_of<T>(team, row, e);
        if (dprediction) {
            const T share = sum_of_targets(team, row, t) / total;
            T* const to = dprediction + row.start;
            for (int64_t i = team.lane; i < row.size; i += team.width)
                to[i * row.step] = d * (e(i) * share - t(i));
        }
        if (dtarget) put_dtarget(team, row, p, d, LogSoftmax<T>{top, log_of(total)});
    }

    // With g = slope: dp_j = (g_j - sum_i g_i q_i) / sum p.
    template <class Targets>
    __device__ void of_probabilities(const Team& team, const Row& row, const Targets& t,
                                     const Values<T>& p, T d) const {
        const T total = sum_of<T>(team, row, p);
        if (dprediction) {
            const T common = sum_of_slopes(team, row, t, p, total);
            T* const to = dprediction + row.start;
            for (int64_t i = team.lane; i < row.size; i += team.width)
                to[i * row.step] = d * ((slope(t(i), p(i) / total) - common) / total);
        }
        if (dtarget) put_dtarget(team, row, p, d, LogOfShare<T>{total});
    }

    template <class Log>
    __device__ void put_dtarget(const Team& team, const Row& row, const Values<T>& p, T d,
                                const Log& log) const {
        T* const to = dtarget + row.start;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            to[i * row.step] = -d * log(p(i));
    }
};

// ---- softmax and categorical --------------------------------------------------------------------

template <class T, class Target>
struct SoftmaxAndLoss {
    const Target* target;
    const T* x;
    T *y, *loss;
    bool from_logits;

    __device__ void operator()(const Team& team, const Row& row) const {
        const auto t = targets_of<T>(target, row);
        const Values<T> p{x + row.start, row.step};
        const T top = top_of(team, row, p);
        const Exponential<T> e{p, top};
        const Softmaxed<T> softmaxed{e, sum_of<T>(team, row, e)};
        T* const to = y + row.start;
        for (int64_t i = team.lane; i < row.size; i += team.width) to[i * row.step] = softmaxed(i);
        const T value = from_logits ? -weighted_sum(team, row, t, p,
                                                    LogSoftmax<T>{top, log_of(softmaxed.total)})
                                    : loss_of_probabilities<T>(team, row, t, softmaxed);
        if (row.there && team.lane == 0) loss[row.index] = value;
    }
};

// The targets of what was not clipped.
template <class T, class Targets>
struct Unclipped {
    Targets t;
    Values<T> y;

    __device__ T operator()(int64_t i) const { return unless_clipped(y(i), t(i)); }
};

template <class T, class Target>
struct BeforeSoftmax {
    const T* dloss;
    const Target* target;
    const T* y;
    T* dx;
    bool from_logits;

    __device__ void operator()(const Team& team, const Row& row) const {
        const auto t = targets_of<T>(target, row);
        const Values<T> p{y + row.start, row.step};
        if (from_logits) {
            put(team, row, p, t, sum_of_targets(team, row, t));
        } else {
            const Unclipped<T, decltype(targets_of<T>(target, row))> unclipped{t, p};
            put(team, row, p, unclipped, sum_of<T>(team, row, unclipped));
        }
    }

 private:
    template <class Targets>
    __device__ void put(const Team& team, const Row& row, const Values<T>& p, const Targets& t,
                        T weight) const {
        const T d = row.there ? dloss[row.index] : T(0);
        T* const to = dx + row.start;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            to[i * row.step] = d * (p(i) * weight - t(i));
    }
};

// ---- means of a term per value ------------------------------------------------------------------

template <class T>
struct Gradient {
    T target, prediction;
};

template <class T>
struct BinaryCrossentropy {
    static __device__ T term(T t, T p) {
        const T c = clip(p);
        return -(t * log_of(c) + (T(1) - t) * log_of(T(1) - c));
    }
    static __device__ Gradient<T> gradient(T t, T p) {
        const T c = clip(p);
        return {log_of(T(1) - c) - log_of(c), unless_clipped(p, (T(1) - t) / (T(1) - c) - t / c)};
    }
};

template <class T>
struct BinaryCrossentropyFromLogits {
    static __device__ T term(T t, T p) {
        const T positive = p < T(0) ? T(0) : p;
        return (positive - p * t) + log1p_of(exp_of(p < T(0) ? p : -p));
    }
    static __device__ Gradient<T> gradient(T t, T p) { return {-p, sigmoid(p) - t}; }
};

template <class T>
struct SquaredError {
    static __device__ T term(T t, T p) { return (p - t) * (p - t); }
    static __device__ Gradient<T> gradient(T t, T p) { return {T(2) * (t - p), T(2) * (p - t)}; }
};

template <class T>
struct AbsoluteError {
    static __device__ T term(T t, T p) { return p < t ? t - p : p - t; }
    static __device__ Gradient<T> gradient(T t, T p) {
        const T d = p - t, sign = d > T(0) ? T(1) : (d < T(0) ? T(-1) : d * T(0));  // NaN stays
        return {-sign, sign};
    }
};

template <class T, class Rule>
struct MeanOfTerms {
    const T *target, *prediction;
    T* loss;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        T sum = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width) sum += Rule::term(t(i), p(i));
        sum = team.sum(sum);
        if (row.there && team.lane == 0) loss[row.index] = sum / static_cast<T>(row.size);
    }
};

template <class T, class Rule>
struct MeanOfTermsBackward {
    const T *dloss, *target, *prediction;
    T *dtarget, *dprediction;  // either may be null

    __device__ void operator()(const Team& team, const Row& row) const {
        if (!row.there) return;
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        const T d = dloss[row.index] / static_cast<T>(row.size);
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const Gradient<T> g = Rule::gradient(t(i), p(i));
            const int64_t at = row.start + i * row.step;
            if (dtarget) dtarget[at] = d * g.target;
            if (dprediction) dprediction[at] = d * g.prediction;
        }
    }
};

}  // namespace cuda
}  // namespace convkit
