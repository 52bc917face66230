// What a kernel runs in: how many threads, and scratch memory. parallel_for is the one seam to
// OpenMP (context.cpp). What is defined here is static or a plain call into baseline code, so that
// nothing of it can leak from one instruction set into another.
#pragma once

#include <cstddef>
#include <cstdint>

namespace convkit {

class Kept;
class Queue;

struct Context {
    int threads = 1;  // at most this many; results never depend on it
    // For kernels that see a part of a batch: its first sample, and the size of the batch (0: this
    // is all of it).
    int64_t first = 0, batch = 0;
    bool fresh = false;      // what a kernel adds to (sums over tiles) holds nothing yet: it stores
    Queue* queue = nullptr;  // of a device: where its kernels run (device.h)
    Kept* kept = nullptr;    // of a node whose weights stay the same from run to run
};

// Scratch of the calling thread, 64-byte aligned, kept for the next call; contents are undefined.
// Each slot is a buffer of its own and holds until the same thread asks for the same slot again.
// Throws std::bad_alloc.
enum ScratchSlot { kShared, kPackA, kPackB, kLocal, kTiles, kScratchSlots };
void* scratch(ScratchSlot slot, size_t bytes);

template <class T>
static inline T* scratch(ScratchSlot slot, int64_t elements) {
    size_t bytes = 0;
    if (elements < 0 || __builtin_mul_overflow(static_cast<size_t>(elements), sizeof(T), &bytes))
        bytes = SIZE_MAX;  // more than there is
    return static_cast<T*>(scratch(slot, bytes));
}

// What a node has worked out of its weights: `bytes` bytes, filled by fill(data, values) where this
// maker (any address that tells its instruction set from others) has not done so since the weights
// changed last. They stay where they are as long as the program does. Throws std::bad_alloc.
using KeptBody = void (*)(void* data, void* values);
void* kept_values(Kept& kept, const void* maker, size_t bytes, KeptBody fill, void* data);

// The same for so many elements and a callable: fill(values).
template <class T, class Fill>
static inline const T* kept_values(Kept& kept, const void* maker, int64_t elements, Fill&& fill) {
    return static_cast<const T*>(kept_values(
        kept, maker, static_cast<size_t>(elements) * sizeof(T),
        [](void* data, void* values) { (*static_cast<Fill*>(data))(static_cast<T*>(values)); },
        const_cast<void*>(static_cast<const void*>(&fill))));
}

// Whether convolutions may be computed by adding up their products alone: a setting of the process.
bool only_direct();

// Calls body(data, begin, end) over pieces that cover 0 .. count, on up to context.threads threads.
// Runs serially inside another parallel_for and where the work (count * cost, in rough
// nanoseconds) is too small to wake a thread for. An exception in a body is rethrown here.
using RangeBody = void (*)(void* data, int64_t begin, int64_t end);
void parallel_for(const Context& context, int64_t count, double cost, RangeBody body, void* data);

// The same for a callable: parallel_for(context, count, cost, [&](int64_t begin, int64_t end) {…}).
template <class Body>
static inline void parallel_for(const Context& context, int64_t count, double cost, Body&& body) {
    parallel_for(
        context, count, cost,
        [](void* data, int64_t begin, int64_t end) { (*static_cast<Body*>(data))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace convkit
