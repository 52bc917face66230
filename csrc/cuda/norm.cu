// Normalisation, and what else has a number for each channel. Shapes and formulas are those of
// csrc/cpu/norm.cpp.
//
// A large mean costs no digits: a thread sums deviations from the first value that it sees, whose
// own distance from the mean is among them, so that no more digits are lost than it has values;
// then mean and squares are joined pair by pair (Chan, Golub and LeVeque, Algorithms for computing
// the sample variance, 1983), with means counted from the column's very first value.
#include "activate.cuh"
#include "columns.cuh"
#include "cuda_kernels.h"
#include "rows.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class T>
T* workspace(const Context& context, int64_t values) {
    return static_cast<T*>(context.queue->workspace(static_cast<size_t>(values) * sizeof(T)));
}

template <class T>
__device__ T inverse_deviation(T variance, T epsilon) {
    return T(1) / sqrt_of(variance + epsilon);
}

// ---- a factor and an offset ---------------------------------------------------------------------

template <class T>
struct Affine {
    static constexpr int kNumbers = 2, kInputs = 1, kSums = 0;
    const T *scale, *shift;

    __device__ void numbers(int64_t c, T (&p)[2]) const {
        p[0] = scale ? scale[c] : T(1);
        p[1] = shift ? shift[c] : T(0);
    }
    __device__ void operator()(const T (&p)[2], int64_t, const T (&x)[1], T& y, T*) const {
        y = x[0] * p[0] + p[1];
    }
};

template <class T>
void affine(const Context& context, const char* name, int64_t rows, int64_t columns, const T* x,
            const T* scale, const T* shift, T* y) {
    map_columns(context, name, rows, columns, {{x}}, y, Affine<T>{scale, shift});
}

// Inputs are dy and x; sums of dy x and of dy.
template <class T>
struct AffineBackward {
    static constexpr int kNumbers = 1, kInputs = 2, kSums = 2;
    const T* scale;

    __device__ void numbers(int64_t c, T (&p)[1]) const { p[0] = scale ? scale[c] : T(1); }
    __device__ void operator()(const T (&p)[1], int64_t, const T (&in)[2], T& dx, T* sums) const {
        dx = in[0] * p[0];
        sums[0] += in[0] * in[1];
        sums[1] += in[0];
    }
};

// Sums to arrays, of which any may be null.
template <class T>
struct Put2 {
    T *first, *second;

    __device__ void operator()(int64_t c, const T (&sums)[2]) const {
        if (first) first[c] = sums[0];
        if (second) second[c] = sums[1];
    }
};

template <class T>
struct Put1 {
    T* first;

    __device__ void operator()(int64_t c, const T (&sums)[1]) const { first[c] = sums[0]; }
};

// ---- moments of columns -------------------------------------------------------------------------

// How many values, their mean (from the column's first value on), and the sum of their squared
// distances from it.
template <class T>
struct Moments {
    T count, mean, squares;

    __device__ void join(const Moments& other) {
        if (other.count == T(0)) return;
        const T both = count + other.count, share = other.count / both;
        const T d = other.mean - mean;
        mean += d * share;
        squares += other.squares + d * d * count * share;
        count = both;
    }
};

