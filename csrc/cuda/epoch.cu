#include "epoch.h"

#include "launch.cuh"

namespace convkit {
namespace cuda {
namespace {

struct FillShuffled {
    Shuffle shuffle;
    int64_t* order;

    __device__ void operator()(int64_t i) const { order[i] = shuffled(shuffle, i); }
};

// One block, so that the cursor moves only when all have read it.
__global__ void take_rows_kernel(const int64_t* order, int64_t* cursor, int64_t n,
                                 int64_t* batch_index) {
    const int64_t first = *cursor;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) batch_index[i] = order[first + i];
    if (threadIdx.x == 0) *cursor = first + n;
}

}  // namespace

void fill_shuffled(const Context& context, const Shuffle& shuffle, int64_t* order) {
    for_each(context, "fill_shuffled", static_cast<int64_t>(shuffle.n),
             FillShuffled{shuffle, order});
}

void take_rows(const Context& context, const int64_t* order, int64_t* cursor, int64_t n,
               int64_t* batch_index) {
    constexpr unsigned kMostThreads = 1024;
    launch(context, "take_rows", take_rows_kernel, dim3(1), dim3(kMostThreads), 0, order, cursor, n,
           batch_index);
}

}  // namespace cuda
}  // namespace convkit
