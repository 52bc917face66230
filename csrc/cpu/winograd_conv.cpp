// Forward and backward to the input: transforms of weights and patches, products, transforms back.
//
// Windows are numbered through the batch. Transformed weights lie in panels of kPanel filters, each
// (places, channels, kPanel); patches in blocks of channels, (places, blocks, windows, block);
// products (places, windows, block) of one block of filters.
//
// Two ways to cut the work, which give the same bits. Strips: a thread takes windows through all
// three steps, with the weights transformed before. Shared: all threads transform the patches of a
// few windows, then each takes blocks of filters over all of them and transforms weights where they
// are used, unless a program keeps them; if there are but a few windows in all, by winograd_few.h.
#include "winograd_conv.h"

#include "winograd_few.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// Windows of a strip, whole tiles of registers: patches and products stay in the second-level cache
// with weights that fit it; larger weights come from further away and are to serve more windows.
constexpr int64_t kStrip = 24, kLongStrip = 48, kNearWeights = 4 * 1024 * 1024;
// Products (places, windows) of a group of windows whose patches are shared. Weights larger than
// this, transformed, are read too slowly for every strip.
constexpr int64_t kGroupPlaces = 64 * 36, kFarWeights = 16 * 1024 * 1024;
constexpr int64_t kChunk = 256;  // channels of a product

template <class T>
struct PanelLayout {
    int64_t step, size;  // between places; of a panel

    explicit PanelLayout(const Windowed& s, int64_t channels)
        : step(place_step<T>(channels * kPanel<T>)), size(s.places() * step) {}
};

// G w G' of channels begin .. end for a panel of filters, to `to` (places, channels, kPanel).
template <class T, int kOutputs, int kTaps>
void transform_weights(const Windowed& s, const T* kernel, int64_t panel, int64_t begin,
                       int64_t end, T* to, int64_t step) {
    constexpr int kSide = kOutputs + kTaps - 1, kAll = kTaps * kTaps;
    const auto transform = [&](auto weight, T* out) CONVKIT_INLINE {
        both_axes<T, kTaps, kSide>(
            weight,
            [](const auto& w, auto& u)
                CONVKIT_INLINE { FastAxis<kOutputs, kTaps>::template taps<T>(w, u); },
            [&](int i, int j, Vec<T> u) CONVKIT_INLINE { store(out + (i * kSide + j) * step, u); });
    };
    const int64_t filter = panel * kPanel<T>, used = std::min(kPanel<T>, s.filters - filter);
    if (!s.turned) {
        const int64_t row = s.filters, tap = s.channels * row;
        for (int64_t c = begin; c < end; ++c, to += kPanel<T>) {
            const T* from = kernel + c * row + filter;
            for_each_register<T>(0, used, [&](int64_t v, auto part) CONVKIT_INLINE {
                CONVKIT_UNROLL
                for (int i = 0; i < kAll; ++i) __builtin_prefetch(from + i * tap + 2 * row + v);
                transform(
                    [&](int i, int j)
                        CONVKIT_INLINE { return get(from + (i * kTaps + j) * tap + v, part); },
                    to + v);
            });
        }
        return;
    }
    for (int64_t v = 0; v < used; v += kLanes<T>) {
        const int64_t left = std::min<int64_t>(kLanes<T>, used - v);
        // The kernel is (taps, filters, channels): squares of it are transposed first.
        for (int64_t c = begin; c < end; c += kLanes<T>) {
            const int64_t count = std::min<int64_t>(kLanes<T>, end - c);
            Vec<T> weights[kAll][kLanes<T>];
            for (int tap = 0; tap < kAll; ++tap) {
                const T* from =
                    kernel + ((kAll - 1 - tap) * s.filters + filter + v) * s.channels + c;
                for (int64_t f = 0; f < kLanes<T>; ++f) {
                    __builtin_prefetch(from + f * s.channels + kLanes<T>);
                    weights[tap][f] = f >= left ? Vec<T>{}
                                      : count == kLanes<T>
                                          ? load(from + f * s.channels)
                                          : load_partial(from + f * s.channels, count);
                }
                transpose<T>(weights[tap]);
            }
            for (int64_t i = 0; i < count; ++i) {
                transform([&](int r, int q) CONVKIT_INLINE { return weights[r * kTaps + q][i]; },
                          to + (c - begin + i) * kPanel<T> + v);
            }
        }
    }
}

template <class T>
void transform_weights(const Windowed& s, const T* kernel, int64_t panel, int64_t begin,
                       int64_t end, T* to, int64_t step) {
    with_axis(s, [&](auto, auto outputs, auto taps) {
        transform_weights<T, decltype(outputs)::value, decltype(taps)::value>(s, kernel, panel,
                                                                              begin, end, to, step);
    });
}

