// Nodes of a stretch that go value by value, or move what is there: gathering, activations,
// pooling, up-sampling. By all threads of a block, on one sample in shared memory.
#pragma once

#include "activate.cuh"
#include "philox.cuh"
#include "stretch_node.cuh"

namespace convkit {
namespace cuda {

// ---- in and out ---------------------------------------------------------------------------------

struct GatherShape {
    int32_t size, type;
    float scale, offset;
};

// Row index[row] of a source, or without an index its row `row`.
__device__ inline int64_t gathered_row(const StretchNode& node, const Sample& sample) {
    const auto* const index = reinterpret_cast<const int64_t*>(node.memory[1]);
    return index ? index[sample.row] : sample.row;
}

template <class S>
__device__ void gather_row(const GatherShape& s, const char* from, float* y) {
    const S* const x = reinterpret_cast<const S*>(from);
    for (int i = threadIdx.x; i < s.size; i += kStretchThreads)
        y[i] = static_cast<float>(x[i]) * s.scale + s.offset;
}

__device__ inline void gather_values(const StretchNode& node, const Sample& sample) {
    const GatherShape& s = shape_of<GatherShape>(node);
    const char* const from = node.memory[0] + gathered_row(node, sample) * node.row_bytes;
    float* const y = values_of(node, 2);
    switch (s.type) {
        case kUint8:
        case kBool:
            return gather_row<uint8_t>(s, from, y);
        case kInt32:
            return gather_row<int32_t>(s, from, y);
        case kInt64:
            return gather_row<int64_t>(s, from, y);
        case kFloat32:
            return gather_row<float>(s, from, y);
        default:
            return gather_row<double>(s, from, y);
    }
}

// As gather_labels (data.cu): what int32 cannot hold is -1, which is no class.
__device__ inline int32_t as_label(double v) {
    return v > -2147483649.0 && v < 2147483648.0 ? static_cast<int32_t>(v) : -1;
}
__device__ inline int32_t as_label(float v) { return as_label(static_cast<double>(v)); }
__device__ inline int32_t as_label(uint8_t v) { return v; }
__device__ inline int32_t as_label(int32_t v) { return v; }
__device__ inline int32_t as_label(int64_t v) {
    return v < INT32_MIN || v > INT32_MAX ? -1 : static_cast<int32_t>(v);
}

template <class S>
__device__ void gather_label_row(int size, const char* from, int32_t* y) {
    const S* const x = reinterpret_cast<const S*>(from);
    for (int i = threadIdx.x; i < size; i += kStretchThreads) y[i] = as_label(x[i]);
}

__device__ inline void gather_labels_of(const StretchNode& node, const Sample& sample) {
    const GatherShape& s = shape_of<GatherShape>(node);
    const char* const from = node.memory[0] + gathered_row(node, sample) * node.row_bytes;
    auto* const y = reinterpret_cast<int32_t*>(values_of(node, 2));
    switch (s.type) {
        case kUint8:
        case kBool:
            return gather_label_row<uint8_t>(s.size, from, y);
        case kInt32:
            return gather_label_row<int32_t>(s.size, from, y);
        case kInt64:
            return gather_label_row<int64_t>(s.size, from, y);
        case kFloat32:
            return gather_label_row<float>(s.size, from, y);
        default:
            return gather_label_row<double>(s.size, from, y);
    }
}

struct FlatShape {
    int32_t size;
};

__device__ inline void store_values(const StretchNode& node, const Sample& sample) {
    const int size = shape_of<FlatShape>(node).size;
    const float* const x = values_of(node, 0);
    const int64_t row = node.by_row ? sample.row : sample.index;
    auto* const y = reinterpret_cast<float*>(node.memory[0] + row * node.row_bytes);
    for (int i = threadIdx.x; i < size; i += kStretchThreads) y[i] = x[i];
}

// ---- value by value -----------------------------------------------------------------------------

struct ActivationShape {
    int32_t size, kind;
    float slope;
};

__device__ inline void activate_values(const StretchNode& node) {
    const ActivationShape s = shape_of<ActivationShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 1);
    for (int i = threadIdx.x; i < s.size; i += kStretchThreads)
        y[i] = activate(s.kind, s.slope, x[i]);
}

__device__ inline void activate_values_backward(const StretchNode& node) {
    const ActivationShape s = shape_of<ActivationShape>(node);
    const float *const dy = values_of(node, 0), *const y = values_of(node, 1);
    float* const dx = values_of(node, 2);
    for (int i = threadIdx.x; i < s.size; i += kStretchThreads)
        dx[i] = activate_backward(s.kind, s.slope, dy[i], y[i]);
}

struct RescaleShape {
    int32_t size;
    float scale, offset;
};

__device__ inline void rescale_values(const StretchNode& node) {
    const RescaleShape s = shape_of<RescaleShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 1);
    for (int i = threadIdx.x; i < s.size; i += kStretchThreads) y[i] = x[i] * s.scale + s.offset;
}

