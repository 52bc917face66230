// Metrics that count. Target t and prediction p as named; counts are whole numbers, kept in double.
//   top_k_accuracy           t, p (n, rows, size, inner) -> score (n, rows, inner): 1 where fewer
//                            than k predictions are larger than that at the (first) maximum of t,
//                            else 0. NaN is larger than all, and never among the k
//   sparse_top_k_accuracy    t (n, rows, inner): labels; 0 for what is none
//   confusion_matrix         t, p (n, rows, columns) -> matrix (classes, classes): 1 is added at
//                            [class of t, class of p], where the (first) maximum is; with one
//                            column the class is (value >= 0.5)
//   sparse_confusion_matrix  t (n, rows): labels; rows of others are passed over
//   threshold_counts         t, p (n, rows, columns), thresholds in ascending order -> counts
//                            (4, thresholds, columns or 1) of true positives, false positives, true
//                            negatives, false negatives. A target counts as true unless it is 0, a
//                            prediction as positive if it is above the threshold, both of them T.
//                            largest = 1: if besides it is the largest of its row (or one of equal
//                            ones), and by its size; largest = -k: if besides it is among the k
//                            largest of its row, of equal ones the first
#include <algorithm>

#include "cpu_kernels.h"
#include "rows.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// ---- top k --------------------------------------------------------------------------------------
template <class T, class Target>
void top_k(const Context& context, const TopK& s, int64_t n, const Target* target,
           const T* prediction, T* score) {
    T* const none = nullptr;
    const Loss all{s.rows, s.size, s.inner, 0};
    for_each_rows(context, all, n, target, prediction, none, none, [&](const auto& rows) {
        const Ints<T> at = class_of(s.size, rows.t);
        // NaN for a label that is none.
        Vec<T> own = broadcast(std::numeric_limits<T>::quiet_NaN());
        for (int64_t i = 0; i < s.size; ++i) own = at == everywhere<T>(i) ? rows.p(i) : own;
        Ints<T> larger{};
        for (int64_t i = 0; i < s.size; ++i) larger -= ~(rows.p(i) <= own);  // true is -1
        const Ints<T> among = (larger < everywhere<T>(std::min(s.k, s.size))) & (own == own);
        rows.put_numbers(score, among ? broadcast<T>(1) : Vec<T>{});
    });
}

// ---- confusion matrix ---------------------------------------------------------------------------
// Rows are classified in parallel, some at a time, and then counted in order.
constexpr int64_t kAtOnce = 1 << 15;

// The class of each row. Rows are read where they lie, which costs less than laying them in lanes.
template <class T>
void classify(const Context& context, int64_t count, int64_t columns, const T* x, int32_t* found) {
    parallel_for(context, count, 1.0 * columns, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const T* const row = x + i * columns;
            if (columns == 1) {
                found[i] = *row >= static_cast<T>(0.5);
                continue;
            }
            T best = row[0];
            int64_t at = 0;
            for (int64_t k = 1; k < columns; ++k) {
                const bool better = (best == best) & !(row[k] <= best);
                best = better ? row[k] : best;
                at += static_cast<int64_t>(better) * (k - at);  // no branch
            }
            found[i] = static_cast<int32_t>(at);
        }
    });
}

template <class T, class Target>
void confusion(const Context& context, const Confusion& s, int64_t n, const Target* target,
               const T* prediction, double* matrix) {
    const int64_t rows = n * s.rows, classes = s.classes();
    auto* const predicted = scratch<int32_t>(kShared, 2 * std::min(rows, kAtOnce));
    for (int64_t begin = 0; begin < rows; begin += kAtOnce) {
        const int64_t count = std::min(rows - begin, kAtOnce);
        classify(context, count, s.columns, prediction + begin * s.columns, predicted);
        const int32_t* label = nullptr;
        if constexpr (std::is_same_v<Target, T>) {
            classify(context, count, s.columns, target + begin * s.columns, predicted + count);
            label = predicted + count;
        } else {
            label = target + begin;
        }
        for (int64_t i = 0; i < count; ++i) {
            if (label[i] >= 0 && label[i] < classes) matrix[label[i] * classes + predicted[i]] += 1;
        }
    }
}

// ---- thresholds ---------------------------------------------------------------------------------
// Values are sorted into bins first: that of a value is the number of thresholds below it, as it is
// above those and no others.
template <class T>
struct Binning {
    const ThresholdCounts& s;
    const T* thresholds;
    int64_t bins, columns;  // columns that are counted apart

    Binning(const ThresholdCounts& s, const T* thresholds)
        : s(s),
          thresholds(thresholds),
          bins(s.thresholds + 1),
          columns(s.per_column ? s.columns : 1) {}

    int64_t size() const { return 2 * columns * bins; }

    // In bins (true or not, column, bin); `row` has room for the values of one row.
    void add(int64_t rows, const T* target, const T* prediction, T* row, int64_t* counts) const {
        for (int64_t i = 0; i < rows; ++i) {
            const T* const t = target + i * s.columns;
            const T* p = prediction + i * s.columns;
            if (s.largest) {
                if (s.largest == 1) {
                    keep_largest(p, row);
                } else {
                    keep_first(-s.largest, p, row);
                }
                p = row;
            }
            for (int64_t k = 0; k < s.columns; ++k) {
                const int64_t column = columns == 1 ? 0 : k;
                ++counts[((t[k] != 0) * columns + column) * bins + bin(p[k])];
            }
        }
    }

