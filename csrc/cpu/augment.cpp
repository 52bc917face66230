// Augmentation: what is drawn for each sample is a function of seed, step, stream and the sample's
// place in the batch alone. random: (seed, step).
//   random_transform  x (n, height, width, channels) -> y (n, out_height, out_width, channels),
//   each
//                     image flipped, cropped, shifted, turned or zoomed as its Placement says
//   random_contrast   x (n, rows, channels) -> y = clip((x - mean of the channel) factor + mean);
//                     may work in place
#include <algorithm>

#include "contrast.h"
#include "cpu_kernels.h"
#include "philox.h"
#include "transform.h"

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
void random_transform(const Context& context, const RandomTransform& s, int64_t n, const T* x,
                      const int64_t* random, T* y) {
    if (n * s.output_size() == 0) return;
    constexpr int64_t kPiece = 16384;                                                // values
    const int64_t most = std::max<int64_t>(1, kPiece / (s.out_width * s.channels));  // rows
    const int64_t pieces = (s.out_height + most - 1) / most;
    const double cost_each = copies_pixels(s) ? 0.3 : 2;
    const double cost = 200 + cost_each * std::min(most, s.out_height) * s.out_width * s.channels;
    parallel_for(context, n * pieces, cost, [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
            const int64_t sample = item / pieces, row = item % pieces * most;
            Placement placements[1];
            draw_placements(s, random, sample, placements);
            transform_rows(s, placements[0], row, std::min(row + most, s.out_height),
                           x + sample * s.input_size(), y + sample * s.output_size());
        }
    });
}

template <class T>
void random_contrast(const Context& context, const RandomContrast& s, int64_t n, const T* x,
                     const int64_t* random, T* y) {
    if (n * s.total() == 0) return;
    parallel_for(context, n, 100 + 0.5 * s.total(), [&](int64_t begin, int64_t end) {
        const int64_t size = pattern_size<T>(s.channels);
        T* factors = scratch<T>(kLocal, size + contrast_size<T>(s.channels));
        for (int64_t sample = begin; sample < end; ++sample) {
            int64_t block[8] = {sample};  // of one vector, whose first call alone counts
            const auto numbers = philox_blocks(random[0], random[1], s.stream, block);
            const T factor = static_cast<T>(between(s.low, s.high, numbers.value[0][0]));
            std::fill(factors, factors + size, factor);
            adjust_contrast(s.rows, s.channels, factors, static_cast<T>(s.value_low),
                            static_cast<T>(s.value_high), x + sample * s.total(), factors + size,
                            y + sample * s.total());
        }
    });
}

INSTANTIATE(random_transform)
INSTANTIATE(random_contrast)

}  // namespace CONVKIT_ISA
}  // namespace convkit
