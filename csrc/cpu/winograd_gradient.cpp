// The gradient of the weights: patches of x and of dy are transformed, multiplied and added over
// all windows, and the sums transformed back.
//
// A task is one block of channels, one of filters, and a slot of windows, with its own sums
// (places, channels, filters) in the second-level cache. Slots are cut by shape alone and added in
// order once they are weights again, where they are smaller.
#include "winograd_conv.h"

#include "winograd_windows.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

constexpr int64_t kStrip = 48;         // windows that are transformed, then multiplied
constexpr int64_t kTasks = 16;         // at least, as long as slots have a strip of windows
constexpr int64_t kLeastWindows = 16;  // in each of two slots, where there would be one task
constexpr int64_t kBlock = kWinogradBlock;

template <class T>
class WeightSums {
 public:
    WeightSums(const Windowed& s, int64_t n, const T* dy, const T* x, T* dkernel, T* dbias)
        : s(s), total(n * s.windows()), dy(dy), x(x), dkernel(dkernel), dbias(dbias) {}

    void run(const Context& context) {
        const int64_t blocks = s.channel_blocks() * s.filter_blocks();
        slots = std::min(divide_up(kTasks, blocks), total / kStrip);
        // Even in number, so that two threads have equal shares.
        slots = slots < 2 ? 1 : slots / 2 * 2;
        if (blocks * slots == 1 && total >= 2 * kLeastWindows) slots = 2;
        if (slots > 1) {
            kernels = scratch<T>(kShared, slots * (kernel_size() + s.filters));
            biases = kernels + slots * kernel_size();
        } else {
            kernels = dkernel;
            biases = dbias;
        }
        const int64_t tasks = blocks * slots;
        const double cost = windows_cost<T>(s, static_cast<double>(total)) / tasks;
        parallel_for(context, tasks, cost, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t block = i / slots;
                with_axis(s, [&](auto, auto outputs, auto taps) {
                    task<decltype(outputs)::value, decltype(taps)::value>(
                        block / s.filter_blocks(), block % s.filter_blocks(), i % slots);
                });
            }
        });
        if (slots == 1) return;
        add_slots(context, kernels, kernel_size(), dkernel);
        if (dbias) add_slots(context, biases, s.filters, dbias);
    }

 private:
    const Windowed s;
    const int64_t total;  // windows
    const T *const dy, *const x;
    T *const dkernel, *const dbias;
    int64_t slots;
    T *kernels, *biases;  // of every slot

    int64_t kernel_size() const { return s.taps * s.taps * s.channels * s.filters; }

    template <int kOutputs, int kTaps>
    void task(int64_t channel_block, int64_t filter_block, int64_t slot) const {
        const int64_t begin = cut(total, slots, slot), end = cut(total, slots, slot + 1);
        const int64_t channel = channel_block * kBlock, filter = filter_block * kBlock;
        const int64_t channels = std::min(kBlock, s.channels - channel);
        const int64_t filters = std::min(kBlock, s.filters - filter);
        const int64_t strips = std::max<int64_t>(1, divide_up(end - begin, kStrip));
        const int64_t step = place_step<T>(kStrip * kBlock),
                      sum_step = place_step<T>(kBlock * kBlock);
        const int64_t most = std::max(s.channels, s.filters);
        T* patches = scratch<T>(kPackA, s.places() * step + most);
        T* zeros = patches + s.places() * step;
        fill_zero(zeros, most);
        T* gradients = scratch<T>(kPackB, s.places() * step);
        T* sums = scratch<T>(kLocal, s.places() * sum_step);
        T bias[kBlock] = {};
        for (int64_t i = 0; i < strips; ++i) {
            const int64_t first = begin + cut(end - begin, strips, i);
            const int64_t count = begin + cut(end - begin, strips, i + 1) - first;
            if (count > 0) {
                transform_patches(s, x, first, count, channel_block, zeros, patches, step);
                transform_gradients<kOutputs, kTaps>(first, count, filter, filter + filters, zeros,
                                                     gradients, step, bias);
            }
            for (int64_t p = 0; p < s.places(); ++p) {
                winograd_correlate<T>(patches + p * step, gradients + p * step, channels, filters,
                                      count, i == 0, sums + p * sum_step);
            }
        }
        gather<kOutputs, kTaps>(channel, channels, filter, filters, sums, sum_step,
                                kernels + slot * kernel_size());
        if (dbias && channel == 0) {
            std::memcpy(biases + slot * s.filters + filter, bias,
                        static_cast<size_t>(filters) * sizeof(T));
        }
    }

    template <int kOutputs>
    Square<T, kOutputs> square_of(int64_t window, const T* zeros) const {
        const WindowPlace place(s, window);
        return {dy + place.sample * s.out_height * s.out_width * s.filters,
                s.out_height,
                s.out_width,
                s.filters,
                place.row * kOutputs,
                place.column * kOutputs,
                zeros};
    }

    // A dz A' of filters begin .. end (of one block) of windows first .. first + count; bias += dz.
    template <int kOutputs, int kTaps>
    void transform_gradients(int64_t first, int64_t count, int64_t begin, int64_t end,
                             const T* zeros, T* to, int64_t step, T* bias) const {
        constexpr int kSide = kOutputs + kTaps - 1;
        auto square = square_of<kOutputs>(first, zeros);
        for (int64_t i = 0; i < count; ++i) {
            const auto next = square_of<kOutputs>(first + std::min(i + 1, count - 1), zeros);
            T* out = to + i * kBlock;
            for_each_register<T>(begin, end, [&](int64_t k, auto part) CONVKIT_INLINE {
                CONVKIT_UNROLL
                for (int j = 0; j < kOutputs * kOutputs; ++j)
                    __builtin_prefetch(next.pixels[j] + k);
                Vec<T> sum{};
                both_axes<T, kOutputs, kSide>(
                    [&](int r, int q) CONVKIT_INLINE {
                        const Vec<T> z = get(square.pixels[r * kOutputs + q] + k, part);
                        sum += z;
                        return z;
                    },
                    [](const auto& z, auto& v)
                        CONVKIT_INLINE { FastAxis<kOutputs, kTaps>::template spread<T>(z, v); },
                    [&](int r, int q, Vec<T> v)
                        CONVKIT_INLINE { store(out + (r * kSide + q) * step + (k - begin), v); });
                store(bias + (k - begin), load(bias + (k - begin)) + sum);
            });
            square = next;
        }
    }

    // G' u G of the sums of a block, to its place in the kernel.
    template <int kOutputs, int kTaps>
    void gather(int64_t channel, int64_t channels, int64_t filter, int64_t filters, const T* sums,
                int64_t step, T* to) const {
        constexpr int kSide = kOutputs + kTaps - 1;
        for (int64_t c = 0; c < channels; ++c) {
            T* out = to + (channel + c) * s.filters + filter;
            for_each_register<T>(0, filters, [&](int64_t k, auto part) CONVKIT_INLINE {
                both_axes<T, kSide, kTaps>(
                    [&](int i, int j) CONVKIT_INLINE {
                        return load(sums + (i * kSide + j) * step + c * kBlock + k);
                    },
                    [](const auto& u, auto& w)
                        CONVKIT_INLINE { FastAxis<kOutputs, kTaps>::template gather<T>(u, w); },
                    [&](int i, int j, Vec<T> w) CONVKIT_INLINE {
                        put(out + (i * kTaps + j) * s.channels * s.filters + k, w, part);
                    });
            });
        }
    }

    void add_slots(const Context& context, const T* from, int64_t size, T* to) const {
        parallel_for(context, size, 0.1 * slots, [&](int64_t begin, int64_t end) {
            for_each_register<T>(begin, end, [&](int64_t k, auto part) CONVKIT_INLINE {
                Vec<T> sum = get(from + k, part);
                for (int64_t slot = 1; slot < slots; ++slot) {
                    sum += get(from + slot * size + k, part);
                }
                put(to + k, sum, part);
            });
        });
    }
};

}  // namespace

template <class T>
void conv2d_winograd_backward_kernel(const Context& context, const Conv2d& s, int64_t outputs,
                                     int64_t n, const T* dy, const T* x, T* dkernel, T* dbias) {
    WeightSums<T>(Windowed::forward(s, outputs), n, dy, x, dkernel, dbias).run(context);
}

#define INSTANTIATE_FOR(T)                                                                   \
    template void conv2d_winograd_backward_kernel<T>(const Context&, const Conv2d&, int64_t, \
                                                     int64_t, const T*, const T*, T*, T*);
INSTANTIATE_FOR(float)
INSTANTIATE_FOR(double)

}  // namespace CONVKIT_ISA
}  // namespace convkit
