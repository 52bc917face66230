// Matrices (rows, columns) with numbers for each column, such as the channels of images: value by
// value with these numbers, and sums over the rows.
//
// The matrix is taken as one run of vectors, whatever its columns, which come back after `period`
// vectors: a line. A thread takes the same vector of many lines, so its columns stay the same, and
// their numbers are read once. Where a line is short, a block's threads share several lines.
//
// For sums, lines are cut into chunks by shape only. A block adds up a chunk, its threads' sums in
// a fixed order; a second kernel adds the chunks.
#pragma once

#include <algorithm>

#include "index.cuh"

namespace convkit {
namespace cuda {

struct ColumnsPlan {
    int64_t columns, lines;   // whole lines
    int64_t line_size, rest;  // values of a line, and those behind the last whole one
    int64_t slices, chunks, chunk_lines;
    int across, together;  // threads beside each other in a line, and lines at the same time

    ColumnsPlan(int64_t rows, int64_t column_count, int width) : columns(column_count) {
        int64_t common = width;
        while (columns % common != 0) common /= 2;
        const int64_t period = columns / common;
        line_size = period * width;
        lines = rows * columns / line_size;
        rest = rows * columns - lines * line_size;
        across = static_cast<int>(std::min<int64_t>(period, kThreads));
        together = std::max(1, kThreads / across);
        slices = divide_up<int64_t>(period, across);
    }

    // As many lines for each thread as keep `most_blocks` blocks busy, at least `least`.
    void cut(int64_t least, int64_t most, int64_t most_blocks) {
        const int64_t wanted = std::max<int64_t>(1, most_blocks / slices) * together;
        const int64_t each = std::min(most, std::max(least, divide_up(lines, wanted)));
        chunk_lines = each * together;
        chunks = std::max<int64_t>(1, divide_up(lines, chunk_lines));
    }
    void cut_for_sums() {
        cut(8, 64, 264);
        if (chunks <= kMostChunks) return;
        chunk_lines = divide_up(lines, kMostChunks);
        chunks = divide_up(lines, chunk_lines);
    }
#ifdef CONVKIT_EMULATED
    static constexpr int64_t kMostChunks = 8;
#else
    static constexpr int64_t kMostChunks = 4096;
#endif

    dim3 grid() const { return dim3(static_cast<unsigned>(chunks * slices)); }
};

// What a thread of a plan has.
template <int kWidth>
struct ColumnsThread {
    bool active;           // has a part of the lines
    int line;              // of those at the same time
    int64_t chunk, first;  // its values begin here in each line
    int64_t begin, end;    // lines
    int64_t column;        // that of its first value
    int rest;              // how many values it has behind the last whole line, in the last chunk

    __device__ explicit ColumnsThread(const ColumnsPlan& p) {
        const int thread = static_cast<int>(threadIdx.x);
        line = thread / p.across;
        chunk = blockIdx.x / p.slices;
        const int64_t slice = blockIdx.x - chunk * p.slices;
        first = (slice * p.across + (thread - line * p.across)) * kWidth;
        active = line < p.together && first < p.line_size;
        begin = chunk * p.chunk_lines + line;
        end = min(p.lines, (chunk + 1) * p.chunk_lines);
        column = active ? first % p.columns : 0;
        const bool last = active && line == 0 && chunk == p.chunks - 1;
        const int64_t left = p.rest - first;
        rest = !last || left <= 0 ? 0 : left < kWidth ? static_cast<int>(left) : kWidth;
    }
};

// The columns of a thread's values, one after the other.
__device__ inline int64_t next_column(int64_t column, int64_t columns) {
    return column + 1 == columns ? 0 : column + 1;
}

// Adds up `memory` (threads, kCount) over the lines that a block's threads took at the same time,
// by add(to, from) for indices of threads; what belongs to line 0 holds the result.
template <class Add>
__device__ void join_lines(const ColumnsPlan& p, int line, bool active, Add add) {
    const int thread = static_cast<int>(threadIdx.x);
    int half = 1;
    while (half < p.together) half *= 2;
    __syncthreads();
    for (half /= 2; half > 0; half /= 2) {
        if (active && line < half && line + half < p.together)
            add(thread, thread + half * p.across);
        __syncthreads();
    }
}

// ---- value by value, and sums -------------------------------------------------------------------

// The same values one by one where vectors are not aligned, so that sums do not depend on that.
template <class T, int kWidth, bool kAligned>
__device__ inline Vector<T, kWidth> load_values(const T* from) {
    if constexpr (kAligned) {
        return load_vector<T, kWidth>(from);
    } else {
        Vector<T, kWidth> values;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) values.value[e] = from[e];
        return values;
    }
}

template <class T, int kWidth, bool kAligned>
__device__ inline void write_values(T* to, const Vector<T, kWidth>& values) {
    if constexpr (kAligned) {
        write_vector<T, kWidth>(to, values);
    } else {
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) to[e] = values.value[e];
    }
}