 private:
    // By halves. A product, since GCC makes a branch of a choice, and nobody can foretell it.
    int64_t bin(T value) const {
        const T* from = thresholds;
        int64_t left = s.thresholds;
        for (; left > 1; left -= left / 2) {
            from += static_cast<int64_t>(value > from[left / 2 - 1]) * (left / 2);
        }
        return from - thresholds + (left == 1 && value > *from);
    }

    void keep_largest(const T* p, T* row) const {
        T top = p[0];
        for (int64_t k = 1; k < s.columns; ++k) top = p[k] > top ? p[k] : top;
        for (int64_t k = 0; k < s.columns; ++k) {
            row[k] = p[k] >= top ? std::fabs(p[k]) : -std::numeric_limits<T>::infinity();
        }
    }

    void keep_first(int64_t many, const T* p, T* row) const {
        std::fill(row, row + s.columns, -std::numeric_limits<T>::infinity());
        many = std::min(many, s.columns);
        for (int64_t found = 0; found < many; ++found) {
            int64_t best = -1;
            for (int64_t k = 0; k < s.columns; ++k) {
                const bool open = p[k] == p[k] && row[k] != p[k];  // NaN never is
                if (open && (best < 0 || p[k] > p[best])) best = k;
            }
            if (best >= 0) row[best] = p[best];
        }
    }
};

}  // namespace

// ---- kernels ------------------------------------------------------------------------------------
template <class T>
void top_k_accuracy(const Context& context, const TopK& s, int64_t n, const T* target,
                    const T* prediction, T* score) {
    top_k(context, s, n, target, prediction, score);
}

template <class T>
void sparse_top_k_accuracy(const Context& context, const TopK& s, int64_t n, const int32_t* target,
                           const T* prediction, T* score) {
    top_k(context, s, n, target, prediction, score);
}

template <class T>
void confusion_matrix(const Context& context, const Confusion& s, int64_t n, const T* target,
                      const T* prediction, double* matrix) {
    confusion(context, s, n, target, prediction, matrix);
}

template <class T>
void sparse_confusion_matrix(const Context& context, const Confusion& s, int64_t n,
                             const int32_t* target, const T* prediction, double* matrix) {
    confusion(context, s, n, target, prediction, matrix);
}

template <class T>
void threshold_counts(const Context& context, const ThresholdCounts& s, int64_t n, const T* target,
                      const T* prediction, const double* thresholds, double* counts) {
    constexpr int64_t kMostParts = 16, kLeastValues = 1 << 13;
    const int64_t rows = n * s.rows;
    T* const narrowed = scratch<T>(kPackA, s.thresholds);
    for (int64_t i = 0; i < s.thresholds; ++i) narrowed[i] = static_cast<T>(thresholds[i]);
    const Binning<T> binning(s, narrowed);
    // Parts have bins of their own; their number is no matter, since counts are exact.
    const int64_t size = binning.size(), values = rows * s.columns;
    const int64_t parts = std::min(kMostParts, values / (kLeastValues + size) + 1);
    int64_t* const bins = scratch<int64_t>(kShared, parts * size);
    std::fill(bins, bins + parts * size, 0);
    const int64_t each = (rows + parts - 1) / parts;
    parallel_for(context, parts, 10.0 * each * s.columns, [&](int64_t begin, int64_t end) {
        T* const row = scratch<T>(kLocal, s.columns);
        for (int64_t part = begin; part < end; ++part) {
            const int64_t first = std::min(part * each, rows);
            const int64_t count = std::min(each, rows - first);
            binning.add(count, target + first * s.columns, prediction + first * s.columns, row,
                        bins + part * size);
        }
    });
    for (int64_t part = 1; part < parts; ++part) {
        for (int64_t i = 0; i < size; ++i) bins[i] += bins[part * size + i];
    }
    const int64_t columns = binning.columns, kind = s.thresholds * columns;
    for (int64_t column = 0; column < columns; ++column) {
        const int64_t* const no = bins + column * binning.bins;
        const int64_t* const yes = no + columns * binning.bins;
        int64_t all_no = 0, all_yes = 0, above_no = 0, above_yes = 0;
        for (int64_t i = 0; i < binning.bins; ++i) {
            all_no += no[i];
            all_yes += yes[i];
        }
        for (int64_t i = s.thresholds - 1; i >= 0; --i) {
            above_no += no[i + 1];
            above_yes += yes[i + 1];
            double* const at = counts + i * columns + column;
            at[0] += static_cast<double>(above_yes);
            at[kind] += static_cast<double>(above_no);
            at[2 * kind] += static_cast<double>(all_no - above_no);
            at[3 * kind] += static_cast<double>(all_yes - above_yes);
        }
    }
}

INSTANTIATE(top_k_accuracy)
INSTANTIATE(sparse_top_k_accuracy)
INSTANTIATE(confusion_matrix)
INSTANTIATE(sparse_confusion_matrix)
INSTANTIATE(threshold_counts)

}  // namespace CONVKIT_ISA
}  // namespace convkit
