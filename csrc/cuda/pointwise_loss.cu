// Losses, after Keras 3: target t and prediction p (n, rows, size, inner) -> loss (n, rows, inner).
// Formulas, clipping and gradients are those of csrc/cpu/pointwise_loss.cpp.
#include "cuda_kernels.h"
#include "index.cuh"
#include "rows.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class T>
constexpr T kEpsilon = static_cast<T>(1e-7);
template <class T>
constexpr T kHighest = static_cast<T>(1 - 1e-7);

__device__ inline float power_of(float v, float exponent) { return ::powf(v, exponent); }
__device__ inline double power_of(double v, double exponent) { return ::pow(v, exponent); }

template <class T>
__device__ T at_least(T v, T low) {  // a NaN stays
    return v < low ? low : v;
}

template <class T>
__device__ T clip(T v, T high) {
    return at_least(v > high ? high : v, kEpsilon<T>);
}

// g where clip leaves v as it is, else 0 (NaN for a NaN in g).
template <class T>
__device__ T unless_clipped(T v, T high, T g) {
    return v < kEpsilon<T> || v > high ? g * T(0) : g;
}

template <class T>
__device__ T absolute(T v) {
    return v < T(0) ? -v : v;
}

// -1, 0 or 1; NaN stays.
template <class T>
__device__ T sign(T v) {
    return v > T(0) ? T(1) : (v < T(0) ? T(-1) : v * T(0));
}

// q^exponent and its slope, for shares q of 0 .. 1.
template <class T>
struct Power {
    T exponent;

    __device__ T operator()(T q) const { return raise(q, exponent); }
    __device__ T slope(T q) const {
        if (exponent == T(0)) return T(0);
        // Below 1 the slope at 0 is infinite.
        if (exponent < T(1)) q = at_least(q, kEpsilon<T>);
        return exponent * raise(q, exponent - T(1));
    }

 private:
    static __device__ T raise(T q, T exponent) {
        if (exponent == T(0)) return T(1);
        if (exponent == T(1)) return q;
        return exponent == T(2) ? q * q : power_of(q, exponent);
    }
};

// ---- a term per value ---------------------------------------------------------------------------
// term(t, p) and slope(t, p), its derivative by p; the loss is `scale` times their sum.
template <class T>
__device__ T margin(T t, T p) {
    return at_least(T(1) - t * p, T(0));
}

template <class T>
__device__ T side(T t) {
    return t == T(0) ? T(-1) : t;
}

template <class T>
struct Hinge {
    __device__ T term(T t, T p) const { return margin(side(t), p); }
    __device__ T slope(T t, T p) const {
        const T m = margin(side(t), p);
        return m > T(0) ? -side(t) : m;  // 0 or NaN
    }
};

template <class T>
struct SquaredHinge {
    __device__ T term(T t, T p) const {
        const T m = margin(side(t), p);
        return m * m;
    }
    __device__ T slope(T t, T p) const { return T(-2) * side(t) * margin(side(t), p); }
};

template <class T>
struct Huber {
    T delta;

    __device__ T term(T t, T p) const {
        const T d = absolute(p - t);
        return d > delta ? delta * (d - T(0.5) * delta) : T(0.5) * d * d;
    }
    __device__ T slope(T t, T p) const {
        const T d = p - t;
        return at_least(d > delta ? delta : d, -delta);
    }
};

template <class T>
struct Poisson {
    __device__ T term(T t, T p) const { return p - t * log_of(p + kEpsilon<T>); }
    __device__ T slope(T t, T p) const { return T(1) - t / (p + kEpsilon<T>); }
};

template <class T>
struct LogCosh {
    __device__ T term(T t, T p) const {
        const T x = absolute(p - t);
        if (x < T(1)) {
            const T half = tanh_of(x / T(2)), z = half * half;
            return log1p_of(T(2) * z / (T(1) - z));
        }
        return (x - static_cast<T>(0.693147180559945309417)) + log1p_of(exp_of(T(-2) * x));
    }
    __device__ T slope(T t, T p) const { return tanh_of(p - t); }
};

