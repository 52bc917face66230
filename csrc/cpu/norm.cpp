// Normalisation, and what else has a number for each channel. x, y, dy, dx are (n, rows, channels),
// scale, shift, gamma, beta, mean, variance and their gradients (channels).
//   channel_affine     y = x scale + shift; a missing scale is 1, a missing shift 0
//     backward         dx = dy scale, dscale = sum dy x, dshift = sum dy
//   batch_norm         mean, variance: of a channel over all samples and rows, the variance biased
//                      y = (x - mean) s + beta, s = gamma / sqrt(variance + epsilon)
//     backward         with i = 1 / sqrt(variance + epsilon), N = n rows:
//                      dbeta = sum dy, dgamma = i sum dy (x - mean)
//                      dx = s (dy - dbeta / N) - (x - mean) s i dgamma / N
//   batch_norm_affine  scale = s, shift = beta - mean s, with a mean and a variance that are given
//     backward         dgamma = i (dscale - mean dshift), dbeta = dshift
//   fold_affine        kernel (rows, filters): folded_kernel = kernel scale,
//                      folded_bias = bias scale + shift
//   layer_norm         x (n, rows, size): y = (x - mean) / sqrt(variance + epsilon) gamma + beta,
//                      with the mean and variance of each row; gamma, beta (size)
//     backward         with h = (x - mean) i, g = dy gamma, and means over the row:
//                      dx = i (g - mean(g) - h mean(g h)), dgamma = sum dy h, dbeta = sum dy
//   prelu              x (n, rows, size): y = x > 0 ? x : alpha x; alpha (size)
//     backward         dx = x > 0 ? dy : alpha dy, dalpha = sum of x > 0 ? 0 : dy x
//   moving_average     moving = momentum moving + (1 - momentum) value
//
// A large mean costs no digits: deviations are summed, chunk by chunk (columns.h) from a mean of
// the chunk's own, and what rounding left in that is taken out again; the chunks' moments are
// joined in double (Chan, Golub and LeVeque, Algorithms for computing the sample variance, 1983).
#include <cmath>

#include "columns.h"
#include "cpu_kernels.h"
#include "norm_lanes.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr double kCheap = 0.15, kCostly = 0.3;  // nanoseconds per value

// y = x scale + shift, by columns; both may be null.
template <class T>
void affine(const Context& context, int64_t rows, int64_t columns, const T* x, const T* scale,
            const T* shift, T* y) {
    const Lines lines(rows, columns);
    T* scales = scratch<T>(kShared, 2 * lines.width());
    T* shifts = scales + lines.width();
    repeat(lines, scale, T(1), scales);
    repeat(lines, shift, T(0), shifts);
    for_each_in_lines(context, lines, kCheap, y, [&](int64_t i, int64_t j, auto part) {
        put(y + i, get(x + i, part) * get(scales + j, part) + get(shifts + j, part), part);
    });
}

// ---- moments of columns -------------------------------------------------------------------------

// Of each chunk: a mean near that of its values, sum d and sum d^2 of the deviations d from it.
constexpr int64_t kMoments = 3;

template <class T>
void chunk_moments(const Lines& lines, int64_t chunk, const T* x, T* sums, T* kept) {
    const int64_t width = lines.width();
    T* means = sums + 2 * width;
    sum_chunk<T, 1>(lines, chunk, sums, [&](int64_t i, int64_t, auto part, Vec<T>* values) {
        values[0] = get(x + i, part);
    });
    const T count = static_cast<T>(lines.chunk_rows(chunk));
    for (int64_t c = 0; c < lines.columns; ++c) sums[c] /= count;
    repeat(lines, sums, T(0), means);
    keep_chunk(lines, 1, means, kept);
    sum_chunk<T, 2>(lines, chunk, sums, [&](int64_t i, int64_t j, auto part, Vec<T>* values) {
        const Vec<T> d = get(x + i, part) - get(means + j, part);
        values[0] = d;
        values[1] = d * d;
    });
    keep_chunk(lines, 2, sums, kept + lines.kept());
}

