// Gradients of weights: a product over the rows, all pixels of a batch, which are many.
#pragma once

#include <type_traits>

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

// dkernel (taps, groups * units) = transposed a (rows, taps) times dy (rows, groups * units), for
// each group its own a: source(group) is a functor as that of multiply_rows(). dbias
// (groups * units), which may be null, is the sum over the rows of dy.
//
// The rows are cut into slots, by shape only; each slot sums on its own, and the slots are added
// in order. Where the taps fill registers better than the units, the product is formed transposed.
// Plain rows are multiplied where they lie, if taps or units are whole registers; these are in the
// lanes then, of both the fewer.
template <class T>
struct WeightGradient {
    int64_t rows, taps, groups, units;
    const T* dy;
    T* dkernel;
    T* dbias;

    static constexpr int64_t kSlots = 16, kSlotRows = 512, kSlotValues = int64_t{1} << 20;
    // Of plain rows: columns of either side in one task, tasks at least where the sizes give them,
    // and bytes from row to row from which on rows get into each other's way in the first cache.
    static constexpr int64_t kPlainColumns = 256, kTasks = 8, kFarApart = 1025;

    int64_t filters() const { return groups * units; }
    int64_t kernel_size() const { return taps * filters(); }
    int64_t slots() const {
        const int64_t room = kSlotValues / std::max<int64_t>(1, kernel_size());
        return std::max<int64_t>(1, std::min({kSlots, room, rows / kSlotRows}));
    }
    bool taps_in_lanes() const {
        const int64_t padded_units = round_up(units, kLanes<T>);
        const int64_t padded_taps = round_up(taps, kLanes<T>);
        return units <= kBlockRows && 5 * taps * padded_units > 6 * units * padded_taps;
    }
    // dbias alone, on this thread.
    void sum_bias() const {
        if (dbias) sum_columns({0, rows}, {0, filters()}, true, dbias);
    }