template <class T>
struct AbsolutePercentage {
    __device__ T term(T t, T p) const {
        return absolute((t - p) / at_least(absolute(t), kEpsilon<T>));
    }
    __device__ T slope(T t, T p) const { return sign(p - t) / at_least(absolute(t), kEpsilon<T>); }
};

template <class T>
struct SquaredLogarithmic {
    static __device__ T difference(T t, T p) {
        return log_of(at_least(p, kEpsilon<T>) + T(1)) - log_of(at_least(t, kEpsilon<T>) + T(1));
    }
    __device__ T term(T t, T p) const {
        const T d = difference(t, p);
        return d * d;
    }
    __device__ T slope(T t, T p) const {
        const T g = T(2) * difference(t, p) / (at_least(p, kEpsilon<T>) + T(1));
        return p < kEpsilon<T> ? g * T(0) : g;
    }
};

template <class T>
struct KlDivergence {
    __device__ T term(T t, T p) const {
        t = clip(t, T(1));
        return t * log_of(t / clip(p, T(1)));
    }
    __device__ T slope(T t, T p) const {
        return unless_clipped(p, T(1), -clip(t, T(1)) / clip(p, T(1)));
    }
};

// The share q of what is wrong, the cross-entropy, and the derivatives of both.
template <class T>
struct Focus {
    T wrong, cost, wrong_slope, cost_slope;
};

template <class T>
__device__ Focus<T> of_probability(T t, T p) {
    const T c = clip(p, kHighest<T>), one = T(1);
    return {t * (one - p) + (one - t) * p, -(t * log_of(c) + (one - t) * log_of(one - c)),
            one - T(2) * t, unless_clipped(p, kHighest<T>, (one - t) / (one - c) - t / c)};
}

template <class T>
__device__ Focus<T> of_logit(T t, T x) {
    const T p = sigmoid(x), rest = sigmoid(-x), one = T(1);  // 1 - p loses digits
    return {t * rest + (one - t) * p,
            (at_least(x, T(0)) - x * t) + log1p_of(exp_of(x < T(0) ? x : -x)),
            (one - T(2) * t) * (p * rest), p - t};
}

template <class T, bool kFromLogits>
struct BinaryFocal {
    Power<T> power;
    T alpha;

    __device__ T weight(T t) const {
        return alpha < T(0) ? T(1) : t * alpha + (T(1) - t) * (T(1) - alpha);
    }
    static __device__ Focus<T> focus(T t, T p) {
        return kFromLogits ? of_logit(t, p) : of_probability(t, p);
    }
    __device__ T term(T t, T p) const {
        const Focus<T> f = focus(t, p);
        return weight(t) * power(f.wrong) * f.cost;
    }
    __device__ T slope(T t, T p) const {
        const Focus<T> f = focus(t, p);
        return weight(t) *
               (power.slope(f.wrong) * f.wrong_slope * f.cost + power(f.wrong) * f.cost_slope);
    }
};

template <class T, class Rule>
struct OfTerms {
    const T *target, *prediction;
    T* loss;
    T scale;
    Rule rule;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        T sum = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width) sum += rule.term(t(i), p(i));
        sum = team.sum(sum);
        if (row.there && team.lane == 0) loss[row.index] = sum * scale;
    }
};

template <class T, class Rule>
struct OfTermsBackward {
    const T *dloss, *target, *prediction;
    T* dprediction;
    T scale;
    Rule rule;

    __device__ void operator()(const Team& team, const Row& row) const {
        if (!row.there) return;
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        const T d = dloss[row.index] * scale;
        T* const to = dprediction + row.start;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            to[i * row.step] = d * rule.slope(t(i), p(i));
    }
};