// partial (chunks, 3, line): count, mean, squares.
template <class T, bool kAligned>
__global__ void moments_kernel(const ColumnsPlan p, const T* x, T* partial) {
    constexpr int kWidth = kWidest<T>;
    const ColumnsThread<kWidth> t(p);
    Moments<T> found[kWidth]{};
    if (t.active) {
        Vector<T, kWidth> start{};
        if (t.begin < t.end)
            start = load_values<T, kWidth, kAligned>(x + t.begin * p.line_size + t.first);
        T sums[kWidth]{}, squares[kWidth]{};
        int count = 0;
        for (int64_t line = t.begin; line < t.end; line += kLinesInFlight * p.together) {
            Vector<T, kWidth> values[kLinesInFlight];
            CONVKIT_UNROLL
            for (int k = 0; k < kLinesInFlight; ++k) {
                const int64_t which = line + k * p.together;
                values[k] = start;  // adds nothing
                if (which < t.end) {
                    values[k] = load_values<T, kWidth, kAligned>(x + which * p.line_size + t.first);
                    ++count;
                }
            }
            CONVKIT_UNROLL
            for (int k = 0; k < kLinesInFlight; ++k) CONVKIT_UNROLL
            for (int e = 0; e < kWidth; ++e) {
                const T d = values[k].value[e] - start.value[e];
                sums[e] += d;
                squares[e] += d * d;
            }
        }
        int64_t column = t.column;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e, column = next_column(column, p.columns)) {
            const T origin = x[column];
            if (count > 0) {
                const T shift = sums[e] / static_cast<T>(count);
                found[e] = {static_cast<T>(count), start.value[e] - origin + shift,
                            squares[e] - sums[e] * shift};
            }
            if (e < t.rest)
                found[e].join({T(1), x[p.lines * p.line_size + t.first + e] - origin, T(0)});
        }
    }
    SHARED(T, memory, kThreads * kWidth * 3);
    constexpr int kEach = kWidth * 3;
    const auto of = [&](int thread, int e) {
        const T* const from = memory + thread * kEach + e;
        return Moments<T>{from[0], from[kWidth], from[2 * kWidth]};
    };
    const auto keep = [&](int thread, int e, const Moments<T>& moments) {
        T* const to = memory + thread * kEach + e;
        to[0] = moments.count;
        to[kWidth] = moments.mean;
        to[2 * kWidth] = moments.squares;
    };
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e) keep(static_cast<int>(threadIdx.x), e, found[e]);
    join_lines(p, t.line, t.active, [&](int to, int from) {
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) {
            Moments<T> both = of(to, e);
            both.join(of(from, e));
            keep(to, e, both);
        }
    });
    if (!t.active || t.line != 0) return;
    CONVKIT_UNROLL
    for (int k = 0; k < 3; ++k) {
        T* const to = partial + (t.chunk * 3 + k) * p.line_size + t.first;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) to[e] = memory[threadIdx.x * kEach + k * kWidth + e];
    }
}

template <class T>
__global__ void join_moments_kernel(const ColumnsPlan p, const T* x, const T* partial, T rows,
                                    T* mean, T* variance) {
    SHARED(T, memory, kThreads);
    const int64_t column =
        static_cast<int64_t>(blockIdx.x) * kJoined + static_cast<int>(threadIdx.x % kJoined);
    T sum = T(0);
    for_each_partial(p, column, [&](int64_t chunk, int64_t place) {
        const T* const at = partial + chunk * 3 * p.line_size + place;
        if (at[0] > T(0)) sum += at[0] * at[p.line_size];
    });
    const T center = sum_of_sharers(sum, memory) / rows;
    sum = T(0);
    for_each_partial(p, column, [&](int64_t chunk, int64_t place) {
        const T* const at = partial + chunk * 3 * p.line_size + place;
        const T d = at[p.line_size] - center;
        if (at[0] > T(0)) sum += at[2 * p.line_size] + at[0] * d * d;
    });
    const T found = sum_of_sharers(sum, memory) / rows;
    if (threadIdx.x < kJoined && column < p.columns) {
        mean[column] = x[column] + center;
        variance[column] = found < T(0) ? T(0) : found;
    }
}

template <class T>
struct Clear2 {
    T *first, *second;

    __device__ void operator()(int64_t i) const {
        if (first) first[i] = T(0);
        if (second) second[i] = T(0);
    }
};

