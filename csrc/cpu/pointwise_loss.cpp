// Losses, after Keras 3: target t and prediction p (n, rows, size, inner) -> loss (n, rows, inner).
// In what follows inner is left out; e = 1e-7. Means, over size, of a term per value:
//   hinge                max(1 - t p, 0), t = 0 counts as -1
//   squared_hinge        max(1 - t p, 0)^2, likewise
//   huber                d = |p - t|: d^2 / 2 up to a, then a d - a^2 / 2
//   poisson              p - t log(p + e)
//   log_cosh             log cosh(p - t)
//   absolute_percentage  100 |t - p| / max(|t|, e)
//   squared_logarithmic  (log(max(p, e) + 1) - log(max(t, e) + 1))^2
//   binary_focal         w q^b (-t log c - (1 - t) log(1 - c)), c = clip(p, e, 1 - e),
//                        q = t (1 - p) + (1 - t) p, w = t a + (1 - t) (1 - a), or 1 for a < 0;
//                        from logits of p = sigmoid(x), the logarithms by way of x
// Sums:
//   kl_divergence        t log(t / p) of clip(t, e, 1), clip(p, e, 1)
//   cosine_similarity    -t' p', t' = t min(1 / |t|, 1 / e), p' likewise
//   categorical_focal    -a t (1 - c)^b log c, c = clip(p / sum p, e, 1 - e); from logits of
//                        p = softmax(x)
// And
//   categorical_hinge    max(max (1 - t) p - sum t p + 1, 0)
//   dice                 1 - 2 sum t p / (sum t + sum p + e)
//   batch_dice           the same for all samples, each sum over the whole batch (rows = inner = 1)
// Backward: dloss (n, rows) -> dprediction. Where clip or a maximum changed a value, it is zero.
#include "cpu_kernels.h"
#include "rows.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

template <class T>
constexpr T kEpsilon = static_cast<T>(1e-7);
template <class T>
constexpr T kHighest = static_cast<T>(1 - 1e-7);

template <class T>
Vec<T> clip(Vec<T> v, T high) {
    return larger<T>(smaller<T>(v, high), kEpsilon<T>);
}

// g where clip leaves v as it is, else 0 (NaN for a NaN in g).
template <class T>
Vec<T> unless_clipped(Vec<T> v, T high, Vec<T> g) {
    return ((v < broadcast(kEpsilon<T>)) | (v > broadcast(high))) ? g * 0 : g;
}

// -1, 0 or 1; NaN stays.
template <class T>
Vec<T> sign(Vec<T> v) {
    const Vec<T> one = broadcast<T>(1);
    return v > Vec<T>{} ? one : (v < Vec<T>{} ? -one : v * 0);
}

// q^exponent and its slope, for shares q of 0 .. 1. Small whole exponents, as usual, by products.
template <class T>
class Power {
 public:
    explicit Power(double exponent)
        : exponent_(static_cast<T>(exponent)), products_(whole(exponent)) {}

    Vec<T> operator()(Vec<T> q) const { return raise(q, exponent_, products_); }
    Vec<T> slope(Vec<T> q) const {
        if (exponent_ == 0) return Vec<T>{};
        // Below 1 the slope at 0 is infinite.
        if (exponent_ < 1) q = larger<T>(q, kEpsilon<T>);
        return exponent_ * raise(q, exponent_ - 1, products_ - 1);
    }

 private:
    static constexpr int kMost = 8;

    static int whole(double exponent) {
        for (int i = 0; i <= kMost; ++i) {
            if (exponent == i) return i;
        }
        return -1;
    }
    static Vec<T> raise(Vec<T> q, T exponent, int products) {
        if (products < 0) return exp<T>(exponent * log<T>(q));
        Vec<T> y = broadcast<T>(1);
        for (int i = 0; i < products; ++i) y *= q;
        return y;
    }

    T exponent_;
    int products_;  // -1: no small whole number
};

// ---- a term per value ---------------------------------------------------------------------------
// term(t, p) and slope(t, p), its derivative by p; the loss is `scale` times their sum.
template <class T>
Vec<T> margin(Vec<T> t, Vec<T> p) {
    return larger<T>(1 - t * p, 0);
}

