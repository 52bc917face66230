// Losses: target t and prediction p (n, rows, size, inner) -> loss (n, rows, inner); sparse targets
// are labels (n, rows, inner) that stand for one-hot rows, a label outside 0 .. size - 1 for a row
// of NaN. In what follows inner is left out.
//   categorical_crossentropy  -sum t log c, q = p / sum p, c = clip(q, e, 1 - e), e = 1e-7;
//                             from logits -sum t log_softmax(p); a term with t = 0 is 0
//   binary_crossentropy       mean of -(t log c + (1 - t) log(1 - c)), c = clip(p, e, 1 - e);
//                             from logits mean of max(p, 0) - p t + log(1 + exp(-|p|))
//   mean_squared_error        mean of (p - t)^2
//   mean_absolute_error       mean of |p - t|
// Backward: dloss (n, rows) -> dtarget, dprediction (as prediction), either may be null; where clip
// changed a value its gradient is zero. Definitions as in Keras 3.
//   softmax_crossentropy      x -> y = softmax(x) over size, and the categorical loss of x (from
//                             logits) or of y. Backward from y: dx = dloss (y sum t - t), where a
//                             t whose y was clipped counts as 0
#include "cpu_kernels.h"
#include "rows.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr double kEpsilon = 1e-7;

template <class T>
constexpr T kLowest = static_cast<T>(kEpsilon);
template <class T>
constexpr T kHighest = static_cast<T>(1 - kEpsilon);

template <class T>
Vec<T> clip(Vec<T> v) {
    return larger<T>(smaller<T>(v, kHighest<T>), kLowest<T>);
}

// g where clip leaves v as it is, else 0 (NaN for a NaN in g).
template <class T>
Vec<T> unless_clipped(Vec<T> v, Vec<T> g) {
    return ((v < broadcast(kLowest<T>)) | (v > broadcast(kHighest<T>))) ? g * 0 : g;
}

// ---- categorical --------------------------------------------------------------------------------
// What is predicted for the label.
template <class T>
Vec<T> prediction_there(const LaneRows<T, Labels<T>>& rows) {
    Vec<T> there{};
    for (int64_t i = 0; i < rows.size; ++i) there = rows.t.choose(i, rows.p(i), there);
    return there;
}

// The sum of t f(p); a term with t = 0 is 0.
template <class T, class F>
Vec<T> weighted_sum(const LaneRows<T, Values<T>>& rows, F f) {
    return blocked_sum<T>(rows.size, [&](int64_t i) {
        const Vec<T> t = rows.t(i);
        return t == Vec<T>{} ? Vec<T>{} : t * f(rows.p(i));
    });
}

template <class T, class F>
Vec<T> weighted_sum(const LaneRows<T, Labels<T>>& rows, F f) {
    return rows.t.one * f(prediction_there(rows));
}

template <class T>
Vec<T> sum_of_targets(const LaneRows<T, Values<T>>& rows) {
    return blocked_sum<T>(rows.size, rows.t);
}

template <class T>
Vec<T> sum_of_targets(const LaneRows<T, Labels<T>>& rows) {
    return rows.t.one;
}

template <class T, class Targets>
Vec<T> sum_of_predictions(const LaneRows<T, Targets>& rows) {
    return blocked_sum<T>(rows.size, rows.p);
}

template <class T, class Targets>
Vec<T> top_of_predictions(const LaneRows<T, Targets>& rows) {
    Vec<T> top = rows.p(0);
    for (int64_t i = 1; i < rows.size; ++i) top = maximum<T>(top, rows.p(i));
    return top;
}

// The sum of exp(p - top); dprediction, where there is one, keeps the terms.
template <class T, class Targets>
Vec<T> sum_of_exponentials(const LaneRows<T, Targets>& rows, Vec<T> top) {
    return blocked_sum<T>(rows.size, [&](int64_t i) {
        const Vec<T> e = exp<T>(rows.p(i) - top);
        if (rows.dprediction) rows.put_dprediction(i, e);
        return e;
    });
}

// From logits: log_softmax(p)_i = (p_i - top) - log sum_j exp(p_j - top).
template <class T, class Targets>
Vec<T> loss_of_logits(const LaneRows<T, Targets>& rows, Vec<T> top, Vec<T> total) {
    const Vec<T> log_total = log<T>(total);
    return -weighted_sum(rows, [&](Vec<T> p) { return (p - top) - log_total; });
}

template <class T, class Targets>
Vec<T> loss_of_logits(const LaneRows<T, Targets>& rows) {
    const Vec<T> top = top_of_predictions(rows);
    return loss_of_logits(rows, top, sum_of_exponentials(rows, top));
}

