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
#include "stretch_conv.cuh"
#include "stretch_dense.cuh"
#include "stretch_rows.cuh"
#include "stretch_update.cuh"
#include "stretch_values.cuh"

namespace convkit {
namespace cuda {

// Samples of a batch share the sums of so many slots, fewer where these are large.
constexpr int64_t kMostSlots = 128, kMostSlotBytes = int64_t{32} << 20;
// Of dense layers; beyond, reading them for every sample costs more than a product over the batch.
constexpr int64_t kMostDenseBytes = 1 << 20;
// What parts of sums, and packed weights, may take of shared memory, in numbers.
constexpr int64_t kMostParts = 12288, kMostPackedWeights = 12288;
constexpr int64_t kMostValues = 1 << 20;  // of a value: places are 32-bit numbers

constexpr int64_t rounded(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

// A plan's tables. Pointers in them are set when memory is bound.
struct StretchTables {
    struct Pointer {
        int64_t at;      // in `bytes`
        int value;       // that is bound; -1: none, but memory of the stretch
        int64_t offset;  // in its memory
    };
    std::vector<unsigned char> bytes;
    std::vector<Pointer> pointers;
    int64_t node_bytes = 0;  // of `bytes`, from the beginning: what blocks copy
    int once = 0, stages = 0, nodes = 0;
    bool has_clerk = false;
    int64_t clerk_at = 0, tasks_at = 0;
    int tasks = 0;      // the last one is for counters
    int counters = 0;   // that it moves on
    int64_t shared_bytes = 0;
    int64_t copies_at = 0;  // in shared memory, in numbers
    int64_t slots_at = 0, slot_floats = 0, most_slots = 0;
    int64_t memory_bytes = 0;  // of the stretch, behind `bytes`
};

class StretchLayout {
 public:
    // For up to `most` samples, on a device whose blocks have so much shared memory.
    StretchLayout(const StretchPlan& plan, int64_t most, int64_t shared_bytes)
        : plan_(plan), most_(most) {
        values_.assign(plan.values.size(), -1);
        batch_at_.assign(plan.values.size(), -1);
        for (now_ = 0; now_ < static_cast<int>(plan.nodes.size()); ++now_) {
            check_size(plan.nodes[now_]);
            add(plan.nodes[now_]);
        }
        add_stages();
        place(shared_bytes);
        add_barriers();
        slots_ = std::min(kMostSlots, std::max<int64_t>(kMostSlotBytes / std::max<int64_t>(
                                                            slot_floats_ * 4, 1), 1));
        slots_at_ = take_memory(slot_floats_ * 4 * slots_);
        add_updates();
        assemble();
    }

    StretchTables take() { return std::move(tables_); }

 private:
    using K = KernelNumber;
    using Node = StretchPlan::Node;

    // ---- pieces of shared memory ----------------------------------------------------------------
    // From one node of the stretch to another, or for as long as the block lives.
    struct Piece {
        int64_t floats;
        int first, last;
        int64_t offset = -1;
    };

    int piece(int64_t floats, int first, int last) {
        pieces_.push_back({floats, first, last});
        return static_cast<int>(pieces_.size()) - 1;
    }
    int lasting(int64_t floats) { return piece(floats, INT_MIN, INT_MAX); }
    int passing(int64_t floats) { return piece(floats, now_, now_); }

    int of_sample(int value) {
        if (value < 0) return -1;
        const StretchPlan::Value& v = plan_.values[value];
        if (v.place != StretchPlan::Place::kSample) refuse("a value of another kind for a sample's");
        if (values_[value] < 0)
            values_[value] = piece((v.elements * v.item_bytes + 3) / 4, now_, now_);
        pieces_[values_[value]].last = now_;
        return values_[value];
    }

    // Larger pieces first, each at the lowest place that none of the same time covers. The numbers
    // that they take together.
    int64_t place_pieces() {
        constexpr int64_t kStep = 16;
        std::vector<Piece*> order, placed;
        for (Piece& piece : pieces_) order.push_back(&piece);
        std::stable_sort(order.begin(), order.end(),
                         [](Piece* a, Piece* b) { return a->floats > b->floats; });
        int64_t end = 0;
        for (Piece* piece : order) {
            std::vector<std::pair<int64_t, int64_t>> taken;
            for (const Piece* other : placed)
                if (other->first <= piece->last && piece->first <= other->last)
                    taken.emplace_back(other->offset,
                                       other->offset + rounded(other->floats, kStep));
            std::sort(taken.begin(), taken.end());
            piece->offset = 0;
            const int64_t size = rounded(piece->floats, kStep);
            for (const auto& [from, to] : taken) {
                if (piece->offset + size <= from) break;
                piece->offset = std::max(piece->offset, to);
            }
            end = std::max(end, piece->offset + size);
            placed.push_back(piece);
        }
        return end;
    }

    // What the sample leaves is for rows of dense layers' weights, those of small layers first.
    void place(int64_t most_bytes) {
        const size_t nodes = once_.size() + stages_.size() + nodes_.size();
        const int64_t table =
            rounded(static_cast<int64_t>(nodes * sizeof(StretchNode) + shapes_.size()), 64);
        const int64_t room = (most_bytes - table) / 4;
        int64_t end = place_pieces();
        if (end > room)
            refuse(std::to_string(table + end * 4) + " bytes of shared memory for a sample, but " +
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
                (place_pieces() <= room ? rows : too_many) = between;
            }
            pieces_[one->piece].floats = rows * one->units;
            one->first_staged = one->inputs - rows;
        }
        end = place_pieces();
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
        const StretchPlan::Place place = plan_.values[value].place;
        if (place == StretchPlan::Place::kBatch) {
            made.offset[which] = batch_memory(value);
        } else if (place == StretchPlan::Place::kFed || place == StretchPlan::Place::kState) {
            made.value[which] = value;
            made.offset[which] = 0;
        } else {
            refuse("memory of the device for a sample's value");
        }
    }

    [[noreturn]] static void refuse(const std::string& what) {
        throw DoesNotFit("stretch: a block of threads has no " + what);
    }

    void check_size(const Node& node) const {
        for (int id : node.arguments) {
            if (id < 0) continue;
            const StretchPlan::Value& value = plan_.values[id];
            const bool own = value.place == StretchPlan::Place::kSample ||
                             value.place == StretchPlan::Place::kSum;
            if (own && value.elements > kMostValues)
                refuse("room for a value of " + std::to_string(value.elements) + " numbers");
        }
    }

    static int32_t small(int64_t v) { return static_cast<int32_t>(v); }

    void add(const Node& node) {
        const std::vector<int>& a = node.arguments;
        switch (node.kernel) {
            case K::tile_gather:
            case K::tile_gather_labels: {
                const Gather& s = std::get<Gather>(node.spec);
                // To add -0 changes nothing, where 0 would make 0 of -0.
                const float offset = s.offset == 0 ? -0.0f : static_cast<float>(s.offset);
                Made made = make(node.kernel, shape(GatherShape{small(s.size), small(s.type),
                                                                static_cast<float>(s.scale),
                                                                offset}));
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
                Made made = make(node.kernel,
                                 shape(DropoutShape{small(s.size), Philox4x32::below(s.rate),
                                                    static_cast<float>(1 / (1 - s.rate)),
                                                    s.stream}));
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
            default:
                return add_in_place(node);
        }
    }

    // Nodes whose arguments are all values of the sample.
    void add_in_place(const Node& node) {
        Made made = make(node.kernel, std::visit([&](const auto& s) { return shape_of_spec(s); },
                                                 node.spec));
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
        return shape(RescaleShape{small(s.size), static_cast<float>(s.scale),
                                  static_cast<float>(s.offset)});
    }
    int32_t shape_of_spec(const Concatenate& s) {
        return shape(JoinShape{small(s.outer * (s.first + s.second)), small(s.first),
                               small(s.second), Divisor<int32_t>(s.first + s.second)});
    }
    int32_t shape_of_spec(const Transpose& s) {
        return shape(TransposeShape{small(s.rows * s.columns), small(s.columns),
                                    Divisor<int32_t>(s.rows)});
    }
    int32_t shape_of_spec(const Softmax& s) {
        return shape(RowsShape{small(s.outer * s.inner), small(s.size), small(s.inner), 0});
    }
    int32_t shape_of_spec(const Loss& s) {
        return shape(RowsShape{small(s.losses()), small(s.size), small(s.inner),
                               small(s.from_logits)});
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
            PixelShape(s.height, s.width, s.channels), small(s.channels), small(s.bilinear)});
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
    template <class Other>
    int32_t shape_of_spec(const Other&) {
        refuse("such a node");
    }

    // ---- convolution ----------------------------------------------------------------------------

    // A convolution over the whole picture is a dense layer.
    static bool is_dense(const Conv2d& s) {
        return s.groups == 1 && s.out_height == 1 && s.out_width == 1 &&
               s.kernel_height == s.height && s.kernel_width == s.width && s.pad_top == 0 &&
               s.pad_left == 0 && (s.dilation_height == 1 || s.kernel_height == 1) &&
               (s.dilation_width == 1 || s.kernel_width == 1);
    }
    static Dense as_dense(const Conv2d& s) { return {1, s.input_size(), s.filters}; }

    // What a sliding kernel sees: pictures of `channels` to pictures of `filters`.
    struct Picture {
        int64_t height, width, channels;
        int64_t out_height, out_width, filters;
        int64_t kernel_height, kernel_width, top, left;
    };
    static Picture forward_picture(const Conv2d& s) {
        return {s.height,     s.width,         s.channels,     s.out_height, s.out_width,
                s.filters,    s.kernel_height, s.kernel_width, s.pad_top,    s.pad_left};
    }
    static Picture backward_picture(const Conv2d& s) {
        return {s.out_height,
                s.out_width,
                s.filters,
                s.height,
                s.width,
                s.channels,
                s.kernel_height,
                s.kernel_width,
                s.kernel_height - 1 - s.pad_top,
                s.kernel_width - 1 - s.pad_left};
    }
    static bool can_slide(const Conv2d& s, const Picture& p) {
        return s.groups == 1 && s.stride_height == 1 && s.stride_width == 1 &&
               s.dilation_height == 1 && s.dilation_width == 1 && p.left >= 0 &&
               (s.kernel_width == 3 || s.kernel_width == 5);
    }

    // How the work is cut, and what it takes by rough count of instructions of a scheduler.
    struct Cut {
        int64_t pixels = 0, filters = 0, groups = 0, strips = 0;
        int64_t channel_parts = 1, row_parts = 1;
        int64_t items = 0, cost = INT64_MAX;

        int64_t parts() const { return channel_parts * row_parts; }
    };
    static constexpr int64_t kPixelCounts[] = {7, 5, 4, 2}, kFilterCounts[] = {4, 3};

    static int64_t per_scheduler(int64_t items) {
        constexpr int64_t kSchedulers = 4;
        return divide_up<int64_t>(divide_up<int64_t>(items, kWarp), kSchedulers);
    }

    // The fewest parts that are done as soon as `most` of them.
    static int64_t even_parts(int64_t work, int64_t most) {
        const int64_t each = divide_up(work, std::max<int64_t>(std::min(most, work), 1));
        return divide_up(work, each);
    }

    static Cut cut_slide(const Picture& p) {
        Cut best;
        for (int64_t pixels : kPixelCounts) {
            for (int64_t filters : kFilterCounts) {
                Cut cut;
                if (pixels > p.out_width) continue;
                cut.pixels = pixels;
                cut.filters = filters;
                cut.groups = divide_up(p.filters, filters);
                cut.strips = divide_up(p.out_width, pixels);
                const int64_t tiles = p.out_height * cut.strips * cut.groups;
                const int64_t outputs = p.out_height * p.out_width;
                const int64_t room = kMostParts / (outputs * pitch_of(cut));
                const int64_t most = std::min(kStretchThreads / tiles, room);
                cut.channel_parts = even_parts(p.channels, most);
                cut.row_parts = even_parts(p.kernel_height, most / cut.channel_parts);
                cut.items = tiles * cut.parts();
                const int64_t terms = divide_up(p.channels, cut.channel_parts) *
                                      divide_up(p.kernel_height, cut.row_parts);
                const int64_t sums = pixels * filters;
                const int64_t step =
                    sums * p.kernel_width + pixels + 2 * p.kernel_width + 5;
                const int64_t finish = divide_up<int64_t>(outputs * p.filters, kStretchThreads) *
                                       kStretchWarps / 4 * (cut.parts() + 8);
                cut.cost = per_scheduler(cut.items) * (terms * step + sums + 30) + finish;
                if (cut.cost < best.cost) best = cut;
            }
        }
        return best;
    }
    // Between the pixels of sums: whole vectors, or an odd number that spreads over the banks.
    static int64_t pitch_of(const Cut& cut) {
        return cut.filters == kPacked ? cut.groups * kPacked : cut.groups * cut.filters | 1;
    }

    // The copy that a sliding kernel reads, if it needs one.
    static SpreadShape spread_for(const Picture& p, bool by_pixels) {
        constexpr int64_t kBadPitch = 8;
        const int64_t width = p.out_width + p.kernel_width - 1;
        const bool conflicts = by_pixels && p.channels % kBadPitch == 0;
        const bool needed = p.left > 0 || width > p.width || conflicts;
        const int64_t pixel = needed ? p.channels | 1 : p.channels;
        const int64_t row = needed ? (width * pixel) | 1 : p.width * p.channels;
        return {small(needed ? p.height * width * p.channels : 0),
                small(p.width),
                small(p.channels),
                small(p.left),
                small(row),
                small(pixel),
                Divisor<int32_t>(width * p.channels),
                Divisor<int32_t>(p.channels)};
    }

    static ConvShape conv_shape(const Conv2d& s) {
        return {small(s.height),
                small(s.width),
                small(s.channels),
                small(s.kernel_height),
                small(s.kernel_width),
                small(s.filters),
                small(s.channels / s.groups),
                small(s.filters / s.groups),
                small(s.stride_height),
                small(s.stride_width),
                small(s.dilation_height),
                small(s.dilation_width),
                small(s.pad_top),
                small(s.pad_left),
                small(s.out_height),
                small(s.out_width),
                PixelShape(s.height, s.width, s.channels),
                PixelShape(s.out_height, s.out_width, s.filters),
                Divisor<int32_t>(s.channels / s.groups),
                Divisor<int32_t>(s.filters / s.groups),
                Divisor<int32_t>(s.stride_height),
                Divisor<int32_t>(s.stride_width)};
    }

    // Weights in the order of a cut, packed once by each block.
    int packed(int value, const Conv2d& s, const Picture& p, const Cut& cut, bool turned) {
        const auto key = std::make_tuple(value, turned, cut.filters);
        const auto found = packed_.find(key);
        if (found != packed_.end()) return found->second;
        const int64_t count =
            p.kernel_height * p.channels * cut.groups * p.kernel_width * kPacked;
        if (packed_weights_ + count > kMostPackedWeights) return -1;
        packed_weights_ += count;
        Made made = make(kPack, shape(PackShape{small(count), small(cut.filters), small(p.filters),
                                                turned, small(s.kernel_height),
                                                small(s.kernel_width), small(s.channels),
                                                small(s.filters), Divisor<int32_t>(s.kernel_width),
                                                Divisor<int32_t>(cut.groups),
                                                Divisor<int32_t>(p.channels)}));
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
            return forward ? add_dense(as_dense(s), f.activation, f.slope, a[0], a[1], a[2], a[3],
                                       true)
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
        Made made = make(node.kernel,
                         shape(ConvolutionShape{copy, slide, conv_shape(s), pooling, parts}));
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

    // How the gradient of a kernel is cut: `strips` are segments of a row, `channel_parts` parts.
    static Cut cut_kernel(const Picture& p) {
        Cut best;
        const int64_t size = p.kernel_height * p.kernel_width * p.channels * p.filters;
        for (int64_t pixels : kPixelCounts) {
            for (int64_t filters : kFilterCounts) {
                if (filters == kPacked && p.filters % kPacked != 0) continue;
                if (pixels > p.out_width && pixels > 2) continue;
                Cut cut;
                cut.pixels = pixels;
                cut.filters = filters;
                cut.groups = divide_up(p.filters, filters);
                cut.strips = divide_up(p.out_width, pixels);
                const int64_t tiles = cut.groups * p.kernel_height * p.channels;
                const int64_t segments = p.out_height * cut.strips;
                const int64_t room = kMostParts / size;
                cut.channel_parts = even_parts(segments, std::min(kStretchThreads / tiles, room));
                cut.items = tiles * cut.channel_parts;
                const int64_t sums = filters * p.kernel_width;
                const int64_t loads = filters == kPacked ? 2 : 1 + filters;
                const int64_t step = p.kernel_width + 8 + pixels * (sums + loads + 1);
                const int64_t finish = divide_up<int64_t>(size, kStretchThreads) * kStretchWarps /
                                       4 * (cut.channel_parts + 8);
                cut.cost = per_scheduler(cut.items) *
                               (divide_up(segments, cut.channel_parts) * step + sums + 30) +
                           finish;
                if (cut.cost < best.cost) best = cut;
            }
        }
        return best;
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
        Made made =
            make(node.kernel, shape(ConvolutionKernelShape{copy, kernel, conv_shape(s)}));
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
            found->second.piece = piece(0, 0, now_);  // from the sample's beginning on
            dense_bytes_ += 4 * s.kernel_size();
            if (dense_bytes_ > kMostDenseBytes)
                refuse("use for dense layers of more than " + std::to_string(kMostDenseBytes) +
                       " bytes");
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
        Made made = make(K::tile_dense_backward_kernel,
                         shape(KeepShape{small(s.rows), small(s.inputs), small(s.units),
                                         small(inputs), small(units), Divisor<int32_t>(inputs),
                                         Divisor<int32_t>(units)}));
        made.node.at[kDenseX] = of_sample(x);
        made.node.at[kDenseDy] = of_sample(dy);
        made.offset[0] = take_memory(most_ * s.rows * inputs * 4);
        made.offset[1] = take_memory(most_ * s.rows * units * 4);
        nodes_.push_back(made);
        sources_[{now_, 2}] = {false,   made.offset[0], made.offset[1], inputs,
                               units,   s.rows,         s.inputs,       s.units};
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
            const bool dense =
                kernel == K::tile_dense || kernel == K::tile_dense_backward_input;
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
        for (const Piece& piece : pieces_)
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

    // ---- memory of the stretch ------------------------------------------------------------------

    int64_t take_memory(int64_t bytes) {
        const int64_t at = memory_;
        memory_ += rounded(bytes, 256);
        return at;
    }

    int64_t batch_memory(int value) {
        if (batch_at_[value] < 0) batch_at_[value] = take_memory(most_ * plan_.values[value].elements * 4);
        return batch_at_[value];
    }

    // ---- updates --------------------------------------------------------------------------------

    // A gradient: a sum in the slots, or of rows that were kept.
    struct Source {
        bool in_slots;
        int64_t x, gradient;  // where they are: in a slot in numbers, else in memory in bytes; -1
        int64_t x_pitch, pitch, per_sample;
        int64_t inputs, units;  // of a product; the others have units alone
    };

    struct MadeTask {
        UpdateTask task{};
        std::vector<StretchTables::Pointer> pointers;  // at: in the task
    };

    template <class M>
    static int64_t offset_in(const UpdateTask& task, const M& member) {
        return reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(&task);
    }

    static void point(MadeTask& made, const void* member, int value, int64_t offset) {
        const int64_t at = static_cast<const char*>(member) - reinterpret_cast<const char*>(&made.task);
        made.pointers.push_back({at, value, offset});
    }

    void add_updates() {
        for (const StretchPlan::Update& update : plan_.updates) add_update(update);
        // Blocks with more to do begin first.
        std::stable_sort(tasks_.begin(), tasks_.end(), [](const MadeTask& a, const MadeTask& b) {
            return a.task.kind < b.task.kind;
        });
        for (const StretchPlan::Score& score : plan_.scores) {
            MadeTask made;
            made.task.kind = kScoreUpdate;
            made.task.terms = 1;
            made.task.term[0].per_sample = small(score.rows);
            point(made, &made.task.term[0].gradient, -1, batch_memory(score.x));
            point(made, &made.task.total, score.total, 0);
            tasks_.push_back(made);
        }
        MadeTask last;
        last.task.kind = kCountersUpdate;
        for (const StretchPlan::Counter& counter : plan_.counters) {
            const int64_t offset = (counter.size - 1) * 8;
            if (counter.before_updates) {
                check_count(clerk_.counters);
                point_clerk(&clerk_.counter[clerk_.counters++], counter.value, offset);
            } else {
                check_count(last.task.terms);
                point(last, &last.task.counters[last.task.terms++], counter.value, offset);
            }
        }
        tables_.counters = last.task.terms;
        tasks_.push_back(last);
    }

    static void check_count(int count) {
        if (count >= kMostCounters) refuse("room for so many counters");
    }

    void point_clerk(const void* member, int value, int64_t offset) {
        const int64_t at = static_cast<const char*>(member) - reinterpret_cast<const char*>(&clerk_);
        clerk_pointers_.push_back({at, value, offset});
    }

    // Where the rate of Adam is made, once for all parameters that share it.
    int64_t alpha_of(const Adam& s, int learning_rate, int step) {
        const auto key = std::make_tuple(learning_rate, step, s.beta_1, s.beta_2);
        const auto found = alphas_.find(key);
        if (found != alphas_.end()) return found->second;
        check_count(clerk_.alphas);
        Alpha& alpha = clerk_.alpha[clerk_.alphas++];
        alpha.beta_1 = s.beta_1;
        alpha.beta_2 = s.beta_2;
        const int64_t rate = take_memory(4);
        point_clerk(&alpha.learning_rate, learning_rate, 0);
        point_clerk(&alpha.step, step, 0);
        point_clerk(&alpha.rate, -1, rate);
        return alphas_[key] = rate;
    }

    void add_update(const StretchPlan::Update& update) {
        MadeTask made;
        UpdateTask& task = made.task;
        Rule& rule = task.rule;
        const std::vector<int>& a = update.arguments;
        const auto optional = [&](const void* member, int value) {
            if (value >= 0) point(made, member, value, 0);
        };
        if (const Sgd* s = std::get_if<Sgd>(&update.spec)) {
            rule.kind = s->nesterov ? kNesterovRule : kSgdRule;
            rule.momentum = static_cast<float>(s->momentum);
            point(made, &rule.rate, a[0], 0);
            optional(&rule.first, a[2]);
            point(made, &rule.parameter, a[3], 0);
        } else {
            const Adam& adam = std::get<Adam>(update.spec);
            rule.kind = kAdamRule;
            rule.rest_1 = static_cast<float>(1 - adam.beta_1);
            rule.rest_2 = static_cast<float>(1 - adam.beta_2);
            rule.epsilon = static_cast<float>(adam.epsilon);
            point(made, &rule.rate, -1, alpha_of(adam, a[0], a[1]));
            point(made, &rule.first, a[3], 0);
            point(made, &rule.second, a[4], 0);
            point(made, &rule.parameter, a[5], 0);
        }
        if (update.gradients.size() > kMostTerms) refuse("room for so many uses of a layer");
        bool product = false;
        for (const StretchPlan::Gradient& gradient : update.gradients) {
            const Source& source = sources_.at({gradient.node, gradient.argument});
            Term& term = task.term[task.terms];
            const bool is_product = source.x >= 0;
            if (task.terms > 0 && product != is_product) refuse("sum of unlike gradients");
            product = is_product;
            ++task.terms;
            if (product) point(made, &term.x, -1, source.x);
            term.x_pitch = small(source.x_pitch);
            term.per_sample = small(source.per_sample);
            term.pitch = source.in_slots ? slot_floats_ : source.pitch;
            point(made, &term.gradient, -1,
                  source.in_slots ? slots_at_ + source.gradient * 4 : source.gradient);
            task.inputs = small(source.inputs);
            task.units = small(source.units);
        }
        task.kind = product ? kProductUpdate : kRowsUpdate;
        if (product) {
            for (; task.input < task.inputs; task.input += kTileInputs)
                for (task.unit = 0; task.unit < task.units; task.unit += kTileUnits)
                    tasks_.push_back(made);
        } else {
            for (; task.unit < task.units; task.unit += kWarp) tasks_.push_back(made);
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

    void assemble() {
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
        tables_.has_clerk = clerk_.counters + clerk_.alphas > 0;
        tables_.clerk_at = append(clerk_);
        for (StretchTables::Pointer pointer : clerk_pointers_) {
            pointer.at += tables_.clerk_at;
            tables_.pointers.push_back(pointer);
        }
        tables_.tasks = static_cast<int>(tasks_.size());
        tables_.tasks_at = static_cast<int64_t>(bytes.size());
        for (const MadeTask& made : tasks_) {
            const int64_t at = append(made.task);
            for (StretchTables::Pointer pointer : made.pointers) {
                pointer.at += at;
                tables_.pointers.push_back(pointer);
            }
        }
        tables_.slots_at = slots_at_;
        tables_.slot_floats = slot_floats_;
        tables_.most_slots = slots_;
        tables_.memory_bytes = memory_;
    }

    const StretchPlan& plan_;
    const int64_t most_;
    int now_ = 0;      // the node in work
    int copies_ = -1;  // the piece of BulkCopies
    StretchTables tables_;
    std::vector<Piece> pieces_;
    std::vector<int> values_;         // their pieces
    std::vector<int64_t> batch_at_;   // where values of the batch are in memory
    std::vector<Made> once_, stages_, nodes_;
    std::vector<unsigned char> shapes_;
    std::map<std::tuple<int, bool, int64_t>, int> packed_;
    std::map<int, int> biases_;
    std::map<int, Weights> weights_;
    std::map<std::pair<int, int>, Source> sources_;
    std::map<std::tuple<int, int, double, double>, int64_t> alphas_;
    std::vector<MadeTask> tasks_;
    Clerk clerk_{};
    std::vector<StretchTables::Pointer> clerk_pointers_;
    int64_t base_ = 0, memory_ = 0, packed_weights_ = 0, dense_bytes_ = 0;
    int64_t slot_floats_ = 0, slots_ = 0, slots_at_ = 0;
};

}  // namespace cuda
}  // namespace convkit
