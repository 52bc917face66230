// A plan as tables for the kernels: what each node is to do with how many threads, where its values
// are in a block's shared memory, and what a piece of an update is.
#pragma once

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "stretch.h"
#include "stretch_cut.cuh"
#include "stretch_dense.cuh"
#include "stretch_pieces.h"
#include "stretch_rows.cuh"
#include "stretch_tasks.cuh"
#include "stretch_values.cuh"

namespace convkit {
namespace cuda {

// Samples of a batch share the sums of so many slots, fewer where these are large.
constexpr int64_t kMostSlots = 128, kMostSlotBytes = int64_t{32} << 20;
// Of dense layers; beyond, reading them for every sample costs more than a product over the batch.
constexpr int64_t kMostDenseBytes = 1 << 20;
// What packed weights may take of shared memory, in numbers.
constexpr int64_t kMostPackedWeights = 12288;
constexpr int64_t kMostValues = 1 << 20;  // of a value: places are 32-bit numbers

// A plan's tables. Pointers in them are set when memory is bound.
struct StretchTables {
    std::vector<unsigned char> bytes;
    std::vector<TablePointer> pointers;  // at: in `bytes`
    int64_t node_bytes = 0;              // of `bytes`, from the beginning: what blocks copy
    int once = 0, stages = 0, nodes = 0;
    bool has_clerk = false;
    int64_t clerk_at = 0, tasks_at = 0;
    int tasks = 0;     // the last one is for counters
    int counters = 0;  // that it moves on
    int64_t shared_bytes = 0;
    int64_t copies_at = 0;  // in shared memory, in numbers
    int64_t slots_at = 0, slot_floats = 0, most_slots = 0;
    int64_t memory_bytes = 0;  // of the stretch, behind `bytes`
};

class StretchLayout {
 public:
    // For up to `most` samples, on a device whose blocks have so much shared memory.
    StretchLayout(const StretchPlan& plan, int64_t most, int64_t shared_bytes)
        : plan_(plan), memory_(plan, most) {
        values_.assign(plan.values.size(), -1);
        for (now_ = 0; now_ < static_cast<int>(plan.nodes.size()); ++now_) {
            check_size(plan.nodes[now_]);
            add(plan.nodes[now_]);
        }
        add_stages();
        place(shared_bytes);
        add_barriers();
        slots_ =
            std::min(kMostSlots,
                     std::max<int64_t>(kMostSlotBytes / std::max<int64_t>(slot_floats_ * 4, 1), 1));
        slots_at_ = memory_.take(slot_floats_ * 4 * slots_);
        assemble(StretchTasks(plan, sources_, slots_at_, slot_floats_, memory_));
    }

    StretchTables take() { return std::move(tables_); }

 private:
    using K = KernelNumber;
    using Node = StretchPlan::Node;

    // ---- pieces of shared memory ----------------------------------------------------------------
    int lasting(int64_t floats) { return pieces_.add(floats, INT_MIN, INT_MAX); }
    int passing(int64_t floats) { return pieces_.add(floats, now_, now_); }

    int of_sample(int value) {
        if (value < 0) return -1;
        const StretchPlan::Value& v = plan_.values[value];
        if (values_[value] < 0)
            values_[value] = pieces_.add((v.elements * v.item_bytes + 3) / 4, now_, now_);
        pieces_[values_[value]].last = now_;
        return values_[value];
    }