__device__ inline void add_values(const StretchNode& node) {
    const int size = shape_of<FlatShape>(node).size;
    const float *const a = values_of(node, 0), *const b = values_of(node, 1);
    float* const y = values_of(node, 2);
    for (int i = threadIdx.x; i < size; i += kStretchThreads) y[i] = a[i] + b[i];
}

__device__ inline void add_values_backward(const StretchNode& node) {
    const int size = shape_of<FlatShape>(node).size;
    const float* const dy = values_of(node, 0);
    for (int k = 1; k <= 2; ++k) {
        if (node.at[k] < 0) continue;
        float* const d = values_of(node, k);
        for (int i = threadIdx.x; i < size; i += kStretchThreads) d[i] = dy[i];
    }
}

struct DropoutShape {
    int32_t size;
    uint32_t dropped_below;
    float scale;
    int64_t stream;
};

// The numbers of dropout.cu: those of this sample's elements in the batch, four to a call.
__device__ inline void dropout_values(const StretchNode& node, const Sample& sample) {
    constexpr int kDrawn = 4;
    const DropoutShape s = shape_of<DropoutShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 2);
    const auto* const random = reinterpret_cast<const int64_t*>(node.memory[0]);
    const Philox4x32 philox(random[0], random[1], s.stream);
    const int64_t first = sample.index * s.size, last = first + s.size;
    for (int64_t call = first / kDrawn + threadIdx.x; call * kDrawn < last;
         call += kStretchThreads) {
        uint32_t numbers[kDrawn];
        philox.draw(call, numbers);
        for (int k = 0; k < kDrawn; ++k) {
            const int64_t element = call * kDrawn + k;
            if (element < first || element >= last) continue;
            const int i = static_cast<int>(element - first);
            const bool dropped = Philox4x32::on_grid(numbers[k]) < s.dropped_below;
            y[i] = dropped ? 0.0f : x[i] * s.scale;
        }
    }
}

__device__ inline void spread_mean(const StretchNode& node, const Sample& sample) {
    const int rows = shape_of<FlatShape>(node).size;
    const float dy = *reinterpret_cast<const float*>(node.memory[0]);
    float* const dx = values_of(node, 1);
    for (int i = threadIdx.x; i < rows; i += kStretchThreads)
        dx[i] = dy / static_cast<float>(sample.batch * rows);
}

// ---- joining and turning ------------------------------------------------------------------------

struct JoinShape {
    int32_t count, first, second;
    Divisor<int32_t> by_both;
};

__device__ inline void join_values(const StretchNode& node) {
    const JoinShape& s = shape_of<JoinShape>(node);
    const float *const a = values_of(node, 0), *const b = values_of(node, 1);
    float* const y = values_of(node, 2);
    for (int i = threadIdx.x; i < s.count; i += kStretchThreads) {
        const int outer = s.by_both.quotient(i), place = s.by_both.remainder(i);
        y[i] = place < s.first ? a[outer * s.first + place] : b[outer * s.second + place - s.first];
    }
}

__device__ inline void join_values_backward(const StretchNode& node) {
    const JoinShape& s = shape_of<JoinShape>(node);
    const float* const dy = values_of(node, 0);
    const bool first = node.at[1] >= 0, second = node.at[2] >= 0;
    float *const da = values_of(node, 1), *const db = values_of(node, 2);
    for (int i = threadIdx.x; i < s.count; i += kStretchThreads) {
        const int outer = s.by_both.quotient(i), place = s.by_both.remainder(i);
        if (place < s.first) {
            if (first) da[outer * s.first + place] = dy[i];
        } else if (second) {
            db[outer * s.second + place - s.first] = dy[i];
        }
    }
}

struct TransposeShape {
    int32_t count, columns;
    Divisor<int32_t> by_rows;
};

// Of y: as they are written.
__device__ inline void transpose_values(const StretchNode& node) {
    const TransposeShape& s = shape_of<TransposeShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 1);
    for (int i = threadIdx.x; i < s.count; i += kStretchThreads)
        y[i] = x[s.by_rows.remainder(i) * s.columns + s.by_rows.quotient(i)];
}

// ---- pooling ------------------------------------------------------------------------------------

struct PoolAxis {
    int32_t size, windows, window, stride, dilation, pad, pad_after;
    Divisor<int32_t> by_stride, by_dilation;

    PoolAxis(int64_t size, int64_t windows, int64_t window, int64_t stride, int64_t dilation,
             int64_t pad, int64_t pad_after)
        : size(static_cast<int32_t>(size)),
          windows(static_cast<int32_t>(windows)),
          window(static_cast<int32_t>(window)),
          stride(static_cast<int32_t>(stride)),
          dilation(static_cast<int32_t>(dilation)),
          pad(static_cast<int32_t>(pad)),
          pad_after(static_cast<int32_t>(pad_after)),
          by_stride(stride),
          by_dilation(dilation) {}

