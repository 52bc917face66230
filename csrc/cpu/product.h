// Products of plain matrices, c = a b + bias, of any size: dense layers and their gradients.
//
// c is cut into tasks of some rows and columns. Where the panels of all of b fit the cache that is
// shared, they are packed once. Else each task packs them itself, one panel at a time and just
// before its use: while the first tile is multiplied, or from memory that was fetched meanwhile.
//
// As in gemm.h, every value of c is one chain over the depth in ascending order.
#pragma once

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

// A matrix as it lies in memory: value (i, j) at data[i * step + j], or, turned, at
// data[j * step + i]. `end` is that of its memory.
template <class T>
struct Matrix {
    const T* data;
    const T* end;
    int64_t step;
    bool turned;
};

template <class T>
class Product {
 public:
    // c (rows, columns) = a (rows, depth) b (depth, columns) + bias (columns), which may be null.
    Product(const Matrix<T>& a, const Matrix<T>& b, int64_t rows, int64_t columns, int64_t depth,
            const T* bias, T* c)
        : a_(a),
          b_(b),
          rows_(rows),
          columns_(columns),
          depth_(depth),
          bias_(bias),
          c_(c),
          streamed_(streams_rows(rows, columns, c)) {
        const bool many_rows = rows > kTaskRows, few_columns = columns < kTasks * 2 * kPanel<T>;
        // Tasks with all rows pay where these are taken up again and again.
        shared_ = packed_size<T>(depth, columns) <= kSharedValues &&
                  (many_rows || few_columns || depth <= kDepth);
        // A block of transposed rows is no wider than a packed row.
        task_rows_ = shared_ ? kBlockRows : a.turned ? kDepth : kTaskRows;
        task_columns_ = shared_ ? 2 * kBlockColumns : kBlockColumns;
        while (tasks() < kTasks && task_columns_ > 4 * kPanel<T>) task_columns_ /= 2;
        while (tasks() < kTasks && task_rows_ > 2 * kTileRows) {
            task_rows_ = round_up(task_rows_ / 2, kTileRows);
        }
    }