    // What the sample leaves is for rows of dense layers' weights, those of small layers first.
    void place(int64_t most_bytes) {
        const size_t nodes = once_.size() + stages_.size() + nodes_.size();
        const int64_t table =
            rounded(static_cast<int64_t>(nodes * sizeof(StretchNode) + shapes_.size()), 64);
        const int64_t room = (most_bytes - table) / 4;
        int64_t end = pieces_.place();
        if (end > room)
            refuse_stretch(std::to_string(table + end * 4) +
                           " bytes of shared memory for a sample, but " +
                           std::to_string(most_bytes));
        std::vector<Weights*> weights;
        for (auto& [value, one] : weights_) weights.push_back(&one);
        std::stable_sort(weights.begin(), weights.end(),
                         [](Weights* a, Weights* b) { return a->size() < b->size(); });
        for (Weights* one : weights) {
            int64_t rows = 0, too_many = one->inputs + 1;
            while (rows + 1 < too_many) {
                const int64_t between = (rows + too_many) / 2;
                pieces_[one->piece].floats = between * one->units;
                (pieces_.place() <= room ? rows : too_many) = between;
            }
            pieces_[one->piece].floats = rows * one->units;
            one->first_staged = one->inputs - rows;
        }
        end = pieces_.place();
        base_ = table / 4;
        tables_.copies_at = base_ + pieces_[copies_].offset;
        tables_.node_bytes = table;
        tables_.shared_bytes = table + end * 4;
    }

    // ---- nodes ----------------------------------------------------------------------------------

    // A node in the making: places are pieces, and its pointers are set apart.
    struct Made {
        StretchNode node{};
        int value[2] = {-1, -1};
        int64_t offset[2] = {-1, -1};  // in memory of the stretch, or of the value
    };

    template <class S>
    int32_t shape(const S& s) {
        static_assert(std::is_trivially_copyable<S>::value, "tables are copied as bytes");
        static_assert(alignof(S) <= 8, "shapes are aligned to 8 bytes");
        const size_t at = shapes_.size();
        shapes_.resize(at + static_cast<size_t>(rounded(sizeof(S), 8)));
        std::memcpy(shapes_.data() + at, &s, sizeof(S));
        return static_cast<int32_t>(at);
    }

    static Made make(int32_t op, int32_t shape) {
        Made made;
        made.node.op = op;
        made.node.shape = shape;
        std::fill(std::begin(made.node.at), std::end(made.node.at), -1);
        return made;
    }
    static Made make(K kernel, int32_t shape) { return make(static_cast<int32_t>(kernel), shape); }

    void point(Made& made, int which, int value) {
        if (plan_.values[value].place == StretchPlan::Place::kBatch) {
            made.offset[which] = memory_.of_batch(value);
        } else {  // what is fed, or a state
            made.value[which] = value;
            made.offset[which] = 0;
        }
    }

    void check_size(const Node& node) const {
        for (int id : node.arguments) {
            if (id < 0) continue;
            const StretchPlan::Value& value = plan_.values[id];
            const bool own = value.place == StretchPlan::Place::kSample ||
                             value.place == StretchPlan::Place::kSum;
            if (own && value.elements > kMostValues)
                refuse_stretch("room for a value of " + std::to_string(value.elements) +
                               " numbers");
        }
    }