    __device__ int place(int out, int tap) const { return out * stride - pad + tap * dilation; }
    __device__ bool inside(int place) const { return place >= 0 && place < size; }

    // How many places an average is taken over: inside x, or inside the padded x.
    __device__ int counted(int out, bool with_pad) const {
        const int origin = place(out, 0), end = origin + window;
        if (with_pad) return min(window, size + pad_after - origin);
        return max(0, min(end, size) - max(origin, 0));
    }

    // The windows that may have a tap at a place of x.
    __device__ int first_window(int place) const {
        const int behind = place + pad - (window - 1) * dilation;
        return behind <= 0 ? 0 : by_stride.quotient(behind + stride - 1);
    }
    __device__ int last_window(int place) const {
        return min(by_stride.quotient(place + pad), windows - 1);
    }

    // Which tap of the window is there; -1: none.
    __device__ int tap(int at, int out) const {
        const int distance = at - place(out, 0), tap = by_dilation.quotient(distance);
        return tap * dilation == distance ? tap : -1;
    }
};

struct PoolShape {
    PoolAxis rows, columns;
    PixelShape outputs, inputs;
    int32_t channels, with_pad;

    __device__ int input(int row, int column, int channel) const {
        return (row * columns.size + column) * channels + channel;
    }
    __device__ int output(int row, int column, int channel) const {
        return (row * columns.windows + column) * channels + channel;
    }
    __device__ float divisor(int row, int column) const {
        return static_cast<float>(rows.counted(row, with_pad != 0) *
                                  columns.counted(column, with_pad != 0));
    }
};

// The first maximum of a window, row by row; NaN counts as one.
struct Winner {
    float best;
    int tap;  // -1: no tap is inside x
};

__device__ inline Winner winner_of(const PoolShape& s, const Pixel& p, const float* x) {
    Winner found{-INFINITY, -1};
    for (int i = 0; i < s.rows.window; ++i) {
        const int row = s.rows.place(p.row, i);
        if (!s.rows.inside(row)) continue;
        for (int j = 0; j < s.columns.window; ++j) {
            const int column = s.columns.place(p.column, j);
            if (!s.columns.inside(column)) continue;
            const float v = x[s.input(row, column, p.channel)];
            const bool better = !(v <= found.best) && found.best == found.best;
            if (better || found.tap < 0) found = {v, i * s.columns.window + j};
        }
    }
    return found;
}

__device__ inline void max_pool(const StretchNode& node) {
    const PoolShape& s = shape_of<PoolShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 1);
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads)
        y[i] = winner_of(s, s.outputs.at(i), x).best;
}

// at[3]: memory for the winners.
__device__ inline void max_pool_backward(const StretchNode& node) {
    const PoolShape& s = shape_of<PoolShape>(node);
    const float *const dy = values_of(node, 0), *const x = values_of(node, 1);
    float* const dx = values_of(node, 2);
    auto* const winners = reinterpret_cast<int32_t*>(values_of(node, 3));
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads)
        winners[i] = winner_of(s, s.outputs.at(i), x).tap;
    __syncthreads();
    for (int i = threadIdx.x; i < s.inputs.count; i += kStretchThreads) {
        const Pixel p = s.inputs.at(i);
        float sum = 0;
        for (int h = s.rows.first_window(p.row); h <= s.rows.last_window(p.row); ++h) {
            const int tap_row = s.rows.tap(p.row, h);
            if (tap_row < 0) continue;
            for (int w = s.columns.first_window(p.column); w <= s.columns.last_window(p.column);
                 ++w) {
                const int tap_column = s.columns.tap(p.column, w);
                const int out = s.output(h, w, p.channel);
                if (tap_column >= 0 && winners[out] == tap_row * s.columns.window + tap_column)
                    sum += dy[out];
            }
        }
        dx[i] = sum;
    }
}

__device__ inline void average_pool(const StretchNode& node) {
    const PoolShape& s = shape_of<PoolShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 1);
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads) {
        const Pixel p = s.outputs.at(i);
        float sum = 0;
        for (int a = 0; a < s.rows.window; ++a) {
            const int row = s.rows.place(p.row, a);
            if (!s.rows.inside(row)) continue;
            for (int b = 0; b < s.columns.window; ++b) {
                const int column = s.columns.place(p.column, b);
                if (s.columns.inside(column)) sum += x[s.input(row, column, p.channel)];
            }
        }
        y[i] = sum / s.divisor(p.row, p.column);
    }
}

