// Losses: target t and prediction p (n, rows, size) -> loss (n, rows); sparse targets are labels
// (n, rows) that stand for one-hot rows, a label outside 0 .. size - 1 for a row of NaN.
//   categorical_crossentropy  -sum t log c, q = p / sum p, c = clip(q, e, 1 - e), e = 1e-7;
//                             from logits -sum t log_softmax(p); a term with t = 0 is 0
//   binary_crossentropy       mean of -(t log c + (1 - t) log(1 - c)), c = clip(p, e, 1 - e);
//                             from logits mean of max(p, 0) - p t + log(1 + exp(-|p|))
//   mean_squared_error        mean of (p - t)^2
//   mean_absolute_error       mean of |p - t|
// Backward: dloss (n, rows) -> dtarget, dprediction (as prediction), either may be null; where clip
// changed a value its gradient is zero. Definitions as in Keras 3.
//
// A row stands in each lane (load_columns): rows are short and many.
#include <algorithm>
#include <limits>

#include "cpu_kernels.h"
#include "lanes.h"
#include "math.h"

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

// Up to kLanes rows, side by side.
template <class T>
struct Rows {
    int64_t first, count;    // rows of the batch
    T *target, *prediction;  // (size, kLanes)

    Vec<T> t(int64_t i) const { return load(target + i * kLanes<T>); }
    Vec<T> p(int64_t i) const { return load(prediction + i * kLanes<T>); }
};

template <class T>
void load_targets(const T* target, const Loss& s, const Rows<T>& rows) {
    load_columns(target, s.size, 1, rows.first, rows.count, rows.target);
}

template <class T>
void load_targets(const int32_t* label, const Loss& s, const Rows<T>& rows) {
    std::memset(rows.target, 0, static_cast<size_t>(s.size * kLanes<T>) * sizeof(T));
    for (int64_t lane = 0; lane < rows.count; ++lane) {
        const int64_t at = label[rows.first + lane];
        if (at >= 0 && at < s.size) {
            rows.target[at * kLanes<T> + lane] = 1;
        } else {
            for (int64_t i = 0; i < s.size; ++i) {
                rows.target[i * kLanes<T> + lane] = std::numeric_limits<T>::quiet_NaN();
            }
        }
    }
}

template <class T, class Target, class Body>
void for_each_rows(const Context& context, const Loss& s, int64_t n, const Target* target,
                   const T* prediction, Body body) {
    const int64_t count = n * s.rows, groups = (count + kLanes<T> - 1) / kLanes<T>;
    parallel_for(context, groups, 2.0 * s.size * kLanes<T>, [&](int64_t begin, int64_t end) {
        T* lanes = scratch<T>(kLocal, 2 * s.size * kLanes<T>);
        for (int64_t group = begin; group < end; ++group) {
            const int64_t first = group * kLanes<T>;
            const Rows<T> rows{first, std::min<int64_t>(count - first, kLanes<T>), lanes,
                               lanes + s.size * kLanes<T>};
            load_targets(target, s, rows);
            load_columns(prediction, s.size, 1, rows.first, rows.count, rows.prediction);
            body(rows);
        }
    });
}

template <class T>
Vec<T> load_numbers(const T* x, const Rows<T>& rows) {
    return rows.count == kLanes<T> ? load(x + rows.first)
                                   : load_partial(x + rows.first, rows.count);
}

template <class T>
void store_numbers(T* y, Vec<T> v, const Rows<T>& rows) {
    if (rows.count == kLanes<T>) {
        store(y + rows.first, v);
    } else {
        store_partial(y + rows.first, v, rows.count);
    }
}

template <class T>
void store_rows(const Loss& s, const Rows<T>& rows, T* dtarget, T* dprediction) {
    if (dtarget) store_columns(rows.target, s.size, 1, rows.first, rows.count, dtarget);
    if (dprediction) store_columns(rows.prediction, s.size, 1, rows.first, rows.count, dprediction);
}

