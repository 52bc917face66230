// The sums of grouped.h: y, and dx.
#include "grouped_ring.h"
#include "stream.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// The places of a phase on an axis are looked at one by one.
constexpr int64_t kMostPhases = 64;

// Taps of an axis that meet the places of a phase, and which of its results these are.
struct GroupedPhase {
    int64_t taps, before;  // taps of the phases before it
    int64_t column;        // of the first tap for the first place
    int64_t tap_step;
    int64_t place, count;
};

// Calls use(tap) in ascending order of their offsets.
template <class Use>
void for_each_tap(const GroupedAxis& axis, int64_t phase, Use use) {
    for (int64_t i = 0; i < axis.taps; ++i) {
        const int64_t tap = axis.backward ? axis.taps - 1 - i : i;
        if (axis.phase(tap) == phase) use(tap);
    }
}

void fill_phases(const GroupedAxis& axis, GroupedPhase* phases) {
    int64_t before = 0;
    for (int64_t i = 0; i < axis.phases; ++i) {
        const Range range = axis.inside(i);
        GroupedPhase p = {0, before, 0, 1, axis.place(range.begin, i), range.end - range.begin};
        for_each_tap(axis, i, [&](int64_t tap) {
            const int64_t column = (range.begin - axis.first) * axis.step + axis.offset(tap);
            if (p.taps == 0) p.column = column;
            if (p.taps == 1) p.tap_step = column - p.column;
            ++p.taps;
        });
        before += p.taps;
        phases[i] = p;
    }
}

// The sum over taps that makes y of x, or dx of dy: of pixels (height, width, channels) others.
template <class T>
class GroupedSum {
 public:
    GroupedSum(const Conv2d& s, bool backward)
        : s_(s),
          backward_(backward),
          blocks_(grouped_blocks<T>(s, backward)),
          down_(s.height, s.out_height, s.kernel_height, s.stride_height, s.dilation_height,
                s.pad_top, backward),
          across_(s.width, s.out_width, s.kernel_width, s.stride_width, s.dilation_width,
                  s.pad_left, backward),
          together_(rows_together(across_.places, down_.places)),
          ring_(blocks_, backward ? s.out_height : s.height, backward ? s.out_width : s.width,
                down_, across_, together_) {}

    bool possible() const {
        return blocks_.possible() && s_.out_height * s_.out_width > 0 &&
               down_.phases * across_.phases <= kMostPhases && ring_.part <= kGroupedRoom<T>;
    }