// ---- rows as a whole ----------------------------------------------------------------------------
// value(team, row, t, p): the loss, known to all threads of a team; gradient(..., d, to): writes
// what is asked of a thread. All threads of a block call them.
template <class T>
struct CategoricalHinge {
    struct Found {
        T loss;
        int64_t at;  // where (1 - t) p is largest, the first of equal ones
    };
    static __device__ Found find(const Team& team, const Row& row, const Values<T>& t,
                                 const Values<T>& p) {
        T best = -static_cast<T>(INFINITY), own = 0;
        int64_t at = row.size;
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const T v = (T(1) - t(i)) * p(i);
            own += t(i) * p(i);
            if (at < row.size && (best >= v || best != best)) continue;
            best = v;
            at = i;
        }
        const T top = team.join(best, LargerOrNan{});
        const bool mine = best == top || (best != best && top != top);
        at = team.join(mine ? at : row.size, Smaller{});
        return {at_least(top - team.sum(own) + T(1), T(0)), at};
    }
    __device__ T value(const Team& team, const Row& row, const Values<T>& t,
                       const Values<T>& p) const {
        return find(team, row, t, p).loss;
    }
    __device__ void gradient(const Team& team, const Row& row, const Values<T>& t,
                             const Values<T>& p, T d, T* to) const {
        const Found found = find(team, row, t, p);
        const T g = found.loss > T(0) ? d : found.loss;  // 0 or NaN
        for (int64_t i = team.lane; i < row.size; i += team.width)
            to[i * row.step] = g * (i == found.at ? T(1) - T(2) * t(i) : -t(i));
    }
};

template <class T>
struct CosineSimilarity {
    static constexpr T kLargest = static_cast<T>(1e7);  // 1 / e

    static __device__ T inverse_norm(const Team& team, const Row& row, const Values<T>& x) {
        T squares = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width) squares += x(i) * x(i);
        const T inverse = T(1) / sqrt_of(team.sum(squares));
        return inverse > kLargest ? kLargest : inverse;
    }
    static __device__ T similarity(const Team& team, const Row& row, const Values<T>& t,
                                   const Values<T>& p, T t_scale, T p_scale) {
        T sum = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            sum += (t(i) * t_scale) * (p(i) * p_scale);
        return team.sum(sum);
    }
    __device__ T value(const Team& team, const Row& row, const Values<T>& t,
                       const Values<T>& p) const {
        const T t_scale = inverse_norm(team, row, t), p_scale = inverse_norm(team, row, p);
        return -similarity(team, row, t, p, t_scale, p_scale);
    }
    __device__ void gradient(const Team& team, const Row& row, const Values<T>& t,
                             const Values<T>& p, T d, T* to) const {
        const T t_scale = inverse_norm(team, row, t), p_scale = inverse_norm(team, row, p);
        const T found = similarity(team, row, t, p, t_scale, p_scale);
        // A norm that is held to e does not change with p.
        const T common = p_scale == kLargest ? found * T(0) : found;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            to[i * row.step] = d * ((common * (p(i) * p_scale) - t(i) * t_scale) * p_scale);
    }
};

template <class T>
struct CategoricalFocal {
    Power<T> power;
    T alpha;
    bool from_logits;