    void add(const Node& node) {
        const std::vector<int>& a = node.arguments;
        switch (node.kernel) {
            case K::tile_gather:
            case K::tile_gather_labels: {
                const Gather& s = std::get<Gather>(node.spec);
                // To add -0 changes nothing, where 0 would make 0 of -0.
                const float offset = s.offset == 0 ? -0.0f : static_cast<float>(s.offset);
                Made made =
                    make(node.kernel, shape(GatherShape{small(s.size), small(s.type),
                                                        static_cast<float>(s.scale), offset}));
                made.node.row_bytes = s.row_bytes();
                made.node.at[2] = of_sample(a[2]);
                point(made, 0, a[0]);
                if (a[1] >= 0) point(made, 1, a[1]);
                nodes_.push_back(made);
                return;
            }
            case K::untile: {
                const int64_t size = std::get<Elementwise>(node.spec).size;
                Made made = make(node.kernel, shape(FlatShape{small(size)}));
                made.node.row_bytes = size * 4;
                made.node.by_row = plan_.values[a[1]].place == StretchPlan::Place::kFed;
                made.node.at[0] = of_sample(a[0]);
                point(made, 0, a[1]);
                nodes_.push_back(made);
                return;
            }
            case K::tile_dropout: {
                const Dropout& s = std::get<Dropout>(node.spec);
                Made made =
                    make(node.kernel,
                         shape(DropoutShape{small(s.size), Philox4x32::below(s.rate),
                                            static_cast<float>(1 / (1 - s.rate)), s.stream}));
                made.node.at[0] = of_sample(a[0]);
                made.node.at[2] = of_sample(a[2]);
                point(made, 0, a[1]);
                nodes_.push_back(made);
                return;
            }
            case K::tile_mean_backward: {
                const int64_t rows = std::get<Mean>(node.spec).rows;
                Made made = make(node.kernel, shape(FlatShape{small(rows)}));
                made.node.at[1] = of_sample(a[1]);
                point(made, 0, a[0]);
                nodes_.push_back(made);
                return;
            }
            case K::tile_conv2d:
            case K::tile_conv2d_backward_input:
                return add_convolution(node);
            case K::tile_conv2d_backward_kernel:
                return add_convolution_kernel(node);
            case K::tile_dense: {
                const FusedDense& s = std::get<FusedDense>(node.spec);
                return add_dense(s.dense, s.activation, s.slope, a[0], a[1], a[2], a[3], true);
            }
            case K::tile_dense_backward_input:
                return add_dense(std::get<Dense>(node.spec), kLinear, 0, a[0], a[1], -1, a[2],
                                 false);
            case K::tile_dense_backward_kernel:
                return add_dense_kernel(std::get<Dense>(node.spec), a[0], a[1]);
            case K::add:
            case K::add_backward:
                return add_in_place(node, std::get<Elementwise>(node.spec));
            case K::activation:
            case K::activation_backward:
                return add_in_place(node, std::get<Activation>(node.spec));
            case K::rescale:
                return add_in_place(node, std::get<Rescale>(node.spec));
            case K::concatenate:
            case K::concatenate_backward:
                return add_in_place(node, std::get<Concatenate>(node.spec));
            case K::tile_transpose:
                return add_in_place(node, std::get<Transpose>(node.spec));
            case K::softmax:
            case K::softmax_backward:
            case K::log_softmax:
            case K::log_softmax_backward:
                return add_in_place(node, std::get<Softmax>(node.spec));
            case K::categorical_crossentropy:
            case K::categorical_crossentropy_backward:
            case K::sparse_categorical_crossentropy:
            case K::sparse_categorical_crossentropy_backward:
            case K::binary_crossentropy:
            case K::binary_crossentropy_backward:
            case K::mean_squared_error:
            case K::mean_squared_error_backward:
            case K::mean_absolute_error:
            case K::mean_absolute_error_backward:
            case K::softmax_crossentropy:
            case K::softmax_crossentropy_backward:
            case K::sparse_softmax_crossentropy:
            case K::sparse_softmax_crossentropy_backward:
            case K::categorical_accuracy:
            case K::sparse_categorical_accuracy:
            case K::binary_accuracy:
                return add_in_place(node, std::get<Loss>(node.spec));
            case K::max_pool2d:
            case K::max_pool2d_backward:
            case K::avg_pool2d:
            case K::avg_pool2d_backward:
                return add_in_place(node, std::get<Pool2d>(node.spec));
            case K::upsample2d:
            case K::upsample2d_backward:
                return add_in_place(node, std::get<Upsample2d>(node.spec));
            case K::tile_unpool2d:
                return add_in_place(node, std::get<FusedConv2d>(node.spec));
            default:
                refuse_stretch("kernel of this kind: number " +
                               std::to_string(static_cast<int>(node.kernel)));
        }
    }

    // Nodes whose arguments are all values of the sample.
    template <class Spec>
    void add_in_place(const Node& node, const Spec& s) {
        Made made = make(node.kernel, shape_of_spec(s));
        for (size_t i = 0; i < node.arguments.size(); ++i)
            made.node.at[i] = of_sample(node.arguments[i]);
        if (node.kernel == K::max_pool2d_backward)
            made.node.at[3] = passing(std::get<Pool2d>(node.spec).output_size());
        nodes_.push_back(made);
    }