// kAtOnce columns from `first`; `kept` are the chunks' moments.
template <class T>
void join_moments(const Lines& lines, int64_t first, const T* kept, T* mean, T* variance) {
    constexpr int64_t kAtOnce = Lines::kAtOnce;
    const int64_t chunks = lines.chunks(), step = lines.kept();
    const double rows = static_cast<double>(lines.rows);
    double means[kAtOnce] = {}, squares[kAtOnce] = {};
    const auto each_chunk = [&](auto visit) {
        const T* moments = kept + first;
        for (int64_t chunk = 0; chunk < chunks; ++chunk, moments += kMoments * step) {
            const double count = static_cast<double>(lines.chunk_rows(chunk));
            for (int64_t i = 0; i < kAtOnce; ++i) {
                const double rest = static_cast<double>(moments[step + i]);
                visit(i, count, static_cast<double>(moments[i]) + rest / count,
                      static_cast<double>(moments[2 * step + i]) - rest * rest / count);
            }
        }
    };
    each_chunk([&](int64_t i, double count, double of_chunk, double) {
        means[i] += of_chunk * (count / rows);
    });
    each_chunk([&](int64_t i, double count, double of_chunk, double squares_of_chunk) {
        const double d = of_chunk - means[i];
        squares[i] += squares_of_chunk + count * d * d;
    });
    for (int64_t i = 0; i < std::min(kAtOnce, lines.columns - first); ++i) {
        const double found = squares[i] / rows;
        mean[first + i] = static_cast<T>(means[i]);
        variance[first + i] = static_cast<T>(found < 0 ? 0 : found);
    }
}

template <class T>
void find_moments(const Context& context, const Lines& lines, const T* x, T* mean, T* variance) {
    if (lines.rows == 0) {
        std::fill(mean, mean + lines.columns, T(0));
        std::fill(variance, variance + lines.columns, T(0));
        return;
    }
    const int64_t chunks = lines.chunks(), step = lines.kept();
    T* kept = scratch<T>(kShared, chunks * kMoments * step);
    const double work = 2 * kCostly * lines.count() * lines.width() / chunks;
    parallel_for(context, chunks, work, [&](int64_t begin, int64_t end) {
        T* sums = scratch<T>(kLocal, 3 * lines.width());
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            chunk_moments(lines, chunk, x, sums, kept + chunk * kMoments * step);
        }
    });
    parallel_for(context, step / Lines::kAtOnce, 20.0 * chunks, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            join_moments(lines, i * Lines::kAtOnce, kept, mean, variance);
        }
    });
}

template <class T>
double inverse_deviation(T variance, double epsilon) {
    return 1 / std::sqrt(static_cast<double>(variance) + epsilon);
}

// ---- long rows ----------------------------------------------------------------------------------

// Rows of up to so many values are laid side by side; longer ones have their own values in the
// lanes.
template <class T>
constexpr int64_t kShortRow = 4 * kLanes<T>;