    __device__ T value(const Team& team, const Row& row, const Values<T>& t,
                       const Values<T>& p) const {
        const Shares q = shares_of(team, row, p);
        T sum = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const T c = clip(q(i), kHighest<T>);
            sum += -t(i) * log_of(c) * power(T(1) - c);
        }
        return alpha * team.sum(sum);
    }
    // With g the slope by q_i = w_i / sum w: dw_j = (g_j - sum g_i q_i) / sum w, and w = p, or
    // w = exp(p), whose derivative is w.
    __device__ void gradient(const Team& team, const Row& row, const Values<T>& t,
                             const Values<T>& p, T d, T* to) const {
        const Shares q = shares_of(team, row, p);
        T common = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            common += slope(t(i), q(i)) * q(i);
        common = team.sum(common);
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const T share = q(i), g = slope(t(i), share) - common;
            to[i * row.step] = d * alpha * (from_logits ? g * share : g / q.total);
        }
    }

 private:
    struct Shares {
        Values<T> p;
        bool from_logits;
        T top, total;

        __device__ T weight(int64_t i) const { return from_logits ? exp_of(p(i) - top) : p(i); }
        __device__ T operator()(int64_t i) const { return weight(i) / total; }
    };
    __device__ Shares shares_of(const Team& team, const Row& row, const Values<T>& p) const {
        Shares q{p, from_logits, T(0), T(1)};
        if (from_logits) {
            T top = -static_cast<T>(INFINITY);
            for (int64_t i = team.lane; i < row.size; i += team.width)
                top = larger_or_nan(top, p(i));
            q.top = team.join(top, LargerOrNan{});
        }
        T total = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width) total += q.weight(i);
        q.total = team.sum(total);
        return q;
    }
    __device__ T slope(T t, T q) const {
        const T c = clip(q, kHighest<T>);
        const T g = t * (power.slope(T(1) - c) * log_of(c) - power(T(1) - c) / c);
        return unless_clipped(q, kHighest<T>, g);
    }
};

template <class T>
struct Dice {
    __device__ T value(const Team& team, const Row& row, const Values<T>& t,
                       const Values<T>& p) const;
    __device__ void gradient(const Team& team, const Row& row, const Values<T>& t,
                             const Values<T>& p, T d, T* to) const;
};

template <class T, class Rule>
struct OfRows {
    const T *target, *prediction;
    T* loss;
    Rule rule;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        const T value = rule.value(team, row, t, p);
        if (row.there && team.lane == 0) loss[row.index] = value;
    }
};

template <class T, class Rule>
struct OfRowsBackward {
    const T *dloss, *target, *prediction;
    T* dprediction;
    Rule rule;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        rule.gradient(team, row, t, p, row.there ? dloss[row.index] : T(0),
                      dprediction + row.start);
    }
};

// terms(rule, scale) or rows(rule) for the rule of a loss.
template <class T, class Terms, class WholeRows>
void with_rule(const PointwiseLoss& s, Terms terms, WholeRows rows) {
    const T mean = 1 / static_cast<T>(s.size), a = static_cast<T>(s.a);
    const Power<T> power{static_cast<T>(s.b)};
    switch (s.kind) {
        case kHinge:
            return terms(Hinge<T>{}, mean);
        case kSquaredHinge:
            return terms(SquaredHinge<T>{}, mean);
        case kHuber:
            return terms(Huber<T>{a}, mean);
        case kPoisson:
            return terms(Poisson<T>{}, mean);
        case kLogCosh:
            return terms(LogCosh<T>{}, mean);
        case kAbsolutePercentage:
            return terms(AbsolutePercentage<T>{}, 100 * mean);
        case kSquaredLogarithmic:
            return terms(SquaredLogarithmic<T>{}, mean);
        case kKlDivergence:
            return terms(KlDivergence<T>{}, T(1));
        case kBinaryFocal:
            if (s.from_logits) return terms(BinaryFocal<T, true>{power, a}, mean);
            return terms(BinaryFocal<T, false>{power, a}, mean);
        case kCategoricalHinge:
            return rows(CategoricalHinge<T>{});
        case kCosineSimilarity:
            return rows(CosineSimilarity<T>{});
        case kCategoricalFocal:
            return rows(CategoricalFocal<T>{power, a, s.from_logits != 0});
    }
}

Loss rows_of(const PointwiseLoss& s) { return {s.rows, s.size, s.inner, 0}; }

// ---- dice ---------------------------------------------------------------------------------------
template <class T>
struct Sums {
    T target, prediction, product;