template <class T>
void find_moments(const Context& context, int64_t rows, int64_t columns, const T* x, T* mean,
                  T* variance) {
    if (rows == 0) return for_each(context, "batch_norm", columns, Clear2<T>{mean, variance});
    const ColumnsPlan plan = plan_sums(rows, columns, kWidest<T>);
    T* partial = workspace<T>(context, plan.chunks * 3 * plan.line_size);
    launch(context, "batch_norm",
           in_vectors<kWidest<T>>(x) ? moments_kernel<T, true> : moments_kernel<T, false>,
           plan.grid(), dim3(kThreads), 0, plan, x, partial);
    launch(context, "batch_norm", join_moments_kernel<T>, blocks_for(columns, kJoined),
           dim3(kThreads), 0, plan, x, partial, static_cast<T>(rows), mean, variance);
}

// ---- batch normalisation ------------------------------------------------------------------------

template <class T>
struct Normalise {
    static constexpr int kNumbers = 3, kInputs = 1, kSums = 0;
    const T *gamma, *beta, *mean, *variance;
    T epsilon;

    __device__ void numbers(int64_t c, T (&p)[3]) const {
        const T inverse = inverse_deviation(variance[c], epsilon);
        p[0] = mean[c];
        p[1] = gamma ? gamma[c] * inverse : inverse;
        p[2] = beta ? beta[c] : T(0);
    }
    __device__ void operator()(const T (&p)[3], int64_t, const T (&x)[1], T& y, T*) const {
        y = (x[0] - p[0]) * p[1] + p[2];
    }
};

// Inputs are dy and x; sums of dy (x - mean) and of dy.
template <class T>
struct NormaliseSums {
    static constexpr int kNumbers = 1, kInputs = 2, kSums = 2;
    const T* mean;

    __device__ void numbers(int64_t c, T (&p)[1]) const { p[0] = mean[c]; }
    __device__ void operator()(const T (&p)[1], int64_t, const T (&in)[2], T&, T* sums) const {
        sums[0] += in[0] * (in[1] - p[0]);
        sums[1] += in[0];
    }
};

// dgamma and dbeta, and what the gradient of x takes from the sums.
template <class T>
struct NormaliseGradients {
    const T* variance;
    T epsilon, rows;
    T *dgamma, *dbeta, *share, *slope;

    __device__ void operator()(int64_t c, const T (&sums)[2]) const {
        const T inverse = inverse_deviation(variance[c], epsilon);
        if (dgamma) dgamma[c] = sums[0] * inverse;
        if (dbeta) dbeta[c] = sums[1];
        share[c] = sums[1] / rows;
        slope[c] = sums[0] * inverse * inverse / rows;
    }
};

template <class T>
struct NormaliseBackward {
    static constexpr int kNumbers = 4, kInputs = 2, kSums = 0;
    const T *gamma, *mean, *variance, *share, *slope;
    T epsilon;

    __device__ void numbers(int64_t c, T (&p)[4]) const {
        const T inverse = inverse_deviation(variance[c], epsilon);
        p[0] = mean[c];
        p[1] = gamma ? gamma[c] * inverse : inverse;
        p[2] = share[c];
        p[3] = slope[c];
    }
    __device__ void operator()(const T (&p)[4], int64_t, const T (&in)[2], T& dx, T*) const {
        dx = (in[0] - p[2] - (in[1] - p[0]) * p[3]) * p[1];
    }
};

template <class T>
struct ToAffine {
    const T *gamma, *beta, *mean, *variance;
    T *scale, *shift;
    T epsilon;

    __device__ void operator()(int64_t c) const {
        const T inverse = inverse_deviation(variance[c], epsilon);
        const T factor = gamma ? gamma[c] * inverse : inverse;
        scale[c] = factor;
        shift[c] = (beta ? beta[c] : T(0)) - mean[c] * factor;
    }
};

template <class T>
struct ToAffineBackward {
    const T *dscale, *dshift, *mean, *variance;
    T *dgamma, *dbeta;
    T epsilon;

    __device__ void operator()(int64_t c) const {
        if (dgamma)
            dgamma[c] = (dscale[c] - mean[c] * dshift[c]) * inverse_deviation(variance[c], epsilon);
        if (dbeta) dbeta[c] = dshift[c];
    }
};

template <class T>
struct FoldBias {
    const T *bias, *scale, *shift;
    T* folded;