// The sum of terms(i, part) along a row: lanes and blocks apart, so that errors grow slowly.
template <class T, class Terms>
T sum_row(int64_t size, Terms terms) {
    constexpr int64_t kSums = 4, kBlock = 32 * kSums * kLanes<T>;
    Vec<T> total{};
    for (int64_t begin = 0; begin < size; begin += kBlock) {
        const int64_t end = std::min(begin + kBlock, size);
        Vec<T> sums[kSums] = {};
        int64_t i = begin;
        for (; i + kSums * kLanes<T> <= end; i += kSums * kLanes<T>) {
            for (int64_t k = 0; k < kSums; ++k) sums[k] += terms(i + k * kLanes<T>, Whole{});
        }
        for (; i + kLanes<T> <= end; i += kLanes<T>) sums[0] += terms(i, Whole{});
        if (i < end) sums[1] += first_lanes<T>(terms(i, Part{end - i}), end - i);
        total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
    return sum<T>(total);
}

template <class T>
struct LongRow {
    Vec<T> mean, inverse;

    LongRow(const T* x, int64_t size, double epsilon) {
        const T count = static_cast<T>(size);
        const auto value = [&](int64_t i, auto part) { return get(x + i, part); };
        const Vec<T> rough = broadcast(sum_row<T>(size, value) / count);
        const T rest =
            sum_row<T>(size, [&](int64_t i, auto part) { return get(x + i, part) - rough; });
        const T squares = sum_row<T>(size, [&](int64_t i, auto part) {
            const Vec<T> d = get(x + i, part) - rough;
            return d * d;
        });
        const T variance = (squares - rest * rest / count) / count;
        mean = rough + rest / count;
        inverse = broadcast(
            static_cast<T>(inverse_deviation<T>(variance < 0 ? T(0) : variance, epsilon)));
    }
};

// What stands for a gamma or beta that is not there. With a branch in its place, the compiler would
// fuse other products with sums in parts of vectors than in whole ones.
template <class T>
const T* or_else(const T* numbers, int64_t size, T missing, T* memory) {
    if (numbers) return numbers;
    std::fill(memory, memory + size, missing);
    return memory;
}

template <class T>
void normalise_row(const LayerNorm& s, const T* x, const T* gamma, const T* beta, T* y) {
    const LongRow<T> row(x, s.size, s.epsilon);
    for_each_vector(y, 0, s.size, [&](int64_t i, auto part) {
        const Vec<T> h = (get(x + i, part) - row.mean) * row.inverse;
        put(y + i, h * get(gamma + i, part) + get(beta + i, part), part);
    });
}

// Adds to gamma_sums and beta_sums (size), or to neither.
template <class T>
void normalise_row_backward(const LayerNorm& s, const T* dy, const T* x, const T* gamma, T* dx,
                            T* gamma_sums, T* beta_sums) {
    const LongRow<T> row(x, s.size, s.epsilon);
    const auto normal = [&](int64_t i, auto part) {
        return (get(x + i, part) - row.mean) * row.inverse;
    };
    const auto scaled = [&](int64_t i, auto part) {
        return get(dy + i, part) * get(gamma + i, part);
    };
    if (gamma_sums) {
        for_each_vector(gamma_sums, 0, s.size, [&](int64_t i, auto part) {
            const Vec<T> g = get(dy + i, part);
            put(gamma_sums + i, get(gamma_sums + i, part) + g * normal(i, part), part);
            put(beta_sums + i, get(beta_sums + i, part) + g, part);
        });
    }
    if (!dx) return;
    const Vec<T> mean = broadcast(sum_row<T>(s.size, scaled) / static_cast<T>(s.size));
    const T total =
        sum_row<T>(s.size, [&](int64_t i, auto part) { return scaled(i, part) * normal(i, part); });
    const Vec<T> slope = broadcast(total / static_cast<T>(s.size));
    for_each_vector(dx, 0, s.size, [&](int64_t i, auto part) {
        put(dx + i, (scaled(i, part) - mean - normal(i, part) * slope) * row.inverse, part);
    });
}

// ---- rows in groups: kLanes short ones, or a long one -------------------------------------------

template <class T>
struct RowGroups {
    static constexpr int64_t kChunkValues = int64_t{1} << 15, kMostChunks = 1024, kLeastGroups = 8;

    int64_t rows, size;
    bool side_by_side;

    RowGroups(const LayerNorm& s, int64_t n)
        : rows(n * s.rows), size(s.size), side_by_side(s.size <= kShortRow<T>) {}

    int64_t in_group() const { return side_by_side ? kLanes<T> : 1; }
    int64_t count() const { return (rows + in_group() - 1) / in_group(); }
    int64_t rows_from(int64_t first) const { return std::min(in_group(), rows - first); }
    int64_t chunks() const {
        return std::max<int64_t>(
            1, std::min({kMostChunks, rows * size / kChunkValues, count() / kLeastGroups}));
    }
    // Sums of gradients of one chunk: for gamma and for beta, for each value or each in each lane.
    int64_t sums() const { return size * in_group(); }
};

template <class T>
void backward_of_group(const LayerNorm& s, const RowGroups<T>& groups, int64_t first, const T* dy,
                       const T* x, const T* gamma, T* dx, T* gamma_sums, T* beta_sums, T* lanes) {
    if (!groups.side_by_side) {
        normalise_row_backward(s, dy + first * s.size, x + first * s.size, gamma,
                               dx ? dx + first * s.size : nullptr, gamma_sums, beta_sums);
        return;
    }
    T* gradient = lanes + s.size * kLanes<T>;
    const int64_t count = groups.rows_from(first);
    load_columns(x, s.size, 1, first, count, lanes);
    load_columns(dy, s.size, 1, first, count, gradient);
    normalise_lanes_backward(gradient, lanes, s.size, kLanes<T>, count, s.epsilon, gamma,
                             dx ? gradient : nullptr, gamma_sums, beta_sums);
    if (dx) store_columns(gradient, s.size, 1, first, count, dx);
}

}  // namespace