template <class T>
Vec<T> side(Vec<T> t) {
    return t == Vec<T>{} ? broadcast<T>(-1) : t;
}

template <class T>
struct Hinge {
    Vec<T> term(Vec<T> t, Vec<T> p) const { return margin<T>(side<T>(t), p); }
    Vec<T> slope(Vec<T> t, Vec<T> p) const {
        t = side<T>(t);
        const Vec<T> m = margin<T>(t, p);
        return m > Vec<T>{} ? -t : m;  // 0 or NaN
    }
};

template <class T>
struct SquaredHinge {
    Vec<T> term(Vec<T> t, Vec<T> p) const {
        const Vec<T> m = margin<T>(side<T>(t), p);
        return m * m;
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const {
        t = side<T>(t);
        return -2 * t * margin<T>(t, p);
    }
};

template <class T>
struct Huber {
    T delta;

    Vec<T> term(Vec<T> t, Vec<T> p) const {
        const Vec<T> d = absolute<T>(p - t), half = broadcast(static_cast<T>(0.5));
        return d > broadcast(delta) ? delta * (d - half * delta) : half * d * d;
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const { return larger<T>(smaller<T>(p - t, delta), -delta); }
};

template <class T>
struct Poisson {
    Vec<T> term(Vec<T> t, Vec<T> p) const { return p - t * log<T>(p + kEpsilon<T>); }
    Vec<T> slope(Vec<T> t, Vec<T> p) const { return 1 - t / (p + kEpsilon<T>); }
};

// Near 0 by way of cosh x - 1 = 2 sinh^2(x / 2) = 2 z / (1 - z), z = tanh^2(x / 2), so that small
// differences keep their digits; else by |x| - log 2 + log(1 + exp(-2 |x|)).
template <class T>
struct LogCosh {
    Vec<T> term(Vec<T> t, Vec<T> p) const {
        const Vec<T> x = absolute<T>(p - t), half = tanh<T>(smaller<T>(x, 1) / 2), z = half * half;
        const Vec<T> near = log1p<T>(2 * z / (1 - z));
        const Vec<T> far = (x - static_cast<T>(0.693147180559945309417)) + log1p<T>(exp<T>(-2 * x));
        return x < broadcast<T>(1) ? near : far;
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const { return tanh<T>(p - t); }
};

template <class T>
struct AbsolutePercentage {
    Vec<T> term(Vec<T> t, Vec<T> p) const {
        return absolute<T>((t - p) / larger<T>(absolute<T>(t), kEpsilon<T>));
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const {
        return sign<T>(p - t) / larger<T>(absolute<T>(t), kEpsilon<T>);
    }
};

template <class T>
struct SquaredLogarithmic {
    static Vec<T> difference(Vec<T> t, Vec<T> p) {
        return log<T>(larger<T>(p, kEpsilon<T>) + 1) - log<T>(larger<T>(t, kEpsilon<T>) + 1);
    }
    Vec<T> term(Vec<T> t, Vec<T> p) const {
        const Vec<T> d = difference(t, p);
        return d * d;
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const {
        const Vec<T> g = 2 * difference(t, p) / (larger<T>(p, kEpsilon<T>) + 1);
        return p < broadcast(kEpsilon<T>) ? g * 0 : g;
    }
};

template <class T>
struct KlDivergence {
    Vec<T> term(Vec<T> t, Vec<T> p) const {
        t = clip<T>(t, 1);
        return t * log<T>(t / clip<T>(p, 1));
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const {
        return unless_clipped<T>(p, 1, -clip<T>(t, 1) / clip<T>(p, 1));
    }
};

// The share q of what is wrong, the cross-entropy, and the derivatives of both.
template <class T>
struct Focus {
    Vec<T> wrong, cost, wrong_slope, cost_slope;
};

template <class T>
Focus<T> of_probability(Vec<T> t, Vec<T> p) {
    const Vec<T> c = clip<T>(p, kHighest<T>);
    return {t * (1 - p) + (1 - t) * p, -(t * log<T>(c) + (1 - t) * log<T>(1 - c)), 1 - 2 * t,
            unless_clipped<T>(p, kHighest<T>, (1 - t) / (1 - c) - t / c)};
}

template <class T>
Focus<T> of_logit(Vec<T> t, Vec<T> x) {
    const Vec<T> p = sigmoid<T>(x), rest = sigmoid<T>(-x);  // 1 - p loses digits
    return {t * rest + (1 - t) * p, (larger<T>(x, 0) - x * t) + log1p<T>(exp<T>(-absolute<T>(x))),
            (1 - 2 * t) * (p * rest), p - t};
}

template <class T, bool kFromLogits>
struct BinaryFocal {
    Power<T> power;
    T alpha;