    int32_t shape_of_spec(const Elementwise& s) { return shape(FlatShape{small(s.size)}); }
    int32_t shape_of_spec(const Activation& s) {
        return shape(ActivationShape{small(s.size), small(s.kind), static_cast<float>(s.slope)});
    }
    int32_t shape_of_spec(const Rescale& s) {
        return shape(
            RescaleShape{small(s.size), static_cast<float>(s.scale), static_cast<float>(s.offset)});
    }
    int32_t shape_of_spec(const Concatenate& s) {
        return shape(JoinShape{small(s.outer * (s.first + s.second)), small(s.first),
                               small(s.second), Divisor<int32_t>(s.first + s.second)});
    }
    int32_t shape_of_spec(const Transpose& s) {
        return shape(
            TransposeShape{small(s.rows * s.columns), small(s.columns), Divisor<int32_t>(s.rows)});
    }
    int32_t shape_of_spec(const Softmax& s) {
        return shape(RowsShape{small(s.outer * s.inner), small(s.size), small(s.inner), 0});
    }
    int32_t shape_of_spec(const Loss& s) {
        return shape(
            RowsShape{small(s.losses()), small(s.size), small(s.inner), small(s.from_logits)});
    }
    int32_t shape_of_spec(const Pool2d& s) {
        const bool average = plan_.nodes[now_].kernel == K::avg_pool2d ||
                             plan_.nodes[now_].kernel == K::avg_pool2d_backward;
        const PoolAxis rows(s.height, s.out_height, s.pool_height, s.stride_height,
                            average ? 1 : s.dilation_height, s.pad_top, s.pad_bottom);
        const PoolAxis columns(s.width, s.out_width, s.pool_width, s.stride_width,
                               average ? 1 : s.dilation_width, s.pad_left, s.pad_right);
        return shape(PoolShape{rows, columns, PixelShape(s.out_height, s.out_width, s.channels),
                               PixelShape(s.height, s.width, s.channels), small(s.channels),
                               small(s.count_include_pad)});
    }
    int32_t shape_of_spec(const Upsample2d& s) {
        return shape(UpsampleShape{
            {small(s.height), small(s.scale_height)},
            {small(s.width), small(s.scale_width)},
            PixelShape(s.height * s.scale_height, s.width * s.scale_width, s.channels),
            PixelShape(s.height, s.width, s.channels),
            small(s.channels),
            small(s.bilinear)});
    }
    int32_t shape_of_spec(const FusedConv2d& s) {  // of an unpooling
        const Conv2d& c = s.conv;
        const bool rest = c.out_height % s.pool_height != 0 || c.out_width % s.pool_width != 0;
        return shape(UnpoolShape{small(s.pool_height), small(s.pool_width), small(c.out_height),
                                 small(c.out_width), small(c.filters), small(s.activation),
                                 static_cast<float>(s.slope), rest,
                                 PixelShape(s.pooled_height(), s.pooled_width(), c.filters),
                                 PixelShape(c.out_height, c.out_width, c.filters)});
    }

    // ---- convolution ----------------------------------------------------------------------------

    // Weights in the order of a cut, packed once by each block.
    int packed(int value, const Conv2d& s, const Picture& p, const Cut& cut, bool turned) {
        const auto key = std::make_tuple(value, turned, cut.filters);
        const auto found = packed_.find(key);
        if (found != packed_.end()) return found->second;
        const int64_t count = p.kernel_height * p.channels * cut.groups * p.kernel_width * kPacked;
        if (packed_weights_ + count > kMostPackedWeights) return -1;
        packed_weights_ += count;
        Made made = make(
            kPack, shape(PackShape{small(count), small(cut.filters), small(p.filters), turned,
                                   small(s.kernel_height), small(s.kernel_width), small(s.channels),
                                   small(s.filters), Divisor<int32_t>(s.kernel_width),
                                   Divisor<int32_t>(cut.groups), Divisor<int32_t>(p.channels)}));
        made.node.at[0] = lasting(count);
        point(made, 0, value);
        once_.push_back(made);
        return packed_[key] = made.node.at[0];
    }

