// CUDA for a host compiler: the language and the part of the runtime that csrc/cuda uses, so that
// its very sources run, thread by thread, on a machine without a GPU. For tests only.
//
// The language: __global__, __device__, __host__, __forceinline__, __launch_bounds__, __align__;
// threadIdx, blockIdx, blockDim, gridDim, warpSize; __syncthreads, __syncthreads_count, _and, _or;
// __syncwarp, __shfl_sync, _up_sync, _down_sync, _xor_sync, __ballot_sync, __any_sync, __all_sync;
// __ldg, __ldcs, __stcs, __threadfence, __threadfence_block; atomicAdd of integers; min, max,
// rsqrt, rsqrtf, __popc, __clz, __ffs, __umulhi, __float_as_int, __int_as_float, __float_as_uint,
// __uint_as_float; what <math.h> has. Shared memory is declared by SHARED and DYNAMIC_SHARED of
// launch.cuh. Blocks run one after the other: what waits for another block waits for ever.
//
// What is checked: barriers that some threads of a block miss or that differ; masks of warp
// functions, and lanes that do not come; writes beyond shared memory and beyond device memory;
// alignment of vectors; the limits of a launch; host pointers where device memory must be. Shared
// and device memory hold signalling NaNs until written, and a queue's workspace NaNs at every call
// of a kernel function (device.cu). Between calls the host cannot touch device memory at all (it is
// mapped without access). Streams are lazy: work runs when the host waits for it, and no sooner. An
// error in a kernel stays (as CUDA's do) until emulator_recover.
//
// Orders: threads, warps and blocks run forward, in reverse or shuffled (emulator_set_order). The
// order "verify" runs every kernel in three ways from the same memory, with other garbage in shared
// memory each time, and compares every bit of device memory.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <cstring>
#include <functional>
#include <string>
#include <type_traits>

// ---- the language ------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;

    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Of the thread that runs.
#define CONVKIT_HIDDEN __attribute__((visibility("hidden")))
extern CONVKIT_HIDDEN uint3 threadIdx, blockIdx;
extern CONVKIT_HIDDEN dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace convkit {
namespace emulator {

// Where device code calls something. Functions take it as two default arguments, which name the
// caller's place.
struct Place {
    const char* file;
    int line;
};

// Waits for all threads of the block; how many of them came with `value`.
int block_barrier(const char* what, bool value, Place place);

// Waits for the lanes of the mask. The value of the lane `source`; and which lanes came with a
// value that is not 0.
struct Exchanged {
    uint64_t value;
    unsigned votes;
};
Exchanged warp_exchange(const char* what, unsigned mask, uint64_t value, int source, Place place);
int lane();

enum class Shuffle { kFrom, kUp, kDown, kXor };
// The lane that the calling one reads from, among `width` neighbours: itself, where it would reach
// beyond them.
int source_lane(const char* what, Shuffle shuffle, int by, int width, Place place);

template <class T>
T shuffle(const char* what, Shuffle kind, unsigned mask, T value, int by, int width, Place place) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8),
                  "numbers of 4 or 8 bytes can be shuffled");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = warp_exchange(what, mask, bits, source_lane(what, kind, by, width, place), place).value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Fails the running kernel unless `pointer` is a multiple of `alignment`.
void check_aligned(const void* pointer, size_t alignment);

void* shared_array(size_t bytes, const char* name, Place place);
void* dynamic_shared_memory();

// What SHARED and DYNAMIC_SHARED are: the same memory for all threads of a block that pass here.
template <class T>
T* shared(size_t count, const char* name, const char* file, int line) {
    return static_cast<T*>(shared_array(count * sizeof(T), name, {file, line}));
}

template <class T>
T* dynamic_shared() {
    return static_cast<T*>(dynamic_shared_memory());
}

}  // namespace emulator
}  // namespace convkit