    __device__ void operator()(int64_t f) const {
        folded[f] = bias ? bias[f] * scale[f] + shift[f] : shift[f];
    }
};

// ---- normalisation of rows ----------------------------------------------------------------------

// By all threads of a row's team.
template <class T>
struct RowMoments {
    T mean, inverse;

    __device__ RowMoments(const Team& team, const Row& row, const T* x, T size, T epsilon) {
        T sum = T(0), rest = T(0), squares = T(0);
        for (int64_t i = team.lane; i < row.size; i += team.width) sum += x[row.start + i];
        mean = team.sum(sum) / size;
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const T d = x[row.start + i] - mean;
            rest += d;
            squares += d * d;
        }
        rest = team.sum(rest);
        const T variance = (team.sum(squares) - rest * rest / size) / size;
        mean += rest / size;
        inverse = inverse_deviation(variance < T(0) ? T(0) : variance, epsilon);
    }
};

template <class T>
struct NormaliseRows {
    const T *x, *gamma, *beta;
    T *y, size, epsilon;

    __device__ void operator()(const Team& team, const Row& row) const {
        const RowMoments<T> moments(team, row, x, size, epsilon);
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            T v = (x[row.start + i] - moments.mean) * moments.inverse;
            if (gamma) v *= gamma[i];
            y[row.start + i] = beta ? v + beta[i] : v;
        }
    }
};

// dx, which may be null; and mean and inverse of each row, for the sums over the rows.
template <class T>
struct NormaliseRowsBackward {
    const T *dy, *x, *gamma;
    T *dx, *means, *inverses, size, epsilon;

    __device__ void operator()(const Team& team, const Row& row) const {
        const RowMoments<T> moments(team, row, x, size, epsilon);
        if (means && row.there && team.lane == 0) {
            means[row.index] = moments.mean;
            inverses[row.index] = moments.inverse;
        }
        if (!dx) return;
        T mean = T(0), slope = T(0);
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const T g = scaled(row, i);
            mean += g;
            slope += g * (x[row.start + i] - moments.mean);
        }
        mean = team.sum(mean) / size;
        slope = team.sum(slope) * moments.inverse * moments.inverse / size;
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            const T d = x[row.start + i] - moments.mean;
            dx[row.start + i] = (scaled(row, i) - mean - d * slope) * moments.inverse;
        }
    }

    __device__ T scaled(const Row& row, int64_t i) const {
        const T g = dy[row.start + i];
        return gamma ? g * gamma[i] : g;
    }
};

// Inputs are dy and x; sums of dy h and of dy.
template <class T>
struct RowsSums {
    static constexpr int kNumbers = 1, kInputs = 2, kSums = 2;
    const T *means, *inverses;

    __device__ void numbers(int64_t, T (&p)[1]) const { p[0] = T(0); }
    __device__ void operator()(const T (&)[1], int64_t row, const T (&in)[2], T&, T* sums) const {
        sums[0] += in[0] * ((in[1] - means[row]) * inverses[row]);
        sums[1] += in[0];
    }
};

Loss rows_of(const LayerNorm& s) { return Loss{s.rows, s.size, 1, 0}; }

// ---- the rest -----------------------------------------------------------------------------------

template <class T>
struct Prelu {
    static constexpr int kNumbers = 1, kInputs = 1, kSums = 0;
    const T* alpha;

    __device__ void numbers(int64_t i, T (&p)[1]) const { p[0] = alpha[i]; }
    __device__ void operator()(const T (&p)[1], int64_t, const T (&x)[1], T& y, T*) const {
        y = x[0] > T(0) ? x[0] : x[0] * p[0];
    }
};

// Inputs are dy and x; without sums, the gradient of x alone.
template <class T, bool kWithSums>
struct PreluBackward {
    static constexpr int kNumbers = 1, kInputs = 2, kSums = kWithSums ? 1 : 0;
    const T* alpha;