    Vec<T> weight(Vec<T> t) const {
        return alpha < 0 ? broadcast<T>(1) : t * alpha + (1 - t) * (1 - alpha);
    }
    static Focus<T> focus(Vec<T> t, Vec<T> p) {
        return kFromLogits ? of_logit<T>(t, p) : of_probability<T>(t, p);
    }
    Vec<T> term(Vec<T> t, Vec<T> p) const {
        const Focus<T> f = focus(t, p);
        return weight(t) * power(f.wrong) * f.cost;
    }
    Vec<T> slope(Vec<T> t, Vec<T> p) const {
        const Focus<T> f = focus(t, p);
        return weight(t) *
               (power.slope(f.wrong) * f.wrong_slope * f.cost + power(f.wrong) * f.cost_slope);
    }
};

template <class T, class Rule>
void of_terms(const Context& context, const Loss& s, T scale, int64_t n, const T* target,
              const T* prediction, T* loss, Rule rule) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, prediction, none, none, [&](const auto& rows) {
        const Vec<T> total =
            blocked_sum<T>(s.size, [&](int64_t i) { return rule.term(rows.t(i), rows.p(i)); });
        rows.put_numbers(loss, total * scale);
    });
}

template <class T, class Rule>
void of_terms_backward(const Context& context, const Loss& s, T scale, int64_t n, const T* dloss,
                       const T* target, const T* prediction, T* dprediction, Rule rule) {
    if (s.inner > 1 || s.size == 1 || 4 * s.size < kLanes<T>) {
        T* const none = nullptr;
        return for_each_rows(context, s, n, target, prediction, none, dprediction,
                             [&](const auto& rows) {
                                 const Vec<T> d = rows.get_numbers(dloss) * scale;
                                 for (int64_t i = 0; i < s.size; ++i) {
                                     rows.put_dprediction(i, d * rule.slope(rows.t(i), rows.p(i)));
                                 }
                             });
    }
    // Longer rows of a batch term by term: they need not be laid side by side.
    parallel_for(context, n * s.rows, 1 + 2.0 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const Vec<T> d = broadcast(dloss[row]) * scale;
            const auto gradient = [&](int64_t i, auto part) {
                const Vec<T> g = rule.slope(get(target + i, part), get(prediction + i, part));
                put(dprediction + i, Vec<T>(d * g), part);
            };
            const int64_t stop = (row + 1) * s.size;
            int64_t i = row * s.size;
            for (; i + kLanes<T> <= stop; i += kLanes<T>) gradient(i, Whole{});
            if (i < stop) gradient(i, Part{stop - i});
        }
    });
}

// ---- rows as a whole ----------------------------------------------------------------------------
// value(rows): the losses; gradient(rows, dloss).
template <class T>
using Rows = LaneRows<T, Values<T>>;

template <class T>
struct CategoricalHinge {
    struct Found {
        Vec<T> loss;
        Ints<T> at;  // where (1 - t) p is largest, the first of equal ones
    };
    static Found find(const Rows<T>& rows) {
        const auto other = [&](int64_t i) { return (1 - rows.t(i)) * rows.p(i); };
        Vec<T> best = other(0);
        Ints<T> at{};
        for (int64_t i = 1; i < rows.size; ++i) {
            const Vec<T> v = other(i);
            const Ints<T> better = (best == best) & ~(v <= best);
            best = better ? v : best;
            at = better ? everywhere<T>(i) : at;
        }
        const Vec<T> own =
            blocked_sum<T>(rows.size, [&](int64_t i) { return rows.t(i) * rows.p(i); });
        return {larger<T>(best - own + 1, 0), at};
    }
    static Vec<T> value(const Rows<T>& rows) { return find(rows).loss; }
    static void gradient(const Rows<T>& rows, Vec<T> dloss) {
        const Found found = find(rows);
        const Vec<T> d = found.loss > Vec<T>{} ? dloss : found.loss;  // 0 or NaN
        for (int64_t i = 0; i < rows.size; ++i) {
            const Vec<T> t = rows.t(i);
            rows.put_dprediction(i, d * (found.at == everywhere<T>(i) ? 1 - 2 * t : -t));
        }
    }
};

template <class T>
struct CosineSimilarity {
    static constexpr T kLargest = static_cast<T>(1e7);  // 1 / e

