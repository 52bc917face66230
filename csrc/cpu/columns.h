// Matrices (rows, columns) with a number for each column, such as the channels of images: row by
// row with these numbers, and sums over the rows.
//
// A few columns would leave most lanes idle, so rows are taken several at a time, as one line of
// memory, with the numbers repeated beside it.
//
// Lines are cut into chunks, by shape only. A chunk has a sum for every place of a line; these are
// folded into one for each column, and the chunks added in their order, in double. So bits do not
// depend on threads, and rounding errors grow slowly with the number of rows.
#pragma once

#include <algorithm>

#include "context.h"
#include "lanes.h"

namespace convkit {
namespace CONVKIT_ISA {

struct Lines {
    static constexpr int64_t kValues = 512, kMostValues = 2048;  // of a line, about
    static constexpr int64_t kAligned = 16;
    static constexpr int64_t kChunkValues = int64_t{1} << 15, kLeastLines = 32, kMostChunks = 1024;

    int64_t rows, columns, rows_of_line;

    Lines(int64_t row_count, int64_t column_count)
        : rows(row_count), columns(column_count), rows_of_line(1) {
        if (columns == 0) return;
        const int64_t fit = kValues / columns;
        // Lines that are whole registers: those across two cache lines cost twice.
        int64_t even = kAligned;
        while (even > 1 && even / 2 * columns % kAligned == 0) even /= 2;
        if (fit >= even) {
            rows_of_line = fit / even * even;
        } else {
            rows_of_line = even * columns <= kMostValues ? even : fit;
        }
        rows_of_line = std::max<int64_t>(1, std::min(rows, rows_of_line));
    }

    int64_t width() const { return rows_of_line * columns; }
    int64_t count() const { return (rows + rows_of_line - 1) / rows_of_line; }
    int64_t values(int64_t line) const {
        return std::min(width(), rows * columns - line * width());
    }

    int64_t chunks() const {
        const int64_t least = std::max(kLeastLines, kChunkValues / std::max<int64_t>(1, width()));
        return std::max<int64_t>(1, std::min(kMostChunks, count() / least));
    }
    int64_t chunk_begin(int64_t chunk) const { return count() * chunk / chunks(); }
    int64_t chunk_rows(int64_t chunk) const {
        return std::min(rows, chunk_begin(chunk + 1) * rows_of_line) -
               chunk_begin(chunk) * rows_of_line;
    }
    // Columns in which the results of a chunk are kept: whole groups of kAtOnce.
    static constexpr int64_t kAtOnce = 8;
    int64_t kept() const { return (columns + kAtOnce - 1) / kAtOnce * kAtOnce; }
};

// A column's number at every place of a line; `missing` where there are none.
template <class T>
static inline void repeat(const Lines& lines, const T* numbers, T missing, T* line) {
    const int64_t width = lines.width();
    if (!numbers) {
        std::fill(line, line + width, missing);
        return;
    }
    const auto copy = [&](T* to, const T* from, int64_t count) {
        std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
    };
    copy(line, numbers, lines.columns);
    for (int64_t done = lines.columns; done < width; done *= 2) {
        copy(line + done, line, std::min(done, width - done));
    }
}

// body(i, j, part) for all values, vector by vector: i counts along the matrix, j along its line.
template <class T, class Body>
static inline void for_each_in_lines(const Context& context, const Lines& lines, double cost,
                                     const T* y, Body body) {
    const int64_t width = lines.width();
    parallel_for(context, lines.count(), cost * width, [&](int64_t begin, int64_t end) {
        for (int64_t line = begin; line < end; ++line) {
            const int64_t first = line * width;
            for_each_vector(y + first, 0, lines.values(line),
                            [&](int64_t j, auto part) { body(first + j, j, part); });
        }
    });
}

// The sums over the rows of one chunk, into the first `columns` values of each of kSums rows of
// `sums` (kSums, width): terms(i, j, part, values) gives the values to be added.
template <class T, int kSums, class Terms>
static inline void sum_chunk(const Lines& lines, int64_t chunk, T* sums, Terms terms) {
    const int64_t width = lines.width();
    std::fill(sums, sums + kSums * width, T(0));
    for (int64_t line = lines.chunk_begin(chunk); line < lines.chunk_begin(chunk + 1); ++line) {
        const int64_t first = line * width;
        for_each_vector(sums, 0, lines.values(line), [&](int64_t j, auto part) {
            Vec<T> values[kSums];
            terms(first + j, j, part, values);
            for (int k = 0; k < kSums; ++k) {
                T* to = sums + k * width + j;
                put(to, get(to, part) + values[k], part);
            }
        });
    }
    for (int64_t rows = lines.rows_of_line; rows > 1;) {
        const int64_t half = rows / 2;
        rows -= half;
        for (int k = 0; k < kSums; ++k) {
            T* to = sums + k * width;
            const T* from = to + rows * lines.columns;
            for_each_vector(to, 0, half * lines.columns, [&](int64_t i, auto part) {
                put(to + i, get(to + i, part) + get(from + i, part), part);
            });
        }
    }
}

// The first `columns` values of rows `width` apart, to rows kept() apart with zeros at their end.
template <class T>
static inline void keep_chunk(const Lines& lines, int64_t rows, const T* sums, T* kept) {
    for (int64_t k = 0; k < rows; ++k, sums += lines.width(), kept += lines.kept()) {
        std::memcpy(kept, sums, static_cast<size_t>(lines.columns) * sizeof(T));
        std::fill(kept + lines.columns, kept + lines.kept(), T(0));
    }
}

// visit(column, its sums over all rows) for every column; `kept` is scratch of
// chunks() * kSums * kept() values.
template <class T, int kSums, class Terms, class Visit>
static inline void sum_columns(const Context& context, const Lines& lines, double cost, T* kept,
                               Terms terms, Visit visit) {
    const int64_t chunks = lines.chunks(), step = lines.kept();
    const double work = cost * lines.count() * lines.width() / chunks;
    parallel_for(context, chunks, work, [&](int64_t begin, int64_t end) {
        T* sums = scratch<T>(kLocal, kSums * lines.width());
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            sum_chunk<T, kSums>(lines, chunk, sums, terms);
            keep_chunk(lines, kSums, sums, kept + chunk * kSums * step);
        }
    });
    constexpr int64_t kAtOnce = Lines::kAtOnce;
    parallel_for(context, step / kAtOnce, 3.0 * kSums * chunks, [&](int64_t begin, int64_t end) {
        for (int64_t first = begin * kAtOnce; first < end * kAtOnce; first += kAtOnce) {
            double totals[kSums][kAtOnce] = {};
            for (int64_t row = 0; row < chunks * kSums; ++row) {
                for (int64_t i = 0; i < kAtOnce; ++i) {
                    totals[row % kSums][i] += static_cast<double>(kept[row * step + first + i]);
                }
            }
            for (int64_t i = 0; i < std::min(kAtOnce, lines.columns - first); ++i) {
                double of_column[kSums];
                for (int k = 0; k < kSums; ++k) of_column[k] = totals[k][i];
                visit(first + i, of_column);
            }
        }
    });
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