template <class T, int kCount>
struct Inputs {
    const T* array[kCount];
};

// F has kNumbers for each column, kInputs, and kSums, and
//   __device__ void numbers(int64_t column, T (&numbers)[kNumbers]) const
//   __device__ void operator()(const T (&numbers)[kNumbers], int64_t line, const T (&in)[kInputs],
//                              T& out, T* sums) const
// which adds to its sums; out may be null. Where a vector's width divides the columns, a line is a
// row.
constexpr int kLinesInFlight = 4;

template <class T, int kWidth, bool kAligned, class F>
__global__ void columns_kernel(const ColumnsPlan p, const Inputs<T, F::kInputs> in, T* out,
                               T* partial, F f) {
    constexpr int kSums = F::kSums > 0 ? F::kSums : 1;
    const ColumnsThread<kWidth> t(p);
    T numbers[kWidth][F::kNumbers];
    T sums[kWidth][kSums]{};
    if (t.active) {
        int64_t column = t.column;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e, column = next_column(column, p.columns))
            f.numbers(column, numbers[e]);
        for (int64_t line = t.begin; line < t.end; line += kLinesInFlight * p.together) {
            Vector<T, kWidth> values[kLinesInFlight][F::kInputs]{};
            CONVKIT_UNROLL
            for (int k = 0; k < kLinesInFlight; ++k) {
                const int64_t which = line + k * p.together;
                if (which >= t.end) break;
                CONVKIT_UNROLL
                for (int i = 0; i < F::kInputs; ++i)
                    values[k][i] = load_values<T, kWidth, kAligned>(in.array[i] +
                                                                    which * p.line_size + t.first);
            }
            CONVKIT_UNROLL
            for (int k = 0; k < kLinesInFlight; ++k) {
                const int64_t which = line + k * p.together;
                if (which >= t.end) break;
                Vector<T, kWidth> result{};
                CONVKIT_UNROLL
                for (int e = 0; e < kWidth; ++e) {
                    T one[F::kInputs];
                    CONVKIT_UNROLL
                    for (int i = 0; i < F::kInputs; ++i) one[i] = values[k][i].value[e];
                    f(numbers[e], which, one, result.value[e], sums[e]);
                }
                if (out)
                    write_values<T, kWidth, kAligned>(out + which * p.line_size + t.first, result);
            }
        }
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) {
            if (e >= t.rest) break;
            const int64_t at = p.lines * p.line_size + t.first + e;
            T one[F::kInputs], result = T(0);
            CONVKIT_UNROLL
            for (int i = 0; i < F::kInputs; ++i) one[i] = in.array[i][at];
            f(numbers[e], p.lines, one, result, sums[e]);
            if (out) out[at] = result;
        }
    }
    if constexpr (F::kSums > 0) {
        SHARED(T, memory, kThreads * kWidth * kSums);
        constexpr int kEach = kWidth * kSums;
        T* const own = memory + threadIdx.x * kEach;
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e) CONVKIT_UNROLL
        for (int k = 0; k < kSums; ++k) own[k * kWidth + e] = sums[e][k];
        join_lines(p, t.line, t.active, [&](int to, int from) {
            CONVKIT_UNROLL
            for (int i = 0; i < kEach; ++i) memory[to * kEach + i] += memory[from * kEach + i];
        });
        if (!t.active || t.line != 0) return;
        CONVKIT_UNROLL
        for (int k = 0; k < kSums; ++k) {
            T* const to = partial + (t.chunk * kSums + k) * p.line_size + t.first;
            CONVKIT_UNROLL
            for (int e = 0; e < kWidth; ++e) to[e] = own[k * kWidth + e];
        }
    }
}

// The second kernel: kJoined columns for a block, whose chunks are shared by kSharers threads each.
constexpr int kJoined = 32, kSharers = kThreads / kJoined;

// Sums of `value` over the threads that share a column; all threads of a block must call it.
template <class T>
__device__ T sum_of_sharers(T value, T* memory) {
    __syncthreads();
    memory[threadIdx.x] = value;
    __syncthreads();
    T total = memory[threadIdx.x % kJoined];
    for (int i = 1; i < kSharers; ++i) total += memory[i * kJoined + threadIdx.x % kJoined];
    return total;
}

