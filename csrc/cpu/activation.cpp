// Activations and softmax.
//   activation   x (n, size) -> y (n, size), by kind:
//                relu max(x, 0); leaky_relu x > 0 ? x : slope x; sigmoid 1 / (1 + exp(-x)); tanh;
//                exp
//     backward   dx = dy f'(x), with f' in terms of y: relu and leaky_relu y > 0 ? 1 : slope,
//                sigmoid y (1 - y), tanh 1 - y^2, exp y
//   rescale      x (n, size) -> y (n, size) = x scale + offset
//   softmax      x, y (n, outer, size, inner): y_i = exp(x_i - max) / sum_j exp(x_j - max)
//     backward   dx_i = y_i (dy_i - sum_j dy_j y_j)
//   log_softmax  y_i = x_i - max - log sum_j exp(x_j - max)
//     backward   dx_i = dy_i - exp(y_i) sum_j dy_j
// All of them may work in place. relu keeps a NaN, and passes the gradient where y is NaN.
#include "activate.h"
#include "cpu_kernels.h"
#include "lanes.h"
#include "math.h"
#include "stream.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr double kCheap = 0.15, kCostly = 0.3;  // nanoseconds per value

template <class T, class F>
void map(const Context& context, int64_t count, double cost, const T* x, T* y, F f) {
    const bool past = streams<T>(count, y, x);
    parallel_stores(context, count, cost, [&](int64_t begin, int64_t end) {
        for_each_vector(past, y, begin, end,
                        [&](int64_t i, auto part) { put(y + i, f(get(x + i, part)), part); });
    });
}

template <class T, class F>
void map(const Context& context, int64_t count, double cost, const T* a, const T* b, T* y, F f) {
    const bool past = streams<T>(count, y, a) && y != b;
    parallel_stores(context, count, cost, [&](int64_t begin, int64_t end) {
        for_each_vector(past, y, begin, end, [&](int64_t i, auto part) {
            put(y + i, f(get(a + i, part), get(b + i, part)), part);
        });
    });
}

// Calls body(first, count, lanes) for groups of up to kLanes columns; lanes has room for `arrays`
// times (size, kLanes) values.
template <class T, class Body>
void for_each_column_group(const Context& context, const Softmax& s, int64_t n, int64_t arrays,
                           Body body) {
    const int64_t columns = n * s.outer * s.inner;
    const int64_t groups = (columns + kLanes<T> - 1) / kLanes<T>;
    parallel_for(context, groups, 1.5 * s.size * kLanes<T>, [&](int64_t begin, int64_t end) {
        T* lanes = scratch<T>(kLocal, arrays * s.size * kLanes<T>);
        for (int64_t group = begin; group < end; ++group) {
            const int64_t first = group * kLanes<T>;
            const int64_t left = columns - first;
            body(first, left < kLanes<T> ? left : kLanes<T>, lanes);
        }
    });
}

// y = rule(lanes of x), in place over a group of columns.
template <class T, class Rule>
void normalise(const Context& context, const Softmax& s, int64_t n, const T* x, T* y, Rule rule) {
    for_each_column_group<T>(context, s, n, 1, [&](int64_t first, int64_t count, T* lanes) {
        load_columns(x, s.size, s.inner, first, count, lanes);
        Vec<T> top = load(lanes);
        for (int64_t i = 1; i < s.size; ++i) top = maximum<T>(top, load(lanes + i * kLanes<T>));
        rule(lanes, top);
        store_columns(lanes, s.size, s.inner, first, count, y);
    });
}

template <class T, class Rule>
void normalise_backward(const Context& context, const Softmax& s, int64_t n, const T* dy,
                        const T* y, T* dx, Rule rule) {
    for_each_column_group<T>(context, s, n, 2, [&](int64_t first, int64_t count, T* lanes) {
        T* gradient = lanes + s.size * kLanes<T>;
        load_columns(y, s.size, s.inner, first, count, lanes);
        load_columns(dy, s.size, s.inner, first, count, gradient);
        rule(lanes, gradient);
        store_columns(gradient, s.size, s.inner, first, count, dx);
    });
}

// A row that is alone: its own values are in the lanes. The same operations in the same order.
template <class T>
void softmax_row(int64_t size, const T* x, T* y) {
    T top = x[0];
    for (int64_t i = 1; i < size; ++i) top = top > x[i] || top != top ? top : x[i];
    for_each_vector(y, 0, size, [&](int64_t i, auto part) {
        put(y + i, exp<T>(get(x + i, part) - broadcast(top)), part);
    });
    const T total = blocked_sum<T>(size, [&](int64_t i) { return broadcast(y[i]); })[0];
    for_each_vector(y, 0, size, [&](int64_t i, auto part) {
        put(y + i, get(y + i, part) / broadcast(total), part);
    });
}

}  // namespace