template <class T>
int64_t weights_size(const Windowed& s) {
    return divide_up(s.filters, kPanel<T>) * PanelLayout<T>(s, s.channels).size;
}

template <class T>
void all_weights(const Context& context, const Windowed& s, const T* kernel, T* weights) {
    const PanelLayout<T> layout(s, s.channels);
    const int64_t panels = divide_up(s.filters, kPanel<T>),
                  pieces = divide_up(s.channels, kLanes<T>);
    const double cost = 2.0 * s.places() * kLanes<T>;
    parallel_for(context, panels * pieces, cost, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t panel = i / pieces, c = i % pieces * kLanes<T>;
            transform_weights(s, kernel, panel, c, std::min<int64_t>(s.channels, c + kLanes<T>),
                              weights + panel * layout.size + c * kPanel<T>, layout.step);
        }
    });
}

// Tells transformed weights of this instruction set and these windows from others.
const void* maker(const Windowed& s) {
    static const char addresses[5] = {};
    return addresses + s.outputs;
}

// A' m A of the products of filters begin .. end (of one block) of a window, then the epilogue.
template <class T, int kOutputs, int kTaps>
void store_window(const Windowed& s, const WindowPlace& place, const T* products, int64_t step,
                  int64_t begin, int64_t end, const T* bias, Epilogue<T> epilogue, T* y) {
    constexpr int kSide = kOutputs + kTaps - 1;
    const int64_t pool = epilogue.pool, across = kOutputs / pool;
    const int64_t out_height = s.out_height / pool, out_width = s.out_width / pool;
    const int64_t row = place.row * across, column = place.column * across;
    const int64_t high = std::min(across, out_height - row);
    const int64_t wide = std::min(across, out_width - column);
    T* const to = y + ((place.sample * out_height + row) * out_width + column) * s.filters;
    const Vec<T> least = broadcast(epilogue.floor);
    for_each_register<T>(begin, end, [&](int64_t k, auto part) CONVKIT_INLINE {
        const Vec<T> shift = bias ? get(bias + k, part) : Vec<T>{};
        const auto put_one = [&](int64_t i, int64_t j, Vec<T> z) CONVKIT_INLINE {
            z += shift;
            put(to + (i * out_width + j) * s.filters + k, z < least ? least : z, part);
        };
        for (int64_t i = 0; i < across; ++i) {  // where the next window goes
            for (int64_t j = across; j < 2 * across; ++j) {
                __builtin_prefetch(to + (i * out_width + j) * s.filters + k, 1);
            }
        }
        Vec<T> z[kOutputs][kOutputs];
        both_axes<T, kSide, kOutputs>(
            [&](int i, int j)
                CONVKIT_INLINE { return load(products + (i * kSide + j) * step + (k - begin)); },
            [](const auto& m, auto& out)
                CONVKIT_INLINE { FastAxis<kOutputs, kTaps>::template outputs<T>(m, out); },
            [&](int i, int j, Vec<T> v) CONVKIT_INLINE { z[i][j] = v; });
        if (pool == 1) {
            CONVKIT_UNROLL
            for (int i = 0; i < kOutputs; ++i) {
                CONVKIT_UNROLL
                for (int j = 0; j < kOutputs; ++j) {
                    if (i < high && j < wide) put_one(i, j, z[i][j]);
                }
            }
            return;
        }
        CONVKIT_UNROLL
        for (int i = 0; i < kOutputs; i += 2) {
            CONVKIT_UNROLL
            for (int j = 0; j < kOutputs; j += 2) {
                const Vec<T> upper = larger_or_nan<T>(z[i][j], z[i][j + 1]);
                const Vec<T> lower = larger_or_nan<T>(z[i + 1][j], z[i + 1][j + 1]);
                if (i / 2 < high && j / 2 < wide) {
                    put_one(i / 2, j / 2, larger_or_nan<T>(upper, lower));
                }
            }
        }
    });
}

template <class T>
class Convolution {
 public:
    Convolution(const Windowed& s, int64_t n, const T* x, const T* kernel, const T* bias,
                Epilogue<T> epilogue, T* y)
        : s(s),
          total(n * s.windows()),
          x(x),
          kernel(kernel),
          bias(bias),
          epilogue(epilogue),
          y(y) {}

    void run(const Context& context) {
        if (context.kept) {
            weights = kept_values<T>(*context.kept, maker(s), weights_size<T>(s),
                                     [&](T* values) { all_weights(context, s, kernel, values); });
        }
        sharing() ? by_filters(context) : by_strips(context);
    }