    static Vec<T> inverse_norm(const Values<T>& x, int64_t size) {
        const Vec<T> squares = blocked_sum<T>(size, [&](int64_t i) { return x(i) * x(i); });
        return smaller<T>(1 / square_root<T>(squares), kLargest);
    }
    static Vec<T> value(const Rows<T>& rows) {
        const Vec<T> t = inverse_norm(rows.t, rows.size), p = inverse_norm(rows.p, rows.size);
        return -blocked_sum<T>(rows.size,
                               [&](int64_t i) { return (rows.t(i) * t) * (rows.p(i) * p); });
    }
    static void gradient(const Rows<T>& rows, Vec<T> dloss) {
        const Vec<T> t = inverse_norm(rows.t, rows.size), p = inverse_norm(rows.p, rows.size);
        const Vec<T> found =
            blocked_sum<T>(rows.size, [&](int64_t i) { return (rows.t(i) * t) * (rows.p(i) * p); });
        // A norm that is held to e does not change with p.
        const Vec<T> common = p == broadcast(kLargest) ? found * 0 : found;
        for (int64_t i = 0; i < rows.size; ++i) {
            rows.put_dprediction(i, dloss * ((common * (rows.p(i) * p) - rows.t(i) * t) * p));
        }
    }
};

template <class T>
struct CategoricalFocal {
    Power<T> power;
    T alpha;
    bool from_logits;

    Vec<T> term(Vec<T> t, Vec<T> q) const {
        const Vec<T> c = clip<T>(q, kHighest<T>);
        return -t * log<T>(c) * power(1 - c);
    }
    Vec<T> slope(Vec<T> t, Vec<T> q) const {
        const Vec<T> c = clip<T>(q, kHighest<T>);
        const Vec<T> g = t * (power.slope(1 - c) * log<T>(c) - power(1 - c) / c);
        return unless_clipped<T>(q, kHighest<T>, g);
    }
    Vec<T> value(const Rows<T>& rows) const {
        const Vec<T> top = from_logits ? top_of(rows) : Vec<T>{};
        const auto weight = [&](int64_t i) {
            return from_logits ? exp<T>(rows.p(i) - top) : rows.p(i);
        };
        const Vec<T> total = blocked_sum<T>(rows.size, weight);
        return alpha * blocked_sum<T>(rows.size, [&](int64_t i) {
                   return term(rows.t(i), weight(i) / total);
               });
    }
    // With g the slope by q_i = w_i / sum w: dw_j = (g_j - sum g_i q_i) / sum w, and w = p, or
    // w = exp(p), whose derivative is w.
    void gradient(const Rows<T>& rows, Vec<T> dloss) const {
        const Vec<T> top = from_logits ? top_of(rows) : Vec<T>{};
        const Vec<T> total = blocked_sum<T>(rows.size, [&](int64_t i) {
            const Vec<T> w = from_logits ? exp<T>(rows.p(i) - top) : rows.p(i);
            rows.put_dprediction(i, w);
            return w;
        });
        const auto share = [&](int64_t i) {
            return load(rows.dprediction + i * rows.p.step) / total;
        };
        const Vec<T> common = blocked_sum<T>(rows.size, [&](int64_t i) {
            const Vec<T> q = share(i);
            return slope(rows.t(i), q) * q;
        });
        for (int64_t i = 0; i < rows.size; ++i) {
            const Vec<T> q = share(i), g = slope(rows.t(i), q) - common;
            rows.put_dprediction(i, dloss * alpha * (from_logits ? g * q : g / total));
        }
    }

