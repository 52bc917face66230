// The order of an epoch in device memory, and the part of it that a batch takes. Like kernels,
// these start their work in the context's queue and return without waiting.
#pragma once

#include <cstdint>

#include "context.h"
#include "shuffle.h"

namespace convkit {
namespace cuda {

// order (shuffle.n): the permutation of 0 .. n - 1 that fill_shuffled of shuffle.h makes.
void fill_shuffled(const Context& context, const Shuffle& shuffle, int64_t* order);

// batch_index (n) = order[cursor] .. order[cursor + n - 1]; then the cursor (1), which lies in
// device memory, goes up by n. So a graph that was recorded once takes the next batch each time.
void take_rows(const Context& context, const int64_t* order, int64_t* cursor, int64_t n,
               int64_t* batch_index);

}  // namespace cuda
}  // namespace convkit