    void add_convolution(const Node& node) {
        const std::vector<int>& a = node.arguments;
        const bool forward = node.kernel == K::tile_conv2d;
        FusedConv2d f{};
        if (forward) {
            f = std::get<FusedConv2d>(node.spec);
        } else {
            f.conv = std::get<Conv2d>(node.spec);
        }
        const Conv2d& s = f.conv;
        if (is_dense(s)) {
            return forward
                       ? add_dense(as_dense(s), f.activation, f.slope, a[0], a[1], a[2], a[3], true)
                       : add_dense(as_dense(s), kLinear, 0, a[0], a[1], -1, a[2], false);
        }
        const Picture p = forward ? forward_picture(s) : backward_picture(s);
        Cut cut = can_slide(s, p) ? cut_slide(p) : Cut{};
        const int weights = cut.items > 0 ? packed(a[1], s, p, cut, !forward) : -1;
        if (weights < 0) cut = Cut{};
        const bool slides = cut.items > 0;

        const int64_t outputs = p.out_height * p.out_width;
        const int64_t pitch = slides ? pitch_of(cut) : p.filters;
        const int64_t part = outputs * pitch;
        SpreadShape copy = spread_for(p, true);
        if (!slides) copy.count = 0;
        const int64_t strips = slides ? cut.strips : 1, groups = slides ? cut.groups : 1;
        const SlideShape slide{
            slides ? slide_kind(small(s.kernel_width), small(cut.pixels), small(cut.filters)) : 0,
            small(cut.items),
            copy.row_pitch,
            copy.pixel_pitch,
            small(p.height),
            small(p.channels),
            small(p.kernel_height),
            small(p.top),
            small(p.out_width),
            small(pitch),
            small(part),
            small(groups),
            small(cut.channel_parts),
            small(cut.row_parts),
            Divisor<int32_t>(groups),
            Divisor<int32_t>(strips),
            Divisor<int32_t>(p.out_height),
            Divisor<int32_t>(cut.channel_parts)};
        const PoolingShape pooling{
            small(cut.parts()),
            small(part),
            small(p.out_width),
            small(pitch),
            small(f.pool_height),
            small(f.pool_width),
            small(f.activation),
            static_cast<float>(f.slope),
            PixelShape(forward ? f.pooled_height() : 1, forward ? f.pooled_width() : 1, s.filters)};
        const PartsShape parts{small(cut.parts()), small(part), small(pitch),
                               PixelShape(p.out_height, p.out_width, p.filters)};
        Made made =
            make(node.kernel, shape(ConvolutionShape{copy, slide, conv_shape(s), pooling, parts}));
        made.node.at[kConvX] = of_sample(a[0]);
        made.node.at[kConvPacked] = weights;
        made.node.at[kConvParts] = passing(cut.parts() * part);
        if (copy.count > 0) made.node.at[kConvCopy] = passing(p.height * copy.row_pitch);
        if (forward) {
            made.node.at[kConvBias] = bias(a[2]);
            made.node.at[kConvY] = of_sample(a[3]);
            made.node.at[kConvMask] = of_sample(a[4]);
        } else {
            made.node.at[kConvY] = of_sample(a[2]);
        }
        point(made, 0, a[1]);
        nodes_.push_back(made);
    }

