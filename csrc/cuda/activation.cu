// Activations and softmax; formulas are those of csrc/cpu/activation.cpp.
//   activation   x (n, size) -> y (n, size), by kind (activate.cuh)
//     backward   dx = dy f'(x), with f' in terms of y
//   rescale      x (n, size) -> y (n, size) = x scale + offset
//   softmax      x, y (n, outer, size, inner): y_i = exp(x_i - max) / sum_j exp(x_j - max)
//     backward   dx_i = y_i (dy_i - sum_j dy_j y_j)
//   log_softmax  y_i = x_i - max - log sum_j exp(x_j - max)
//     backward   dx_i = dy_i - exp(y_i) sum_j dy_j
// All of them may work in place.
#include "activate.cuh"
#include "cuda_kernels.h"
#include "map.cuh"
#include "rows.cuh"

namespace convkit {
namespace cuda {
namespace {

// ---- value by value
// ------------------------------------------------------------------------------

template <class T, int64_t kKind>
struct Activated {
    T slope;

    __device__ void operator()(const T (&in)[1], T (&out)[1]) const {
        out[0] = activate<T>(kKind, slope, in[0]);
    }
};

template <class T, int64_t kKind>
struct ActivatedBackward {
    T slope;

    __device__ void operator()(const T (&in)[2], T (&out)[1]) const {
        out[0] = activate_backward<T>(kKind, slope, in[0], in[1]);
    }
};

template <class T>
struct Rescaled {
    T scale, offset;

    __device__ void operator()(const T (&in)[1], T (&out)[1]) const {
        out[0] = in[0] * scale + offset;
    }
};

// Calls f(constant), so that the kernel need not ask which kind it is.
template <class F>
void with_kind(int64_t kind, F f) {
    switch (kind) {
        case kRelu:
            return f(std::integral_constant<int64_t, kRelu>{});
        case kLeakyRelu:
            return f(std::integral_constant<int64_t, kLeakyRelu>{});
        case kSigmoid:
            return f(std::integral_constant<int64_t, kSigmoid>{});
        case kTanh:
            return f(std::integral_constant<int64_t, kTanh>{});
        case kExp:
            return f(std::integral_constant<int64_t, kExp>{});
        default:
            return f(std::integral_constant<int64_t, kLinear>{});
    }
}

// ---- rows
// ----------------------------------------------------------------------------------------

// Where a thread's own values of a row are: those of its team go in turns. Up to kKept of them stay
// in registers; with kKept = 0, however many there are, they are read again whenever they are asked
// for. kTeam is the team's width where it is known and the row lies in one piece, else 0.
template <int kKept, int kTeam>
class Own {
 public:
    using Index = std::conditional_t<(kKept > 0), int, int64_t>;

    __device__ Own(const Team& team, const Row& row)
        : first_(row.start + team.lane * row.step),
          step_(team.width * row.step),
          width_(team.width),
          left_(static_cast<Index>(row.size - team.lane)) {}

    __device__ Index count() const {
        return kKept > 0 ? static_cast<Index>(kKept) : divide_up<Index>(left_, width_);
    }
    __device__ bool there(Index k) const { return k * (kTeam > 0 ? kTeam : width_) < left_; }
    __device__ int64_t at(Index k) const { return first_ + (kTeam > 0 ? k * kTeam : k * step_); }

 private:
    int64_t first_, step_;
    Index width_, left_;
};

template <class T, int kKept, int kTeam>
class Read {
 public:
    using Index = typename Own<kKept, kTeam>::Index;

    __device__ Read(const Own<kKept, kTeam>& own, const T* from) : own_(own), from_(from) {
        CONVKIT_UNROLL
        for (int k = 0; k < kKept; ++k) kept_[k] = own.there(k) ? from[own.at(k)] : T(0);
    }
    __device__ T operator[](Index k) const {
        if constexpr (kKept > 0) return kept_[k];
        return from_[own_.at(k)];
    }

 private:
    const Own<kKept, kTeam>& own_;
    const T* from_;
    T kept_[kKept > 0 ? kKept : 1];
};

// softmax, or log_softmax.
template <class T, int kKept, int kTeam, bool kLog>
struct Normalised {
    const T* x;
    T* y;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Own<kKept, kTeam> own(team, row);
        const Read<T, kKept, kTeam> value(own, x);
        using Index = typename Own<kKept, kTeam>::Index;
        const Index count = own.count();
        T top = -static_cast<T>(INFINITY), total = 0;
        CONVKIT_UNROLL
        for (Index k = 0; k < count; ++k) {
            if (own.there(k)) top = larger_or_nan(top, value[k]);
        }
        top = team.join(top, LargerOrNan{});
        CONVKIT_UNROLL
        for (Index k = 0; k < count; ++k) {
            if (own.there(k)) total += exp_of(value[k] - top);
        }
        total = team.sum(total);
        if (kLog) total = log_of(total);
        CONVKIT_UNROLL
        for (Index k = 0; k < count; ++k) {
            if (!own.there(k)) continue;
            const T shifted = value[k] - top;
            y[own.at(k)] = kLog ? shifted - total : exp_of(shifted) / total;
        }
    }
};

template <class T, int kKept, int kTeam, bool kLog>
struct NormalisedBackward {
    const T *dy, *y;
    T* dx;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Own<kKept, kTeam> own(team, row);
        const Read<T, kKept, kTeam> gradient(own, dy), value(own, y);
        using Index = typename Own<kKept, kTeam>::Index;
        const Index count = own.count();
        T total = 0;
        CONVKIT_UNROLL
        for (Index k = 0; k < count; ++k) {
            if (own.there(k)) total += kLog ? gradient[k] : gradient[k] * value[k];
        }
        total = team.sum(total);
        CONVKIT_UNROLL
        for (Index k = 0; k < count; ++k) {
            if (!own.there(k)) continue;
            const T p = value[k];
            dx[own.at(k)] = kLog ? gradient[k] - exp_of(p) * total : p * (gradient[k] - total);
        }
    }
};

// As rows_kernel (rows.cuh), but each team has one row; few registers, so that many blocks fit.
template <class T, class F>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 3 : 2)
    normalise_kernel(int64_t rows, int64_t size, int64_t inner, int width, F f) {
    SHARED(double, slots, Team::kWarps);
    const int place = static_cast<int>(threadIdx.x) / width;
    const Team team{width, static_cast<int>(threadIdx.x) % width, slots};
    const int64_t index = static_cast<int64_t>(blockIdx.x) * (kThreads / width) + place;
    Row row{index, 0, 0, inner, index < rows};
    if (row.there) {
        row.size = size;
        row.start = inner == 1 ? index * size : index / inner * size * inner + index % inner;
    }
    f(team, row);
}