template <class T, class Targets>
void gradient_of_logits(const LaneRows<T, Targets>& rows, Vec<T> dloss) {
    const Vec<T> top = top_of_predictions(rows);
    const Vec<T> total = sum_of_exponentials(rows, top);
    if (rows.dprediction) {
        const Vec<T> share = sum_of_targets(rows) / total;
        for (int64_t i = 0; i < rows.size; ++i) {
            const Vec<T> e = load(rows.dprediction + i * rows.p.step);
            rows.put_dprediction(i, dloss * (e * share - rows.t(i)));
        }
    }
    if (rows.dtarget) {
        const Vec<T> log_total = log<T>(total);
        for (int64_t i = 0; i < rows.size; ++i) {
            rows.put_dtarget(i, -dloss * ((rows.p(i) - top) - log_total));
        }
    }
}

template <class T, class Targets>
Vec<T> loss_of_probabilities(const LaneRows<T, Targets>& rows) {
    const Vec<T> total = sum_of_predictions(rows);
    return -weighted_sum(rows, [&](Vec<T> p) { return log<T>(clip<T>(p / total)); });
}

// d(loss)/dq, q = p / sum p.
template <class T>
Vec<T> slope(Vec<T> t, Vec<T> q) {
    return t == Vec<T>{} ? Vec<T>{} : unless_clipped<T>(q, -t / clip<T>(q));
}

// With g = slope: dp_j = (g_j - sum_i g_i q_i) / sum p.
template <class T>
void gradient_of_probabilities(const LaneRows<T, Values<T>>& rows, Vec<T> dloss) {
    const Vec<T> total = sum_of_predictions(rows);
    if (rows.dprediction) {
        const Vec<T> common = blocked_sum<T>(rows.size, [&](int64_t i) {
            const Vec<T> q = rows.p(i) / total, g = slope<T>(rows.t(i), q);
            rows.put_dprediction(i, g);
            return g * q;
        });
        for (int64_t i = 0; i < rows.size; ++i) {
            const Vec<T> g = load(rows.dprediction + i * rows.p.step);
            rows.put_dprediction(i, dloss * ((g - common) / total));
        }
    }
    if (rows.dtarget) {
        for (int64_t i = 0; i < rows.size; ++i) {
            rows.put_dtarget(i, -dloss * log<T>(clip<T>(rows.p(i) / total)));
        }
    }
}

template <class T>
void gradient_of_probabilities(const LaneRows<T, Labels<T>>& rows, Vec<T> dloss) {
    const Vec<T> total = sum_of_predictions(rows);
    const Vec<T> q = prediction_there(rows) / total, g = slope<T>(rows.t.one, q), common = g * q;
    const Vec<T> there = dloss * ((g - common) / total), elsewhere = dloss * (-common / total);
    for (int64_t i = 0; i < rows.size; ++i) {
        rows.put_dprediction(i, rows.t.choose(i, there, elsewhere));
    }
}

// ---- softmax and categorical --------------------------------------------------------------------
// y takes the place of dprediction.
template <class T, class Targets>
Vec<T> softmax_and_loss(const LaneRows<T, Targets>& rows, bool from_logits) {
    const Vec<T> top = top_of_predictions(rows), total = sum_of_exponentials(rows, top);
    for (int64_t i = 0; i < rows.size; ++i) {
        rows.put_dprediction(i, load(rows.dprediction + i * rows.p.step) / total);
    }
    if (from_logits) return loss_of_logits(rows, top, total);
    LaneRows<T, Targets> probabilities = rows;
    probabilities.p.first = rows.dprediction;
    return loss_of_probabilities(probabilities);
}

template <class T, class Targets>
void gradient_before_softmax(const LaneRows<T, Targets>& rows, bool from_logits, Vec<T> dloss) {
    const auto target = [&](int64_t i) {
        return from_logits ? rows.t(i) : unless_clipped<T>(rows.p(i), rows.t(i));
    };
    const Vec<T> weight = from_logits ? sum_of_targets(rows) : blocked_sum<T>(rows.size, target);
    for (int64_t i = 0; i < rows.size; ++i) {
        rows.put_dprediction(i, dloss * (rows.p(i) * weight - target(i)));
    }
}

// ---- means of a term per value ------------------------------------------------------------------
template <class T>
struct Gradient {
    Vec<T> target, prediction;
};

template <class T>
struct BinaryCrossentropy {
    static Vec<T> term(Vec<T> t, Vec<T> p) {
        const Vec<T> c = clip<T>(p);
        return -(t * log<T>(c) + (1 - t) * log<T>(1 - c));
    }
    static Gradient<T> gradient(Vec<T> t, Vec<T> p) {
        const Vec<T> c = clip<T>(p);
        return {log<T>(1 - c) - log<T>(c), unless_clipped<T>(p, (1 - t) / (1 - c) - t / c)};
    }
};

