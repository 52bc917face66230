// Dense layers of one sample in shared memory. Of the weights (inputs, units), the last rows are in
// shared memory too, as many as there is room for; the others come from the nearest cache.
//
// Forward, a thread has four units and every so many-th input; the parts are added up in a fixed
// order. Backward to the input, eight threads share the product of a row of weights and dy. The
// gradient of the weights is a sum over the batch, made where they are updated: here x and dy are
// put where that finds them.
#pragma once

#include "activate.cuh"
#include "stretch_node.cuh"

namespace convkit {
namespace cuda {

struct DenseShape {
    int32_t rows, inputs, units, width;  // of a vector of weights: 4, or 1
    int32_t groups, parts, items;        // of units, of inputs; of all rows
    int32_t first_staged;                // row of the weights
    int32_t kind;
    float slope;
    Divisor<int32_t> by_groups, by_parts, by_units, by_inputs;
};

// at: x, y; the staged weights, bias, the parts.
enum { kDenseX, kDenseY, kDenseWeights, kDenseBias, kDenseParts, kDenseDy };

template <int kWidth>
__device__ inline void add_products(const float* weights, float x, float (&sum)[kWidth]) {
    const auto w = load_vector<float, kWidth>(weights);
    CONVKIT_UNROLL
    for (int k = 0; k < kWidth; ++k) sum[k] += x * w.value[k];
}

template <int kWidth>
__device__ void dense_parts(const DenseShape& s, const float* x, const float* far,
                            const float* staged, float* y) {
    for (int item = threadIdx.x; item < s.items; item += kStretchThreads) {
        const int part_of = s.by_groups.quotient(item), unit = s.by_groups.remainder(item) * kWidth;
        const int row = s.by_parts.quotient(part_of);
        const float* const values = x + row * s.inputs;
        float sum[kWidth] = {};
        int i = s.by_parts.remainder(part_of);
        for (; i < s.first_staged; i += s.parts)
            add_products<kWidth>(far + i * s.units + unit, values[i], sum);
        for (; i < s.inputs; i += s.parts)
            add_products<kWidth>(staged + (i - s.first_staged) * s.units + unit, values[i], sum);
        CONVKIT_UNROLL
        for (int k = 0; k < kWidth; ++k) y[part_of * s.units + unit + k] = sum[k];
    }
}

__device__ inline void dense(const StretchNode& node) {
    const DenseShape& s = shape_of<DenseShape>(node);
    const float *const x = values_of(node, kDenseX), *const staged = values_of(node, kDenseWeights);
    const auto* const far = reinterpret_cast<const float*>(node.memory[0]);
    float *const parts = values_of(node, kDenseParts), *const y = values_of(node, kDenseY);
    if (s.width == 4) {
        dense_parts<4>(s, x, far, staged, parts);
    } else {
        dense_parts<1>(s, x, far, staged, parts);
    }
    __syncthreads();
    const float* const bias = node.at[kDenseBias] < 0 ? nullptr : values_of(node, kDenseBias);
    for (int i = threadIdx.x; i < s.rows * s.units; i += kStretchThreads) {
        const int row = s.by_units.quotient(i), unit = s.by_units.remainder(i);
        const float* const from = parts + row * s.parts * s.units + unit;
        float sum = 0;
        for (int k = 0; k < s.parts; ++k) sum += from[k * s.units];
        y[i] = activate(s.kind, s.slope, sum + (bias ? bias[unit] : 0.0f));
    }
}

// Threads that share a row of weights, and vectors of dy that one keeps in registers.
constexpr int kRowTeam = 8, kKeptVectors = 4;

template <int kWidth, bool kKept>
__device__ void dense_rows(const DenseShape& s, const float* dy, const float* far,
                           const float* staged, float* dx) {
    constexpr int kAtOnce = kStretchThreads / kRowTeam, kStep = kRowTeam * kWidth;
    const int lane = static_cast<int>(threadIdx.x) % kRowTeam, count = s.rows * s.inputs;
    Vector<float, kWidth> kept[kKept ? kKeptVectors : 1]{};
    if constexpr (kKept) {
        CONVKIT_UNROLL
        for (int k = 0; k < kKeptVectors; ++k) {
            const int unit = lane * kWidth + k * kStep;
            if (unit < s.units) kept[k] = load_vector<float, kWidth>(dy + unit);
        }
    }
    for (int base = 0; base < count; base += kAtOnce) {
        const int i = base + static_cast<int>(threadIdx.x) / kRowTeam;
        const int place = i < count ? i : count - 1;
        const int row = s.by_inputs.quotient(place), input = s.by_inputs.remainder(place);
        const float* const weights = input < s.first_staged
                                         ? far + input * s.units
                                         : staged + (input - s.first_staged) * s.units;
        float sum = 0;
        if constexpr (kKept) {
            CONVKIT_UNROLL
            for (int k = 0; k < kKeptVectors; ++k) {
                const int unit = lane * kWidth + k * kStep;
                if (unit >= s.units) break;
                const auto w = load_vector<float, kWidth>(weights + unit);
                CONVKIT_UNROLL
                for (int e = 0; e < kWidth; ++e) sum += w.value[e] * kept[k].value[e];
            }
        } else {
            for (int unit = lane * kWidth; unit < s.units; unit += kStep) {
                const auto w = load_vector<float, kWidth>(weights + unit);
                const auto g = load_vector<float, kWidth>(dy + row * s.units + unit);
                CONVKIT_UNROLL
                for (int e = 0; e < kWidth; ++e) sum += w.value[e] * g.value[e];
            }
        }
        for (int step = kRowTeam / 2; step > 0; step /= 2)
            sum += __shfl_xor_sync(kAllLanes, sum, step);
        if (lane == 0 && i < count) dx[i] = sum;
    }
}

__device__ inline void dense_backward_input_of(const StretchNode& node) {
    const DenseShape& s = shape_of<DenseShape>(node);
    const float *const dy = values_of(node, kDenseX), *const staged =
                                                          values_of(node, kDenseWeights);
    const auto* const far = reinterpret_cast<const float*>(node.memory[0]);
    float* const dx = values_of(node, kDenseY);
    const bool kept = s.rows == 1 && s.units <= s.width * kRowTeam * kKeptVectors;
    if (s.width == 4) {
        kept ? dense_rows<4, true>(s, dy, far, staged, dx)
             : dense_rows<4, false>(s, dy, far, staged, dx);
    } else {
        kept ? dense_rows<1, true>(s, dy, far, staged, dx)
             : dense_rows<1, false>(s, dy, far, staged, dx);
    }
}

// Rows for the product over the batch, filled up with zeros to whole vectors.
struct KeepShape {
    int32_t rows, inputs, units, input_pitch, unit_pitch;
    Divisor<int32_t> by_input_pitch, by_unit_pitch;
};

__device__ inline void keep_rows(const Divisor<int32_t>& by_pitch, int rows, int pitch, int size,
                                 const float* from, float* to) {
    for (int i = threadIdx.x; i < rows * pitch; i += kStretchThreads) {
        const int row = by_pitch.quotient(i), place = by_pitch.remainder(i);
        to[i] = place < size ? from[row * size + place] : 0.0f;
    }
}

__device__ inline void dense_backward_kernel_of(const StretchNode& node, const Sample& sample) {
    const KeepShape& s = shape_of<KeepShape>(node);
    auto* const xs = reinterpret_cast<float*>(node.memory[0]);
    auto* const gradients = reinterpret_cast<float*>(node.memory[1]);
    const int64_t row = sample.index * s.rows;
    keep_rows(s.by_input_pitch, s.rows, s.input_pitch, s.inputs, values_of(node, kDenseX),
              xs + row * s.input_pitch);
    keep_rows(s.by_unit_pitch, s.rows, s.unit_pitch, s.units, values_of(node, kDenseDy),
              gradients + row * s.unit_pitch);
}

}  // namespace cuda
}  // namespace convkit