    __device__ T below() const { return (target + prediction) + kEpsilon<T>; }
    __device__ T loss() const { return T(1) - T(2) * product / below(); }
    // dprediction = dloss (b - a t).
    __device__ T gradient(T t) const {
        return T(2) * product / below() / below() - T(2) / below() * t;
    }
};

template <class T>
__device__ Sums<T> sums_of(const Team& team, const Row& row, const Values<T>& t,
                           const Values<T>& p) {
    Sums<T> sums{};
    for (int64_t i = team.lane; i < row.size; i += team.width) {
        const T vt = t(i), vp = p(i);
        sums.target += vt;
        sums.prediction += vp;
        sums.product += vt * vp;
    }
    return {team.sum(sums.target), team.sum(sums.prediction), team.sum(sums.product)};
}

template <class T>
__device__ T Dice<T>::value(const Team& team, const Row& row, const Values<T>& t,
                            const Values<T>& p) const {
    return sums_of(team, row, t, p).loss();
}

template <class T>
__device__ void Dice<T>::gradient(const Team& team, const Row& row, const Values<T>& t,
                                  const Values<T>& p, T d, T* to) const {
    const Sums<T> sums = sums_of(team, row, t, p);
    for (int64_t i = team.lane; i < row.size; i += team.width)
        to[i * row.step] = d * sums.gradient(t(i));
}

// ---- dice of a whole batch ----------------------------------------------------------------------
// The sums of targets, predictions, products and dloss: of each chunk, then of all of them.
enum { kTargets, kPredictions, kProducts, kUpstream, kSums };

template <class T>
struct ChunkOfBatch {
    const T *target, *prediction;
    int64_t count, chunk;

    __device__ void add(double (&sums)[kSums], int64_t block) const {
        const int64_t begin = block * chunk;
        const int64_t end = begin + chunk < count ? begin + chunk : count;
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const double t = static_cast<double>(target[i]);
            const double p = static_cast<double>(prediction[i]);
            sums[kTargets] += t;
            sums[kPredictions] += p;
            sums[kProducts] += t * p;
        }
    }
};

template <class T>
struct AllChunks {
    const double* parts;
    int64_t chunks;
    const T* dloss;  // may be null
    int64_t n;

    __device__ void add(double (&sums)[kSums], int64_t) const {
        for (int64_t i = threadIdx.x; i < chunks; i += blockDim.x) {
            for (int k = 0; k < kSums; ++k) sums[k] += parts[i * kSums + k];
        }
        for (int64_t i = threadIdx.x; dloss && i < n; i += blockDim.x)
            sums[kUpstream] += static_cast<double>(dloss[i]);
    }
};

// The sums of a block go to parts (blocks, kSums).
template <class Values>
__global__ void batch_sums_kernel(Values values, double* parts) {
    SHARED(double, partial, kWarp);
    double sums[kSums] = {};
    values.add(sums, blockIdx.x);
    for (int k = 0; k < kSums; ++k) {
        const double sum = block_sum(sums[k], partial);
        if (threadIdx.x == 0) parts[blockIdx.x * kSums + k] = sum;
        __syncthreads();  // `partial` is free again
    }
}

// All sums of a batch, on the device.
template <class T>
const double* sums_of_batch(const Context& context, const char* name, int64_t size, int64_t n,
                            const T* dloss, const T* target, const T* prediction) {
    constexpr int64_t kLeast = 32 * kThreads, kMostChunks = 1024;
    const int64_t count = n * size, least = divide_up(count, kMostChunks);
    const int64_t chunk = least > kLeast ? least : kLeast, chunks = divide_up(count, chunk);
    auto* const parts = static_cast<double*>(
        context.queue->workspace(static_cast<size_t>((chunks + 1) * kSums) * sizeof(double)));
    launch(context, name, batch_sums_kernel<ChunkOfBatch<T>>, dim3(static_cast<unsigned>(chunks)),
           dim3(kThreads), 0, ChunkOfBatch<T>{target, prediction, count, chunk}, parts);
    double* const sums = parts + chunks * kSums;
    launch(context, name, batch_sums_kernel<AllChunks<T>>, dim3(1), dim3(kThreads), 0,
           AllChunks<T>{parts, chunks, dloss, n}, sums);
    return sums;
}

