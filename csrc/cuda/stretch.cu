// The depth-first schedule on a GPU: a block takes a sample through all nodes of a stretch, from
// the row of the data to the gradients of the weights, with its values in shared memory; then it
// takes the next. A second kernel adds the gradients up and updates the parameters. So a step of
// training is two launches.
//
// A batch's samples go to blocks by their number alone, and every sum is in a fixed order: bits do
// not depend on the GPU. Blocks that share no sums (in inference) are as many as the GPU has room
// for.
#include "stretch.h"

#include <new>

#include "async.cuh"
#include "device.h"
#include "stretch_layout.cuh"
#include "stretch_make.h"

namespace convkit {
namespace cuda {
namespace {

struct StretchJob {
    const char* table;
    int32_t table_words, once, stages, nodes;  // words of 16 bytes
    int32_t copies_at;                         // BulkCopies in shared memory, in numbers
    const Clerk* clerk;                        // of the block behind the others; may be null
    float* slots;
    int64_t slot_floats;
    int64_t batch, blocks, first;
    const int64_t* cursor;  // may be null
};

// Copies that threads begin.
__device__ void stage_by_threads(const StretchNode& node) {
    const int count = shape_of<FlatShape>(node).size;
    const auto* const from = reinterpret_cast<const float*>(node.memory[0]);
    float* const to = values_of(node, 0);
    if (count % 4 == 0 && reinterpret_cast<uintptr_t>(from) % kVectorBytes == 0) {
        for (int i = static_cast<int>(threadIdx.x) * 4; i < count; i += kStretchThreads * 4)
            copy_async<4>(to + i, from + i);
    } else {
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kStretchThreads)
            copy_async<1>(to + i, from + i);
    }
}

// As many as can be by the copy engine, the others by threads.
__device__ void stage(const StretchNode& node, const BulkCopies& copies) {
    const bool begun = copies.begin(values_of(node, 0), reinterpret_cast<float*>(node.memory[0]),
                                    shape_of<FlatShape>(node).size);
    if (!begun) stage_by_threads(node);
    if (node.by_row) end_group();
}

// `round`: how many samples the block has taken.
__device__ void wait_before(const StretchNode& node, const BulkCopies& copies, int64_t round) {
    if (node.waits == kWaitForFirst) wait_for_groups<1>();
    if (node.waits == kWaitForAll) {
        wait_for_groups<0>();
        copies.wait(round);
    }
    if (node.waits) __syncthreads();
}

__device__ void run_node(const StretchNode& node, const Sample& sample) {
    using K = KernelNumber;
    switch (static_cast<K>(node.op)) {
        case K::tile_gather:
            return gather_values(node, sample);
        case K::tile_gather_labels:
            return gather_labels_of(node, sample);
        case K::tile_conv2d:
        case K::tile_conv2d_backward_input:
            return convolution(node);
        case K::tile_conv2d_backward_kernel:
            return convolution_backward_kernel(node, sample);
        case K::tile_unpool2d:
            return unpool(node);
        case K::tile_dense:
            return dense(node);
        case K::tile_dense_backward_input:
            return dense_backward_input_of(node);
        case K::tile_dense_backward_kernel:
            return dense_backward_kernel_of(node, sample);
        case K::activation:
            return activate_values(node);
        case K::activation_backward:
            return activate_values_backward(node);
        case K::untile:
            return store_values(node, sample);
        case K::tile_mean_backward:
            return spread_mean(node, sample);
        case K::tile_dropout:
            return dropout_values(node, sample);
        case K::rescale:
            return rescale_values(node);
        case K::add:
            return add_values(node);
        case K::add_backward:
            return add_values_backward(node);
        case K::concatenate:
            return join_values(node);
        case K::concatenate_backward:
            return join_values_backward(node);
        case K::tile_transpose:
            return transpose_values(node);
        case K::max_pool2d:
            return max_pool(node);
        case K::max_pool2d_backward:
            return max_pool_backward(node);
        case K::avg_pool2d:
            return average_pool(node);
        case K::avg_pool2d_backward:
            return average_pool_backward(node);
        case K::upsample2d:
            return upsample(node);
        case K::upsample2d_backward:
            return upsample_backward(node);
        default:
            run_rows(node);
    }
}

__global__ void __launch_bounds__(kStretchThreads, 1) stretch_kernel(StretchJob job) {
    DYNAMIC_SHARED(float, shared);
    if (blockIdx.x == job.blocks) return do_beside(*job.clerk);
    const int64_t row = job.cursor ? *job.cursor : job.first;
    for (int i = static_cast<int>(threadIdx.x); i < job.table_words; i += kStretchThreads)
        store_vector<float, 4>(
            shared + 4 * i,
            load_vector<float, 4>(reinterpret_cast<const float*>(job.table) + 4 * i));
    const BulkCopies copies(shared + job.copies_at);
    if (threadIdx.x == 0) copies.prepare();
    __syncthreads();
    const auto* const nodes = reinterpret_cast<const StretchNode*>(shared);
    const StretchNode* const stages = nodes + job.once;
    for (int k = 0; k < job.once; ++k) {
        if (nodes[k].op == kPack) {
            pack_weights(nodes[k]);
        } else {
            stage_by_threads(nodes[k]);
            if (nodes[k].by_row) end_group();
        }
    }
    const int64_t block = blockIdx.x;
    const int64_t begin = block * job.batch / job.blocks;
    const int64_t end = (block + 1) * job.batch / job.blocks;
    for (int64_t i = begin; i < end; ++i) {
        const Sample sample{i, row + i, job.batch, block, job.slot_floats, job.slots, i == begin};
        for (int k = 0; k < job.stages; ++k) stage(stages[k], copies);
        copies.end_round();
        for (int k = 0; k < job.nodes; ++k) {
            const StretchNode& node = stages[job.stages + k];
            wait_before(node, copies, i - begin);
            run_node(node, sample);
        }
        copies.hand_over();
        __syncthreads();
    }
}

class CudaStretch final : public Stretch {
 public:
    CudaStretch(const Device& library, int device, StretchTables tables, int64_t most)
        : library_(library),
          device_(device),
          tables_(std::move(tables)),
          most_(most),
          table_bytes_(rounded(static_cast<int64_t>(tables_.bytes.size()), 256)) {
#ifndef CONVKIT_EMULATED
        // As much shared memory as the other kernel has: a change between the two would take long.
        check(cudaFuncSetAttribute(stretch_update_kernel,
                                   cudaFuncAttributePreferredSharedMemoryCarveout, 100),
              "stretch_update");
#endif
        check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device),
              "the number of multiprocessors");
        memory_ =
            static_cast<char*>(library_.allocate(device, static_cast<size_t>(device_bytes())));
        for (const TablePointer& pointer : tables_.pointers) {
            if (pointer.value < 0) set(pointer, memory_ + table_bytes_);
        }
    }
    ~CudaStretch() override { library_.release(memory_); }