#define CONVKIT_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CONVKIT_PLACE) {
    convkit::emulator::block_barrier("__syncthreads", false, {file, line});
}
inline int __syncthreads_count(int value, CONVKIT_PLACE) {
    return convkit::emulator::block_barrier("__syncthreads_count", value != 0, {file, line});
}
inline int __syncthreads_or(int value, CONVKIT_PLACE) {
    return convkit::emulator::block_barrier("__syncthreads_or", value != 0, {file, line}) > 0;
}
inline int __syncthreads_and(int value, CONVKIT_PLACE) {
    return convkit::emulator::block_barrier("__syncthreads_and", value == 0, {file, line}) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, CONVKIT_PLACE) {
    convkit::emulator::warp_exchange("__syncwarp", mask, 0, 0, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int value, CONVKIT_PLACE) {
    using convkit::emulator::warp_exchange;
    return warp_exchange("__ballot_sync", mask, value != 0, 0, {file, line}).votes;
}
inline int __any_sync(unsigned mask, int value, CONVKIT_PLACE) {
    using convkit::emulator::warp_exchange;
    return warp_exchange("__any_sync", mask, value != 0, 0, {file, line}).votes != 0;
}
inline int __all_sync(unsigned mask, int value, CONVKIT_PLACE) {
    using convkit::emulator::warp_exchange;
    return warp_exchange("__all_sync", mask, value == 0, 0, {file, line}).votes == 0;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CONVKIT_PLACE) {
    return convkit::emulator::shuffle("__shfl_sync", convkit::emulator::Shuffle::kFrom, mask, value,
                                      source, width, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, CONVKIT_PLACE) {
    return convkit::emulator::shuffle("__shfl_up_sync", convkit::emulator::Shuffle::kUp, mask,
                                      value, static_cast<int>(by), width, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, CONVKIT_PLACE) {
    return convkit::emulator::shuffle("__shfl_down_sync", convkit::emulator::Shuffle::kDown, mask,
                                      value, static_cast<int>(by), width, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, CONVKIT_PLACE) {
    return convkit::emulator::shuffle("__shfl_xor_sync", convkit::emulator::Shuffle::kXor, mask,
                                      value, by, width, {file, line});
}

inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __ldg(const T* from) {
    return *from;
}
template <class T>
T __ldcs(const T* from) {
    return *from;
}
template <class T>
void __stcs(T* to, T value) {
    *to = value;
}

// The value from before. For counters whose order does not show.
template <class T>
T atomicAdd(T* to, T value) {
    static_assert(std::is_integral<T>::value, "the order of floating-point atomics would show");
    const T before = *to;
    *to = before + value;
    return before;
}

#define CONVKIT_MIN_MAX(T)                              \
    constexpr T min(T a, T b) { return b < a ? b : a; } \
    constexpr T max(T a, T b) { return a < b ? b : a; }
CONVKIT_MIN_MAX(int)
CONVKIT_MIN_MAX(unsigned)
CONVKIT_MIN_MAX(long)
CONVKIT_MIN_MAX(unsigned long)
CONVKIT_MIN_MAX(long long)
CONVKIT_MIN_MAX(unsigned long long)
#undef CONVKIT_MIN_MAX
// A NaN gives way to a number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline double rsqrt(double v) { return 1.0 / sqrt(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

namespace convkit {
namespace emulator {

template <class To, class From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace emulator
}  // namespace convkit

inline int __float_as_int(float v) { return convkit::emulator::bits_as<int>(v); }
inline float __int_as_float(int v) { return convkit::emulator::bits_as<float>(v); }
inline unsigned __float_as_uint(float v) { return convkit::emulator::bits_as<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return convkit::emulator::bits_as<float>(v); }

// ---- the runtime -------------------------------------------------------------------------------

#define CONVKIT_CUDA_ERRORS(X)                                                                    \
    X(cudaSuccess, 0, "no error")                                                                 \
    X(cudaErrorInvalidValue, 1, "invalid argument")                                               \
    X(cudaErrorMemoryAllocation, 2, "out of memory")                                              \
    X(cudaErrorInitializationError, 3, "initialization error")                                    \
    X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument")                         \
    X(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy")                   \
    X(cudaErrorInsufficientDriver, 35,                                                            \
      "CUDA driver version is insufficient for CUDA runtime version")                             \
    X(cudaErrorInvalidDeviceFunction, 98, "invalid device function")                              \
    X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected")                               \
    X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                                      \
    X(cudaErrorNoKernelImageForDevice, 209,                                                       \
      "no kernel image is available for execution on the device")                                 \
    X(cudaErrorUnsupportedPtxVersion, 222,                                                        \
      "the provided PTX was compiled with an unsupported toolchain")                              \
    X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle")                             \
    X(cudaErrorNotReady, 600, "device not ready")                                                 \
    X(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered")                   \
    X(cudaErrorMisalignedAddress, 716, "misaligned address")                                      \
    X(cudaErrorLaunchFailure, 719, "unspecified launch failure")                                  \
    X(cudaErrorNotSupported, 801, "operation not supported")                                      \
    X(cudaErrorStreamCaptureUnsupported, 900, "operation not permitted when stream is capturing") \
    X(cudaErrorStreamCaptureInvalidated, 901,                                                     \
      "operation failed due to a previous error during capture")                                  \
    X(cudaErrorStreamCaptureMerge, 902,                                                           \
      "operation would result in a merge of separate"                                             \
      " capture sequences")                                                                       \
    X(cudaErrorStreamCaptureUnmatched, 903,                                                       \
      "capture was not ended in the same stream"                                                  \
      " as it began")                                                                             \
    X(cudaErrorStreamCaptureUnjoined, 904, "capturing stream has unjoined work")                  \
    X(cudaErrorStreamCaptureImplicit, 906,                                                        \
      "operation would make the legacy stream"                                                    \
      " depend on a capturing blocking stream")                                                   \
    X(cudaErrorCapturedEvent, 907,                                                                \
      "operation not permitted on an event last recorded"                                         \
      " in a capturing stream")                                                                   \
    X(cudaErrorStreamCaptureWrongThread, 908,                                                     \
      "attempt to terminate a thread-local"                                                       \
      " capture sequence from another thread")                                                    \
    X(cudaErrorUnknown, 999, "unknown error")

enum cudaError_t {
#define CONVKIT_ERROR(name, number, text) name = number,
    CONVKIT_CUDA_ERRORS(CONVKIT_ERROR)
#undef CONVKIT_ERROR
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaFuncAttributes {
    int binaryVersion, maxThreadsPerBlock;
};
enum cudaMemoryType {
    cudaMemoryTypeUnregistered,
    cudaMemoryTypeHost,
    cudaMemoryTypeDevice,
    cudaMemoryTypeManaged
};
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrMaxThreadsPerMultiProcessor = 39,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2;

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, l2CacheSize;
};

struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};

const char* cudaGetErrorName(cudaError_t error);
// What is known of the last error, if this is it: the kernel, the place, what was expected.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFreeHost(void* memory);
template <class T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
    return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** memory, size_t bytes) {
    return cudaMallocHost(reinterpret_cast<void**>(memory), bytes);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
// Each call that finds work does a piece of it, so that who asks again and again gets there.
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, struct CUgraphNode_st** nodes, size_t* count);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
// A device older than the code has no kernels.
#define __CUDA_ARCH_LIST__ 750
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
template <class T>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, T* kernel) {
    return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}

// ---- what launch.cuh needs ---------------------------------------------------------------------

namespace convkit {
namespace emulator {

// Queues grid.x * grid.y * grid.z blocks of `body` on the stream. Errors come by cudaGetLastError.
void launch(cudaStream_t stream, const char* name, dim3 grid, dim3 block, size_t shared_bytes,
            std::function<void()> body);

bool is_host_memory(const void* pointer);
void refuse_argument(const char* name, int index);

// Whether the pointers among a kernel's arguments are null, of the device or of pinned memory.
template <class... A>
bool check_arguments(const char* name, const A&... arguments) {
    int index = 0, wrong = -1;
    [[maybe_unused]] const auto check = [&](const auto& argument) {
        if constexpr (std::is_pointer<std::decay_t<decltype(argument)>>::value) {
            if (argument && is_host_memory(argument)) wrong = index;
        }
        ++index;
    };
    (check(arguments), ...);
    if (wrong >= 0) refuse_argument(name, wrong);
    return wrong < 0;
}

}  // namespace emulator
}  // namespace convkit

// ---- for tests ---------------------------------------------------------------------------------
// Also by the environment, when loaded: CONVKIT_EMULATOR_ORDER, CONVKIT_EMULATOR_FAIL_ALLOCATION.

#define CONVKIT_EXPORT extern "C" __attribute__((visibility("default")))

// "forward", "reverse", "random:SEED" or "verify". Returns 0, or -1 where it is none of these.
CONVKIT_EXPORT int emulator_set_order(const char* order);
// The k-th allocation of device memory or k-th kernel from now on fails (0: none).
CONVKIT_EXPORT void emulator_fail_allocation(int64_t k);
CONVKIT_EXPORT void emulator_fail_kernel(int64_t k);
// What the device is: "devices" (how many), "driver", "runtime" (13000), "major", "minor",
// "multiprocessors", "shared" (bytes a block may ask for), "memory" (bytes). 0, or -1: no such
// name.
CONVKIT_EXPORT int emulator_set(const char* property, int64_t value);
// Ends the error of a kernel, drops all queued work and all captures. Memory and handles stay.
CONVKIT_EXPORT void emulator_recover();
// As after a start: no memory, streams, events, graphs, settings.
CONVKIT_EXPORT void emulator_reset();
CONVKIT_EXPORT int64_t emulator_allocated_bytes();
// Kernels queued, captured or not, and kernels run (with verify: once each).
CONVKIT_EXPORT int64_t emulator_launched_kernels();
CONVKIT_EXPORT int64_t emulator_run_kernels();
// A line for each thing that was not given back: memory, stream, event, graph. Valid until called
// again.
CONVKIT_EXPORT const char* emulator_leaks();
