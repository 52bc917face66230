// Reductions of x (rows, size, inner) over size: a team of threads for each column, or for each
// chunk of a long one. Teams and chunks are as large as size and inner ask for, so that a column's
// bits depend on no other.
#pragma once

#include <cmath>

#include "index.cuh"

namespace convkit {
namespace cuda {

// ---- what is reduced to ------------------------------------------------------------------------

template <class T>
struct ToSum {
    __device__ static T start() { return T(0); }
    __device__ static T join(T a, T b) { return a + b; }
};

// beats(a, b): whether b takes the place of a, which was there before. A NaN beats all but a NaN.
template <class T>
struct ToMax {
    __device__ static T start() { return -static_cast<T>(INFINITY); }
    __device__ static bool beats(T a, T b) { return b > a || (b != b && a == a); }
    __device__ static T join(T a, T b) { return beats(a, b) ? b : a; }
};

template <class T>
struct ToMin {
    __device__ static T start() { return static_cast<T>(INFINITY); }
    __device__ static bool beats(T a, T b) { return b < a || (b != b && a == a); }
    __device__ static T join(T a, T b) { return beats(a, b) ? b : a; }
};

// ---- who does what -----------------------------------------------------------------------------

// Which columns a block's threads work on. Where a column lies in one piece, the threads of a team
// are neighbours; else those of neighbouring columns are, so that either way they read what lies
// together.
class Columns {
 public:
    // Teams are for `size` values, of columns that have `total`.
    Columns(int64_t rows, int64_t size, int64_t total, int64_t inner)
        : total_(total), inner_(inner), columns_(rows * inner), width_(1) {
        const int most = inner == 1 ? kThreads : kThreads / kLeastColumns;
        while (width_ < most && width_ * kEach < size) width_ *= 2;
    }

    // For all columns, one block each.
    int64_t groups() const { return divide_up<int64_t>(columns_, kThreads / width_); }

    __device__ int teams() const { return kThreads / width_; }
    __device__ int width() const { return width_; }
    __device__ int64_t inner() const { return inner_; }
    __device__ int64_t count() const { return columns_; }
    __device__ int lane() const {
        const int thread = static_cast<int>(threadIdx.x);
        return inner_ == 1 ? thread % width_ : thread / teams();
    }
    __device__ int64_t column(int64_t group) const {
        const int thread = static_cast<int>(threadIdx.x);
        return group * teams() + (inner_ == 1 ? thread / width_ : thread % teams());
    }
    // From a thread to that with the next lane of its team.
    __device__ int step() const { return inner_ == 1 ? 1 : teams(); }
    __device__ int64_t start(int64_t column) const {
        return column / inner_ * total_ * inner_ + column % inner_;
    }

 private:
    static constexpr int kLeastColumns = 8;  // side by side: fewer read a part of what memory sends
    static constexpr int kEach = 4;          // values for a thread, before there are more threads