template <class T>
struct BinaryCrossentropyFromLogits {
    static Vec<T> term(Vec<T> t, Vec<T> p) {
        return (larger<T>(p, 0) - p * t) + log1p<T>(exp<T>(-absolute<T>(p)));
    }
    static Gradient<T> gradient(Vec<T> t, Vec<T> p) { return {-p, sigmoid<T>(p) - t}; }
};

template <class T>
struct SquaredError {
    static Vec<T> term(Vec<T> t, Vec<T> p) { return (p - t) * (p - t); }
    static Gradient<T> gradient(Vec<T> t, Vec<T> p) { return {2 * (t - p), 2 * (p - t)}; }
};

template <class T>
struct AbsoluteError {
    static Vec<T> term(Vec<T> t, Vec<T> p) { return absolute<T>(p - t); }
    static Gradient<T> gradient(Vec<T> t, Vec<T> p) {
        const Vec<T> d = p - t, one = broadcast<T>(1);
        const Vec<T> sign = d > Vec<T>{} ? one : (d < Vec<T>{} ? -one : d * 0);  // NaN stays
        return {-sign, sign};
    }
};

enum class Term { kBinaryCrossentropy, kSquaredError, kAbsoluteError };

// f(term) for the term of a loss.
template <class T, class F>
void with_term(const Loss& s, Term term, F f) {
    switch (term) {
        case Term::kBinaryCrossentropy:
            return s.from_logits ? f(BinaryCrossentropyFromLogits<T>{})
                                 : f(BinaryCrossentropy<T>{});
        case Term::kSquaredError:
            return f(SquaredError<T>{});
        case Term::kAbsoluteError:
            return f(AbsoluteError<T>{});
    }
}

// Longer rows of a batch term by term: they need not be laid side by side.
template <class T, class Rule>
void backward_along_rows(const Context& context, const Loss& s, int64_t count, const T* dloss,
                         const T* target, const T* prediction, T* dtarget, T* dprediction,
                         Rule rule) {
    parallel_for(context, count, 1 + 0.5 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const Vec<T> d = broadcast(dloss[row]) / static_cast<T>(s.size);
            const auto gradient = [&](int64_t i, auto part) {
                const Gradient<T> g =
                    rule.gradient(get(target + i, part), get(prediction + i, part));
                if (dtarget) put(dtarget + i, Vec<T>(d * g.target), part);
                if (dprediction) put(dprediction + i, Vec<T>(d * g.prediction), part);
            };
            const int64_t stop = (row + 1) * s.size;
            int64_t i = row * s.size;
            for (; i + kLanes<T> <= stop; i += kLanes<T>) gradient(i, Whole{});
            if (i < stop) gradient(i, Part{stop - i});
        }
    });
}

// ---- of all rows --------------------------------------------------------------------------------
template <class T, class Target>
void categorical(const Context& context, const Loss& s, int64_t n, const Target* target,
                 const T* prediction, T* loss) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, prediction, none, none, [&](const auto& rows) {
        rows.put_numbers(loss, s.from_logits ? loss_of_logits(rows) : loss_of_probabilities(rows));
    });
}

template <class T, class Target>
void categorical_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                          const Target* target, const T* prediction, T* dtarget, T* dprediction) {
    for_each_rows(context, s, n, target, prediction, dtarget, dprediction, [&](const auto& rows) {
        const Vec<T> d = rows.get_numbers(dloss);
        if (s.from_logits) {
            gradient_of_logits(rows, d);
        } else {
            gradient_of_probabilities(rows, d);
        }
    });
}

template <class T>
void mean_of_terms(const Context& context, const Loss& s, Term term, int64_t n, const T* target,
                   const T* prediction, T* loss) {
    T* const none = nullptr;
    with_term<T>(s, term, [&](auto rule) {
        for_each_rows(context, s, n, target, prediction, none, none, [&](const auto& rows) {
            const Vec<T> total =
                blocked_sum<T>(s.size, [&](int64_t i) { return rule.term(rows.t(i), rows.p(i)); });
            rows.put_numbers(loss, total / static_cast<T>(s.size));
        });
    });
}

template <class T>
void mean_of_terms_backward(const Context& context, const Loss& s, Term term, int64_t n,
                            const T* dloss, const T* target, const T* prediction, T* dtarget,
                            T* dprediction) {
    with_term<T>(s, term, [&](auto rule) {
        if (s.inner == 1 && s.size > 1) {
            return backward_along_rows(context, s, n * s.rows, dloss, target, prediction, dtarget,
                                       dprediction, rule);
        }
        for_each_rows(context, s, n, target, prediction, dtarget, dprediction,
                      [&](const auto& rows) {
                          const Vec<T> d = rows.get_numbers(dloss) / static_cast<T>(s.size);
                          for (int64_t i = 0; i < s.size; ++i) {
                              const Gradient<T> g = rule.gradient(rows.t(i), rows.p(i));
                              if (dtarget) rows.put_dtarget(i, d * g.target);
                              if (dprediction) rows.put_dprediction(i, d * g.prediction);
                          }
                      });
    });
}