template <class T>
void channel_affine(const Context& context, const ChannelAffine& s, int64_t n, const T* x,
                    const T* scale, const T* shift, T* y) {
    affine(context, n * s.rows, s.channels, x, scale, shift, y);
}

template <class T>
void channel_affine_backward(const Context& context, const ChannelAffine& s, int64_t n, const T* dy,
                             const T* x, const T* scale, T* dx, T* dscale, T* dshift) {
    const T* const none = nullptr;
    if (!dscale && !dshift) {
        if (dx) affine(context, n * s.rows, s.channels, dy, scale, none, dx);
        return;
    }
    const Lines lines(n * s.rows, s.channels);
    const int64_t width = lines.width(), kept = lines.chunks() * lines.kept();
    T* scales = scratch<T>(kShared, width + 2 * kept);
    repeat(lines, scale, T(1), scales);
    const auto put_dx = [&](int64_t i, int64_t j, auto part, Vec<T> g) {
        if (dx) put(dx + i, g * get(scales + j, part), part);
    };
    if (!dscale) {
        sum_columns<T, 1>(
            context, lines, kCheap, scales + width,
            [&](int64_t i, int64_t j, auto part, Vec<T>* values) {
                values[0] = get(dy + i, part);
                put_dx(i, j, part, values[0]);
            },
            [&](int64_t c, const double* sums) { dshift[c] = static_cast<T>(sums[0]); });
        return;
    }
    sum_columns<T, 2>(
        context, lines, kCostly, scales + width,
        [&](int64_t i, int64_t j, auto part, Vec<T>* values) {
            const Vec<T> g = get(dy + i, part);
            values[0] = g * get(x + i, part);
            values[1] = g;
            put_dx(i, j, part, g);
        },
        [&](int64_t c, const double* sums) {
            dscale[c] = static_cast<T>(sums[0]);
            if (dshift) dshift[c] = static_cast<T>(sums[1]);
        });
}

template <class T>
void batch_norm(const Context& context, const BatchNorm& s, int64_t n, const T* x, const T* gamma,
                const T* beta, T* y, T* mean, T* variance) {
    const Lines lines(n * s.rows, s.channels);
    find_moments(context, lines, x, mean, variance);
    const int64_t width = lines.width();
    T* means = scratch<T>(kShared, 3 * width + s.channels);
    T *scales = means + width, *shifts = scales + width, *scale = shifts + width;
    for (int64_t c = 0; c < s.channels; ++c) {
        const double inverse = inverse_deviation(variance[c], s.epsilon);
        scale[c] = static_cast<T>(gamma ? static_cast<double>(gamma[c]) * inverse : inverse);
    }
    repeat(lines, mean, T(0), means);
    repeat(lines, scale, T(1), scales);
    repeat(lines, beta, T(0), shifts);
    for_each_in_lines(context, lines, kCheap, y, [&](int64_t i, int64_t j, auto part) {
        const Vec<T> d = get(x + i, part) - get(means + j, part);
        put(y + i, d * get(scales + j, part) + get(shifts + j, part), part);
    });
}

