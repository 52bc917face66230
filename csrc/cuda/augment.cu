// Augmentation: what is drawn for each sample is a function of seed, step, stream and the sample's
// place in the batch alone, and the same as in csrc/cpu/augment.cpp. random: (seed, step).
//   random_transform  x (n, height, width, channels) -> y (n, out_height, out_width, channels),
//   each
//                     image flipped, cropped, shifted, turned or zoomed as its Placement says
//   random_contrast   x (n, rows, channels) -> y = clip((x - mean of the channel) factor + mean);
//                     may work in place
//
// What is drawn goes to the workspace first, then each thread makes a vector of channels.
#include <algorithm>

#include "cuda_kernels.h"
#include "index.cuh"
#include "philox.cuh"
#include "placement.h"

namespace convkit {
namespace cuda {
namespace {

// ---- random transform --------------------------------------------------------------------------

struct Placing {
    RandomTransform s;
    const int64_t* random;
    Placement* placements;

    __device__ void operator()(int64_t sample) const {
        constexpr int kCalls = kDrawnForPlacement / 4;
        const Philox4x32 philox(random[0], random[1], s.stream);
        uint32_t drawn[kDrawnForPlacement];
        for (int k = 0; k < kCalls; ++k) {
            uint32_t numbers[4];
            philox.draw(sample * kCalls + k, numbers);
            for (int i = 0; i < 4; ++i) drawn[4 * k + i] = numbers[i];
        }
        placements[sample] = placement(s, drawn);
    }
};

template <class T, class I>
struct Images {
    Places<I> y;
    int64_t height, width, channels, fill;
    T fill_value;
};

// A vector of channels of a pixel of x; the fill's value where the row or the column is below 0.
template <class T, int kWidth, class I>
__device__ inline Vector<T, kWidth> pixel(const Images<T, I>& s, const T* image, int64_t row,
                                          int64_t column, int64_t channel) {
    if (row >= 0 && column >= 0)
        return load_vector<T, kWidth>(image + (row * s.width + column) * s.channels + channel);
    Vector<T, kWidth> value;
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e) value.value[e] = s.fill_value;
    return value;
}

template <class T, int kWidth>
__device__ inline Vector<T, kWidth> mixed(const Vector<T, kWidth>& a, const Vector<T, kWidth>& b,
                                          T share) {
    Vector<T, kWidth> result;
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e)
        result.value[e] = a.value[e] + (b.value[e] - a.value[e]) * share;
    return result;
}

enum Way { kCopies, kNearestPixel, kBilinear };

template <class T, int kWidth, Way kWay, class I>
__global__ void random_transform_kernel(Images<T, I> s, const Placement* placements, const T* x,
                                        T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.y.count) return;
    const Place<I> p = s.y.at(item);
    const Placement from = placements[p.sample];
    const int64_t row = from.row + p.row * from.row_by_row + p.column * from.row_by_column;
    const int64_t column =
        from.column + p.row * from.column_by_row + p.column * from.column_by_column;
    const int64_t channel = static_cast<int64_t>(p.vector) * kWidth;
    const T* const image = x + static_cast<int64_t>(p.sample) * s.height * s.width * s.channels;
    const auto value = [&](int64_t r, int64_t q) {
        return pixel<T, kWidth>(s, image, filled(s.fill, r, s.height), filled(s.fill, q, s.width),
                                channel);
    };
    Vector<T, kWidth> result;
    if constexpr (kWay == kCopies) {
        result = pixel<T, kWidth>(s, image, pixel_before(row), pixel_before(column), channel);
    } else if constexpr (kWay == kNearestPixel) {
        result = value(nearest_pixel(row), nearest_pixel(column));
    } else {
        const int64_t above = pixel_before(row), left = pixel_before(column);
        const T right = share_of_next<T>(column);
        const auto upper = mixed(value(above, left), value(above, left + 1), right);
        const auto lower = mixed(value(above + 1, left), value(above + 1, left + 1), right);
        result = mixed(upper, lower, share_of_next<T>(row));
    }
    write_vector<T, kWidth>(y + static_cast<int64_t>(item) * kWidth, result);
}

// ---- random contrast ---------------------------------------------------------------------------

constexpr int kContrastThreads = 512;

struct Contrast {
    RandomContrast s;
    int64_t strips;  // of at most kContrastThreads channels
};