 private:
    static Vec<T> top_of(const Rows<T>& rows) {
        Vec<T> top = rows.p(0);
        for (int64_t i = 1; i < rows.size; ++i) top = maximum<T>(top, rows.p(i));
        return top;
    }
};

template <class T, class Rule>
void of_rows(const Context& context, const Loss& s, int64_t n, const T* target, const T* prediction,
             T* loss, Rule rule) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, prediction, none, none,
                  [&](const auto& rows) { rows.put_numbers(loss, rule.value(rows)); });
}

template <class T, class Rule>
void of_rows_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                      const T* target, const T* prediction, T* dprediction, Rule rule) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, prediction, none, dprediction,
                  [&](const auto& rows) { rule.gradient(rows, rows.get_numbers(dloss)); });
}

// terms(rule, scale) or rows(rule) for the rule of a loss.
template <class T, class Terms, class WholeRows>
void with_rule(const PointwiseLoss& s, Terms terms, WholeRows rows) {
    const T mean = 1 / static_cast<T>(s.size), a = static_cast<T>(s.a);
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
            if (s.from_logits) return terms(BinaryFocal<T, true>{Power<T>(s.b), a}, mean);
            return terms(BinaryFocal<T, false>{Power<T>(s.b), a}, mean);
        case kCategoricalHinge:
            return rows(CategoricalHinge<T>{});
        case kCosineSimilarity:
            return rows(CosineSimilarity<T>{});
        case kCategoricalFocal:
            return rows(CategoricalFocal<T>{Power<T>(s.b), a, s.from_logits != 0});
    }
}

Loss rows_of(const PointwiseLoss& s) { return {s.rows, s.size, s.inner, 0}; }

// ---- dice ---------------------------------------------------------------------------------------
template <class T>
struct Sums {
    T target, prediction, product;

    T below() const { return (target + prediction) + kEpsilon<T>; }
    T loss() const { return 1 - 2 * product / below(); }
    // The gradient is dloss (b - a t).
    T a() const { return 2 / below(); }
    T b() const { return (2 * product / below()) / below(); }
};

// Of values that lie side by side, in blocks, so that rounding errors grow slowly.
template <class T>
Sums<T> sums_of(const T* target, const T* prediction, int64_t count) {
    constexpr int64_t kBlock = 64 * kLanes<T>;
    Vec<T> t{}, p{}, tp{};
    for (int64_t begin = 0; begin < count; begin += kBlock) {
        const int64_t end = std::min(begin + kBlock, count);
        Vec<T> block_t{}, block_p{}, block_tp{};
        const auto add = [&](int64_t i, auto part) {
            const Vec<T> vt = get(target + i, part), vp = get(prediction + i, part);
            block_t += vt;
            block_p += vp;
            block_tp += vt * vp;
        };
        int64_t i = begin;
        for (; i + kLanes<T> <= end; i += kLanes<T>) add(i, Whole{});
        if (i < end) add(i, Part{end - i});
        t += block_t;
        p += block_p;
        tp += block_tp;
    }
    return {sum<T>(t), sum<T>(p), sum<T>(tp)};
}

// dprediction = dloss (b - a t) of values that lie side by side.
template <class T>
void spread(const Sums<T>& sums, T dloss, const T* target, int64_t begin, int64_t end,
            T* dprediction) {
    const T a = dloss * sums.a(), b = dloss * sums.b();
    for_each_vector(dprediction, begin, end, [&](int64_t i, auto part) {
        put(dprediction + i, Vec<T>(b - a * get(target + i, part)), part);
    });
}

// The same for columns of a tile, or of channels: one in each lane.
template <class T>
struct LaneDice {
    static Vec<T> sum_over(const Rows<T>& rows, bool of_target, bool of_prediction) {
        return blocked_sum<T>(rows.size, [&](int64_t i) {
            if (!of_target) return rows.p(i);
            return of_prediction ? rows.t(i) * rows.p(i) : rows.t(i);
        });
    }
    static Vec<T> below(const Rows<T>& rows) {
        return (sum_over(rows, true, false) + sum_over(rows, false, true)) + kEpsilon<T>;
    }
    static Vec<T> value(const Rows<T>& rows) {
        return 1 - 2 * sum_over(rows, true, true) / below(rows);
    }
    static void gradient(const Rows<T>& rows, Vec<T> dloss) {
        const Vec<T> under = below(rows), a = dloss * (2 / under);
        const Vec<T> b = dloss * ((2 * sum_over(rows, true, true) / under) / under);
        for (int64_t i = 0; i < rows.size; ++i) rows.put_dprediction(i, b - a * rows.t(i));
    }
};

