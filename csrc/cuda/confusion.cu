// Metrics that count: the definitions of csrc/cpu/confusion.cpp. Threads count in whole numbers, in
// shared memory where that holds them, so that their order does not show; then these are added to
// the counters.
#include "accuracies.cuh"
#include "cuda_kernels.h"

namespace convkit {
namespace cuda {
namespace {

// ---- top k --------------------------------------------------------------------------------------
template <class T, class Target>
struct TopKAccuracy {
    const Target* target;
    const T* prediction;
    T* score;
    int64_t k;

    __device__ void operator()(const Team& team, const Row& row) const {
        const int64_t at = class_of(team, row, targets_of<T>(target, row));
        const Values<T> p{prediction + row.start, row.step};
        const bool known = at >= 0 && at < row.size;
        const T own = known ? p(at) : T(0);
        int64_t larger = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width) larger += !(p(i) <= own);
        larger = team.sum(larger);
        const bool among = known && own == own && larger < k;
        if (row.there && team.lane == 0) score[row.index] = among ? T(1) : T(0);
    }
};

// ---- counting -----------------------------------------------------------------------------------
using Count = unsigned long long;

// What a thread adds to: bins of its block, or those of all.
struct Bins {
    unsigned* near;  // null: there are too many
    Count* all;

    __device__ void add(int64_t bin) const {
        if (near) {
            atomicAdd(near + bin, 1u);
        } else {
            atomicAdd(all + bin, Count{1});
        }
    }
};

constexpr int64_t kMostNear = 8192;  // bins of a block: 32 KB

// As rows_kernel, f(team, row, bins).
template <class F>
__global__ void counting_kernel(int64_t rows, int64_t size, int width, int64_t bins, bool near,
                                Count* all, F f) {
    SHARED(double, slots, Team::kWarps);
    DYNAMIC_SHARED(unsigned, local);
    for (int64_t i = threadIdx.x; near && i < bins; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const Bins to{near ? local : nullptr, all};
    const int place = static_cast<int>(threadIdx.x) / width;
    const Team team{width, static_cast<int>(threadIdx.x) % width, slots};
    const int64_t at_once = kThreads / width, step = at_once * gridDim.x;
    for (int64_t first = at_once * blockIdx.x; first < rows; first += step) {
        const int64_t index = first + place;
        Row row{index, 0, 0, 1, index < rows};
        if (row.there) {
            row.size = size;
            row.start = index * size;
        }
        f(team, row, to);
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; near && i < bins; i += blockDim.x) {
        if (local[i] != 0) atomicAdd(all + i, static_cast<Count>(local[i]));
    }
}

struct Clear {
    Count* counts;

    __device__ void operator()(int64_t i) const { counts[i] = 0; }
};

// f(team, row, bins) for all rows of `size` values; the counts of all bins, on the device.
template <class F>
const Count* count_rows(const Context& context, const char* name, int64_t rows, int64_t size,
                        int64_t bins, const F& f) {
    auto* const counts =
        static_cast<Count*>(context.queue->workspace(static_cast<size_t>(bins) * sizeof(Count)));
    for_each(context, name, bins, Clear{counts});
    const int width = team_width(Loss{1, size, 1, 0});
    const int64_t blocks = divide_up<int64_t>(rows, kThreads / width);
    const int64_t grid = blocks < kMostBlocks ? blocks : kMostBlocks;
    const bool near = bins <= kMostNear;
    launch(context, name, counting_kernel<F>, dim3(static_cast<unsigned>(grid)), dim3(kThreads),
           near ? static_cast<size_t>(bins) * sizeof(unsigned) : 0, rows, size, width, bins, near,
           counts, f);
    return counts;
}

// ---- confusion matrix ---------------------------------------------------------------------------
template <class T>
__device__ int64_t row_class(const Team& team, const Row& row, const Values<T>& x) {
    if (row.size == 1) return x(0) >= T(0.5);
    return argmax(team, row, x);
}

template <class T>
__device__ int64_t row_class(const Team&, const Row&, const Label<T>& label) {
    return label.at;
}

template <class T, class Target>
struct CountPair {
    const Target* target;
    const T* prediction;
    int64_t classes;

    __device__ void operator()(const Team& team, const Row& row, const Bins& bins) const {
        const int64_t right = row_class(team, row, targets_of<T>(target, row));
        const int64_t predicted = row_class(team, row, Values<T>{prediction + row.start, row.step});
        if (row.there && team.lane == 0 && right >= 0 && right < classes)
            bins.add(right * classes + predicted);
    }
};

struct AddToMatrix {
    const Count* counts;
    double* matrix;

    __device__ void operator()(int64_t i) const { matrix[i] += static_cast<double>(counts[i]); }
};

template <class T, class Target>
void confusion(const Context& context, const char* name, const Confusion& s, int64_t n,
               const Target* target, const T* prediction, double* matrix) {
    if (n * s.rows == 0) return;
    const int64_t classes = s.classes(), bins = classes * classes;
    const Count* const counts = count_rows(context, name, n * s.rows, s.columns, bins,
                                           CountPair<T, Target>{target, prediction, classes});
    for_each(context, name, bins, AddToMatrix{counts, matrix});
}

// ---- thresholds ---------------------------------------------------------------------------------
// In bins (true or not, column, bin): that of a value is the number of thresholds below it.
template <class T>
struct CountValues {
    const T *target, *prediction;
    const double* thresholds;
    int64_t count, columns, largest;

    __device__ void operator()(const Team& team, const Row& row, const Bins& bins) const {
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        T top = -static_cast<T>(INFINITY);
        if (largest == 1) {
            for (int64_t i = team.lane; i < row.size; i += team.width)
                top = p(i) > top ? p(i) : top;
            top = team.join(top, Larger{});
        }
        for (int64_t i = team.lane; i < row.size; i += team.width) {
            T value = p(i);
            bool kept = true;
            if (largest == 1) {
                kept = value >= top;
                value = value < T(0) ? -value : value;
            } else if (largest < 0) {
                kept = rank(row, p, i) < -largest;
            }
            const int64_t column = columns == 1 ? 0 : i, truth = t(i) != T(0) ? columns : 0;
            bins.add((truth + column) * (count + 1) + (kept ? bin(value) : 0));
        }
    }

 private:
    struct Larger {
        __device__ T operator()(T a, T b) const { return b > a ? b : a; }
    };

    // How many come before value i when a row is sorted, the largest first; NaN never does.
    static __device__ int64_t rank(const Row& row, const Values<T>& p, int64_t i) {
        const T own = p(i);
        if (own != own) return row.size;
        int64_t before = 0;
        for (int64_t k = 0; k < row.size; ++k) before += p(k) > own || (p(k) == own && k < i);
        return before;
    }

    __device__ int64_t bin(T value) const {
        int64_t low = 0, left = count;
        while (left > 0) {
            const int64_t half = left / 2;
            const bool above = value > static_cast<T>(thresholds[low + half]);
            low += above ? half + 1 : 0;
            left = above ? left - half - 1 : half;
        }
        return low;
    }
};

// One thread for each threshold and column.
struct AddAbove {
    const Count* counts;
    double* to;
    int64_t thresholds, columns;

    __device__ void operator()(int64_t i) const {
        const int64_t threshold = i / columns, column = i % columns, bins = thresholds + 1;
        const Count* const no = counts + column * bins;
        const Count* const yes = no + columns * bins;
        Count below_no = 0, below_yes = 0, above_no = 0, above_yes = 0;
        for (int64_t k = 0; k < bins; ++k) {
            (k > threshold ? above_no : below_no) += no[k];
            (k > threshold ? above_yes : below_yes) += yes[k];
        }
        const int64_t kind = thresholds * columns;
        to[i] += static_cast<double>(above_yes);
        to[i + kind] += static_cast<double>(above_no);
        to[i + 2 * kind] += static_cast<double>(below_no);
        to[i + 3 * kind] += static_cast<double>(below_yes);
    }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void top_k_accuracy(const Context& context, const TopK& s, int64_t n, const T* target,
                    const T* prediction, T* score) {
    for_each_row(context, "top_k_accuracy", Loss{s.rows, s.size, s.inner, 0}, n,
                 TopKAccuracy<T, T>{target, prediction, score, s.k});
}

template <class T>
void sparse_top_k_accuracy(const Context& context, const TopK& s, int64_t n, const int32_t* target,
                           const T* prediction, T* score) {
    for_each_row(context, "sparse_top_k_accuracy", Loss{s.rows, s.size, s.inner, 0}, n,
                 TopKAccuracy<T, int32_t>{target, prediction, score, s.k});
}

template <class T>
void confusion_matrix(const Context& context, const Confusion& s, int64_t n, const T* target,
                      const T* prediction, double* matrix) {
    confusion(context, "confusion_matrix", s, n, target, prediction, matrix);
}

template <class T>
void sparse_confusion_matrix(const Context& context, const Confusion& s, int64_t n,
                             const int32_t* target, const T* prediction, double* matrix) {
    confusion(context, "sparse_confusion_matrix", s, n, target, prediction, matrix);
}

template <class T>
void threshold_counts(const Context& context, const ThresholdCounts& s, int64_t n, const T* target,
                      const T* prediction, const double* thresholds, double* counts) {
    const char* const name = "threshold_counts";
    if (n * s.rows == 0) return;
    const int64_t columns = s.per_column ? s.columns : 1;
    const CountValues<T> values{target, prediction, thresholds, s.thresholds, columns, s.largest};
    const Count* const bins =
        count_rows(context, name, n * s.rows, s.columns, 2 * columns * (s.thresholds + 1), values);
    for_each(context, name, s.thresholds * columns, AddAbove{bins, counts, s.thresholds, columns});
}

INSTANTIATE(top_k_accuracy)
INSTANTIATE(sparse_top_k_accuracy)
INSTANTIATE(confusion_matrix)
INSTANTIATE(sparse_confusion_matrix)
INSTANTIATE(threshold_counts)

}  // namespace cuda
}  // namespace convkit