 private:
    const Windowed s;
    const int64_t total;  // windows
    const T *const x, *const kernel, *const bias;
    const T* weights = nullptr;  // transformed, where that is done before
    const Epilogue<T> epilogue;
    T* const y;

    double cost(int64_t tasks) const {
        return windows_cost<T>(s, static_cast<double>(total) / static_cast<double>(tasks));
    }

    int64_t weights_bytes() const { return weights_size<T>(s) * int64_t{sizeof(T)}; }

    // Whether patches are shared, and weights transformed where they are used unless they are kept:
    // then the patches of a few windows alone, to read the weights once.
    bool sharing() const {
        if (weights) return total <= kFewWindows;
        return s.filters > kPanel<T> &&
               (total * s.places() <= kGroupPlaces || weights_bytes() > kFarWeights);
    }

    // Few strips are made even in number, so that two threads have equal shares.
    int64_t strips() const {
        const int64_t count =
            divide_up(total, weights_bytes() > kNearWeights ? kLongStrip : kStrip);
        return std::min(total, count < 16 ? round_up(count, 2) : count);
    }

    void by_strips(const Context& context) {
        const int64_t strips = this->strips(), most = divide_up(total, strips);
        const int64_t blocks = s.channel_blocks();
        if (!weights) {
            T* own = scratch<T>(kShared, weights_size<T>(s));
            all_weights(context, s, kernel, own);
            weights = own;
        }
        parallel_for(context, strips, cost(strips), [&](int64_t begin, int64_t end) {
            const int64_t step = place_step<T>(blocks * most * kWinogradBlock);
            T* patches = scratch<T>(kPackA, s.places() * step + s.channels);
            T* zeros = patches + s.places() * step;
            fill_zero(zeros, s.channels);
            for (int64_t i = begin; i < end; ++i) {
                const int64_t first = cut(total, strips, i), last = cut(total, strips, i + 1);
                const int64_t count = last - first;
                for (int64_t block = 0; block < blocks; ++block) {
                    transform_patches(s, x, first, count, block, zeros,
                                      patches + block * count * kWinogradBlock, step);
                }
                for (int64_t f = 0; f < s.filters; f += kWinogradBlock) {
                    some_filters(patches, step, count * kWinogradBlock, first, count, f,
                                 std::min(s.filters, f + kWinogradBlock));
                }
            }
        });
    }

