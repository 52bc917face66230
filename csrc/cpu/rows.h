// Up to kLanes rows of predictions and targets side by side, a row in each lane: rows are short and
// many. Those of a tile lie so; those of a batch are laid so first (load_columns).
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "context.h"
#include "lanes.h"
#include "math.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
struct Values {
    const T* first;
    int64_t step;

    Vec<T> operator()(int64_t i) const { return load(first + i * step); }
};

template <class T>
static inline Ints<T> everywhere(int64_t i) {
    using Index = std::conditional_t<sizeof(T) == sizeof(int32_t), int32_t, int64_t>;
    return Ints<T>{} + static_cast<Index>(i);
}

// One-hot rows, and rows of NaN for what is no class.
template <class T>
struct Labels {
    Ints<T> at;
    Vec<T> one, zero;

    Labels(const int32_t* label, int64_t count, int64_t size) {
        typedef int32_t Narrow __attribute__((vector_size(kLanes<T> * sizeof(int32_t))));
        Narrow labels{};
        std::memcpy(&labels, label, static_cast<size_t>(count) * sizeof(int32_t));
        at = __builtin_convertvector(labels, Ints<T>);
        const Ints<T> known = (at >= Ints<T>{}) & (at < everywhere<T>(size));
        const Vec<T> nan = broadcast(std::numeric_limits<T>::quiet_NaN());
        one = known ? broadcast<T>(1) : nan;
        zero = known ? Vec<T>{} : nan;
    }
    Vec<T> choose(int64_t i, Vec<T> there, Vec<T> elsewhere) const {
        return at == everywhere<T>(i) ? there : elsewhere;
    }
    Vec<T> operator()(int64_t i) const { return choose(i, one, zero); }
};

// Where the first maximum is; NaN counts as the maximum, as in NumPy.
template <class T>
static inline Ints<T> argmax(int64_t size, Values<T> x) {
    Vec<T> best = x(0);
    Ints<T> at{};
    for (int64_t i = 1; i < size; ++i) {
        const Vec<T> v = x(i);
        const Ints<T> better = (best == best) & ~(v <= best);
        best = better ? v : best;
        at = better ? everywhere<T>(i) : at;
    }
    return at;
}

// The class of a target: where its maximum is, or its label.
template <class T>
static inline Ints<T> class_of(int64_t size, Values<T> x) {
    return argmax(size, x);
}

template <class T>
static inline Ints<T> class_of(int64_t, const Labels<T>& label) {
    return label.at;
}

template <class T, class Targets>
struct LaneRows {
    int64_t size, first, count;  // rows first .. first + count - 1, in the order of the losses
    Targets t;
    Values<T> p;
    T *dtarget, *dprediction;  // laid as p, or null

    void put_dtarget(int64_t i, Vec<T> v) const { store(dtarget + i * p.step, v); }
    void put_dprediction(int64_t i, Vec<T> v) const { store(dprediction + i * p.step, v); }

    Vec<T> get_numbers(const T* x) const {
        return count == kLanes<T> ? load(x + first) : load_partial(x + first, count);
    }
    void put_numbers(T* y, Vec<T> v) const {
        if (count == kLanes<T>) {
            store(y + first, v);
        } else {
            store_partial(y + first, v, count);
        }
    }
};

// Where the rows of one LaneRows lie, and lanes for what does not lie side by side.
template <class T>
struct Group {
    int64_t size, inner, first, count, start;
    bool adjoin;

    Group(const Loss& s, int64_t n, int64_t index)
        : size(s.size), inner(s.inner), first(index * kLanes<T>) {
        count = std::min<int64_t>(n * s.losses() - first, kLanes<T>);
        start = size == 1 ? first : column_start(size, inner, first);
        adjoin = columns_adjoin<T>(size, inner, first, count);
    }

    Values<T> targets(const T* x, T* lanes) const { return values(x, lanes); }
    Labels<T> targets(const int32_t* label, T*) const { return {label + first, count, size}; }
    Values<T> values(const T* x, T* lanes) const {
        if (adjoin) return {x + start, inner};
        lay(x, lanes);
        return {lanes, kLanes<T>};
    }
    T* results(T* y, T* lanes) const {
        if (!y) return nullptr;
        return adjoin ? y + start : lanes;
    }
    void finish(const T* lanes, T* y) const {
        if (y && !adjoin) put_back(lanes, y);
    }

 private:
    // Calls, since inlined into every loss they would be half of the code.
    __attribute__((noinline)) void lay(const T* x, T* lanes) const {
        load_columns(x, size, inner, first, count, lanes);
    }
    __attribute__((noinline)) void put_back(const T* lanes, T* y) const {
        store_columns(lanes, size, inner, first, count, y);
    }
};

// body(rows) for all rows; dtarget and dprediction may be null.
template <class T, class Target, class Body>
static inline void for_each_rows(const Context& context, const Loss& s, int64_t n,
                                 const Target* target, const T* prediction, T* dtarget,
                                 T* dprediction, Body body) {
    using Targets = std::conditional_t<std::is_same_v<Target, T>, Values<T>, Labels<T>>;
    const int64_t groups = (n * s.losses() + kLanes<T> - 1) / kLanes<T>;
    const int64_t values = s.size * kLanes<T>;
    parallel_for(context, groups, 2.0 * values, [&](int64_t begin, int64_t end) {
        T* lanes = scratch<T>(kLocal, 4 * values);
        for (int64_t i = begin; i < end; ++i) {
            const Group<T> group(s, n, i);
            const LaneRows<T, Targets> rows{group.size,
                                            group.first,
                                            group.count,
                                            group.targets(target, lanes),
                                            group.values(prediction, lanes + values),
                                            group.results(dtarget, lanes + 2 * values),
                                            group.results(dprediction, lanes + 3 * values)};
            body(rows);
            group.finish(rows.dtarget, dtarget);
            group.finish(rows.dprediction, dprediction);
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