// ---- categorical --------------------------------------------------------------------------------
// From logits, log_softmax(p)_i = (p_i - top) - log_total.
template <class T>
struct LogSoftmax {
    Vec<T> top, total, log_total;

    LogSoftmax(const Loss& s, const Rows<T>& rows) {
        top = rows.p(0);
        for (int64_t i = 1; i < s.size; ++i) top = maximum<T>(top, rows.p(i));
        total = blocked_sum<T>(s.size, [&](int64_t i) { return exp<T>(rows.p(i) - top); });
        log_total = log<T>(total);
    }
    Vec<T> operator()(Vec<T> p) const { return (p - top) - log_total; }
};

template <class T>
Vec<T> row_total(const Loss& s, const Rows<T>& rows) {
    return blocked_sum<T>(s.size, [&](int64_t i) { return rows.p(i); });
}

template <class T, class Target>
void categorical(const Context& context, const Loss& s, int64_t n, const Target* target,
                 const T* prediction, T* loss) {
    for_each_rows(context, s, n, target, prediction, [&](const Rows<T>& rows) {
        const auto minus_cross = [&](auto log_of) {
            return blocked_sum<T>(s.size, [&](int64_t i) {
                const Vec<T> t = rows.t(i);
                return t == Vec<T>{} ? Vec<T>{} : t * log_of(rows.p(i));
            });
        };
        Vec<T> minus_loss;
        if (s.from_logits) {
            minus_loss = minus_cross(LogSoftmax<T>(s, rows));
        } else {
            const Vec<T> total = row_total(s, rows);
            minus_loss = minus_cross([&](Vec<T> p) { return log<T>(clip<T>(p / total)); });
        }
        store_numbers(loss, Vec<T>(-minus_loss), rows);
    });
}

template <class T>
void logits_gradient(const Loss& s, const Rows<T>& rows, Vec<T> dloss, bool wants_target) {
    const LogSoftmax<T> log_softmax(s, rows);
    const Vec<T> targets = blocked_sum<T>(s.size, [&](int64_t i) { return rows.t(i); });
    for (int64_t i = 0; i < s.size; ++i) {
        const Vec<T> p = rows.p(i), t = rows.t(i);
        const Vec<T> probability = exp<T>(p - log_softmax.top) / log_softmax.total;
        store(rows.prediction + i * kLanes<T>, dloss * (probability * targets - t));
        if (wants_target) store(rows.target + i * kLanes<T>, -dloss * log_softmax(p));
    }
}

// With q = p / sum p and g = d(loss)/dq: dp_j = (g_j - sum_i g_i q_i) / sum p.
template <class T>
void probabilities_gradient(const Loss& s, const Rows<T>& rows, Vec<T> dloss, bool wants_target) {
    const Vec<T> total = row_total(s, rows);
    const auto slope = [&](Vec<T> t, Vec<T> q) {
        return t == Vec<T>{} ? Vec<T>{} : unless_clipped<T>(q, -t / clip<T>(q));
    };
    const Vec<T> common = blocked_sum<T>(s.size, [&](int64_t i) {
        const Vec<T> q = rows.p(i) / total;
        return slope(rows.t(i), q) * q;
    });
    for (int64_t i = 0; i < s.size; ++i) {
        const Vec<T> q = rows.p(i) / total, t = rows.t(i);
        store(rows.prediction + i * kLanes<T>, dloss * ((slope(t, q) - common) / total));
        if (wants_target) store(rows.target + i * kLanes<T>, -dloss * log<T>(clip<T>(q)));
    }
}

