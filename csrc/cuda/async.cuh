// Copies into shared memory that go on while threads do something else. On the host, and where the
// GPU has none, they are done at once.
#pragma once

#include "launch.cuh"

namespace convkit {
namespace cuda {

#if !defined(CONVKIT_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

// kCount numbers of 4 bytes, 1 or 4; aligned to their size.
template <int kCount>
__device__ inline void copy_async(float* shared, const float* from) {
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if constexpr (kCount == 4) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
    }
}

// What this thread has begun to copy since the last such call is a group.
__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all its groups but the last kBut are there; other threads see them behind a barrier.
template <int kBut>
__device__ inline void wait_for_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kBut) : "memory");
}

#else

template <int kCount>
__device__ inline void copy_async(float* shared, const float* from) {
    store_vector<float, kCount>(shared, load_vector<float, kCount>(from));
}
__device__ inline void end_group() {}
template <int kBut>
__device__ inline void wait_for_groups() {}

#endif

// ---- large copies -------------------------------------------------------------------------------
// By the GPU's copy engine, which keeps no thread busy: begun by one thread, in rounds that all
// threads wait for. Where there is none, `begin` refuses every copy.
class BulkCopies {
 public:
    // The 8 bytes of shared memory by which they are counted.
    __device__ explicit BulkCopies(float* shared) : barrier_(shared) {}

#if !defined(CONVKIT_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

    // By one thread; a barrier of the block must follow before others wait.
    __device__ void prepare() const {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address(barrier_)) : "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }

    // By all threads, before a barrier behind which copies write what threads have used.
    __device__ void hand_over() const {
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }

    // By all threads. Whether it is done so, by one of them: numbers of 4 bytes in multiples of 4,
    // both 16-byte aligned.
    __device__ bool begin(float* to, const float* from, int count) const {
        if (count % 4 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) return false;
        if (count == 0 || threadIdx.x != 0) return true;
        const unsigned bytes = static_cast<unsigned>(count) * 4;
        asm volatile(
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(address(barrier_)),
            "r"(bytes)
            : "memory");
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
            "[%3];" ::"r"(address(to)),
            "l"(from), "r"(bytes), "r"(address(barrier_))
            : "memory");
        return true;
    }

    // By all threads, behind the last copy of a round.
    __device__ void end_round() const {
        if (threadIdx.x == 0)
            asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address(barrier_))
                         : "memory");
    }

    // Until the copies of this round, counted from 0, are there.
    __device__ void wait(int64_t round) const {
        unsigned done = 0;
        while (!done)
            asm volatile(
                "{\n"
                ".reg .pred there;\n"
                "mbarrier.try_wait.parity.shared::cta.b64 there, [%1], %2;\n"
                "selp.u32 %0, 1, 0, there;\n"
                "}"
                : "=r"(done)
                : "r"(address(barrier_)), "r"(static_cast<unsigned>(round & 1))
                : "memory");
    }

 private:
    static __device__ unsigned address(float* shared) {
        return static_cast<unsigned>(__cvta_generic_to_shared(shared));
    }

#else

    __device__ void prepare() const {}
    __device__ void hand_over() const {}
    __device__ bool begin(float*, const float*, int) const { return false; }
    __device__ void end_round() const {}
    __device__ void wait(int64_t) const {}

 private:
#endif
    [[maybe_unused]] float* barrier_;
};

}  // namespace cuda
}  // namespace convkit