// Starts F for all rows with the arguments, which are its pointers.
template <class T, template <class, int, int, bool> class F, bool kLog, class... A>
class Normalise {
 public:
    Normalise(const Context& context, const char* name, const Softmax& s, int64_t n, A... arguments)
        : context_(context), name_(name), s_(s), rows_(n * s.outer * s.inner) {
        if (rows_ * s.size > 0) choose(arguments...);
    }

 private:
    // Rows that are alone in a stretch of memory are for the lanes of a warp, or where that would
    // be too many values each, for a block. Rows side by side are for a thread each, so that
    // neighbours read what lies together; long ones for a block nevertheless, since there may be
    // few of them.
    void choose(A... arguments) const {
        constexpr int kFew = 4, kMany = 16, kLongColumn = 1024;
        int power = 1;
        while (power < s_.size && power < kWarp) power *= 2;
        if (s_.inner > 1) {
            if (s_.size <= kMany) return run<kMany, 0>(1, arguments...);
            run<0, 0>(s_.size < kLongColumn ? 1 : kThreads, arguments...);
        } else if (s_.size <= kWarp) {
            run<1, 0>(power, arguments...);
        } else if (s_.size <= kWarp * kFew) {
            run<kFew, kWarp>(kWarp, arguments...);
        } else if (s_.size <= kWarp * kMany) {
            run<kMany, kWarp>(kWarp, arguments...);
        } else if (s_.size <= kThreads * kMany) {
            run<kMany, kThreads>(kThreads, arguments...);
        } else {
            run<0, kThreads>(kThreads, arguments...);
        }
    }

    template <int kKept, int kTeam>
    void run(int width, A... arguments) const {
        using Function = F<T, kKept, kTeam, kLog>;
        launch(context_, name_, normalise_kernel<T, Function>, blocks_for(rows_, kThreads / width),
               dim3(kThreads), 0, rows_, s_.size, s_.inner, width, Function{arguments...});
    }

    const Context& context_;
    const char* name_;
    const Softmax& s_;
    int64_t rows_;
};

}  // namespace

template <class T>
void activation(const Context& context, const Activation& s, int64_t n, const T* x, T* y) {
    const T slope = static_cast<T>(s.slope);
    with_kind(s.kind, [&](auto kind) {
        map<T, 1, 1>(context, "activation", n * s.size, {{x}}, {{y}},
                     Activated<T, decltype(kind)::value>{slope});
    });
}

template <class T>
void activation_backward(const Context& context, const Activation& s, int64_t n, const T* dy,
                         const T* y, T* dx) {
    const T slope = static_cast<T>(s.slope);
    with_kind(s.kind, [&](auto kind) {
        map<T, 2, 1>(context, "activation_backward", n * s.size, {{dy, y}}, {{dx}},
                     ActivatedBackward<T, decltype(kind)::value>{slope});
    });
}

template <class T>
void rescale(const Context& context, const Rescale& s, int64_t n, const T* x, T* y) {
    const Rescaled<T> rescaled = {static_cast<T>(s.scale), static_cast<T>(s.offset)};
    map<T, 1, 1>(context, "rescale", n * s.size, {{x}}, {{y}}, rescaled);
}

template <class T>
void softmax(const Context& context, const Softmax& s, int64_t n, const T* x, T* y) {
    Normalise<T, Normalised, false, const T*, T*>(context, "softmax", s, n, x, y);
}

template <class T>
void softmax_backward(const Context& context, const Softmax& s, int64_t n, const T* dy, const T* y,
                      T* dx) {
    Normalise<T, NormalisedBackward, false, const T*, const T*, T*>(context, "softmax_backward", s,
                                                                    n, dy, y, dx);
}

template <class T>
void log_softmax(const Context& context, const Softmax& s, int64_t n, const T* x, T* y) {
    Normalise<T, Normalised, true, const T*, T*>(context, "log_softmax", s, n, x, y);
}

template <class T>
void log_softmax_backward(const Context& context, const Softmax& s, int64_t n, const T* dy,
                          const T* y, T* dx) {
    Normalise<T, NormalisedBackward, true, const T*, const T*, T*>(context, "log_softmax_backward",
                                                                   s, n, dy, y, dx);
}

INSTANTIATE(activation)
INSTANTIATE(activation_backward)
INSTANTIATE(rescale)
INSTANTIATE(softmax)
INSTANTIATE(softmax_backward)
INSTANTIATE(log_softmax)
INSTANTIATE(log_softmax_backward)

}  // namespace cuda
}  // namespace convkit