    __device__ void numbers(int64_t i, T (&p)[1]) const { p[0] = alpha[i]; }
    __device__ void operator()(const T (&p)[1], int64_t, const T (&in)[2], T& dx, T* sums) const {
        const bool positive = in[1] > T(0);
        dx = positive ? in[0] : in[0] * p[0];
        if constexpr (kWithSums) {
            if (!positive) sums[0] += in[0] * in[1];
        }
    }
};

template <class T>
struct MoveAverage {
    const T* value;
    T *moving, kept, taken;

    __device__ void operator()(int64_t i) const { moving[i] = moving[i] * kept + value[i] * taken; }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void channel_affine(const Context& context, const ChannelAffine& s, int64_t n, const T* x,
                    const T* scale, const T* shift, T* y) {
    affine(context, "channel_affine", n * s.rows, s.channels, x, scale, shift, y);
}

template <class T>
void channel_affine_backward(const Context& context, const ChannelAffine& s, int64_t n, const T* dy,
                             const T* x, const T* scale, T* dx, T* dscale, T* dshift) {
    const char* const name = "channel_affine_backward";
    const int64_t rows = n * s.rows;
    if (!dscale && !dshift) {
        const T* const none = nullptr;
        if (dx) affine(context, name, rows, s.channels, dy, scale, none, dx);
        return;
    }
    if (!x) x = dy;  // only dshift is wanted
    const ColumnsPlan plan = plan_sums(rows, s.channels, kWidest<T>);
    T* partial = workspace<T>(context, plan.chunks * 2 * plan.line_size);
    sum_columns(context, name, plan, kWidest<T>, {{dy, x}}, dx, partial, AffineBackward<T>{scale},
                Put2<T>{dscale, dshift});
}

template <class T>
void batch_norm(const Context& context, const BatchNorm& s, int64_t n, const T* x, const T* gamma,
                const T* beta, T* y, T* mean, T* variance) {
    const int64_t rows = n * s.rows;
    find_moments(context, rows, s.channels, x, mean, variance);
    map_columns(context, "batch_norm", rows, s.channels, {{x}}, y,
                Normalise<T>{gamma, beta, mean, variance, static_cast<T>(s.epsilon)});
}

template <class T>
void batch_norm_backward(const Context& context, const BatchNorm& s, int64_t n, const T* dy,
                         const T* x, const T* gamma, const T* mean, const T* variance, T* dx,
                         T* dgamma, T* dbeta) {
    const char* const name = "batch_norm_backward";
    const int64_t rows = n * s.rows;
    const T epsilon = static_cast<T>(s.epsilon);
    const ColumnsPlan plan = plan_sums(rows, s.channels, kWidest<T>);
    T* share = workspace<T>(context, 2 * s.channels + plan.chunks * 2 * plan.line_size);
    T* slope = share + s.channels;
    T* const none = nullptr;
    sum_columns(context, name, plan, kWidest<T>, {{dy, x}}, none, slope + s.channels,
                NormaliseSums<T>{mean},
                NormaliseGradients<T>{variance, epsilon, static_cast<T>(rows), dgamma, dbeta, share,
                                      slope});
    if (!dx) return;
    map_columns(context, name, rows, s.channels, {{dy, x}}, dx,
                NormaliseBackward<T>{gamma, mean, variance, share, slope, epsilon});
}

template <class T>
void batch_norm_affine(const Context& context, const BatchNorm& s, int64_t, const T* gamma,
                       const T* beta, const T* mean, const T* variance, T* scale, T* shift) {
    for_each(context, "batch_norm_affine", s.channels,
             ToAffine<T>{gamma, beta, mean, variance, scale, shift, static_cast<T>(s.epsilon)});
}

template <class T>
void batch_norm_affine_backward(const Context& context, const BatchNorm& s, int64_t,
                                const T* dscale, const T* dshift, const T* mean, const T* variance,
                                T* dgamma, T* dbeta) {
    for_each(context, "batch_norm_affine_backward", s.channels,
             ToAffineBackward<T>{dscale, dshift, mean, variance, dgamma, dbeta,
                                 static_cast<T>(s.epsilon)});
}

template <class T>
void fold_affine(const Context& context, const Fold& s, int64_t, const T* kernel, const T* bias,
                 const T* scale, const T* shift, T* folded_kernel, T* folded_bias) {
    const T* const none = nullptr;
    affine(context, "fold_affine", s.rows, s.filters, kernel, scale, none, folded_kernel);
    for_each(context, "fold_affine", s.filters, FoldBias<T>{bias, scale, shift, folded_bias});
}

template <class T>
void layer_norm(const Context& context, const LayerNorm& s, int64_t n, const T* x, const T* gamma,
                const T* beta, T* y) {
    for_each_row(
        context, "layer_norm", rows_of(s), n,
        NormaliseRows<T>{x, gamma, beta, y, static_cast<T>(s.size), static_cast<T>(s.epsilon)});
}

template <class T>
void layer_norm_backward(const Context& context, const LayerNorm& s, int64_t n, const T* dy,
                         const T* x, const T* gamma, T* dx, T* dgamma, T* dbeta) {
    const char* const name = "layer_norm_backward";
    const int64_t rows = n * s.rows;
    const bool with_sums = dgamma || dbeta;
    int width = kWidest<T>;
    while (s.size % width != 0) width /= 2;  // a line is a row then
    const ColumnsPlan plan = plan_sums(rows, s.size, width);
    T *means = nullptr, *inverses = nullptr;
    if (with_sums) {
        means = workspace<T>(context, 2 * rows + plan.chunks * 2 * plan.line_size);
        inverses = means + rows;
    }
    for_each_row(context, name, rows_of(s), n,
                 NormaliseRowsBackward<T>{dy, x, gamma, dx, means, inverses, static_cast<T>(s.size),
                                          static_cast<T>(s.epsilon)});
    if (!with_sums) return;
    T* const none = nullptr;
    sum_columns(context, name, plan, width, {{dy, x}}, none, inverses + rows,
                RowsSums<T>{means, inverses}, Put2<T>{dgamma, dbeta});
}

template <class T>
void prelu(const Context& context, const PRelu& s, int64_t n, const T* x, const T* alpha, T* y) {
    map_columns(context, "prelu", n * s.rows, s.size, {{x}}, y, Prelu<T>{alpha});
}

template <class T>
void prelu_backward(const Context& context, const PRelu& s, int64_t n, const T* dy, const T* x,
                    const T* alpha, T* dx, T* dalpha) {
    const char* const name = "prelu_backward";
    const int64_t rows = n * s.rows;
    if (!dalpha) {
        if (dx)
            map_columns(context, name, rows, s.size, {{dy, x}}, dx, PreluBackward<T, false>{alpha});
        return;
    }
    const ColumnsPlan plan = plan_sums(rows, s.size, kWidest<T>);
    T* partial = workspace<T>(context, plan.chunks * plan.line_size);
    sum_columns(context, name, plan, kWidest<T>, {{dy, x}}, dx, partial,
                PreluBackward<T, true>{alpha}, Put1<T>{dalpha});
}

template <class T>
void moving_average(const Context& context, const MovingAverage& s, int64_t, const T* value,
                    T* moving) {
    for_each(
        context, "moving_average", s.size,
        MoveAverage<T>{value, moving, static_cast<T>(s.momentum), static_cast<T>(1 - s.momentum)});
}

INSTANTIATE(channel_affine)
INSTANTIATE(channel_affine_backward)
INSTANTIATE(batch_norm)
INSTANTIATE(batch_norm_backward)
INSTANTIATE(batch_norm_affine)
INSTANTIATE(batch_norm_affine_backward)
INSTANTIATE(fold_affine)
INSTANTIATE(layer_norm)
INSTANTIATE(layer_norm_backward)
INSTANTIATE(prelu)
INSTANTIATE(prelu_backward)
INSTANTIATE(moving_average)

}  // namespace cuda
}  // namespace convkit
