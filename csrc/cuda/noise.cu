// Noise, a function of seed, step, stream and element or channel alone: the numbers of
// csrc/cpu/noise.cpp, normal ones but for rounding. random: (seed, step), read on the device.
//   spatial_dropout  x (n, rows, channels) -> y = u < rate ? 0 : x / (1 - rate), with one u in
//                    [0, 1) for each sample and channel. Its own gradient: dy -> dx.
//   gaussian_noise   x (n, size) -> y = x + stddev z, z standard normal
// Both may work in place.
#include <algorithm>

#include "activate.cuh"
#include "cuda_kernels.h"
#include "heading.h"
#include "index.cuh"
#include "philox.cuh"

namespace convkit {
namespace cuda {
namespace {

constexpr int kDrawn = 4;  // numbers of one call of Philox

// ---- spatial dropout ---------------------------------------------------------------------------

// A thread draws for a vector of channels, and takes it in several rows, `apart` from each other.
constexpr int64_t kRowsEach = 4;

template <class I>
struct Channels {
    Places<I> items;  // samples, the first `apart` rows, 1, vectors of channels
    int64_t rows, apart, channels, stream;
    uint32_t dropped_below;
};

template <class T, int kWidth, class I>
__global__ void spatial_dropout_kernel(Channels<I> s, const T* x, const int64_t* random, T scale,
                                       T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.items.count) return;
    const Place<I> p = s.items.at(item);
    const int64_t channel = static_cast<int64_t>(p.vector) * kWidth;
    const int64_t element = static_cast<int64_t>(p.sample) * s.channels + channel;
    uint32_t numbers[kDrawn];
    Philox4x32(random[0], random[1], s.stream).draw(element / kDrawn, numbers);
    // All channels of a vector are in one call, since kWidth divides the channels and kDrawn.
    const int phase = static_cast<int>(element % kDrawn);
    bool dropped[kWidth];
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e) {
        uint32_t number = numbers[e];
        CONVKIT_UNROLL
        for (int k = kWidth; k + e < kDrawn; k += kWidth)
            number = phase == k ? numbers[k + e] : number;
        dropped[e] = Philox4x32::on_grid(number) < s.dropped_below;
    }
    const int64_t first = static_cast<int64_t>(p.sample) * s.rows;
    for (int64_t row = p.row; row < s.rows; row += s.apart) {
        const int64_t at = (first + row) * s.channels + channel;
        auto value = load_vector<T, kWidth>(x + at);
        CONVKIT_UNROLL
        for (int e = 0; e < kWidth; ++e)
            value.value[e] = dropped[e] ? T(0) : value.value[e] * scale;
        write_vector<T, kWidth>(y + at, value);
    }
}

// ---- gaussian noise ----------------------------------------------------------------------------

// A thread takes the values of one call.
template <class T, int kWidth>
__global__ void gaussian_noise_kernel(int64_t count, const T* x, const int64_t* random,
                                      int64_t stream, T deviation, T* y) {
    const int64_t block = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t first = block * kDrawn;
    if (first >= count) return;
    uint32_t numbers[kDrawn];
    Philox4x32(random[0], random[1], stream).draw(block, numbers);
    T noise[kDrawn];
    CONVKIT_UNROLL
    for (int k = 0; k < kDrawn; k += 2) {
        const T radius = sqrt_of(log_of(above_zero<T>(numbers[k])) * T(-2)) * deviation;
        const Heading<T> d = heading<T>(numbers[k + 1]);
        noise[k] = radius * d.cosine;
        noise[k + 1] = radius * d.sine;
    }
    if constexpr (kWidth > 1) {
        if (count - first >= kDrawn) {
            CONVKIT_UNROLL
            for (int k = 0; k < kDrawn; k += kWidth) {
                auto values = load_vector<T, kWidth>(x + first + k);
                CONVKIT_UNROLL
                for (int e = 0; e < kWidth; ++e) values.value[e] += noise[k + e];
                write_vector<T, kWidth>(y + first + k, values);
            }
            return;
        }
    }
    CONVKIT_UNROLL
    for (int k = 0; k < kDrawn; ++k) {
        if (first + k < count) y[first + k] = x[first + k] + noise[k];
    }
}

}  // namespace

template <class T>
void spatial_dropout(const Context& context, const SpatialDropout& s, int64_t n, const T* x,
                     const int64_t* random, T* y) {
    const int64_t count = n * s.total();
    if (count == 0) return;
    const int width = vector_width<T>(s.channels, {x, y});
    with_variant<T>(width, std::max(count, s.rows * width), [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        const int64_t apart = divide_up(s.rows, kRowsEach);
        const Channels<I> channels{Places<I>(n, apart, 1, s.channels / kWidth),
                                   s.rows,
                                   apart,
                                   s.channels,
                                   s.stream,
                                   Philox4x32::below(s.rate)};
        launch(context, "spatial_dropout", spatial_dropout_kernel<T, kWidth, I>,
               blocks_for(channels.items.count), dim3(kThreads), 0, channels, x, random,
               static_cast<T>(1 / (1 - s.rate)), y);
    });
}

template <class T>
void gaussian_noise(const Context& context, const GaussianNoise& s, int64_t n, const T* x,
                    const int64_t* random, T* y) {
    constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
    const int64_t count = n * s.size;
    const bool aligned = in_vectors<kWidth>(x) && in_vectors<kWidth>(y);
    launch(context, "gaussian_noise",
           aligned ? gaussian_noise_kernel<T, kWidth> : gaussian_noise_kernel<T, 1>,
           blocks_for(count, kThreads * kDrawn), dim3(kThreads), 0, count, x, random, s.stream,
           static_cast<T>(s.stddev), y);
}

INSTANTIATE(spatial_dropout)
INSTANTIATE(gaussian_noise)

}  // namespace cuda
}  // namespace convkit