template <class T>
void activation(const Context& context, const Activation& s, int64_t n, const T* x, T* y) {
    const T slope = static_cast<T>(s.slope);
    with_kind(s.kind, [&](auto kind) {
        constexpr int64_t kKind = decltype(kind)::value;
        constexpr double kCost = kKind == kRelu || kKind == kLeakyRelu ? kCheap : kCostly;
        map(context, n * s.size, kCost, x, y,
            [=](Vec<T> v) { return activate<T>(kKind, slope, v); });
    });
}

template <class T>
void activation_backward(const Context& context, const Activation& s, int64_t n, const T* dy,
                         const T* y, T* dx) {
    const T slope = static_cast<T>(s.slope);
    with_kind(s.kind, [&](auto kind) {
        constexpr int64_t kKind = decltype(kind)::value;
        map(context, n * s.size, kCheap, dy, y, dx,
            [=](Vec<T> g, Vec<T> v) { return activate_backward<T>(kKind, slope, g, v); });
    });
}

template <class T>
void rescale(const Context& context, const Rescale& s, int64_t n, const T* x, T* y) {
    const T scale = static_cast<T>(s.scale), offset = static_cast<T>(s.offset);
    map(context, n * s.size, kCheap, x, y, [=](Vec<T> v) { return v * scale + offset; });
}

template <class T>
void softmax(const Context& context, const Softmax& s, int64_t n, const T* x, T* y) {
    if (n * s.outer * s.inner == 1) return softmax_row(s.size, x, y);
    normalise(context, s, n, x, y, [&](T* lanes, Vec<T> top) {
        const Vec<T> total = blocked_sum<T>(s.size, [&](int64_t i) {
            const Vec<T> e = exp<T>(load(lanes + i * kLanes<T>) - top);
            store(lanes + i * kLanes<T>, e);
            return e;
        });
        for (int64_t i = 0; i < s.size; ++i) {
            store(lanes + i * kLanes<T>, load(lanes + i * kLanes<T>) / total);
        }
    });
}

template <class T>
void softmax_backward(const Context& context, const Softmax& s, int64_t n, const T* dy, const T* y,
                      T* dx) {
    normalise_backward(context, s, n, dy, y, dx, [&](const T* lanes, T* gradient) {
        const Vec<T> total = blocked_sum<T>(s.size, [&](int64_t i) {
            return load(gradient + i * kLanes<T>) * load(lanes + i * kLanes<T>);
        });
        for (int64_t i = 0; i < s.size; ++i) {
            const Vec<T> g = load(gradient + i * kLanes<T>);
            store(gradient + i * kLanes<T>, load(lanes + i * kLanes<T>) * (g - total));
        }
    });
}

template <class T>
void log_softmax(const Context& context, const Softmax& s, int64_t n, const T* x, T* y) {
    normalise(context, s, n, x, y, [&](T* lanes, Vec<T> top) {
        const Vec<T> total = log<T>(blocked_sum<T>(
            s.size, [&](int64_t i) { return exp<T>(load(lanes + i * kLanes<T>) - top); }));
        for (int64_t i = 0; i < s.size; ++i) {
            store(lanes + i * kLanes<T>, (load(lanes + i * kLanes<T>) - top) - total);
        }
    });
}

template <class T>
void log_softmax_backward(const Context& context, const Softmax& s, int64_t n, const T* dy,
                          const T* y, T* dx) {
    normalise_backward(context, s, n, dy, y, dx, [&](const T* lanes, T* gradient) {
        const Vec<T> total =
            blocked_sum<T>(s.size, [&](int64_t i) { return load(gradient + i * kLanes<T>); });
        for (int64_t i = 0; i < s.size; ++i) {
            const Vec<T> p = exp<T>(load(lanes + i * kLanes<T>));
            store(gradient + i * kLanes<T>, load(gradient + i * kLanes<T>) - p * total);
        }
    });
}

INSTANTIATE(activation)
INSTANTIATE(activation_backward)
INSTANTIATE(rescale)
INSTANTIATE(softmax)
INSTANTIATE(softmax_backward)
INSTANTIATE(log_softmax)
INSTANTIATE(log_softmax_backward)

}  // namespace CONVKIT_ISA
}  // namespace convkit