    void add_convolution_kernel(const Node& node) {
        const std::vector<int>& a = node.arguments;  // dy, x, dkernel, dbias
        const Conv2d& s = std::get<Conv2d>(node.spec);
        if (is_dense(s)) return add_dense_kernel(as_dense(s), a[0], a[1]);
        const Picture p = forward_picture(s);
        const Cut cut = can_slide(s, p) ? cut_kernel(p) : Cut{};
        const bool slides = cut.items > 0;
        SpreadShape copy = spread_for(p, false);
        if (!slides) copy.count = 0;
        const int64_t size = s.kernel_size(), parts = cut.channel_parts;
        const int64_t idle = slides && cut.items % kStretchThreads != 0
                                 ? kStretchThreads - cut.items % kStretchThreads
                                 : kStretchThreads;
        const int64_t pixels = s.out_height * s.out_width;
        const int64_t bias_parts =
            std::max<int64_t>(1, std::min({idle / s.filters, pixels, int64_t{kWarp}}));
        const int64_t kernel_sum = take_sum(size), bias_sum = a[3] >= 0 ? take_sum(s.filters) : 0;
        const int64_t groups = slides ? cut.groups : 1, strips = slides ? cut.strips : 1;
        const KernelShape kernel{
            slides ? slide_kind(small(s.kernel_width), small(cut.pixels), small(cut.filters)) : 0,
            small(cut.items),
            copy.row_pitch,
            copy.pixel_pitch,
            small(s.height),
            small(s.channels),
            small(s.kernel_height),
            small(s.pad_top),
            small(s.out_width),
            small(s.filters),
            small(pixels),
            small(size),
            small(parts),
            small(s.out_height * strips),
            small(bias_parts),
            a[3] >= 0,
            small(kernel_sum),
            small(bias_sum),
            Divisor<int32_t>(groups),
            Divisor<int32_t>(s.channels),
            Divisor<int32_t>(s.kernel_height * s.channels),
            Divisor<int32_t>(strips),
            Divisor<int32_t>(s.filters)};
        Made made = make(node.kernel, shape(ConvolutionKernelShape{copy, kernel, conv_shape(s)}));
        made.node.at[kConvDy] = of_sample(a[0]);
        made.node.at[kConvX] = of_sample(a[1]);
        made.node.at[kConvParts] = passing(parts * size + bias_parts * s.filters);
        if (copy.count > 0) made.node.at[kConvCopy] = passing(p.height * copy.row_pitch);
        nodes_.push_back(made);
        sources_[{now_, 2}] = {true, -1, kernel_sum, 0, 0, 0, 0, size};
        sources_[{now_, 3}] = {true, -1, bias_sum, 0, 0, 0, 0, s.filters};
    }

    // Where sums are in a slot, on whole cache lines.
    int64_t take_sum(int64_t size) {
        const int64_t at = slot_floats_;
        slot_floats_ += rounded(size, 32);
        return at;
    }

    // ---- dense ----------------------------------------------------------------------------------

    struct Weights {
        int64_t inputs, units;
        int piece;
        int64_t first_staged;
        std::vector<int32_t> shapes;  // of the nodes that read them

        int64_t size() const { return inputs * units; }
    };

    int weights(int value, const Dense& s, int32_t shape) {
        auto [found, fresh] = weights_.try_emplace(value, Weights{s.inputs, s.units, -1, 0, {}});
        if (fresh) {
            found->second.piece = pieces_.add(0, 0, now_);  // from the sample's beginning on
            dense_bytes_ += 4 * s.kernel_size();
            if (dense_bytes_ > kMostDenseBytes)
                refuse_stretch("use for dense layers of more than " +
                               std::to_string(kMostDenseBytes) + " bytes");
        }
        found->second.shapes.push_back(shape);
        pieces_[found->second.piece].last = now_;
        return found->second.piece;
    }

    void add_dense(const Dense& s, int64_t activation, double slope, int x, int kernel, int b,
                   int y, bool forward) {
        const int64_t width = s.units % 4 == 0 ? 4 : 1, groups = s.units / width;
        const int64_t room = kMostParts / std::max<int64_t>(s.rows * s.units, 1);
        const int64_t most = std::min(kStretchThreads / (groups * s.rows), room);
        const int64_t parts = even_parts(divide_up<int64_t>(s.inputs, 4), most);
        const DenseShape dense{small(s.rows),
                               small(s.inputs),
                               small(s.units),
                               small(width),
                               small(groups),
                               small(parts),
                               small(s.rows * groups * parts),
                               small(s.inputs),
                               small(activation),
                               static_cast<float>(slope),
                               Divisor<int32_t>(groups),
                               Divisor<int32_t>(parts),
                               Divisor<int32_t>(s.units),
                               Divisor<int32_t>(s.inputs)};
        const int32_t at = shape(dense);
        Made made = make(forward ? K::tile_dense : K::tile_dense_backward_input, at);
        made.node.at[kDenseX] = of_sample(x);
        made.node.at[kDenseY] = of_sample(y);
        made.node.at[kDenseWeights] = weights(kernel, s, at);
        if (forward) {
            made.node.at[kDenseBias] = bias(b);
            made.node.at[kDenseParts] = passing(s.rows * parts * s.units);
        }
        point(made, 0, kernel);
        nodes_.push_back(made);
    }