template <class T, class Target>
void categorical_gradient(const Context& context, const Loss& s, int64_t n, const T* dloss,
                          const Target* target, const T* prediction, T* dtarget, T* dprediction) {
    for_each_rows(context, s, n, target, prediction, [&](const Rows<T>& rows) {
        const Vec<T> d = load_numbers(dloss, rows);
        if (s.from_logits) {
            logits_gradient(s, rows, d, dtarget != nullptr);
        } else {
            probabilities_gradient(s, rows, d, dtarget != nullptr);
        }
        store_rows(s, rows, dtarget, dprediction);
    });
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

template <class T, class Term>
void mean_of_terms(const Context& context, const Loss& s, int64_t n, const T* target,
                   const T* prediction, T* loss) {
    for_each_rows(context, s, n, target, prediction, [&](const Rows<T>& rows) {
        const Vec<T> total =
            blocked_sum<T>(s.size, [&](int64_t i) { return Term::term(rows.t(i), rows.p(i)); });
        store_numbers(loss, Vec<T>(total / static_cast<T>(s.size)), rows);
    });
}

// Term by term, so that rows need not be turned into lanes.
template <class T, class Term>
void mean_of_terms_gradient(const Context& context, const Loss& s, int64_t n, const T* dloss,
                            const T* target, const T* prediction, T* dtarget, T* dprediction) {
    parallel_for(context, n * s.rows, 1 + 0.5 * s.size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const Vec<T> d = broadcast(dloss[row]) / static_cast<T>(s.size);
            const auto gradient = [&](int64_t i, auto part) {
                const Gradient<T> g =
                    Term::gradient(get(target + i, part), get(prediction + i, part));
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

}  // namespace

template <class T>
void categorical_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                              const T* prediction, T* loss) {
    categorical(context, s, n, target, prediction, loss);
}

template <class T>
void categorical_crossentropy_backward(const Context& context, const Loss& s, int64_t n,
                                       const T* dloss, const T* target, const T* prediction,
                                       T* dtarget, T* dprediction) {
    categorical_gradient(context, s, n, dloss, target, prediction, dtarget, dprediction);
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
    categorical_gradient(context, s, n, dloss, target, prediction, dtarget, dprediction);
}

template <class T>
void binary_crossentropy(const Context& context, const Loss& s, int64_t n, const T* target,
                         const T* prediction, T* loss) {
    if (s.from_logits) {
        mean_of_terms<T, BinaryCrossentropyFromLogits<T>>(context, s, n, target, prediction, loss);
    } else {
        mean_of_terms<T, BinaryCrossentropy<T>>(context, s, n, target, prediction, loss);
    }
}

template <class T>
void binary_crossentropy_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                  const T* target, const T* prediction, T* dtarget,
                                  T* dprediction) {
    if (s.from_logits) {
        mean_of_terms_gradient<T, BinaryCrossentropyFromLogits<T>>(
            context, s, n, dloss, target, prediction, dtarget, dprediction);
    } else {
        mean_of_terms_gradient<T, BinaryCrossentropy<T>>(context, s, n, dloss, target, prediction,
                                                         dtarget, dprediction);
    }
}

template <class T>
void mean_squared_error(const Context& context, const Loss& s, int64_t n, const T* target,
                        const T* prediction, T* loss) {
    mean_of_terms<T, SquaredError<T>>(context, s, n, target, prediction, loss);
}

template <class T>
void mean_squared_error_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                 const T* target, const T* prediction, T* dtarget, T* dprediction) {
    mean_of_terms_gradient<T, SquaredError<T>>(context, s, n, dloss, target, prediction, dtarget,
                                               dprediction);
}

template <class T>
void mean_absolute_error(const Context& context, const Loss& s, int64_t n, const T* target,
                         const T* prediction, T* loss) {
    mean_of_terms<T, AbsoluteError<T>>(context, s, n, target, prediction, loss);
}

template <class T>
void mean_absolute_error_backward(const Context& context, const Loss& s, int64_t n, const T* dloss,
                                  const T* target, const T* prediction, T* dtarget,
                                  T* dprediction) {
    mean_of_terms_gradient<T, AbsoluteError<T>>(context, s, n, dloss, target, prediction, dtarget,
                                                dprediction);
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

}  // namespace CONVKIT_ISA
}  // namespace convkit
