// What a block of threads is told about a node of a stretch, and where it is in its work.
#pragma once

#include "index.cuh"
#include "launch.cuh"
#include "stretch.h"

namespace convkit {
namespace cuda {

constexpr int kStretchThreads = 512;
constexpr int kStretchWarps = kStretchThreads / kWarp;

// What nodes do besides kernels.
enum : int32_t { kStage = -1, kPack = -2 };

// What must be done before a node runs: what other threads do, and the first group of copies that
// the block began, or all of them.
enum : int32_t { kWaitForNothing, kWaitForThreads, kWaitForFirst, kWaitForAll };

// The table of nodes is copied to the block's shared memory before the work begins.
struct StretchNode {
    static constexpr int kPlaces = 8;

    int32_t op;           // a KernelNumber, or one of those above
    int32_t shape;        // where its struct of sizes is in the table, in bytes
    int32_t at[kPlaces];  // arguments in shared memory, in numbers of 4 bytes; -1: none
    int32_t waits;
    int32_t by_row;     // memory[0] moves on with the rows of what is fed, not with the batch;
                        // of what is staged: it is the last of a group
    int64_t row_bytes;  // of memory[0], and where it has rows, of memory[1]
    char* memory[2];    // of the device
};

// The sample in work.
struct Sample {
    int64_t index;  // in the batch
    int64_t row;    // of what is fed
    int64_t batch;
    int64_t slot;
    int64_t slot_floats;
    float* slots;
    bool fresh;  // the first one of its slot
};

// A block's shared memory. Asked for where it is used, so that the compiler knows which memory a
// pointer is of.
__device__ inline float* shared_floats() {
    DYNAMIC_SHARED(float, shared);
    return shared;
}

template <class S>
__device__ inline const S& shape_of(const StretchNode& node) {
    const char* const table = reinterpret_cast<const char*>(shared_floats());
    return *reinterpret_cast<const S*>(table + node.shape);
}

__device__ inline float* values_of(const StretchNode& node, int argument) {
    return shared_floats() + node.at[argument];
}

// A place in an array (rows, columns, channels).
struct Pixel {
    int row, column, channel;
};

struct PixelShape {
    int32_t count;
    Divisor<int32_t> by_columns, by_channels;

    PixelShape(int64_t rows, int64_t columns, int64_t channels)
        : count(static_cast<int32_t>(rows * columns * channels)),
          by_columns(columns),
          by_channels(channels) {}

    __device__ Pixel at(int i) const {
        const int pixel = by_channels.quotient(i);
        return {by_columns.quotient(pixel), by_columns.remainder(pixel), by_channels.remainder(i)};
    }
};

}  // namespace cuda
}  // namespace convkit