// Of a whole batch, by chunks that are cut by shape alone.
template <class T>
Sums<T> sums_of_batch(const Context& context, const T* target, const T* prediction, int64_t count) {
    constexpr int64_t kChunk = 1 << 14;
    const int64_t chunks = (count + kChunk - 1) / kChunk;
    auto* const parts = scratch<Sums<T>>(kShared, chunks);
    parallel_for(context, chunks, 0.1 * kChunk, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i * kChunk;
            parts[i] = sums_of(target + first, prediction + first, std::min(kChunk, count - first));
        }
    });
    double t = 0, p = 0, tp = 0;
    for (int64_t i = 0; i < chunks; ++i) {
        t += static_cast<double>(parts[i].target);
        p += static_cast<double>(parts[i].prediction);
        tp += static_cast<double>(parts[i].product);
    }
    return {static_cast<T>(t), static_cast<T>(p), static_cast<T>(tp)};
}

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void pointwise_loss(const Context& context, const PointwiseLoss& s, int64_t n, const T* target,
                    const T* prediction, T* loss) {
    const Loss rows = rows_of(s);
    with_rule<T>(
        s,
        [&](auto rule, T scale) {
            of_terms(context, rows, scale, n, target, prediction, loss, rule);
        },
        [&](auto rule) { of_rows(context, rows, n, target, prediction, loss, rule); });
}

template <class T>
void pointwise_loss_backward(const Context& context, const PointwiseLoss& s, int64_t n,
                             const T* dloss, const T* target, const T* prediction, T* dprediction) {
    const Loss rows = rows_of(s);
    with_rule<T>(
        s,
        [&](auto rule, T scale) {
            of_terms_backward(context, rows, scale, n, dloss, target, prediction, dprediction,
                              rule);
        },
        [&](auto rule) {
            of_rows_backward(context, rows, n, dloss, target, prediction, dprediction, rule);
        });
}

template <class T>
void dice(const Context& context, const Loss& s, int64_t n, const T* target, const T* prediction,
          T* loss) {
    if (s.inner > 1) {
        return of_rows(context, s, n, target, prediction, loss, LaneDice<T>{});
    }
    parallel_for(context, n * s.rows, 0.1 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            loss[i] = sums_of(target + i * s.size, prediction + i * s.size, s.size).loss();
        }
    });
}

template <class T>
void dice_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                   const T* target, const T* prediction, T* dprediction) {
    if (s.inner > 1) {
        return of_rows_backward(context, s, n, dloss, target, prediction, dprediction,
                                LaneDice<T>{});
    }
    parallel_for(context, n * s.rows, 0.2 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i * s.size;
            const Sums<T> sums = sums_of(target + first, prediction + first, s.size);
            spread(sums, dloss[i], target, first, first + s.size, dprediction);
        }
    });
}

template <class T>
void batch_dice(const Context& context, const Loss& s, int64_t n, const T* target,
                const T* prediction, T* loss) {
    const T value = sums_of_batch(context, target, prediction, n * s.size).loss();
    std::fill(loss, loss + n, value);
}

template <class T>
void batch_dice_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                         const T* target, const T* prediction, T* dprediction) {
    const Sums<T> sums = sums_of_batch(context, target, prediction, n * s.size);
    double total = 0;
    for (int64_t i = 0; i < n; ++i) total += static_cast<double>(dloss[i]);
    const T d = static_cast<T>(total);
    parallel_for(context, n, 0.1 * s.size, [&](int64_t begin, int64_t end) {
        spread(sums, d, target, begin * s.size, end * s.size, dprediction);
    });
}

INSTANTIATE(pointwise_loss)
INSTANTIATE(pointwise_loss_backward)
INSTANTIATE(dice)
INSTANTIATE(dice_backward)
INSTANTIATE(batch_dice)
INSTANTIATE(batch_dice_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