    template <class Source>
    void run(const Context& context, Source source) const {
        using Left = decltype(source(0));
        const int64_t slot_count = slots();
        T* sums = scratch<T>(kShared, slot_count * (kernel_size() + filters()));
        T* bias_sums = sums + slot_count * kernel_size();
        bool swapped = taps_in_lanes();
        if constexpr (std::is_same_v<Left, PlainRows<T>>) {
            if (groups == 1 && (taps % kLanes<T> == 0 || units % kLanes<T> == 0)) {
                swapped = units % kLanes<T> != 0 || (taps % kLanes<T> == 0 && taps < units);
                T* const to = slot_count == 1 && !swapped ? dkernel : sums;
                sum_plain(context, source(0).data, swapped, to, bias_sums);
                return add_up(context, to, bias_sums, swapped);
            }
        }
        T* const to = slot_count == 1 && !swapped ? dkernel : sums;
        const int64_t blocks = divide_up(taps, tap_block());
        const double work = static_cast<double>(rows) * taps * units / (slot_count * blocks);
        parallel_for(context, groups * slot_count * blocks, multiply_cost<T>(work),
                     [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                             const int64_t block = i % blocks, slot = i / blocks % slot_count;
                             const int64_t group = i / blocks / slot_count;
                             sum_block(source(group), group, rows_of(slot), block * tap_block(),
                                       to + slot * kernel_size());
                             if (dbias && block == 0) {
                                 sum_columns(rows_of(slot), {group * units, (group + 1) * units},
                                             true, bias_sums + slot * filters());
                             }
                         }
                     });
        add_up(context, to, bias_sums, swapped);
    }

 private:
    // Taps of one task: whole tiles or panels, few enough to give several tasks.
    int64_t tap_block() const { return taps_in_lanes() ? 2 * kPanel<T> : 5 * kTileRows; }

    Range rows_of(int64_t slot) const {
        return {cut(rows, slots(), slot), cut(rows, slots(), slot + 1)};
    }

    // Rows of some columns, or a copy where they lie far apart.
    static Strided<T> copied_if_far(const Strided<T>& a, int64_t rows, int64_t columns) {
        if (a.step * static_cast<int64_t>(sizeof(T)) < kFarApart) return a;
        const int64_t step = kPlainColumns + kLanes<T>;
        T* const copy = scratch<T>(kPackA, kCorrelated * step);
        for (int64_t row = 0; row < rows; ++row) {
            std::memcpy(copy + row * step, a.data + row * a.step,
                        static_cast<size_t>(columns) * sizeof(T));
        }
        return {copy, step};
    }

    // The sums of each slot of plain rows x; transposed if swapped.
    void sum_plain(const Context& context, const T* x, bool swapped, T* sums, T* bias_sums) const {
        const Strided<T> of_taps = {x, taps}, of_units = {dy, units};
        const Strided<T> a = swapped ? of_units : of_taps, b = swapped ? of_taps : of_units;
        const int64_t across = divide_up(b.step, kPlainColumns);
        int64_t block = kPlainColumns;
        const auto tasks = [&] { return divide_up(a.step, block) * across * slots(); };
        while (tasks() < kTasks && block > 4 * kTileRows) block /= 2;
        const double work = static_cast<double>(rows) * taps * units / tasks();
        parallel_for(context, tasks(), multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t m = i / across % divide_up(a.step, block) * block;
                const int64_t j = i % across * kPlainColumns, slot = i * slots() / tasks();
                const Range left = {m, std::min(a.step, m + block)};
                const Range right = {j, std::min(b.step, j + kPlainColumns)};
                const bool sums_dy = dbias && (swapped ? j : m) == 0;
                const Range part = rows_of(slot), none = {0, 0};
                const Range of_dy = !sums_dy ? none : swapped ? left : right;
                int64_t row = part.begin;
                do {  // once even without rows: that zeroes the sums
                    const Range some = {row, std::min(part.end, row + kCorrelated)};
                    const bool first = row == part.begin;
                    add_plain(a, b, some, left, right, first, sums + slot * kernel_size());
                    sum_columns(some, of_dy, first, bias_sums + slot * units);
                    row = some.end;
                } while (row < part.end);
            }
        });
    }

    // Adds transposed a times b for some rows, and columns of both; overwrites where they are the
    // first.
    void add_plain(const Strided<T>& a, const Strided<T>& b, Range some, Range left, Range right,
                   bool first, T* sums) const {
        const int64_t count = some.end - some.begin, height = left.end - left.begin;
        const Strided<T> from = {a.data + some.begin * a.step + left.begin, a.step};
        const Strided<T> next = {from.data + count * from.step, from.step};
        correlate_plain<T>(copied_if_far(from, count, height), next,
                           {b.data + some.begin * b.step + right.begin, b.step}, height,
                           right.end - right.begin, count, first,
                           sums + left.begin * b.step + right.begin, b.step);
    }

    // Adds rows `part` for the taps from `tap`, into one slot: (groups, units, taps) if the taps
    // are in the lanes, else (taps, groups * units).
    template <class Source>
    void sum_block(const Source& a, int64_t group, Range part, int64_t tap, T* out) const {
        const bool swapped = taps_in_lanes();
        const int64_t tap_end = std::min(taps, tap + tap_block());
        const bool whole = units % kLanes<T> == 0;
        T* packed = scratch<T>(kPackA, kBlockRows * kStride<T>);
        T* copy =
            whole || swapped ? nullptr : scratch<T>(kPackB, packed_size<T>(kBlockRows, units));
        T* targets[kBlockRows];
        const int64_t target_count = swapped ? units : tap_end - tap;
        for (int64_t m = 0; m < target_count; ++m) {
            targets[m] = swapped ? out + (group * units + m) * taps + tap
                                 : out + (tap + m) * filters() + group * units;
        }
        int64_t row = part.begin;
        do {  // once even without rows: that zeroes the targets
            const int64_t count = std::min(kBlockRows, part.end - row);
            const T* gradient = dy + row * filters() + group * units;
            const bool first = row == part.begin;
            a.pack(row, count, tap, tap_end, packed);
            if (swapped) {
                multiply<T>({gradient, filters()}, {packed, kPanel<T>, kStride<T>}, units,
                            tap_end - tap, count, first, nullptr, targets);
            } else {
                Lanes<T> lanes = {gradient, kPanel<T>, filters()};
                if (!whole) {
                    lanes = packed_lanes<T>(copy, kBlockRows, units);
                    pack_lanes(
                        kBlockRows, units, 0, count,
                        [&](int64_t k) { return gradient + k * filters(); }, copy);
                }
                multiply<T>({packed, kStride<T>}, lanes, tap_end - tap, units, count, first,
                            nullptr, targets);
            }
            row += count;
        } while (row < part.end);
    }

    // out (filters) = sums over some rows of some columns of dy, four chains a column; or added to
    // it, unless they are the first.
    void sum_columns(Range some, Range columns, bool first, T* out) const {
        for (int64_t j = columns.begin; j < columns.end; j += kLanes<T>) {
            const int64_t width = std::min<int64_t>(kLanes<T>, columns.end - j);
            // Rows that can be read by whole registers.
            const int64_t roomy = (rows * filters() - j - kLanes<T>) / filters() + 1;
            Vec<T> sum[4] = {};
            int64_t row = some.begin;
            for (; row + 4 <= std::min(some.end, roomy); row += 4) {
                for (int i = 0; i < 4; ++i) sum[i] += load(dy + (row + i) * filters() + j);
            }
            for (; row < some.end; ++row) {
                sum[(row - some.begin) % 4] += load_partial(dy + row * filters() + j, width);
            }
            const Vec<T> all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            store_partial(out + j, first ? all : load_partial(out + j, width) + all, width);
        }
    }

    // dkernel and dbias of all slots; sums are dkernel where it is there already.
    void add_up(const Context& context, const T* sums, const T* bias_sums, bool swapped) const {
        const int64_t slot_count = slots(), size = kernel_size();
        if (sums != dkernel && swapped) {
            const double cost = 0.1 * slot_count * kLanes<T> * filters();
            parallel_for(context, divide_up(taps, kLanes<T>), cost,
                         [&](int64_t begin, int64_t end) {
                             for (int64_t i = begin; i < end; ++i) add_turned(sums, i * kLanes<T>);
                         });
        } else if (sums != dkernel) {
            parallel_for(context, taps, 0.1 * slot_count * filters(),
                         [&](int64_t begin, int64_t end) {
                             const int64_t first = begin * filters();
                             add_rows(sums + first, size, slot_count, end * filters() - first,
                                      dkernel + first);
                         });
        }
        if (dbias) add_rows(bias_sums, filters(), slot_count, filters(), dbias);
    }

    // dkernel of a register of taps, where sums are (filters, taps): by squares, turned.
    void add_turned(const T* sums, int64_t tap) const {
        const int64_t width = std::min<int64_t>(kLanes<T>, taps - tap);
        for (int64_t f = 0; f < filters(); f += kLanes<T>) {
            const int64_t count = std::min<int64_t>(kLanes<T>, filters() - f);
            Vec<T> square[kLanes<T>] = {};
            for (int64_t i = 0; i < count; ++i) {
                square[i] = sum_of_rows(sums + (f + i) * taps + tap, kernel_size(), slots(), width);
            }
            transpose<T>(square);
            for (int64_t i = 0; i < width; ++i) {
                store_partial(dkernel + (tap + i) * filters() + f, square[i], count);
            }
        }
    }

    // The sum of so many rows, `step` apart, in their order; `width` values of a register.
    static Vec<T> sum_of_rows(const T* from, int64_t step, int64_t count, int64_t width) {
        Vec<T> sum = load_partial(from, width);
        for (int64_t i = 1; i < count; ++i) sum += load_partial(from + i * step, width);
        return sum;
    }
    static void add_rows(const T* from, int64_t step, int64_t count, int64_t size, T* to) {
        for (int64_t j = 0; j < size; j += kLanes<T>) {
            const int64_t width = std::min<int64_t>(kLanes<T>, size - j);
            store_partial(to + j, sum_of_rows(from + j, step, count, width), width);
        }
    }
};

}  // namespace CONVKIT_ISA
}  // namespace convkit