template <class T>
void batch_norm_backward(const Context& context, const BatchNorm& s, int64_t n, const T* dy,
                         const T* x, const T* gamma, const T* mean, const T* variance, T* dx,
                         T* dgamma, T* dbeta) {
    const Lines lines(n * s.rows, s.channels);
    const int64_t width = lines.width(), kept = lines.chunks() * lines.kept();
    T* means = scratch<T>(kShared, 4 * width + 3 * s.channels + 2 * kept);
    T *scales = means + width, *shares = scales + width, *slopes = shares + width;
    T *scale = slopes + width, *share = scale + s.channels, *slope = share + s.channels;
    repeat(lines, mean, T(0), means);
    const double rows = static_cast<double>(lines.rows);
    sum_columns<T, 2>(
        context, lines, kCostly, slope + s.channels,
        [&](int64_t i, int64_t j, auto part, Vec<T>* values) {
            const Vec<T> g = get(dy + i, part);
            values[0] = g * (get(x + i, part) - get(means + j, part));
            values[1] = g;
        },
        [&](int64_t c, const double* sums) {
            const double inverse = inverse_deviation(variance[c], s.epsilon);
            const double factor = gamma ? static_cast<double>(gamma[c]) * inverse : inverse;
            scale[c] = static_cast<T>(factor);
            share[c] = static_cast<T>(sums[1] / rows);
            slope[c] = static_cast<T>(factor * inverse * inverse * sums[0] / rows);
            if (dgamma) dgamma[c] = static_cast<T>(inverse * sums[0]);
            if (dbeta) dbeta[c] = static_cast<T>(sums[1]);
        });
    if (!dx || lines.rows == 0) return;
    repeat(lines, scale, T(1), scales);
    repeat(lines, share, T(0), shares);
    repeat(lines, slope, T(0), slopes);
    for_each_in_lines(context, lines, kCostly, dx, [&](int64_t i, int64_t j, auto part) {
        const Vec<T> d = get(x + i, part) - get(means + j, part);
        const Vec<T> g = get(dy + i, part) - get(shares + j, part);
        put(dx + i, g * get(scales + j, part) - d * get(slopes + j, part), part);
    });
}

template <class T>
void batch_norm_affine(const Context&, const BatchNorm& s, int64_t, const T* gamma, const T* beta,
                       const T* mean, const T* variance, T* scale, T* shift) {
    for (int64_t c = 0; c < s.channels; ++c) {
        const double inverse = inverse_deviation(variance[c], s.epsilon);
        const double factor = gamma ? static_cast<double>(gamma[c]) * inverse : inverse;
        const double offset = beta ? static_cast<double>(beta[c]) : 0;
        scale[c] = static_cast<T>(factor);
        shift[c] = static_cast<T>(offset - static_cast<double>(mean[c]) * factor);
    }
}

template <class T>
void batch_norm_affine_backward(const Context&, const BatchNorm& s, int64_t, const T* dscale,
                                const T* dshift, const T* mean, const T* variance, T* dgamma,
                                T* dbeta) {
    for (int64_t c = 0; c < s.channels; ++c) {
        const double change = static_cast<double>(dscale[c]) -
                              static_cast<double>(mean[c]) * static_cast<double>(dshift[c]);
        if (dgamma) dgamma[c] = static_cast<T>(change * inverse_deviation(variance[c], s.epsilon));
        if (dbeta) dbeta[c] = dshift[c];
    }
}

template <class T>
void fold_affine(const Context& context, const Fold& s, int64_t, const T* kernel, const T* bias,
                 const T* scale, const T* shift, T* folded_kernel, T* folded_bias) {
    const T* const none = nullptr;
    affine(context, s.rows, s.filters, kernel, scale, none, folded_kernel);
    for (int64_t f = 0; f < s.filters; ++f) {
        folded_bias[f] = bias ? bias[f] * scale[f] + shift[f] : shift[f];
    }
}

template <class T>
void layer_norm(const Context& context, const LayerNorm& s, int64_t n, const T* x, const T* gamma,
                const T* beta, T* y) {
    const RowGroups<T> groups(s, n);
    if (!groups.side_by_side) {
        T* memory = scratch<T>(kShared, 2 * s.size);
        gamma = or_else(gamma, s.size, T(1), memory);
        beta = or_else(beta, s.size, T(0), memory + s.size);
    }
    const double cost = 4 * kCostly * s.size * groups.in_group();
    parallel_for(context, groups.count(), cost, [&](int64_t begin, int64_t end) {
        T* lanes = groups.side_by_side ? scratch<T>(kLocal, groups.sums()) : nullptr;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i * groups.in_group();
            if (!lanes) {
                normalise_row(s, x + first * s.size, gamma, beta, y + first * s.size);
                continue;
            }
            const int64_t count = groups.rows_from(first);
            load_columns(x, s.size, 1, first, count, lanes);
            normalise_lanes(lanes, s.size, kLanes<T>, s.epsilon, gamma, beta, lanes);
            store_columns(lanes, s.size, 1, first, count, y);
        }
    });
}