    void by_filters(const Context& context) {
        const int64_t groups = divide_up(total * s.places(), kGroupPlaces);
        const int64_t blocks = s.channel_blocks();
        // Few blocks of filters are cut, so that there are tasks for several threads.
        const int64_t unit = few()                   ? few_windows_filters<T>(s, total)
                             : s.filter_blocks() < 8 ? kPanel<T>
                                                     : kWinogradBlock;
        const int64_t units = divide_up(s.filters, unit);
        const int64_t step = place_step<T>(blocks * divide_up(total, groups) * kWinogradBlock);
        T* patches = scratch<T>(kShared, s.places() * step + s.channels);
        T* zeros = patches + s.places() * step;
        fill_zero(zeros, s.channels);
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t start = cut(total, groups, group);
            const int64_t size = cut(total, groups, group + 1) - start;
            const int64_t parts = divide_up(size, 4), tasks = parts * blocks;
            const double patch_cost = 0.6 * s.places() * 4 * kWinogradBlock / kLanes<T>;
            parallel_for(context, tasks, patch_cost, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const int64_t block = i / parts, first = cut(size, parts, i % parts);
                    const int64_t count = cut(size, parts, i % parts + 1) - first;
                    transform_patches(s, x, start + first, count, block, zeros,
                                      patches + (block * size + first) * kWinogradBlock, step);
                }
            });
            parallel_for(context, units, cost(units * groups), [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                    const int64_t first = i * unit, last = std::min(s.filters, first + unit);
                    if (few()) {
                        few_filters(patches, step, first, last);
                    } else {
                        some_filters(patches, step, size * kWinogradBlock, start, size, first,
                                     last);
                    }
                }
            });
        }
    }

    // Of 3 x 3 kernels alone: those of 5 x 5 would be transformed with other roundings than in a
    // larger batch, since compilers contract the same sums in other ways there.
    bool few() const {
        return !weights && s.taps == 3 && total <= kFewWindows && !s.turned &&
               s.filters % kLanes<T> == 0;
    }

    // The outputs of filters begin .. end, whole registers, at all windows, which are few.
    void few_filters(const T* patches, int64_t step, int64_t begin, int64_t end) const {
        const int64_t place = total * kLanes<T>, size = s.places() * place;
        T* sums = scratch<T>(kLocal, (end - begin) / kLanes<T> * size);
        with_axis(s, [&](auto, auto outputs, auto taps) {
            constexpr int kOutputs = decltype(outputs)::value, kTaps = decltype(taps)::value;
            add_few_windows<T, kOutputs, kTaps>(s, kernel, total, begin, end, patches, step, sums);
            for (int64_t f = begin; f < end; f += kLanes<T>, sums += size) {
                for (int64_t i = 0; i < total; ++i) {
                    store_window<T, kOutputs, kTaps>(s, WindowPlace(s, i), sums + i * kLanes<T>,
                                                     place, f, f + kLanes<T>, bias, epilogue, y);
                }
            }
        });
    }

    // The outputs of filters begin .. end, whole panels of at most a block, at `count` windows.
    void some_filters(const T* patches, int64_t patch_step, int64_t block_step, int64_t first,
                      int64_t count, int64_t begin, int64_t end) const {
        const int64_t step = place_step<T>(count * kWinogradBlock);
        T* products = scratch<T>(kLocal, s.places() * step);
        const PanelLayout<T> whole(s, s.channels), piece(s, std::min(kWinogradBlock, s.channels));
        const int64_t chunk = weights ? kChunk : kWinogradBlock;
        const int64_t panel = begin / kPanel<T>, panels = divide_up(end - begin, kPanel<T>);
        T* own = weights ? nullptr : scratch<T>(kPackB, panels * piece.size);
        for (int64_t c = 0; c < s.channels; c += chunk) {
            const int64_t depth = std::min(chunk, s.channels - c);
            for (int64_t i = 0; !weights && i < panels; ++i) {
                transform_weights(s, kernel, panel + i, c, c + depth, own + i * piece.size,
                                  piece.step);
            }
            const PanelLayout<T>& layout = weights ? whole : piece;
            const T* u = weights ? weights + panel * whole.size + c * kPanel<T> : own;
            for (int64_t p = 0; p < s.places(); ++p) {
                winograd_multiply<T>(patches + p * patch_step + c / kWinogradBlock * block_step,
                                     block_step, u + p * layout.step, layout.size, count,
                                     end - begin, depth, c == 0, products + p * step);
            }
        }
        with_axis(s, [&](auto, auto outputs, auto taps) {
            for (int64_t i = 0; i < count; ++i) {
                store_window<T, decltype(outputs)::value, decltype(taps)::value>(
                    s, WindowPlace(s, first + i), products + i * kWinogradBlock, step, begin, end,
                    bias, epilogue, y);
            }
        });
    }
};

}  // namespace

bool winograd_possible(const Conv2d& s, int64_t outputs) {
    const bool three = s.kernel_height == 3 && s.kernel_width == 3;
    const bool five = s.kernel_height == 5 && s.kernel_width == 5;
    return ((three && (outputs == 2 || outputs == 4)) || (five && outputs == 2)) &&
           s.stride_height == 1 && s.stride_width == 1 && s.dilation_height == 1 &&
           s.dilation_width == 1 && s.groups == 1;
}

template <class T>
void conv2d_winograd(const Context& context, const Conv2d& s, int64_t outputs, int64_t n,
                     const T* x, const T* kernel, const T* bias, Epilogue<T> epilogue, T* y) {
    if (n * s.output_size() == 0) return;
    const Windowed shape = Windowed::forward(s, outputs);
    Convolution<T>(shape, n, x, kernel, bias, epilogue, y).run(context);
}

template <class T>
void conv2d_winograd_backward_input(const Context& context, const Conv2d& s, int64_t outputs,
                                    int64_t n, const T* dy, const T* kernel, T* dx) {
    if (n * s.input_size() == 0) return;
    const Windowed shape = Windowed::backward_input(s, outputs);
    Convolution<T>(shape, n, dy, kernel, nullptr, {}, dx).run(context);
}

#define INSTANTIATE_FOR(T)                                                                      \
    template void conv2d_winograd<T>(const Context&, const Conv2d&, int64_t, int64_t, const T*, \
                                     const T*, const T*, Epilogue<T>, T*);                      \
    template void conv2d_winograd_backward_input<T>(const Context&, const Conv2d&, int64_t,     \
                                                    int64_t, const T*, const T*, T*);
INSTANTIATE_FOR(float)
INSTANTIATE_FOR(double)

}  // namespace CONVKIT_ISA
}  // namespace convkit