    int64_t total_, inner_, columns_;
    int width_;
};

// ---- forward -----------------------------------------------------------------------------------

// x (rows, size, inner) -> y (rows, chunks, inner), divided by divisor.
template <class T, class To>
__global__ void reduce_kernel(Columns columns, int64_t groups, int64_t size, int64_t chunk,
                              int64_t chunks, T divisor, const T* x, T* y) {
    SHARED(T, parts, kThreads);
    const int thread = static_cast<int>(threadIdx.x), lane = columns.lane();
    for (int64_t item = blockIdx.x; item < groups * chunks; item += gridDim.x) {
        const int64_t column = columns.column(item % groups), place = item / groups;
        const int64_t inner = columns.inner();
        const int64_t first = place * chunk, end = size - first < chunk ? size - first : chunk;
        T total = To::start();
        if (column < columns.count()) {
            const T* const from = x + columns.start(column) + first * inner;
            for (int64_t i = lane; i < end; i += columns.width())
                total = To::join(total, from[i * inner]);
        }
        parts[thread] = total;
        for (int half = columns.width() / 2; half > 0; half /= 2) {
            __syncthreads();
            if (lane < half)
                parts[thread] = To::join(parts[thread], parts[thread + half * columns.step()]);
        }
        if (lane == 0 && column < columns.count())
            y[(column / inner * chunks + place) * inner + column % inner] = parts[thread] / divisor;
        __syncthreads();  // parts are free again
    }
}

// x (rows, size, inner) -> y (rows, inner), divided by divisor.
template <class T, class To>
void reduce_rows(const Context& context, const char* name, int64_t rows, int64_t size,
                 int64_t inner, T divisor, const T* x, T* y) {
    const int64_t chunk = inner == 1 ? 4096 : 512;
    const auto run = [&](int64_t length, int64_t piece, T by, const T* from, T* to) {
        const int64_t pieces = std::max<int64_t>(1, divide_up(length, piece));
        const Columns columns(rows, std::min(length, piece), length, inner);
        const int64_t items = columns.groups() * pieces;
        const dim3 grid(static_cast<unsigned>(std::min(items, kMostBlocks)));
        launch(context, name, reduce_kernel<T, To>, grid, dim3(kThreads), 0, columns,
               columns.groups(), length, piece, pieces, by, from, to);
    };
    if (rows * inner == 0) return;
    if (size <= 2 * chunk) return run(size, std::max<int64_t>(size, 1), divisor, x, y);
    const int64_t chunks = divide_up(size, chunk);
    auto* const parts = static_cast<T*>(
        context.queue->workspace(static_cast<size_t>(rows * chunks * inner) * sizeof(T)));
    run(size, chunk, T(1), x, parts);
    run(chunks, chunks, divisor, parts, y);
}

// ---- backward of maximum and minimum -----------------------------------------------------------

// dx (rows, size, inner) = dy (rows, inner) where x has what To finds for the first time, else 0.
template <class T, class To>
__global__ void first_kernel(Columns columns, int64_t groups, int64_t size, const T* dy, const T* x,
                             T* dx) {
    SHARED(T, values, kThreads);
    SHARED(int64_t, places, kThreads);
    const int thread = static_cast<int>(threadIdx.x), lane = columns.lane();
    for (int64_t group = blockIdx.x; group < groups; group += gridDim.x) {
        const int64_t column = columns.column(group), inner = columns.inner();
        const bool there = column < columns.count();
        const int64_t start = there ? columns.start(column) : 0, end = there ? size : 0;
        T best = To::start();
        int64_t found = size;
        for (int64_t i = lane; i < end; i += columns.width()) {
            const T value = x[start + i * inner];
            if (found == size || To::beats(best, value)) {
                best = value;
                found = i;
            }
        }
        values[thread] = best;
        places[thread] = found;
        for (int half = columns.width() / 2; half > 0; half /= 2) {
            __syncthreads();
            const int other = thread + half * columns.step();
            if (lane < half && places[other] < size) {
                const T one = values[thread], two = values[other];
                const bool wins = places[thread] == size || To::beats(one, two);
                // Neither beats the other where they are equal: then the first one counts.
                if (wins || (!To::beats(two, one) && places[other] < places[thread])) {
                    values[thread] = two;
                    places[thread] = places[other];
                }
            }
        }
        __syncthreads();
        const int64_t first = places[thread - lane * columns.step()];
        const T gradient = there ? dy[column] : T(0);
        for (int64_t i = lane; i < end; i += columns.width())
            dx[start + i * inner] = i == first ? gradient : T(0);
        __syncthreads();  // places are free again
    }
}

template <class T, class To>
void to_first(const Context& context, const char* name, int64_t rows, int64_t size, int64_t inner,
              const T* dy, const T* x, T* dx) {
    const Columns columns(rows, size, size, inner);
    const dim3 grid(static_cast<unsigned>(std::min(columns.groups(), kMostBlocks)));
    launch(context, name, first_kernel<T, To>, grid, dim3(kThreads), 0, columns, columns.groups(),
           size, dy, x, dx);
}

// ---- repetitions -------------------------------------------------------------------------------

// Places of y (rows, repeats, inner), in vectors. kOne: inner is 1, and vectors go along repeats.
template <class T, int kWidth, bool kOne, class I>
struct Repeat {
    I count;
    Divisor<I> inner, repeats;
    int64_t step;  // of x, from row to row, in values
    T divisor;
    const T* x;
    T* y;
};

template <class T, int kWidth, bool kOne, class I>
__global__ void repeat_kernel(Repeat<T, kWidth, kOne, I> s) {
    const I item = item_of_thread<I>();
    if (item >= s.count) return;
    const I line = s.inner.quotient(item);
    const int64_t row = s.repeats.quotient(line);
    Vector<T, kWidth> v;
    if constexpr (kOne) {
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) v.value[e] = s.x[row];
    } else {
        const int64_t column = s.inner.remainder(item);
        v = load_vector<T, kWidth>(s.x + row * s.step + column * kWidth);
    }
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e) v.value[e] /= s.divisor;
    write_vector<T, kWidth>(s.y + static_cast<int64_t>(item) * kWidth, v);
}

// x (rows, inner) -> y (rows, repeats, inner) = x / divisor.
template <class T>
void repeat_rows(const Context& context, const char* name, int64_t rows, int64_t repeats,
                 int64_t inner, T divisor, const T* x, T* y) {
    const int64_t total = rows * repeats * inner;
    if (total == 0) return;
    const auto run = [&](auto one) {
        constexpr bool kOne = decltype(one)::value;
        const int width = kOne ? vector_width<T>(repeats, {y}) : vector_width<T>(inner, {x, y});
        with_variant<T>(width, total, [&](auto variant) {
            constexpr int kWidth = decltype(variant)::width;
            using I = typename decltype(variant)::Index;
            const int64_t across = kOne ? 1 : inner / kWidth;
            const Repeat<T, kWidth, kOne, I> s{static_cast<I>(total / kWidth),
                                               Divisor<I>(across),
                                               Divisor<I>(kOne ? repeats / kWidth : repeats),
                                               inner,
                                               divisor,
                                               x,
                                               y};
            launch(context, name, repeat_kernel<T, kWidth, kOne, I>, blocks_for(s.count),
                   dim3(kThreads), 0, s);
        });
    };
    if (inner == 1) return run(std::true_type{});
    run(std::false_type{});
}

}  // namespace cuda
}  // namespace convkit
