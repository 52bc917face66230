// The one seam between the CUDA sources and what compiles them: nvcc, or a host compiler with the
// emulator (emulator.h), which runs the very same functions thread by thread.
//
// Shared memory is declared by SHARED and DYNAMIC_SHARED, kernels are started by launch, vectors
// are read and written by load_vector and store_vector; all else is CUDA as it is.
#pragma once

#include <cstdint>

#include "context.h"
#include "device.h"

#ifdef CONVKIT_EMULATED

#include "emulator.h"
// T name[count] of the block, filled with signalling NaNs before the block begins.
#define SHARED(T, name, count) \
    T* const name = ::convkit::emulator::shared<T>((count), #name, __FILE__, __LINE__)
// The shared memory whose size the launch says.
#define DYNAMIC_SHARED(T, name) T* const name = ::convkit::emulator::dynamic_shared<T>()

#else

#include <cuda_runtime.h>
#define SHARED(T, name, count) __shared__ T name[count]
#define DYNAMIC_SHARED(T, name)                                             \
    extern __shared__ __align__(16) unsigned char convkit_dynamic_shared[]; \
    T* const name = reinterpret_cast<T*>(convkit_dynamic_shared)

#endif

namespace convkit {
namespace cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr size_t kSharedByDefault = 48 * 1024;  // more must be asked for

template <class I>
__host__ __device__ constexpr I divide_up(I a, I b) {
    return (a + b - 1) / b;
}

// Throws std::bad_alloc or DeviceError with the name of what failed.
void check(cudaError_t error, const char* what);

inline cudaStream_t stream_of(const Context& context) {
    return static_cast<cudaStream_t>(context.queue->stream);
}

// Starts kernel(arguments...) on the context's stream. A grid with no blocks is no work.
template <class... P, class... A>
void launch(const Context& context, const char* name, void (*kernel)(P...), dim3 grid, dim3 block,
            size_t shared_bytes, const A&... arguments) {
    static_assert(sizeof...(P) == sizeof...(A), "as many arguments as the kernel takes");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef CONVKIT_EMULATED
    if (emulator::check_arguments(name, static_cast<P>(arguments)...))
        emulator::launch(stream_of(context), name, grid, block, shared_bytes,
                         [=] { kernel(static_cast<P>(arguments)...); });
#else
    if (shared_bytes > kSharedByDefault)
        check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              name);
    // clang-format off
    kernel<<<grid, block, shared_bytes, stream_of(context)>>>(static_cast<P>(arguments)...);
    // clang-format on
#endif
    check(cudaGetLastError(), name);
}

// ---- one thread per value ----------------------------------------------------------------------

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 132 * 16;  // then threads take several values

// f(i) for every i < count.
template <class F>
__global__ void each_kernel(int64_t count, F f) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += step)
        f(i);
}

// Calls f(i) for every i < count, one thread each. F is a struct with
// `__device__ void operator()(int64_t i) const`.
template <class F>
void for_each(const Context& context, const char* name, int64_t count, const F& f) {
    const int64_t blocks = divide_up<int64_t>(count, kThreads);
    const dim3 grid(static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks));
    launch(context, name, each_kernel<F>, grid, dim3(kThreads), 0, count, f);
}

// ---- vectors -----------------------------------------------------------------------------------

// kCount values in one access: 2, 4, 8 or 16 bytes, aligned to that.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
    T value[kCount];
};

template <class T, int kCount>
__device__ inline Vector<T, kCount> load_vector(const T* from) {
#ifdef CONVKIT_EMULATED
    emulator::check_aligned(from, sizeof(Vector<T, kCount>));
#endif
    return *reinterpret_cast<const Vector<T, kCount>*>(from);
}

template <class T, int kCount>
__device__ inline void store_vector(T* to, const Vector<T, kCount>& vector) {
#ifdef CONVKIT_EMULATED
    emulator::check_aligned(to, sizeof vector);
#endif
    *reinterpret_cast<Vector<T, kCount>*>(to) = vector;
}

// ---- sums in a fixed order ---------------------------------------------------------------------

// Over the lanes of a warp, all of which must take part; the sum is in lane 0.
template <class T>
__device__ inline T warp_sum(T value) {
    for (int step = kWarp / 2; step > 0; step /= 2)
        value += __shfl_down_sync(kAllLanes, value, step);
    return value;
}

// Over the threads of a block (whole warps, all of which must take part); the sum is in thread 0.
// `partial` is shared memory of 32 values, free again after the next barrier.
template <class T>
__device__ inline T block_sum(T value, T* partial) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    value = warp_sum(value);
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    const int warps = blockDim.x / kWarp;
    if (warp == 0) value = warp_sum(lane < warps ? partial[lane] : T(0));
    return value;
}

}  // namespace cuda
}  // namespace convkit
