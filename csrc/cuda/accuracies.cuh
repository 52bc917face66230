// What accuracies do with a row: see metric.cu. Called by all threads of a block.
#pragma once

#include "rows.cuh"

namespace convkit {
namespace cuda {

// Where the first maximum is; NaN counts as the maximum, as in NumPy.
template <class T>
__device__ int64_t argmax(const Team& team, const Row& row, const Values<T>& x) {
    T best = -static_cast<T>(INFINITY);
    int64_t at = row.size;
    for (int64_t i = team.lane; i < row.size; i += team.width) {
        const T v = x(i);
        if (at < row.size && (best >= v || best != best)) continue;
        best = v;
        at = i;
    }
    const T top = team.join(best, LargerOrNan{});
    const bool mine = best == top || (best != best && top != top);
    return team.join(mine ? at : row.size, Smaller{});
}

template <class T>
__device__ int64_t class_of(const Team& team, const Row& row, const Values<T>& x) {
    return argmax(team, row, x);
}

template <class T>
__device__ int64_t class_of(const Team&, const Row&, const Label<T>& label) {
    return label.at;
}

template <class T, class Target>
struct ClassAccuracy {
    const Target* target;
    const T* prediction;
    T* score;

    __device__ void operator()(const Team& team, const Row& row) const {
        const int64_t right = class_of(team, row, targets_of<T>(target, row));
        const Values<T> p{prediction + row.start, row.step};
        const int64_t predicted = argmax(team, row, p);
        if (row.there && team.lane == 0) score[row.index] = right == predicted ? T(1) : T(0);
    }
};

template <class T>
struct BinaryAccuracy {
    const T *target, *prediction;
    T* score;

    __device__ void operator()(const Team& team, const Row& row) const {
        const Values<T> t{target + row.start, row.step}, p{prediction + row.start, row.step};
        int64_t right = 0;
        for (int64_t i = team.lane; i < row.size; i += team.width)
            right += t(i) == (p(i) > T(0.5) ? T(1) : T(0));
        right = team.sum(right);
        if (row.there && team.lane == 0)
            score[row.index] = static_cast<T>(right) / static_cast<T>(row.size);
    }
};

}  // namespace cuda
}  // namespace convkit
