// Element by element, reductions and repetitions; formulas are those of csrc/cpu/elementwise.cpp.
//   unary          x (n, size) -> y (n, size) = f(x), by kind (unary.cuh)
//     backward     dx = dy f'(x)
//   binary         a, b (n, size) -> y: a - b, a b, a / b, max(a, b), min(a, b)
//     backward     dy -> da, db, either of which may be null; of maximum and minimum the one that
//                  is y takes dy, a where they are equal or it is NaN
//   reduce         x (n, outer, size, inner) -> y (n, outer, inner): sum, mean, max or min
//     backward     dx = dy, dy / size, or dy where x has its first maximum (minimum) and 0
//     elsewhere
//   expand         x (n, outer, inner) -> y (n, outer, repeats, inner)
//   broadcast      x (size) -> y (n, size)
//     backward     dx (size) = sum of dy (n, size) over the samples
#include "cuda_kernels.h"
#include "map.cuh"
#include "reduce.cuh"
#include "unary.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class T, int64_t kKind>
struct UnaryOf {
    T a, b;

    __device__ void operator()(const T (&in)[1], T (&out)[1]) const {
        out[0] = unary_of<kKind, T>(a, b, in[0]);
    }
};

template <class T, int64_t kKind>
struct UnaryBackwardOf {
    T a, b;

    __device__ void operator()(const T (&in)[2], T (&out)[1]) const {
        out[0] = unary_backward_of<kKind, T>(a, b, in[0], in[1]);
    }
};

// Whether the first is the larger, or the smaller; so are equal values, and a NaN.
template <int64_t kKind, class T>
__device__ inline bool first_counts(T a, T b) {
    return (kKind == kMaximum ? a >= b : a <= b) || a != a;
}

template <class T, int64_t kKind>
struct BinaryOf {
    __device__ void operator()(const T (&in)[2], T (&out)[1]) const {
        const T a = in[0], b = in[1];
        if constexpr (kKind == kSubtract) {
            out[0] = a - b;
        } else if constexpr (kKind == kMultiply) {
            out[0] = a * b;
        } else if constexpr (kKind == kDivide) {
            out[0] = a / b;
        } else {
            out[0] = first_counts<kKind>(a, b) ? a : b;
        }
    }
};

// da and db, a vector for each i, then value by value what no whole vector covers.
template <class T, int kWidth, int64_t kKind>
struct BinaryBackwardOf {
    int64_t vectors;
    const T *dy, *a, *b;
    T *da, *db;

    __device__ void operator()(int64_t i) const {
        if (i < vectors) {
            at<kWidth>(i * kWidth);
        } else {
            at<1>(vectors * kWidth + i - vectors);
        }
    }

 private:
    template <int kCount>
    __device__ void at(int64_t place) const {
        const auto g = load_vector<T, kCount>(dy + place), v = load_vector<T, kCount>(a + place),
                   w = load_vector<T, kCount>(b + place);
        Vector<T, kCount> of_a, of_b;
        CONVKIT_UNROLL
        for (int e = 0; e < kCount; ++e)
            gradients(g.value[e], v.value[e], w.value[e], of_a.value[e], of_b.value[e]);
        if (da) write_vector<T, kCount>(da + place, of_a);
        if (db) write_vector<T, kCount>(db + place, of_b);
    }

    __device__ static void gradients(T g, T v, T w, T& of_a, T& of_b) {
        if constexpr (kKind == kSubtract) {
            of_a = g;
            of_b = -g;
        } else if constexpr (kKind == kMultiply) {
            of_a = g * w;
            of_b = g * v;
        } else if constexpr (kKind == kDivide) {
            of_a = g / w;
            of_b = -of_a * (v / w);
        } else {
            const bool first = first_counts<kKind>(v, w);
            of_a = first ? g : T(0);
            of_b = first ? T(0) : g;
        }
    }
};

template <int64_t kKind, class T>
void binary_gradients(const Context& context, int64_t count, const T* dy, const T* a, const T* b,
                      T* da, T* db) {
    constexpr int kMost = kVectorBytes / static_cast<int>(sizeof(T));
    const bool aligned = in_vectors<kMost>(dy) && in_vectors<kMost>(a) && in_vectors<kMost>(b) &&
                         in_vectors<kMost>(da) && in_vectors<kMost>(db);
    if (aligned) {
        const int64_t vectors = count / kMost;
        for_each(context, "binary_backward", vectors + count % kMost,
                 BinaryBackwardOf<T, kMost, kKind>{vectors, dy, a, b, da, db});
    } else {
        for_each(context, "binary_backward", count,
                 BinaryBackwardOf<T, 1, kKind>{count, dy, a, b, da, db});
    }
}