__device__ inline void average_pool_backward(const StretchNode& node) {
    const PoolShape& s = shape_of<PoolShape>(node);
    const float* const dy = values_of(node, 0);
    float* const dx = values_of(node, 1);
    for (int i = threadIdx.x; i < s.inputs.count; i += kStretchThreads) {
        const Pixel p = s.inputs.at(i);
        float sum = 0;
        for (int h = s.rows.first_window(p.row); h <= s.rows.last_window(p.row); ++h)
            for (int w = s.columns.first_window(p.column); w <= s.columns.last_window(p.column);
                 ++w)
                sum += dy[s.output(h, w, p.channel)] / s.divisor(h, w);
        dx[i] = sum;
    }
}

// ---- up-sampling --------------------------------------------------------------------------------

// Places between inputs are counted in units of 1 / (2 scale), as in upsample.cu.
struct ScaleAxis {
    int32_t size, scale;

    __device__ int place(int out) const { return 2 * out + 1 - scale; }
    __device__ int before(int out) const {
        return max((place(out) + 2 * scale) / (2 * scale) - 1, 0);
    }
    __device__ int behind(int out) const {
        return min((place(out) + 2 * scale) / (2 * scale), size - 1);
    }
    // How much of the input behind an output is in it.
    __device__ float share(int out) const {
        const int group = (place(out) + 2 * scale) / (2 * scale);
        if (group == 0 || group == size) return 0.0f;
        return part(place(out) - 2 * scale * (group - 1));
    }
    // How much of an input is in an output that it reaches.
    __device__ float weight(int in, int out) const {
        const int distance = place(out) - 2 * scale * in;
        const bool alone = distance < 0 ? in == 0 : in == size - 1;
        return alone ? 1.0f : part(2 * scale - (distance < 0 ? -distance : distance));
    }
    __device__ int reached_begin(int in) const { return max(in * scale - scale / 2, 0); }
    __device__ int reached_end(int in) const {
        return min(in * scale - scale / 2 + scale / 2 + 3 * scale / 2, size * scale);
    }
    __device__ float part(int units) const {
        return static_cast<float>(units) / static_cast<float>(2 * scale);
    }
};

struct UpsampleShape {
    ScaleAxis rows, columns;
    PixelShape outputs, inputs;
    int32_t channels, bilinear;

    __device__ int input(int row, int column, int channel) const {
        return (row * columns.size + column) * channels + channel;
    }
    __device__ int output(int row, int column, int channel) const {
        return (row * columns.size * columns.scale + column) * channels + channel;
    }
};

__device__ inline float mixed(float a, float b, float share) {
    return a * (1.0f - share) + b * share;
}

__device__ inline void upsample(const StretchNode& node) {
    const UpsampleShape& s = shape_of<UpsampleShape>(node);
    const float* const x = values_of(node, 0);
    float* const y = values_of(node, 1);
    for (int i = threadIdx.x; i < s.outputs.count; i += kStretchThreads) {
        const Pixel p = s.outputs.at(i);
        if (!s.bilinear) {
            y[i] = x[s.input(p.row / s.rows.scale, p.column / s.columns.scale, p.channel)];
            continue;
        }
        const int top = s.rows.before(p.row), bottom = s.rows.behind(p.row);
        const int left = s.columns.before(p.column), right = s.columns.behind(p.column);
        const float share = s.columns.share(p.column);
        const float above =
            mixed(x[s.input(top, left, p.channel)], x[s.input(top, right, p.channel)], share);
        const float below =
            mixed(x[s.input(bottom, left, p.channel)], x[s.input(bottom, right, p.channel)], share);
        y[i] = mixed(above, below, s.rows.share(p.row));
    }
}

__device__ inline void upsample_backward(const StretchNode& node) {
    const UpsampleShape& s = shape_of<UpsampleShape>(node);
    const float* const dy = values_of(node, 0);
    float* const dx = values_of(node, 1);
    for (int i = threadIdx.x; i < s.inputs.count; i += kStretchThreads) {
        const Pixel p = s.inputs.at(i);
        const bool bilinear = s.bilinear != 0;
        const int top = bilinear ? s.rows.reached_begin(p.row) : p.row * s.rows.scale;
        const int bottom = bilinear ? s.rows.reached_end(p.row) : top + s.rows.scale;
        const int left = bilinear ? s.columns.reached_begin(p.column) : p.column * s.columns.scale;
        const int right = bilinear ? s.columns.reached_end(p.column) : left + s.columns.scale;
        float sum = 0;
        for (int h = top; h < bottom; ++h) {
            float line = 0;
            for (int w = left; w < right; ++w) {
                const float weight = bilinear ? s.columns.weight(p.column, w) : 1.0f;
                line += dy[s.output(h, w, p.channel)] * weight;
            }
            sum += line * (bilinear ? s.rows.weight(p.row, h) : 1.0f);
        }
        dx[i] = sum;
    }
}

}  // namespace cuda
}  // namespace convkit
