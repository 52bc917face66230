// The kernel's gradient of grouped.h. Bands of samples go to slots, by shape only; a slot sums on
// its own, and the slots are added in order.
#include "grouped_ring.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Copies a register's gradients of some pixels, `step` apart, and asks for those that follow.
// Returns their sum.
template <class T, bool kWhole>
Vec<T> take(const T* dy, int64_t step, int64_t count, int64_t lanes, T* to) {
    constexpr int kSums = 4;  // one after the other they would wait for each other
    Vec<T> sum[kSums] = {};
    const T* ahead = dy + count * step;
    int64_t j = 0;
    for (; j + kSums <= count; j += kSums) {
        CONVKIT_UNROLL
        for (int k = 0; k < kSums; ++k, dy += step, ahead += step, to += kLanes<T>) {
            __builtin_prefetch(ahead);
            const Vec<T> value = kWhole ? load(dy) : load_partial(dy, lanes);
            store(to, value);
            sum[k] += value;
        }
    }
    for (; j < count; ++j, dy += step, to += kLanes<T>) {
        const Vec<T> value = kWhole ? load(dy) : load_partial(dy, lanes);
        store(to, value);
        sum[0] += value;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class T>
class GroupedKernelGradient {
 public:
    GroupedKernelGradient(const Conv2d& s, int64_t n, const T* dy, const T* x)
        : s_(s),
          n_(n),
          dy_(dy),
          x_(x),
          blocks_(grouped_blocks<T>(s, false)),
          down_(s.height, s.out_height, s.kernel_height, s.stride_height, s.dilation_height,
                s.pad_top, false),
          across_(s.width, s.out_width, s.kernel_width, s.stride_width, s.dilation_width,
                  s.pad_left, false),
          together_(rows_together(s.out_width, s.out_height)),
          bands_(divide_up(s.out_height, together_)),
          ring_(blocks_, s.height, s.width, down_, across_, together_),
          line_sums_(blocks_.inputs * s.kernel_width * kLanes<T>),
          block_sums_(s.kernel_height * line_sums_ + kLanes<T>) {}

    void run(const Context& context, T* dkernel, T* dbias) const {
        const int64_t part_values = ring_.part + blocks_.in_part() * block_sums_;
        const int64_t chunks =
            std::min(blocks_.parts, divide_up(blocks_.parts * part_values, kGroupedRoom<T>));
        const int64_t most = divide_up(blocks_.parts, chunks), size = blocks_.count * block_sums_;
        const int64_t slots = std::clamp<int64_t>(divide_up(kGroupedTasks, chunks), 1,
                                                  std::max<int64_t>(1, n_ * bands_));
        T* sums = scratch<T>(kShared, slots * size);
        const int64_t tasks = slots * chunks;
        const double work = static_cast<double>(n_) * s_.multiply_adds() / tasks;
        parallel_for(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
            const Memory memory = {scratch<T>(kPackA, ring_.size(most)),
                                   scratch<T>(kPackB, together_ * s_.out_width * kLanes<T>),
                                   scratch<const T*>(kLocal, together_)};
            for (int64_t task = begin; task < end; ++task) {
                const int64_t chunk = task % chunks, slot = task / chunks;
                const Range parts = {cut(blocks_.parts, chunks, chunk),
                                     cut(blocks_.parts, chunks, chunk + 1)};
                const Range bands = {cut(n_ * bands_, slots, slot),
                                     cut(n_ * bands_, slots, slot + 1)};
                add_bands(memory, parts, bands, sums + slot * size);
            }
        });
        const double adding = static_cast<double>(slots * block_sums_) / kLanes<T>;
        parallel_for(context, blocks_.count, adding, [&](int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) {
                add_slots(sums + r * block_sums_, slots, size, r, dkernel, dbias);
            }
        });
    }

 private:
    struct Memory {
        T *ring, *gradients;
        const T** lines;
    };

    // Bands of all samples, of some parts. The next band is asked for in the meantime.
    void add_bands(const Memory& memory, Range parts, Range bands, T* sums) const {
        const int64_t in_part = blocks_.in_part();
        fill_zero(sums + parts.begin * in_part * block_sums_,
                  (parts.end - parts.begin) * in_part * block_sums_);
        int64_t next = 0;  // line
        for (int64_t i = bands.begin; i < bands.end; ++i) {
            const int64_t sample = i / bands_, band = i % bands_;
            const Range rows = {cut(s_.out_height, bands_, band),
                                cut(s_.out_height, bands_, band + 1)};
            if (band == 0) next = 0;
            next = std::max(next, rows.begin * down_.step);
            for (; next < (rows.end - 1) * down_.step + down_.span; ++next) {
                ring_.fill(x_ + sample * s_.input_size(), x_ + n_ * s_.input_size(), next,
                           parts.begin, parts.end, memory.ring);
            }
            const bool same = band + 1 < bands_;
            const T* picture = x_ + (same ? sample : sample + 1) * s_.input_size();
            const int64_t ahead = same ? next : 0;
            for (int64_t part = parts.begin; part < parts.end; ++part) {
                for (int64_t j = 0; i + 1 < bands.end && j < together_ * down_.step; ++j) {
                    ring_.ask_for(picture, ahead + j, part);
                }
                Memory here = memory;
                here.ring += (part - parts.begin) * ring_.part;
                for (int64_t r = part * in_part; r < (part + 1) * in_part; ++r) {
                    add_rows(here, r, sample, rows, sums + r * block_sums_);
                }
            }
        }
    }

    // Some rows of outputs, of one register.
    void add_rows(const Memory& memory, int64_t r, int64_t sample, Range rows, T* sums) const {
        const int64_t first = blocks_.first(r), lanes = blocks_.lanes(r);
        GroupedGradients<T> g = {memory.gradients,
                                 memory.lines,
                                 rows.end - rows.begin,
                                 s_.out_width,
                                 s_.kernel_width,
                                 blocks_.pixel,
                                 s_.stride_width * blocks_.pixel,
                                 s_.dilation_width * blocks_.pixel,
                                 {}};
        const int64_t origin = blocks_.first_input(r / blocks_.in_part());
        for (int64_t l = 0; l < lanes; ++l) {
            g.places[l] = (first + l) / blocks_.units * blocks_.inputs - origin;
        }
        const T* dy =
            dy_ + (sample * s_.out_height + rows.begin) * s_.out_width * s_.filters + first;
        const auto copy = lanes == kLanes<T> ? take<T, true> : take<T, false>;
        const Vec<T> total = copy(dy, s_.filters, g.rows * s_.out_width, lanes, memory.gradients);
        T* bias = sums + s_.kernel_height * line_sums_;
        store(bias, load(bias) + total);
        const auto add = blocks_.sources == 0   ? grouped_gradients<T, 0>
                         : blocks_.sources == 1 ? grouped_gradients<T, 1>
                                                : grouped_gradients<T, 2>;
        for (int64_t kh = 0; kh < s_.kernel_height; ++kh) {
            for (int64_t row = 0; row < g.rows; ++row) {
                const int64_t line = (rows.begin + row) * down_.step + down_.offset(kh);
                memory.lines[row] = memory.ring + ring_.at(line);
            }
            add(g, blocks_.inputs, sums + kh * line_sums_);
        }
    }

    // The sums of register r lie `size` apart.
    void add_slots(const T* sums, int64_t slots, int64_t size, int64_t r, T* dkernel,
                   T* dbias) const {
        const int64_t first = blocks_.first(r), lanes = blocks_.lanes(r);
        const auto put_sum = [&](const T* from, T* to) {
            Vec<T> total = load(from);
            for (int64_t slot = 1; slot < slots; ++slot) total += load(from + slot * size);
            lanes == kLanes<T> ? store(to + first, total) : store_partial(to + first, total, lanes);
        };
        for (int64_t kh = 0; kh < s_.kernel_height; ++kh) {
            for (int64_t i = 0; i < blocks_.inputs; ++i) {
                for (int64_t kw = 0; kw < s_.kernel_width; ++kw, sums += kLanes<T>) {
                    const int64_t tap = kh * s_.kernel_width + kw;
                    put_sum(sums, dkernel + (tap * blocks_.inputs + i) * s_.filters);
                }
            }
        }
        if (dbias) put_sum(sums, dbias);
    }

    const Conv2d& s_;
    int64_t n_;
    const T *dy_, *x_;
    GroupedBlocks<T> blocks_;
    GroupedAxis down_, across_;
    int64_t together_, bands_;  // rows of outputs, and how many such bands a sample has
    GroupedRing<T> ring_;
    // Sums of a register: (kernel_height, inputs, kernel_width, kLanes), then those of the bias.
    int64_t line_sums_, block_sums_;
};

}  // namespace

template <class T>
void Grouped<T>::run_backward_kernel(const Context& context, int64_t n, const T* dy, const T* x,
                                     T* dkernel, T* dbias) const {
    GroupedKernelGradient<T>(s, n, dy, x).run(context, dkernel, dbias);
}

template void Grouped<float>::run_backward_kernel(const Context&, int64_t, const float*,
                                                  const float*, float*, float*) const;
template void Grouped<double>::run_backward_kernel(const Context&, int64_t, const double*,
                                                   const double*, double*, double*) const;

}  // namespace CONVKIT_ISA
}  // namespace convkit