    void add_dense_kernel(const Dense& s, int dy, int x) {
        const int64_t inputs = rounded(s.inputs, 4), units = rounded(s.units, 4);
        Made made =
            make(K::tile_dense_backward_kernel,
                 shape(KeepShape{small(s.rows), small(s.inputs), small(s.units), small(inputs),
                                 small(units), Divisor<int32_t>(inputs), Divisor<int32_t>(units)}));
        made.node.at[kDenseX] = of_sample(x);
        made.node.at[kDenseDy] = of_sample(dy);
        made.offset[0] = memory_.take_rows(s.rows * inputs * 4);
        made.offset[1] = memory_.take_rows(s.rows * units * 4);
        nodes_.push_back(made);
        sources_[{now_, 2}] = {false, made.offset[0], made.offset[1], inputs,
                               units, s.rows,         s.inputs,       s.units};
        sources_[{now_, 3}] = {false, -1, made.offset[1], 0, units, s.rows, 0, s.units};
    }

    // ---- copies in shared memory --------------------------------------------------------------

    int bias(int value) {
        if (value < 0) return -1;
        const auto found = biases_.find(value);
        if (found != biases_.end()) return found->second;
        return biases_[value] = lasting(plan_.values[value].elements);
    }

    // Biases are a group of copies that a block begins once, dense weights another that it begins
    // for each sample; each is waited for where the first of it is needed.
    void add_stages() {
        for (const auto& [value, piece] : biases_) once_.push_back(make_stage(value, piece));
        if (!biases_.empty()) once_.back().node.by_row = 1;
        for (const auto& [value, one] : weights_) stages_.push_back(make_stage(value, one.piece));
        if (!stages_.empty()) stages_.back().node.by_row = 1;
        copies_ = lasting(2);
        bool first_bias = true, first_weights = true;
        for (Made& made : nodes_) {
            const K kernel = static_cast<K>(made.node.op);
            const bool dense = kernel == K::tile_dense || kernel == K::tile_dense_backward_input;
            const bool biased = kernel == K::tile_conv2d && made.node.at[kConvBias] >= 0;
            if (dense && first_weights) {
                made.node.waits = kWaitForAll;
                first_weights = first_bias = false;
            } else if (biased && first_bias) {
                made.node.waits = weights_.empty() ? kWaitForAll : kWaitForFirst;
                first_bias = false;
            }
        }
    }

    Made make_stage(int value, int piece) {
        Made made = make(kStage, shape(FlatShape{0}));
        made.node.at[0] = piece;
        point(made, 0, value);
        return made;
    }

    // A node waits for the other threads where it touches what a node since the last barrier wrote,
    // or writes what one has touched.
    void add_barriers() {
        struct Touched {
            int64_t begin, end;
            bool written;
        };
        std::vector<Touched> since;
        for (const Piece& piece : pieces_.all())
            if (piece.first == INT_MIN)
                since.push_back({piece.offset, piece.offset + piece.floats, true});
        for (int k = 0; k < static_cast<int>(nodes_.size()); ++k) {
            StretchNode& node = nodes_[k].node;
            std::vector<Touched> own;
            for (int32_t at : node.at) {
                if (at < 0) continue;
                const Piece& piece = pieces_[at];
                own.push_back({piece.offset, piece.offset + piece.floats, piece.first == k});
            }
            for (const Touched& a : own)
                for (const Touched& b : since)
                    if (a.begin < b.end && b.begin < a.end && (a.written || b.written))
                        node.waits = std::max(node.waits, int32_t{kWaitForThreads});
            if (node.waits) since.clear();
            since.insert(since.end(), own.begin(), own.end());
        }
    }