// A block finds the means of a strip of channels of a sample. Its threads take the channels of as
// many rows at a time as they can, so that neighbours read what lies together.
template <class T>
__global__ void means_kernel(Contrast c, const T* x, const int64_t* random, T* means, T* factors) {
    SHARED(T, partial, kContrastThreads);
    const int64_t sample = blockIdx.x / c.strips, first = blockIdx.x % c.strips * kContrastThreads;
    const int thread = static_cast<int>(threadIdx.x);
    const int channels = static_cast<int>(min(c.s.channels - first, int64_t{kContrastThreads}));
    const int together = kContrastThreads / channels;  // rows
    const int channel = thread % channels;
    T total = 0;
    if (thread < together * channels) {
        const T* const from = x + sample * c.s.rows * c.s.channels + first + channel;
        for (int64_t row = thread / channels; row < c.s.rows; row += together)
            total += from[row * c.s.channels];
    }
    partial[thread] = total;
    __syncthreads();
    if (thread < channels) {
        for (int k = 1; k < together; ++k) total += partial[k * channels + thread];
        means[sample * c.s.channels + first + thread] = total / static_cast<T>(c.s.rows);
    }
    if (thread == 0 && first == 0) {
        uint32_t numbers[4];
        Philox4x32(random[0], random[1], c.s.stream).draw(sample, numbers);
        factors[sample] = static_cast<T>(between(c.s.low, c.s.high, numbers[0]));
    }
}

template <class T, class I>
struct Contrasted {
    Places<I> y;
    int64_t channels;
    T low, high;
};

template <class T, int kWidth, class I>
__global__ void random_contrast_kernel(Contrasted<T, I> s, const T* means, const T* factors,
                                       const T* x, T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.y.count) return;
    const Place<I> p = s.y.at(item);
    const T factor = factors[p.sample];
    const T* const mean = means + static_cast<int64_t>(p.sample) * s.channels +
                          static_cast<int64_t>(p.vector) * kWidth;
    auto value = load_vector<T, kWidth>(x + static_cast<int64_t>(item) * kWidth);
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e) {
        T v = (value.value[e] - mean[e]) * factor + mean[e];
        v = v > s.high ? s.high : v;  // a NaN stays
        value.value[e] = v < s.low ? s.low : v;
    }
    write_vector<T, kWidth>(y + static_cast<int64_t>(item) * kWidth, value);
}

}  // namespace

template <class T>
void random_transform(const Context& context, const RandomTransform& s, int64_t n, const T* x,
                      const int64_t* random, T* y) {
    const int64_t count = n * s.output_size();
    if (count == 0) return;
    auto* placements = static_cast<Placement*>(
        context.queue->workspace(static_cast<size_t>(n) * sizeof(Placement)));
    for_each(context, "random_transform", n, Placing{s, random, placements});
    const int width = vector_width<T>(s.channels, {x, y});
    with_variant<T>(width, count, [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Images<T, I> images{Places<I>(n, s.out_height, s.out_width, s.channels / kWidth),
                                  s.height,
                                  s.width,
                                  s.channels,
                                  s.fill,
                                  static_cast<T>(s.fill_value)};
        const auto kernel = copies_pixels(s) ? random_transform_kernel<T, kWidth, kCopies, I>
                            : s.bilinear     ? random_transform_kernel<T, kWidth, kBilinear, I>
                                             : random_transform_kernel<T, kWidth, kNearestPixel, I>;
        launch(context, "random_transform", kernel, blocks_for(count / kWidth), dim3(kThreads), 0,
               images, placements, x, y);
    });
}

template <class T>
void random_contrast(const Context& context, const RandomContrast& s, int64_t n, const T* x,
                     const int64_t* random, T* y) {
    const int64_t count = n * s.total();
    if (count == 0) return;
    T* const means = static_cast<T*>(
        context.queue->workspace(static_cast<size_t>(n * (s.channels + 1)) * sizeof(T)));
    T* const factors = means + n * s.channels;
    const Contrast contrast{s, divide_up<int64_t>(s.channels, kContrastThreads)};
    launch(context, "random_contrast", means_kernel<T>, blocks_for(n * contrast.strips, 1),
           dim3(kContrastThreads), 0, contrast, x, random, means, factors);
    const int width = vector_width<T>(s.channels, {x, y});
    with_variant<T>(width, count, [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const Contrasted<T, I> contrasted{Places<I>(n, s.rows, 1, s.channels / kWidth), s.channels,
                                          static_cast<T>(s.value_low),
                                          static_cast<T>(s.value_high)};
        launch(context, "random_contrast", random_contrast_kernel<T, kWidth, I>,
               blocks_for(count / kWidth), dim3(kThreads), 0, contrasted, means, factors, x, y);
    });
}

INSTANTIATE(random_transform)
INSTANTIATE(random_contrast)

}  // namespace cuda
}  // namespace convkit