    void run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias, T floor,
             T* y) const {
        if (n == 0) return;
        T* packed = scratch<T>(kShared, blocks_.count * packed_block());
        const double packing = (backward_ ? 0.4 : 0.1) * packed_block();
        parallel_for(context, blocks_.count, packing, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) pack(kernel, i, packed + i * packed_block());
        });
        // So many parts that their lines and weights stay in the cache, but tasks for all threads.
        const int64_t part_values = ring_.part + blocks_.in_part() * packed_block();
        const int64_t chunk_count = std::min(
            blocks_.parts, std::max(divide_up(kGroupedTasks, n),
                                    divide_up(blocks_.parts * part_values, kGroupedRoom<T>)));
        const int64_t bands = n * chunk_count >= kGroupedTasks ? 1 : divide_up(down_.places, 8);
        const int64_t tasks = n * chunk_count * bands;
        const int64_t most = divide_up(blocks_.parts, chunk_count);
        const double work = static_cast<double>(n) * s_.multiply_adds() / tasks;
        // Whole lines of cache alone.
        const bool past = kVectorBytes == 64 && streams<T>(n * output_size(), y, x) &&
                          blocks_.groups * blocks_.units % kLanes<T> == 0 &&
                          reinterpret_cast<uintptr_t>(y) % kVectorBytes == 0;
        parallel_stores(context, tasks, multiply_cost<T>(work), [&](int64_t begin, int64_t end) {
            T* ring = scratch<T>(kPackA, ring_.size(most));
            Tables tables(*this);
            for (int64_t task = begin; task < end; ++task) {
                // A chunk's weights serve one sample after the other.
                const int64_t sample = task % n, band = task / n % bands;
                const int64_t chunk = task / n / bands;
                const Range parts = {cut(blocks_.parts, chunk_count, chunk),
                                     cut(blocks_.parts, chunk_count, chunk + 1)};
                const T* picture = x + sample * input_size();
                T* out = y + sample * output_size();
                const int64_t last = cut(down_.places, bands, band + 1);
                int64_t next = 0;
                for (int64_t place = cut(down_.places, bands, band); place < last;) {
                    const Range places = {place, std::min(last, place + together_)};
                    const int64_t end = (down_.first + places.end - 1) * down_.step + down_.span;
                    next = std::max(next, (down_.first + place) * down_.step);
                    for (; next < end; ++next) {
                        ring_.fill(picture, x + n * input_size(), next, parts.begin, parts.end,
                                   ring);
                    }
                    sum_rows(tables, places, parts, picture, ring, packed, bias, floor, past, out);
                    place = places.end;
                }
            }
        });
    }

 private:
    struct Tables {
        GroupedPhase *below, *beside;
        GroupedLine* lines;  // (rows together, kernel_height), by phases

        explicit Tables(const GroupedSum& sum) {
            const int64_t phases = sum.down_.phases + sum.across_.phases;
            const int64_t lines_here = sum.together_ * sum.down_.taps;
            below = reinterpret_cast<GroupedPhase*>(
                scratch<char>(kLocal, phases * static_cast<int64_t>(sizeof(GroupedPhase)) +
                                          lines_here * static_cast<int64_t>(sizeof(GroupedLine))));
            beside = below + sum.down_.phases;
            lines = reinterpret_cast<GroupedLine*>(below + phases);
            fill_phases(sum.down_, below);
            fill_phases(sum.across_, beside);
        }
    };

    int64_t input_size() const { return backward_ ? s_.output_size() : s_.input_size(); }
    int64_t output_size() const { return backward_ ? s_.input_size() : s_.output_size(); }
    int64_t line_weights() const { return s_.kernel_width * blocks_.inputs * kLanes<T>; }
    // Of a register of outputs: the places of its lanes' inputs, then (kernel_height, phase,
    // inputs, taps of the phase, kLanes) weights.
    int64_t packed_block() const { return kLanes<T> + s_.kernel_height * line_weights(); }

    void pack(const T* kernel, int64_t block, T* packed) const {
        const int64_t first = blocks_.first(block), lanes = blocks_.lanes(block);
        const int64_t origin = blocks_.first_input(block / blocks_.in_part());
        Ints<T> places{};
        for (int64_t l = 0; l < lanes; ++l) {
            places[l] = (first + l) / blocks_.units * blocks_.inputs - origin;
        }
        std::memcpy(packed, &places, sizeof places);
        packed += kLanes<T>;
        for (int64_t kh = 0; kh < s_.kernel_height; ++kh) {
            for (int64_t phase = 0; phase < across_.phases; ++phase) {
                int64_t taps = 0, i = 0;
                for_each_tap(across_, phase, [&](int64_t) { ++taps; });
                for_each_tap(across_, phase, [&](int64_t kw) {
                    const int64_t tap = (kh * s_.kernel_width + kw) * (s_.channels / s_.groups);
                    pack_tap(kernel + tap * s_.filters, first, lanes, taps * kLanes<T>,
                             packed + i++ * kLanes<T>);
                });
                packed += taps * blocks_.inputs * kLanes<T>;
            }
        }
    }

    // Of a tap (channels / groups, filters), what outputs from `first` on take of their inputs,
    // which are put `step` apart.
    void pack_tap(const T* tap, int64_t first, int64_t lanes, int64_t step, T* packed) const {
        if (!backward_) {
            for (int64_t i = 0; i < blocks_.inputs; ++i) {
                const T* p = tap + i * s_.filters + first;
                store(packed + i * step, lanes == kLanes<T> ? load(p) : load_partial(p, lanes));
            }
            return;
        }
        for (int64_t l = 0; l < kLanes<T>; ++l, ++packed) {
            const int64_t group = (first + l) / blocks_.units, c = (first + l) % blocks_.units;
            const T* from = tap + c * s_.filters + group * blocks_.inputs;
            for (int64_t i = 0; i < blocks_.inputs; ++i) packed[i * step] = l < lanes ? from[i] : 0;
        }
    }

    // What some places of the axis downwards make, of some parts. The next places' lines are asked
    // for in the meantime.
    void sum_rows(const Tables& tables, Range places, Range parts, const T* x, const T* ring,
                  const T* packed, const T* bias, T floor, bool past, T* y) const {
        const int64_t channels = blocks_.groups * blocks_.units;
        const int64_t first_row = down_.first + places.begin, rows = places.end - places.begin;
        for (int64_t i = 0; i < rows; ++i) {
            for (int64_t phase = 0; phase < down_.phases; ++phase) {
                GroupedLine* line = tables.lines + i * down_.taps + tables.below[phase].before;
                for_each_tap(down_, phase, [&](int64_t kh) {
                    *line++ = {ring_.at((first_row + i) * down_.step + down_.offset(kh)),
                               kh * line_weights()};
                });
            }
        }
        const int64_t next = (first_row + rows - 1) * down_.step + down_.span;
        GroupedRow<T> r = {};
        r.inputs = blocks_.inputs;
        r.pixel = blocks_.pixel;
        r.step = across_.step * blocks_.pixel;
        r.floor = floor;
        r.y_step = across_.phases * channels;
        for (int64_t part = parts.begin; part < parts.end; ++part) {
            for (int64_t i = 0; i < rows * down_.step; ++i) ring_.ask_for(x, next + i, part);
            const T* lines = ring + (part - parts.begin) * ring_.part;
            for (int64_t i = 0; i < blocks_.in_part(); ++i) {
                const int64_t block = part * blocks_.in_part() + i, first = blocks_.first(block);
                const T* weights = packed + block * packed_block();
                std::memcpy(&r.places, weights, sizeof r.places);
                r.lanes = blocks_.lanes(block);
                r.past = past && r.lanes == kLanes<T> && first % kLanes<T> == 0;
                if (bias) {
                    const T* shift = bias + first;
                    r.bias = r.lanes == kLanes<T> ? load(shift) : load_partial(shift, r.lanes);
                }
                for (int64_t j = 0; j < rows; ++j) {
                    sum_row(tables, first_row + j, tables.lines + j * down_.taps, lines,
                            weights + kLanes<T>, r, y + first);
                }
            }
        }
    }

    // Place t of the axis downwards, of one register.
    void sum_row(const Tables& tables, int64_t t, const GroupedLine* lines, const T* x,
                 const T* weights, GroupedRow<T>& r, T* y) const {
        const int64_t height = backward_ ? s_.height : s_.out_height;
        const int64_t width = backward_ ? s_.width : s_.out_width;
        const auto sum = blocks_.sources == 0   ? grouped_row<T, 0>
                         : blocks_.sources == 1 ? grouped_row<T, 1>
                                                : grouped_row<T, 2>;
        for (int64_t i = 0; i < down_.phases; ++i) {
            const int64_t row = down_.place(t, i);
            if (row < 0 || row >= height) continue;
            r.lines = lines + tables.below[i].before;
            r.count = tables.below[i].taps;
            for (int64_t j = 0; j < across_.phases; ++j) {
                const GroupedPhase& p = tables.beside[j];
                if (p.count == 0) continue;
                r.x = x + p.column * blocks_.pixel;
                r.weights = weights + p.before * blocks_.inputs * kLanes<T>;
                r.taps = p.taps;
                r.tap_step = p.tap_step * blocks_.pixel;
                sum(r, p.count, y + (row * width + p.place) * blocks_.groups * blocks_.units);
            }
        }
    }

    const Conv2d& s_;
    bool backward_;
    GroupedBlocks<T> blocks_;
    GroupedAxis down_, across_;
    int64_t together_;  // places downwards: weights are read once for all
    GroupedRing<T> ring_;
};

}  // namespace