    void run(const Context& context) const {
        if (rows_ == 0) return;
        const T* packed = shared_ ? pack_all(context) : nullptr;
        const int64_t down = divide_up(rows_, task_rows_);
        const double work = static_cast<double>(rows_) * columns_ * depth_ / tasks();
        parallel_for(context, tasks(), multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t row = cut(rows_, down, i % down);
                const int64_t column = i / down * task_columns_;
                run_task({row, cut(rows_, down, i % down + 1)},
                         {column, std::min(columns_, column + task_columns_)}, packed);
            }
        });
    }

 private:
    // Rows of c in one task: with these, what a task works on fits a second-level cache.
    static constexpr int64_t kTaskRows = 384;
    // Values of b that are packed once for all tasks.
    static constexpr int64_t kSharedValues = int64_t{1} << 20;
    // At least so many tasks, where the sizes give them.
    static constexpr int64_t kTasks = 8;

    int64_t tasks() const {
        return divide_up(rows_, task_rows_) * divide_up(columns_, task_columns_);
    }

    // b packed, with a row to spare in each panel: panels a power of two apart would get into each
    // other's way in the caches.
    Lanes<T> all_lanes(const T* packed) const {
        return packed_lanes<T>(packed, depth_ + 1, columns_);
    }

    const T* pack_all(const Context& context) const {
        T* packed = scratch<T>(kShared, packed_size<T>(depth_ + 1, columns_));
        const int64_t panels = divide_up(columns_, kPanel<T>), panel = all_lanes(packed).panel;
        parallel_for(context, panels, 0.1 * kPanel<T> * depth_, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                pack_panel({0, depth_}, i * kPanel<T>, packed + i * panel);
            }
        });
        return packed;
    }

    // Packs values k.begin .. k.end of the columns of one panel.
    void pack_panel(Range k, int64_t column, T* panel) const {
        const int64_t count = k.end - k.begin, width = std::min(kPanel<T>, columns_ - column);
        const T* src = at(k.begin, column);
        const auto line = [&](int64_t i) { return src + i * b_.step; };
        if (b_.turned) {
            pack_lanes_transposed(count, width, 0, count, line, panel);
        } else {
            pack_lanes(count, width, 0, count, line, panel);
        }
        if (columns_ <= kLanes<T> || width > kLanes<T>) return;
        // Of this last panel only one register a row was needed, but panels are all alike.
        for (int64_t i = count - 1; i >= 0; --i) {
            store(panel + i * kPanel<T>, load(panel + i * kLanes<T>));
        }
    }

    const T* at(int64_t k, int64_t column) const {
        return b_.data + (b_.turned ? column * b_.step + k : k * b_.step + column);
    }

    // Packs a block of a.
    Rows<T> pack_rows(Range rows, Range k, T* packed) const {
        const int64_t count = rows.end - rows.begin, depth = k.end - k.begin;
        const T* src =
            a_.data + (a_.turned ? k.begin * a_.step + rows.begin : rows.begin * a_.step + k.begin);
        copy_rows(packed, src, a_.step, a_.turned ? depth : count, a_.turned ? count : depth,
                  a_.end - src);
        return {packed, a_.turned ? kStride<T> : 0};
    }

    void run_task(Range rows, Range columns, const T* packed) const {
        const int64_t count = rows.end - rows.begin, width = columns.end - columns.begin;
        const int64_t pieces = std::max<int64_t>(1, divide_up(depth_, kDepth));
        const int64_t piece = round_up(divide_up(depth_, pieces), kLanes<T>);
        // Sums that are taken up again, and whose rows lie far apart in c, are kept aside.
        const bool aside = pieces > 1 && (streamed_ || width < columns_);
        T* sums = aside ? scratch<T>(kLocal, task_rows_ * task_columns_) : nullptr;
        T* a = scratch<T>(kPackA, std::max(task_rows_, kDepth) * kStride<T>);
        T* panel = packed ? nullptr : scratch<T>(kPackB, kDepth * kPanel<T>);
        T* targets[kTaskRows];
        for (int64_t m = 0; m < count; ++m) {
            targets[m] =
                aside ? sums + m * task_columns_ : c_ + (rows.begin + m) * columns_ + columns.begin;
        }
        for (int64_t i = 0; i < pieces; ++i) {
            const Range k = {i * piece, std::min(depth_, (i + 1) * piece)};
            const T* bias = bias_ && i + 1 == pieces ? bias_ + columns.begin : nullptr;
            const Rows<T> left = pack_rows(rows, k, a);
            if (packed && pieces == 1 && !streamed_ && !a_.turned && width % kPanel<T> == 0) {
                multiply_packed(left, rows, columns, packed, bias, targets);
            } else if (packed) {
                multiply<T>(left, all_lanes(packed).from(k.begin, columns.begin), count, width,
                            k.end - k.begin, i == 0, bias, targets, streamed_ && !aside);
            } else {
                multiply_panels(left, count, k, columns, panel, bias, targets);
            }
        }
        if (aside) put_back(sums, rows, columns);
        if (streamed_) finish_stores();
    }

    // The whole depth with packed panels, while the rows of a to come next are fetched.
    void multiply_packed(const Rows<T>& a, Range rows, Range columns, const T* packed,
                         const T* bias, T* const* c) const {
        constexpr int64_t kStep = kAheadLines * 64 / static_cast<int64_t>(sizeof(T));
        const int64_t count = rows.end - rows.begin;
        const int64_t panels = (columns.end - columns.begin) / kPanel<T>;
        const int64_t steps = std::min(count, rows_ - rows.end) * a_.step / kStep;
        T* targets[kTaskRows];
        for (int64_t i = 0; i < panels; ++i) {
            const int64_t j = i * kPanel<T>, from = cut(steps, panels, i);
            for (int64_t m = 0; m < count; ++m) targets[m] = c[m] + j;
            multiply_panel<T>(a, all_lanes(packed).from(0, columns.begin + j).data, count, depth_,
                              true, bias ? bias + j : nullptr, targets,
                              {a_.data + rows.end * a_.step + from * kStep, kStep,
                               cut(steps, panels, i + 1) - from});
        }
    }

    // A piece of the depth, with b brought in panel by panel.
    void multiply_panels(const Rows<T>& a, int64_t rows, Range k, Range columns, T* panel,
                         const T* bias, T* const* c) const {
        const int64_t depth = k.end - k.begin;
        const bool first = k.begin == 0;
        T* targets[kTaskRows];
        for (int64_t j = columns.begin; j < columns.end; j += kPanel<T>) {
            const int64_t width = std::min(kPanel<T>, columns.end - j), done = j - columns.begin;
            const bool whole = width == kPanel<T> && !a.step;
            const T* shift = bias ? bias + done : nullptr;
            const T* src = at(k.begin, j);
            for (int64_t m = 0; m < rows; ++m) targets[m] = c[m] + done;
            if (whole && !b_.turned) {
                multiply_unpacked<T>(a, src, b_.step, rows, depth, first, shift, targets, panel);
                continue;
            }
            pack_panel(k, j, panel);
            if (whole) {
                multiply_panel<T>(a, panel, rows, depth, first, shift, targets,
                                  {src + kPanel<T> * b_.step, b_.step, kPanel<T>});
            } else {
                const Lanes<T> lanes = {panel, 0, columns_ <= kLanes<T> ? kLanes<T> : kPanel<T>};
                multiply<T>(a, lanes, rows, width, depth, first, shift, targets);
            }
        }
    }

    void put_back(const T* sums, Range rows, Range columns) const {
        const int64_t width = columns.end - columns.begin;
        for (int64_t row = rows.begin; row < rows.end; ++row, sums += task_columns_) {
            T* dst = c_ + row * columns_ + columns.begin;
            if (streamed_) {
                for (int64_t j = 0; j < width; j += kLanes<T>) store_past(dst + j, load(sums + j));
            } else {
                std::memcpy(dst, sums, static_cast<size_t>(width) * sizeof(T));
            }
        }
    }

    Matrix<T> a_, b_;
    int64_t rows_, columns_, depth_;
    const T* bias_;
    T* c_;
    bool streamed_, shared_;
    int64_t task_rows_, task_columns_;
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