template <class T, class Target>
void with_softmax(const Context& context, const Loss& s, int64_t n, const Target* target,
                  const T* x, T* y, T* loss) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, x, none, y, [&](const auto& rows) {
        rows.put_numbers(loss, softmax_and_loss(rows, s.from_logits));
    });
}

template <class T, class Target>
void with_softmax_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                           const Target* target, const T* y, T* dx) {
    T* const none = nullptr;
    for_each_rows(context, s, n, target, y, none, dx, [&](const auto& rows) {
        gradient_before_softmax(rows, s.from_logits, rows.get_numbers(dloss));
    });
}

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void categorical_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    categorical(context, s, n, target, prediction, loss);
}

template <class T>
void categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                       const T* dloss, const T* target, const T* prediction,
                                       T* dtarget, T* dprediction) {
    categorical_backward(context, s, n, dloss, target, prediction, dtarget, dprediction);
}

template <class T>
void sparse_categorical_crossentropy(const Context& context, const Loss& s, int64_t n,
                                     const int32_t* target, const T* prediction, T* loss) {
    categorical(context, s, n, target, prediction, loss);
}

template <class T>
void sparse_categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                              const T* dloss, const int32_t* target,
                                              const T* prediction, T* dprediction) {
    T* const dtarget = nullptr;
    categorical_backward(context, s, n, dloss, target, prediction, dtarget, dprediction);
}

template <class T>
void binary_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                         const T* prediction, T* loss) {
    mean_of_terms(context, s, Term::kBinaryCrossentropy, n, target, prediction, loss);
}

template <class T>
void binary_crossentropy_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                  const T* target, const T* prediction, T* dtarget,
                                  T* dprediction) {
    mean_of_terms_backward(context, s, Term::kBinaryCrossentropy, n, dloss, target, prediction,
                           dtarget, dprediction);
}

template <class T>
void mean_squared_error(const Context& context, const Loss& s, int64_t n, const T* target,
                        const T* prediction, T* loss) {
    mean_of_terms(context, s, Term::kSquaredError, n, target, prediction, loss);
}

template <class T>
void mean_squared_error_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                 const T* target, const T* prediction, T* dtarget, T* dprediction) {
    mean_of_terms_backward(context, s, Term::kSquaredError, n, dloss, target, prediction, dtarget,
                           dprediction);
}

template <class T>
void mean_absolute_error(const Context& context, const Loss& s, int64_t n, const T* target,
                         const T* prediction, T* loss) {
    mean_of_terms(context, s, Term::kAbsoluteError, n, target, prediction, loss);
}

template <class T>
void mean_absolute_error_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                  const T* target, const T* prediction, T* dtarget,
                                  T* dprediction) {
    mean_of_terms_backward(context, s, Term::kAbsoluteError, n, dloss, target, prediction, dtarget,
                           dprediction);
}

template <class T>
void softmax_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                          const T* x, T* y, T* loss) {
    with_softmax(context, s, n, target, x, y, loss);
}

template <class T>
void softmax_crossentropy_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                   const T* target, const T* y, T* dx) {
    with_softmax_backward(context, s, n, dloss, target, y, dx);
}

template <class T>
void sparse_softmax_crossentropy(const Context& context, const Loss& s, int64_t n,
                                 const int32_t* target, const T* x, T* y, T* loss) {
    with_softmax(context, s, n, target, x, y, loss);
}

template <class T>
void sparse_softmax_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                          const T* dloss, const int32_t* target, const T* y,
                                          T* dx) {
    with_softmax_backward(context, s, n, dloss, target, y, dx);
}

INSTANTIATE(categorical_crossentropy)
INSTANTIATE(categorical_crossentropy_backward)
INSTANTIATE(sparse_categorical_crossentropy)
INSTANTIATE(sparse_categorical_crossentropy_backward)
INSTANTIATE(binary_crossentropy)
INSTANTIATE(binary_crossentropy_backward)
INSTANTIATE(mean_squared_error)
INSTANTIATE(mean_squared_error_backward)
INSTANTIATE(mean_absolute_error)
INSTANTIATE(mean_absolute_error_backward)
INSTANTIATE(softmax_crossentropy)
INSTANTIATE(softmax_crossentropy_backward)
INSTANTIATE(sparse_softmax_crossentropy)
INSTANTIATE(sparse_softmax_crossentropy_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