// visit(chunk, place of the column in the line) for this thread's share of a column's partial
// results.
template <class Visit>
__device__ void for_each_partial(const ColumnsPlan& p, int64_t column, Visit visit) {
    if (column >= p.columns) return;
    for (int64_t chunk = threadIdx.x / kJoined; chunk < p.chunks; chunk += kSharers)
        for (int64_t place = column; place < p.line_size; place += p.columns) visit(chunk, place);
}

// f(column, sums) for every column.
template <class T, int kSums, class F>
__global__ void join_columns_kernel(const ColumnsPlan p, const T* partial, F f) {
    SHARED(T, memory, kThreads);
    const int64_t column =
        static_cast<int64_t>(blockIdx.x) * kJoined + static_cast<int>(threadIdx.x % kJoined);
    T sums[kSums]{};
    for_each_partial(p, column, [&](int64_t chunk, int64_t place) {
        CONVKIT_UNROLL
        for (int k = 0; k < kSums; ++k)
            sums[k] += partial[(chunk * kSums + k) * p.line_size + place];
    });
    CONVKIT_UNROLL
    for (int k = 0; k < kSums; ++k) sums[k] = sum_of_sharers(sums[k], memory);
    if (threadIdx.x < kJoined && column < p.columns) f(column, sums);
}

// ---- on the host --------------------------------------------------------------------------------

// Values of the widest vectors.
template <class T>
constexpr int kWidest = kVectorBytes / static_cast<int>(sizeof(T));

// f(std::integral_constant<int, width>) for a power of two.
template <class T, class F>
void with_width(int width, F f) {
    if (width == kWidest<T>) return f(std::integral_constant<int, kWidest<T>>{});
    if constexpr (kWidest<T> == 4) {
        if (width == 2) return f(std::integral_constant<int, 2>{});
    }
    f(std::integral_constant<int, 1>{});
}

// Whether all of the memory begins where a vector may; none at all does too.
template <class T, int kCount>
bool all_in_vectors(const Inputs<T, kCount>& in, const T* out) {
    bool aligned = in_vectors<kWidest<T>>(out);
    for (const T* each : in.array) aligned = aligned && in_vectors<kWidest<T>>(each);
    return aligned;
}

// Value by value.
template <class T, class F>
void map_columns(const Context& context, const char* name, int64_t rows, int64_t columns,
                 const Inputs<T, F::kInputs>& in, T* out, const F& f) {
    static_assert(F::kSums == 0, "sums go by sum_columns");
    if (rows * columns == 0) return;
    const int width = all_in_vectors(in, static_cast<const T*>(out)) ? kWidest<T> : 1;
    with_width<T>(width, [&](auto constant) {
        constexpr int kWidth = decltype(constant)::value;
        ColumnsPlan plan(rows, columns, kWidth);
        plan.cut(kLinesInFlight, int64_t{1} << 20, kMostBlocks);
        launch(context, name, columns_kernel<T, kWidth, true, F>, plan.grid(), dim3(kThreads), 0,
               plan, in, out, static_cast<T*>(nullptr), f);
    });
}

// How sums over the rows are cut; their partial results have chunks * kSums * line_size values.
inline ColumnsPlan plan_sums(int64_t rows, int64_t columns, int width) {
    ColumnsPlan plan(rows, columns, width);
    plan.cut_for_sums();
    return plan;
}

// Value by value, which may give `out`, and finish(column, sums) for every column.
template <class T, class F, class Finish>
void sum_columns(const Context& context, const char* name, const ColumnsPlan& plan, int width,
                 const Inputs<T, F::kInputs>& in, T* out, T* partial, const F& f,
                 const Finish& finish) {
    const bool aligned = all_in_vectors(in, static_cast<const T*>(out));
    with_width<T>(width, [&](auto constant) {
        constexpr int kWidth = decltype(constant)::value;
        launch(context, name,
               aligned ? columns_kernel<T, kWidth, true, F> : columns_kernel<T, kWidth, false, F>,
               plan.grid(), dim3(kThreads), 0, plan, in, out, partial, f);
    });
    launch(context, name, join_columns_kernel<T, F::kSums, Finish>,
           blocks_for(plan.columns, kJoined), dim3(kThreads), 0, plan, partial, finish);
}

}  // namespace cuda
}  // namespace convkit