template <class T>
bool Grouped<T>::forward_possible() const {
    return s.groups > 1 && GroupedSum<T>(s, false).possible();
}

template <class T>
bool Grouped<T>::backward_input_possible() const {
    return s.groups > 1 && GroupedSum<T>(s, true).possible();
}

template <class T>
void Grouped<T>::run(const Context& context, int64_t n, const T* x, const T* kernel, const T* bias,
                     T* y) const {
    GroupedSum<T>(s, false).run(context, n, x, kernel, bias, floor, y);
}

template <class T>
void Grouped<T>::run_backward_input(const Context& context, int64_t n, const T* dy, const T* kernel,
                                    T* dx) const {
    GroupedSum<T>(s, true).run(context, n, dy, kernel, nullptr, floor, dx);
}

#define INSTANTIATE_GROUPED(T)                                                                    \
    template bool Grouped<T>::forward_possible() const;                                           \
    template bool Grouped<T>::backward_input_possible() const;                                    \
    template void Grouped<T>::run(const Context&, int64_t, const T*, const T*, const T*, T*)      \
        const;                                                                                    \
    template void Grouped<T>::run_backward_input(const Context&, int64_t, const T*, const T*, T*) \
        const;
INSTANTIATE_GROUPED(float)
INSTANTIATE_GROUPED(double)

}  // namespace CONVKIT_ISA
}  // namespace convkit