template <class T>
void layer_norm_backward(const Context& context, const LayerNorm& s, int64_t n, const T* dy,
                         const T* x, const T* gamma, T* dx, T* dgamma, T* dbeta) {
    const RowGroups<T> groups(s, n);
    const bool with_sums = dgamma || dbeta;
    const int64_t chunks = groups.chunks(), sums = groups.sums();
    T* memory = scratch<T>(kShared, s.size + (with_sums ? 2 * chunks * sums : 0));
    T* all_sums = with_sums ? memory + s.size : nullptr;
    if (!groups.side_by_side) gamma = or_else(gamma, s.size, T(1), memory);
    const double work = 6 * kCostly * groups.rows * s.size / chunks;
    parallel_for(context, chunks, work, [&](int64_t begin, int64_t end) {
        T* lanes = scratch<T>(kLocal, groups.side_by_side ? 2 * sums : 0);
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            T* gamma_sums = with_sums ? all_sums + 2 * chunk * sums : nullptr;
            T* beta_sums = with_sums ? gamma_sums + sums : nullptr;
            if (with_sums) std::fill(gamma_sums, gamma_sums + 2 * sums, T(0));
            for (int64_t i = groups.count() * chunk / chunks;
                 i < groups.count() * (chunk + 1) / chunks; ++i) {
                backward_of_group(s, groups, i * groups.in_group(), dy, x, gamma, dx, gamma_sums,
                                  beta_sums, lanes);
            }
        }
    });
    if (!with_sums) return;
    const int64_t in_group = groups.in_group();
    parallel_for(context, s.size, 2.0 * chunks * in_group, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            double totals[2] = {};
            for (int64_t row = 0; row < 2 * chunks; ++row) {
                for (int64_t k = 0; k < in_group; ++k) {
                    totals[row % 2] += static_cast<double>(all_sums[row * sums + i * in_group + k]);
                }
            }
            if (dgamma) dgamma[i] = static_cast<T>(totals[0]);
            if (dbeta) dbeta[i] = static_cast<T>(totals[1]);
        }
    });
}

template <class T>
void prelu(const Context& context, const PRelu& s, int64_t n, const T* x, const T* alpha, T* y) {
    const Lines lines(n * s.rows, s.size);
    T* slopes = scratch<T>(kShared, lines.width());
    repeat(lines, alpha, T(0), slopes);
    for_each_in_lines(context, lines, kCheap, y, [&](int64_t i, int64_t j, auto part) {
        const Vec<T> v = get(x + i, part);
        put(y + i, v > Vec<T>{} ? v : v * get(slopes + j, part), part);
    });
}

template <class T>
void prelu_backward(const Context& context, const PRelu& s, int64_t n, const T* dy, const T* x,
                    const T* alpha, T* dx, T* dalpha) {
    const Lines lines(n * s.rows, s.size);
    const int64_t width = lines.width(), kept = dalpha ? lines.chunks() * lines.kept() : 0;
    T* slopes = scratch<T>(kShared, width + kept);
    repeat(lines, alpha, T(0), slopes);
    const auto put_dx = [&](int64_t i, int64_t j, auto part) {
        const Vec<T> g = get(dy + i, part);
        put(dx + i, get(x + i, part) > Vec<T>{} ? g : g * get(slopes + j, part), part);
    };
    if (!dalpha) {
        if (dx) for_each_in_lines(context, lines, kCheap, dx, put_dx);
        return;
    }
    sum_columns<T, 1>(
        context, lines, kCostly, slopes + width,
        [&](int64_t i, int64_t j, auto part, Vec<T>* values) {
            const Vec<T> v = get(x + i, part);
            values[0] = v > Vec<T>{} ? Vec<T>{} : v * get(dy + i, part);
            if (dx) put_dx(i, j, part);
        },
        [&](int64_t i, const double* sums) { dalpha[i] = static_cast<T>(sums[0]); });
}

template <class T>
void moving_average(const Context& context, const MovingAverage& s, int64_t, const T* value,
                    T* moving) {
    const T kept = static_cast<T>(s.momentum), taken = static_cast<T>(1 - s.momentum);
    parallel_for(context, s.size, kCheap, [&](int64_t begin, int64_t end) {
        for_each_vector(moving, begin, end, [&](int64_t i, auto part) {
            put(moving + i, get(moving + i, part) * kept + get(value + i, part) * taken, part);
        });
    });
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

}  // namespace CONVKIT_ISA
}  // namespace convkit