template <class F>
void with_binary(int64_t kind, F f) {
    switch (kind) {
        case kSubtract:
            return f(std::integral_constant<int64_t, kSubtract>{});
        case kMultiply:
            return f(std::integral_constant<int64_t, kMultiply>{});
        case kDivide:
            return f(std::integral_constant<int64_t, kDivide>{});
        case kMaximum:
            return f(std::integral_constant<int64_t, kMaximum>{});
        default:
            return f(std::integral_constant<int64_t, kMinimum>{});
    }
}

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void unary(const Context& context, const Unary& s, int64_t n, const T* x, T* y) {
    const UnaryBounds bounds = unary_bounds(s);
    const T a = static_cast<T>(bounds.a), b = static_cast<T>(bounds.b);
    with_unary(s.kind, [&](auto kind) {
        map<T, 1, 1>(context, "unary", n * s.size, {{x}}, {{y}},
                     UnaryOf<T, decltype(kind)::value>{a, b});
    });
}

template <class T>
void unary_backward(const Context& context, const Unary& s, int64_t n, const T* dy, const T* x,
                    T* dx) {
    const UnaryBounds bounds = unary_bounds(s);
    const T a = static_cast<T>(bounds.a), b = static_cast<T>(bounds.b);
    with_unary(s.kind, [&](auto kind) {
        map<T, 2, 1>(context, "unary_backward", n * s.size, {{dy, x}}, {{dx}},
                     UnaryBackwardOf<T, decltype(kind)::value>{a, b});
    });
}

template <class T>
void binary(const Context& context, const Binary& s, int64_t n, const T* a, const T* b, T* y) {
    with_binary(s.kind, [&](auto kind) {
        map<T, 2, 1>(context, "binary", n * s.size, {{a, b}}, {{y}},
                     BinaryOf<T, decltype(kind)::value>{});
    });
}

template <class T>
void binary_backward(const Context& context, const Binary& s, int64_t n, const T* dy, const T* a,
                     const T* b, T* da, T* db) {
    if (!da && !db) return;
    with_binary(s.kind, [&](auto kind) {
        binary_gradients<decltype(kind)::value>(context, n * s.size, dy, a, b, da, db);
    });
}

template <class T>
void reduce(const Context& context, const Reduce& s, int64_t n, const T* x, T* y) {
    const int64_t rows = n * s.outer;
    const T mean = static_cast<T>(s.size);
    switch (s.kind) {
        case kSum:
            return reduce_rows<T, ToSum<T>>(context, "reduce", rows, s.size, s.inner, T(1), x, y);
        case kMean:
            return reduce_rows<T, ToSum<T>>(context, "reduce", rows, s.size, s.inner, mean, x, y);
        case kMax:
            return reduce_rows<T, ToMax<T>>(context, "reduce", rows, s.size, s.inner, T(1), x, y);
        default:
            return reduce_rows<T, ToMin<T>>(context, "reduce", rows, s.size, s.inner, T(1), x, y);
    }
}

template <class T>
void reduce_backward(const Context& context, const Reduce& s, int64_t n, const T* dy, const T* x,
                     T* dx) {
    const char* const name = "reduce_backward";
    const int64_t rows = n * s.outer;
    switch (s.kind) {
        case kSum:
            return repeat_rows(context, name, rows, s.size, s.inner, T(1), dy, dx);
        case kMean:
            return repeat_rows(context, name, rows, s.size, s.inner, static_cast<T>(s.size), dy,
                               dx);
        case kMax:
            return to_first<T, ToMax<T>>(context, name, rows, s.size, s.inner, dy, x, dx);
        default:
            return to_first<T, ToMin<T>>(context, name, rows, s.size, s.inner, dy, x, dx);
    }
}

template <class T>
void expand(const Context& context, const Expand& s, int64_t n, const T* x, T* y) {
    repeat_rows(context, "expand", n * s.outer, s.repeats, s.inner, T(1), x, y);
}

template <class T>
void broadcast(const Context& context, const Elementwise& s, int64_t n, const T* x, T* y) {
    repeat_rows(context, "broadcast", 1, n, s.size, T(1), x, y);
}

template <class T>
void broadcast_backward(const Context& context, const Elementwise& s, int64_t n, const T* dy,
                        T* dx) {
    reduce_rows<T, ToSum<T>>(context, "broadcast_backward", 1, n, s.size, T(1), dy, dx);
}

INSTANTIATE(unary)
INSTANTIATE(unary_backward)
INSTANTIATE(binary)
INSTANTIATE(binary_backward)
INSTANTIATE(reduce)
INSTANTIATE(reduce_backward)
INSTANTIATE(expand)
INSTANTIATE(broadcast)
INSTANTIATE(broadcast_backward)

}  // namespace cuda
}  // namespace convkit