    // ---- the tables -----------------------------------------------------------------------------

    template <class S>
    int64_t append(const S& s) {
        std::vector<unsigned char>& bytes = tables_.bytes;
        const size_t at = bytes.size();
        bytes.resize(at + sizeof(S));
        std::memcpy(bytes.data() + at, &s, sizeof(S));
        return static_cast<int64_t>(at);
    }

    void append_node(Made made, int64_t shapes) {
        StretchNode& node = made.node;
        if (node.op == kStage) {
            const Piece& piece = pieces_[node.at[0]];
            const FlatShape size{small(piece.floats)};
            std::memcpy(shapes_.data() + node.shape, &size, sizeof size);
            for (const auto& [value, one] : weights_)
                if (one.piece == node.at[0]) made.offset[0] = one.first_staged * one.units * 4;
        }
        node.shape += small(shapes);
        for (int32_t& at : node.at)
            if (at >= 0) at = small(base_ + pieces_[at].offset);
        const int64_t at = append(node);
        for (int i = 0; i < 2; ++i) {
            if (made.offset[i] < 0) continue;
            const int64_t member = static_cast<int64_t>(offsetof(StretchNode, memory)) + 8 * i;
            tables_.pointers.push_back({at + member, made.value[i], made.offset[i]});
        }
    }

    void assemble(const StretchTasks& behind) {
        tables_.once = static_cast<int>(once_.size());
        tables_.stages = static_cast<int>(stages_.size());
        tables_.nodes = static_cast<int>(nodes_.size());
        const int64_t shapes = (tables_.once + tables_.stages + tables_.nodes) *
                               static_cast<int64_t>(sizeof(StretchNode));
        for (const auto& [value, one] : weights_) {
            for (int32_t at : one.shapes) {
                const int32_t first = small(one.first_staged);
                std::memcpy(shapes_.data() + at + offsetof(DenseShape, first_staged), &first,
                            sizeof first);
            }
        }
        for (const Made& made : once_) append_node(made, shapes);
        for (const Made& made : stages_) append_node(made, shapes);
        for (const Made& made : nodes_) append_node(made, shapes);
        std::vector<unsigned char>& bytes = tables_.bytes;
        bytes.insert(bytes.end(), shapes_.begin(), shapes_.end());
        bytes.resize(static_cast<size_t>(tables_.node_bytes));
        tables_.has_clerk = behind.clerk().counters + behind.clerk().alphas > 0;
        tables_.clerk_at = append(behind.clerk());
        for (TablePointer pointer : behind.clerk_pointers()) {
            pointer.at += tables_.clerk_at;
            tables_.pointers.push_back(pointer);
        }
        tables_.tasks = static_cast<int>(behind.tasks().size());
        tables_.tasks_at = static_cast<int64_t>(bytes.size());
        for (const MadeTask& made : behind.tasks()) {
            const int64_t at = append(made.task);
            for (TablePointer pointer : made.pointers) {
                pointer.at += at;
                tables_.pointers.push_back(pointer);
            }
        }
        tables_.slots_at = slots_at_;
        tables_.slot_floats = slot_floats_;
        tables_.most_slots = slots_;
        tables_.memory_bytes = memory_.bytes();
        tables_.counters = behind.counters();
    }

    const StretchPlan& plan_;
    StretchMemory memory_;
    int now_ = 0;      // the node in work
    int copies_ = -1;  // the piece of BulkCopies
    StretchTables tables_;
    Pieces pieces_;
    std::vector<int> values_;  // their pieces
    std::vector<Made> once_, stages_, nodes_;
    std::vector<unsigned char> shapes_;
    std::map<std::tuple<int, bool, int64_t>, int> packed_;
    std::map<int, int> biases_;
    std::map<int, Weights> weights_;
    GradientSources sources_;
    int64_t base_ = 0, packed_weights_ = 0, dense_bytes_ = 0;
    int64_t slot_floats_ = 0, slots_ = 0, slots_at_ = 0;
};

}  // namespace cuda
}  // namespace convkit