    void bind(int value, void* memory) override {
        if (reinterpret_cast<uintptr_t>(memory) % kVectorBytes != 0)
            throw std::invalid_argument("stretch: expected memory that is 16-byte aligned");
        for (const TablePointer& pointer : tables_.pointers) {
            if (pointer.value != value) continue;
            set(pointer, static_cast<char*>(memory));
            dirty_ = true;
        }
    }

    void run(Queue& queue, int64_t n, int64_t first, int64_t* cursor) override {
        if (n < 0 || n > most_)
            throw std::invalid_argument("stretch: expected at most " + std::to_string(most_) +
                                        " samples, got " + std::to_string(n));
        if (n == 0) return;
        const CurrentDevice current(library_, device_);
        upload(queue);
        Context context;
        context.queue = &queue;
        // Where there are sums, blocks are slots.
        constexpr int64_t kMostOfProcessor = 2;
        const bool sums = tables_.slot_floats > 0;
        const int64_t blocks =
            std::min(n, sums ? tables_.most_slots : kMostOfProcessor * processors_);
        StretchJob job{};
        job.table = memory_;
        job.table_words = static_cast<int32_t>(tables_.node_bytes / kVectorBytes);
        job.once = tables_.once;
        job.stages = tables_.stages;
        job.copies_at = static_cast<int32_t>(tables_.copies_at);
        job.nodes = tables_.nodes;
        job.clerk = reinterpret_cast<const Clerk*>(memory_ + tables_.clerk_at);
        job.slots = reinterpret_cast<float*>(memory_ + table_bytes_ + tables_.slots_at);
        job.slot_floats = tables_.slot_floats;
        job.batch = n;
        job.blocks = blocks;
        job.first = first;
        job.cursor = cursor;
        const int64_t grid = blocks + (tables_.has_clerk ? 1 : 0);
        launch(context, "stretch", stretch_kernel, dim3(static_cast<unsigned>(grid)),
               dim3(kStretchThreads), static_cast<size_t>(tables_.shared_bytes), job);
        if (tables_.tasks == 1 && tables_.counters == 0 && !cursor) return;
        const UpdateJob update{reinterpret_cast<const UpdateTask*>(memory_ + tables_.tasks_at), n,
                               blocks, cursor};
        launch(context, "stretch_update", stretch_update_kernel,
               dim3(static_cast<unsigned>(tables_.tasks)), dim3(kUpdateThreads), 0, update);
    }

    int64_t block_bytes() const override { return tables_.shared_bytes; }
    int64_t device_bytes() const override { return table_bytes_ + tables_.memory_bytes; }

 private:
    void set(const TablePointer& pointer, char* memory) {
        char* const to = memory ? memory + pointer.offset : nullptr;
        std::memcpy(tables_.bytes.data() + pointer.at, &to, sizeof to);
    }

    // The tables, where pointers in them changed.
    void upload(Queue& queue) {
        if (!dirty_) return;
        for (const TablePointer& pointer : tables_.pointers) {
            char* there = nullptr;
            std::memcpy(&there, tables_.bytes.data() + pointer.at, sizeof there);
            if (!there)
                throw std::invalid_argument("stretch: value " + std::to_string(pointer.value) +
                                            " was never bound");
        }
        library_.copy(queue, memory_, tables_.bytes.data(), tables_.bytes.size(),
                      Direction::kToDevice);
        dirty_ = false;
    }

    const Device& library_;
    const int device_;
    StretchTables tables_;
    const int64_t most_, table_bytes_;
    int processors_ = 1;
    char* memory_ = nullptr;
    bool dirty_ = true;
};

}  // namespace

std::unique_ptr<Stretch> make_stretch(const Device& library, int device, const StretchPlan& plan,
                                      int64_t most) {
    int shared_bytes = 0;
    check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "the size of shared memory");
    return std::make_unique<CudaStretch>(library, device,
                                         StretchLayout(plan, most, shared_bytes).take(), most);
}

}  // namespace cuda
}  // namespace convkit