template <class T>
__device__ Sums<T> read(const double* sums) {
    return {static_cast<T>(sums[kTargets]), static_cast<T>(sums[kPredictions]),
            static_cast<T>(sums[kProducts])};
}

template <class T>
struct SpreadLoss {
    const double* sums;
    T* loss;

    __device__ void operator()(int64_t i) const { loss[i] = read<T>(sums).loss(); }
};

template <class T>
struct SpreadGradient {
    const double* sums;
    const T* target;
    T* dprediction;

    __device__ void operator()(int64_t i) const {
        dprediction[i] = static_cast<T>(sums[kUpstream]) * read<T>(sums).gradient(target[i]);
    }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void pointwise_loss(const Context& context, const PointwiseLoss& s, int64_t n, const T* target,
                    const T* prediction, T* loss) {
    const char* const name = "pointwise_loss";
    const Loss all = rows_of(s);
    with_rule<T>(
        s,
        [&](auto rule, T scale) {
            using Work = OfTerms<T, decltype(rule)>;
            for_each_row(context, name, all, n, Work{target, prediction, loss, scale, rule});
        },
        [&](auto rule) {
            using Work = OfRows<T, decltype(rule)>;
            for_each_row(context, name, all, n, Work{target, prediction, loss, rule});
        });
}

template <class T>
void pointwise_loss_backward(const Context& context, const PointwiseLoss& s, int64_t n,
                             const T* dloss, const T* target, const T* prediction, T* dprediction) {
    const char* const name = "pointwise_loss_backward";
    const Loss all = rows_of(s);
    with_rule<T>(
        s,
        [&](auto rule, T scale) {
            using Work = OfTermsBackward<T, decltype(rule)>;
            for_each_row(context, name, all, n,
                         Work{dloss, target, prediction, dprediction, scale, rule});
        },
        [&](auto rule) {
            using Work = OfRowsBackward<T, decltype(rule)>;
            for_each_row(context, name, all, n, Work{dloss, target, prediction, dprediction, rule});
        });
}

template <class T>
void dice(const Context& context, const Loss& s, int64_t n, const T* target, const T* prediction,
          T* loss) {
    for_each_row(context, "dice", s, n, OfRows<T, Dice<T>>{target, prediction, loss, {}});
}

template <class T>
void dice_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                   const T* target, const T* prediction, T* dprediction) {
    for_each_row(context, "dice_backward", s, n,
                 OfRowsBackward<T, Dice<T>>{dloss, target, prediction, dprediction, {}});
}

template <class T>
void batch_dice(const Context& context, const Loss& s, int64_t n, const T* target,
                const T* prediction, T* loss) {
    const char* const name = "batch_dice";
    if (n == 0) return;
    const T* const none = nullptr;
    const double* const sums = sums_of_batch(context, name, s.size, n, none, target, prediction);
    for_each(context, name, n, SpreadLoss<T>{sums, loss});
}

template <class T>
void batch_dice_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                         const T* target, const T* prediction, T* dprediction) {
    const char* const name = "batch_dice_backward";
    if (n == 0) return;
    const double* const sums = sums_of_batch(context, name, s.size, n, dloss, target, prediction);
    for_each(context, name, n * s.size, SpreadGradient<T>{sums, target, dprediction});
}

INSTANTIATE(pointwise_loss)
INSTANTIATE(pointwise_loss_backward)
INSTANTIATE(dice)
INSTANTIATE(dice_backward)
INSTANTIATE(batch_dice)
INSTANTIATE(batch_dice_backward)

}  // namespace cuda
}  // namespace convkit
