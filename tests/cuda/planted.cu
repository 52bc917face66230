// What the emulator must report, and what it must let pass: kernels and calls with a bug in each of
// those of `bugs`, and correct ones that stand close to them in `correct`. Run with a case's name,
// it prints the error that CUDA's functions gave, or "passed". tests/test_emulator.py knows what to
// expect.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "launch.cuh"

#include "stretch_make.h"

// What device.cu names: none of it is called here.
namespace convkit {
namespace cuda {

extern const KernelTable table;
const KernelTable table = {};

std::unique_ptr<Stretch> make_stretch(const Device&, int, const StretchPlan&, int64_t) {
    throw DeviceError("no stretch");
}

}  // namespace cuda
}  // namespace convkit

extern "C" const convkit::Device* convkit_device();

namespace {

using namespace convkit;
using namespace convkit::cuda;

struct NonBlockingStream final : Queue {
    NonBlockingStream() {
        cudaStream_t made = nullptr;
        check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "a stream");
        stream = made;
        context.queue = this;
    }
    ~NonBlockingStream() override { cudaStreamDestroy(handle()); }

    void* workspace(size_t) override { return nullptr; }
    cudaStream_t handle() const { return static_cast<cudaStream_t>(stream); }
    void wait() const { check(cudaStreamSynchronize(handle()), "synchronise"); }

    Context context;
};

// Values on the device.
template <class T>
class Values {
 public:
    explicit Values(const std::vector<T>& values) : count_(values.size()) {
        check(cudaMalloc(&data_, bytes()), "cudaMalloc");
        check(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), "to the device");
    }
    explicit Values(size_t count) : Values(std::vector<T>(count)) {}
    ~Values() { cudaFree(data_); }
    Values(const Values&) = delete;

    T* data() const { return data_; }
    size_t bytes() const { return count_ * sizeof(T); }
    std::vector<T> read() const {
        std::vector<T> values(count_);
        check(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost), "to the host");
        return values;
    }

 private:
    T* data_ = nullptr;
    size_t count_;
};

std::vector<float> count_up(size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
    return values;
}

void expect(bool right, const char* what) {
    if (!right) throw DeviceError(std::string("wrong result: ") + what);
}

// Starts a kernel, and waits.
template <class... P, class... A>
void run(const NonBlockingStream& queue, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
         const A&... arguments) {
    launch(queue.context, "planted", kernel, grid, block, shared, arguments...);
    queue.wait();
}

// ---- bugs: barriers ----------------------------------------------------------------------------

// y[i] = x[(i + 1) % n], by way of shared memory.
template <bool kBarrier>
__global__ void rotate(const float* x, float* y) {
    SHARED(float, tile, 256);
    const unsigned i = threadIdx.x;
    tile[i] = x[i];
    if (kBarrier) __syncthreads();
    y[i] = tile[(i + 1) % blockDim.x];
}

template <bool kBarrier>
void rotate_values() {
    const NonBlockingStream queue;
    const Values<float> x(count_up(256)), y(size_t{256});
    run(queue, rotate<kBarrier>, dim3(1), dim3(256), 0, x.data(), y.data());
    const std::vector<float> got = y.read();
    for (size_t i = 0; i < got.size(); ++i)
        expect(got[i] == static_cast<float>((i + 1) % got.size()), "rotate");
}

// Each round reads what the neighbour wrote in the round before.
template <bool kBarrier>
__global__ void rotate_often(float* y, int rounds) {
    SHARED(float, tile, 64);
    const unsigned i = threadIdx.x;
    tile[i] = static_cast<float>(i);
    for (int round = 0; round < rounds; ++round) {
        __syncthreads();
        const float next = tile[(i + 1) % blockDim.x];
        if (kBarrier) __syncthreads();
        tile[i] = next;
    }
    y[i] = tile[i];
}

template <bool kBarrier>
void rotate_values_often() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{64});
    run(queue, rotate_often<kBarrier>, dim3(1), dim3(64), 0, y.data(), 3);
    const std::vector<float> got = y.read();
    for (size_t i = 0; i < got.size(); ++i)
        expect(got[i] == static_cast<float>((i + 3) % got.size()), "rotate often");
}

__global__ void two_barriers(float* y) {
    if (threadIdx.x < 32) {
        y[threadIdx.x] = 1;
        __syncthreads();
    } else {
        __syncthreads();
    }
}

void divergent_barrier() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{32});
    run(queue, two_barriers, dim3(2), dim3(64), 0, y.data());
}

__global__ void barrier_for_some(float* y, unsigned count) {
    if (threadIdx.x >= count) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}

void missed_barrier() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{64});
    run(queue, barrier_for_some, dim3(1), dim3(64), 0, y.data(), 48u);
}

__global__ void barrier_and_shuffle(int* y) {
    if (threadIdx.x % 32 == 7) __syncthreads();
    y[threadIdx.x] = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x), 0);
    if (threadIdx.x % 32 != 7) __syncthreads();
}

void barrier_in_place_of_shuffle() {
    const NonBlockingStream queue;
    const Values<int> y(size_t{64});
    run(queue, barrier_and_shuffle, dim3(1), dim3(64), 0, y.data());
}

// ---- bugs: warps -------------------------------------------------------------------------------

template <bool kBarrier>
__global__ void rotate_in_warp(const float* x, float* y) {
    SHARED(float, tile, 32);
    const unsigned i = threadIdx.x;
    tile[i] = x[i];
    if (kBarrier) __syncwarp();
    y[i] = tile[(i + 1) % 32];
}

template <bool kBarrier>
void rotate_values_in_warp() {
    const NonBlockingStream queue;
    const Values<float> x(count_up(32)), y(size_t{32});
    run(queue, rotate_in_warp<kBarrier>, dim3(1), dim3(32), 0, x.data(), y.data());
    const std::vector<float> got = y.read();
    for (size_t i = 0; i < got.size(); ++i)
        expect(got[i] == static_cast<float>((i + 1) % 32), "rotate in warp");
}

__global__ void shuffle_with(unsigned mask, int width, int* y) {
    y[threadIdx.x] = __shfl_down_sync(mask, static_cast<int>(threadIdx.x), 1, width);
}

void shuffle_with_mask(unsigned threads, unsigned mask, int width) {
    const NonBlockingStream queue;
    const Values<int> y(size_t{64});
    run(queue, shuffle_with, dim3(1), dim3(threads), 0, mask, width, y.data());
}

__global__ void shuffle_of_some(int* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(kAllLanes, y[threadIdx.x], 1);
}

void shuffle_with_ended_lanes() {
    const NonBlockingStream queue;
    const Values<int> y(size_t{32});
    run(queue, shuffle_of_some, dim3(1), dim3(32), 0, y.data());
}

__global__ void two_votes(unsigned* y) {
    unsigned votes = 0;
    if (threadIdx.x % 2 == 0) {
        votes = __ballot_sync(kAllLanes, 1);
    } else {
        votes = __ballot_sync(kAllLanes, 0);
    }
    y[threadIdx.x] = votes;
}

void votes_apart() {
    const NonBlockingStream queue;
    const Values<unsigned> y(size_t{32});
    run(queue, two_votes, dim3(1), dim3(32), 0, y.data());
}

// ---- bugs: shared memory -----------------------------------------------------------------------

__global__ void fill_shared(int first, int end, float* y) {
    SHARED(float, before, 8);
    SHARED(float, tile, 9);
    SHARED(float, after, 8);
    before[0] = after[0] = 1;
    for (int i = first; i < end; ++i) tile[i] = before[0];
    y[0] = tile[0] + after[0];
}

void fill_shared_from(int first, int end) {
    const NonBlockingStream queue;
    const Values<float> y(size_t{1});
    run(queue, fill_shared, dim3(3), dim3(1), 0, first, end, y.data());
}

__global__ void fill_dynamic(int count, float* y) {
    DYNAMIC_SHARED(float, all);
    for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
        all[i] = static_cast<float>(i);
    __syncthreads();
    if (threadIdx.x == 0) y[0] = all[count - 1];
}

void fill_dynamic_memory(int bytes, int count) {
    const NonBlockingStream queue;
    const Values<float> y(size_t{1});
    run(queue, fill_dynamic, dim3(2), dim3(64), static_cast<size_t>(bytes), count, y.data());
    expect(y.read()[0] == static_cast<float>(count - 1), "the last value");
}

__global__ void read_unwritten(float* y) {
    SHARED(float, tile, 32);
    if (threadIdx.x != 5) tile[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = tile[31 - threadIdx.x];
}

void uninitialised_shared_memory() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{32});
    run(queue, read_unwritten, dim3(1), dim3(32), 0, y.data());
    const std::vector<float> got = y.read();
    expect(got[26] == got[26], "a NaN");
}

__global__ void read_beyond(const float* x, int at, bool of_shared, float* y) {
    SHARED(float, tile, 5);
    for (int i = 0; i < 5; ++i) tile[i] = x[i];
    y[0] = of_shared ? tile[at] : x[at];
}

void read_beyond_end(bool of_shared, int at) {
    const NonBlockingStream queue;
    const Values<float> x(count_up(5)), y(size_t{1});
    run(queue, read_beyond, dim3(1), dim3(1), 0, x.data(), at, of_shared, y.data());
}

__global__ void much_static_memory(float* y) {
    SHARED(float, first, 8192);
    SHARED(float, second, 8192);
    first[threadIdx.x] = second[threadIdx.x] = 1;
    y[threadIdx.x] = first[threadIdx.x];
}

void too_much_static_memory() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{32});
    run(queue, much_static_memory, dim3(1), dim3(32), 0, y.data());
}

// ---- bugs: device memory -----------------------------------------------------------------------

template <bool kInPlace>
__global__ void rotate_blocks(const float* x, float* y) {
    const unsigned count = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    (kInPlace ? const_cast<float*>(x) : y)[i] = x[(i + blockDim.x) % count];
}

template <bool kInPlace>
void rotate_by_blocks() {
    const NonBlockingStream queue;
    const Values<float> x(count_up(256)), y(size_t{256});
    run(queue, rotate_blocks<kInPlace>, dim3(4), dim3(64), 0, x.data(), y.data());
    const std::vector<float> got = y.read();
    for (size_t i = 0; i < got.size(); ++i)
        expect(got[i] == static_cast<float>((i + 64) % got.size()), "rotate blocks");
}

__global__ void copy_vectors(const float* x, float* y) {
    store_vector(y + 4 * threadIdx.x, load_vector<float, 4>(x + 4 * threadIdx.x));
}

void copy_vectors_from(int offset) {
    const NonBlockingStream queue;
    const Values<float> x(count_up(68)), y(size_t{64});
    run(queue, copy_vectors, dim3(1), dim3(16), 0, x.data() + offset, y.data());
    expect(y.read()[63] == static_cast<float>(63 + offset), "copied vectors");
}

__global__ void write_at(float* y, int at) { y[at] = 1; }

void write_outside(int at) {
    const NonBlockingStream queue;
    const Values<float> y(size_t{7});
    run(queue, write_at, dim3(1), dim3(1), 0, y.data(), at);
}

void uninitialised_device_memory() {
    float* memory = nullptr;
    float value = 0;
    check(cudaMalloc(&memory, 400), "cudaMalloc");
    check(cudaMemcpy(&value, memory + 99, 4, cudaMemcpyDeviceToHost), "copy");
    check(cudaFree(memory), "cudaFree");
    expect(value == value, "a NaN");
}

template <bool kWrite>
__global__ void double_in_workspace(float* workspace, float* y) {
    const unsigned i = threadIdx.x;
    if (kWrite) workspace[i] = 2 * y[i];
    y[i] = workspace[i];
}

// The second call reads what it has written, or what the first one left.
template <bool kWrite>
void double_twice() {
    const std::unique_ptr<Queue> queue = convkit_device()->make_queue(0, nullptr);
    Context context;
    context.queue = queue.get();
    const Values<float> y(count_up(32));
    for (const auto kernel : {double_in_workspace<true>, double_in_workspace<kWrite>}) {
        auto* const workspace = static_cast<float*>(queue->workspace(y.bytes()));
        launch(context, "planted", kernel, dim3(1), dim3(32), 0, workspace, y.data());
    }
    convkit_device()->synchronise(*queue);
    expect(y.read()[31] == y.read()[31], "a NaN");
    expect(y.read()[31] == 124, "doubled twice");
}

void host_pointer_in_kernel() {
    const NonBlockingStream queue;
    float value = 0;
    run(queue, write_at, dim3(1), dim3(1), 0, &value, 0);
}

void host_pointer_in_copy() {
    std::vector<float> a(4), b(4);
    check(cudaMemcpy(a.data(), b.data(), 16, cudaMemcpyHostToDevice), "copy");
}

void device_pointer_in_copy() {
    const Values<float> a(size_t{4}), b(size_t{4});
    check(cudaMemcpy(a.data(), b.data(), 16, cudaMemcpyDeviceToHost), "copy");
}

void copy_of_too_much() {
    const Values<float> a(size_t{4});
    std::vector<float> b(8);
    check(cudaMemcpy(a.data(), b.data(), 20, cudaMemcpyHostToDevice), "copy");
}

void fill_of_too_much() {
    const Values<float> a(size_t{4});
    check(cudaMemset(a.data() + 1, 0, 16), "fill");
}

void host_reads_device_memory() {
    const Values<float> a(size_t{4});
    std::printf("%f\n", static_cast<double>(*static_cast<volatile float*>(a.data())));
}

void double_free() {
    void* memory = nullptr;
    check(cudaMalloc(&memory, 100), "malloc");
    check(cudaFree(memory), "first");
    check(cudaFree(memory), "second");
}

void free_of_host_memory() {
    int value = 0;
    check(cudaFree(&value), "free");
}

void free_within() {
    const Values<float> a(size_t{100});
    check(cudaFree(a.data() + 1), "free");
}

void double_free_pinned() {
    void* memory = nullptr;
    check(cudaMallocHost(&memory, 100), "malloc");
    check(cudaFreeHost(memory), "first");
    check(cudaFreeHost(memory), "second");
}

void leak() {
    void* memory = nullptr;
    check(cudaMalloc(&memory, 12345), "malloc");
}

void leak_of_handles() {
    cudaStream_t stream = nullptr;
    cudaEvent_t event = nullptr;
    check(cudaStreamCreate(&stream), "stream");
    check(cudaEventCreate(&event), "event");
}

void copy_after_free() {
    const NonBlockingStream queue;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    void* memory = nullptr;
    check(cudaMalloc(&memory, 64), "malloc");
    check(cudaStreamBeginCapture(queue.handle(), cudaStreamCaptureModeThreadLocal), "begin");
    check(cudaMemsetAsync(memory, 0, 64, queue.handle()), "fill");
    check(cudaStreamEndCapture(queue.handle(), &graph), "end");
    check(cudaGraphInstantiate(&exec, graph), "instantiate");
    check(cudaGraphDestroy(graph), "destroy");
    check(cudaFree(memory), "free");
    check(cudaGraphLaunch(exec, queue.handle()), "launch");
    queue.wait();
}

// ---- bugs: launches and streams ----------------------------------------------------------------

__global__ void nothing() {}

void launch_of(dim3 grid, dim3 block, size_t shared) {
    const NonBlockingStream queue;
    run(queue, nothing, grid, block, shared);
}

struct Fill {
    float* y;
    float value;
    __device__ void operator()(int64_t i) const { y[i] = value; }
};

struct Add {
    float* y;
    const float* x;
    __device__ void operator()(int64_t i) const { y[i] += x[i]; }
};

template <bool kWait>
void read_from_stream() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{4});
    float* pinned = nullptr;
    check(cudaMallocHost(&pinned, y.bytes()), "malloc");
    for_each(queue.context, "fill", 4, Fill{y.data(), 3});
    check(cudaMemcpyAsync(pinned, y.data(), y.bytes(), cudaMemcpyDeviceToHost, queue.handle()),
          "copy");
    if (kWait) queue.wait();
    const float got = pinned[3];
    check(cudaFreeHost(pinned), "free");
    expect(got == 3, "read before the stream had run");
}

template <bool kEvent>
void two_streams() {
    const NonBlockingStream first, second;
    const Values<float> x(size_t{300}), y(size_t{300});
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
    for (int i = 0; i < 3; ++i) {
        for_each(first.context, "fill", 300, Fill{x.data(), 2});
        check(cudaEventRecord(event, first.handle()), "record");
        if (kEvent) check(cudaStreamWaitEvent(second.handle(), event, 0), "wait");
        for_each(second.context, "add", 300, Add{y.data(), x.data()});
    }
    second.wait();
    check(cudaEventDestroy(event), "destroy");
    expect(y.read()[299] == 6, "the second stream did not wait for the first");
}

// What `call` does while a stream is captured, and what the end of the capture says.
void in_capture(const std::function<cudaError_t(const NonBlockingStream&)>& call) {
    const NonBlockingStream queue;
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(queue.handle(), cudaStreamCaptureModeThreadLocal), "begin");
    const cudaError_t error = call(queue);
    const std::string text = cudaGetErrorString(error);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(queue.handle(), &status), "status");
    expect(status == cudaStreamCaptureStatusInvalidated, "the capture is still valid");
    const cudaError_t end = cudaStreamEndCapture(queue.handle(), &graph);
    expect(end == cudaErrorStreamCaptureInvalidated && !graph, "the capture ended well");
    throw DeviceError(std::string(cudaGetErrorName(error)) + ": " + text);
}

void malloc_in_capture() {
    in_capture([](const NonBlockingStream&) {
        void* memory = nullptr;
        return cudaMalloc(&memory, 16);
    });
}

void synchronise_in_capture() {
    in_capture(
        [](const NonBlockingStream& queue) { return cudaStreamSynchronize(queue.handle()); });
}

void copy_in_capture() {
    const Values<float> y(size_t{4});
    in_capture([&](const NonBlockingStream&) {
        float value = 0;
        return cudaMemcpy(&value, y.data(), 4, cudaMemcpyDeviceToHost);
    });
}

void stranger_in_capture() {
    const NonBlockingStream other;
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "event");
    check(cudaEventRecord(event, other.handle()), "record");
    in_capture([&](const NonBlockingStream& queue) {
        const cudaError_t error = cudaStreamWaitEvent(queue.handle(), event);
        return error;
    });
}

void null_stream_in_capture() {
    cudaStream_t blocking = nullptr;
    cudaGraph_t graph = nullptr;
    const Values<float> y(size_t{4});
    check(cudaStreamCreate(&blocking), "stream");
    check(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed), "begin");
    const cudaError_t error = cudaMemsetAsync(y.data(), 0, 16, nullptr);
    const std::string text = cudaGetErrorString(error);
    expect(cudaStreamEndCapture(blocking, &graph) == cudaErrorStreamCaptureInvalidated, "the end");
    check(cudaStreamDestroy(blocking), "destroy");
    throw DeviceError(std::string(cudaGetErrorName(error)) + ": " + text);
}

// A graph of x = 1 in one stream, y = 2 in another, then y += x in the first.
template <bool kJoin>
cudaGraphExec_t forked_graph(const NonBlockingStream& queue, const NonBlockingStream& other,
                             const Values<float>& x, const Values<float>& y) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaEvent_t fork = nullptr, join = nullptr;
    check(cudaEventCreate(&fork), "event");
    check(cudaEventCreate(&join), "event");
    check(cudaStreamBeginCapture(queue.handle(), cudaStreamCaptureModeGlobal), "begin");
    check(cudaEventRecord(fork, queue.handle()), "record");
    check(cudaStreamWaitEvent(other.handle(), fork), "wait");
    for_each(queue.context, "fill x", 4, Fill{x.data(), 1});
    for_each(other.context, "fill y", 4, Fill{y.data(), 2});
    check(cudaEventRecord(join, other.handle()), "record");
    if (kJoin) check(cudaStreamWaitEvent(queue.handle(), join), "wait");
    for_each(queue.context, "add", 4, Add{y.data(), x.data()});
    const cudaError_t error = cudaStreamEndCapture(queue.handle(), &graph);
    check(cudaEventDestroy(fork), "destroy");
    check(cudaEventDestroy(join), "destroy");
    check(error, "end");
    size_t nodes = 0;
    check(cudaGraphGetNodes(graph, nullptr, &nodes), "nodes");
    expect(nodes == 3, "nodes");
    check(cudaGraphInstantiate(&exec, graph), "instantiate");
    check(cudaGraphDestroy(graph), "destroy");
    return exec;
}

template <bool kJoin>
void fork_and_join() {
    const NonBlockingStream queue, other;
    const Values<float> x(size_t{4}), y(size_t{4});
    const cudaGraphExec_t exec = forked_graph<kJoin>(queue, other, x, y);
    for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(exec, queue.handle()), "launch");
    queue.wait();
    expect(y.read()[3] == 3, "y");
    check(cudaGraphExecDestroy(exec), "destroy");
}

void destroyed_stream() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream), "stream");
    check(cudaStreamDestroy(stream), "destroy");
    check(cudaStreamSynchronize(stream), "synchronise");
}

void injected_allocation_failure() {
    emulator_fail_allocation(2);
    const Values<float> first(size_t{4});
    const Values<float> second(size_t{4});
}

void out_of_memory() {
    emulator_set("memory", 1000);
    const Values<float> first(size_t{200});
    const Values<float> second(size_t{200});
}

void injected_kernel_failure() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{4});
    emulator_fail_kernel(2);
    for (int i = 0; i < 3; ++i) for_each(queue.context, "fill", 4, Fill{y.data(), 3});
    queue.wait();
}

// An error of a kernel is the result of all later calls; after emulator_recover all is well.
void error_that_stays() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{32});
    launch(queue.context, "planted", read_unwritten, dim3(1), dim3(32), 0, y.data());
    launch(queue.context, "planted", shuffle_of_some, dim3(1), dim3(32), 0,
           reinterpret_cast<int*>(y.data()));
    const cudaError_t first = cudaStreamSynchronize(queue.handle());
    int device = 0;
    void* memory = nullptr;
    expect(first == cudaErrorLaunchFailure, "the kernel did not fail");
    expect(cudaMalloc(&memory, 4) == first && !memory, "cudaMalloc works");
    expect(cudaGetDevice(&device) == first, "cudaGetDevice works");
    expect(cudaGetLastError() == first && cudaGetLastError() == first, "the error went away");
    const std::string text = cudaGetErrorString(first);
    emulator_recover();
    expect(cudaGetLastError() == cudaSuccess, "the error is still there");
    for_each(queue.context, "fill", 32, Fill{y.data(), 3});
    queue.wait();
    expect(y.read()[31] == 3, "y after the error");
    throw DeviceError(text);
}

// ---- correct -----------------------------------------------------------------------------------

__global__ void sums_kernel(const float* x, float* y) {
    SHARED(float, partial, 32);
    const float sum = block_sum(x[blockIdx.x * blockDim.x + threadIdx.x], partial);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

void sums() {
    const NonBlockingStream queue;
    for (const unsigned threads : {32u, 96u, 256u, 1024u}) {
        const Values<float> x(std::vector<float>(3 * threads, 0.5f)), y(size_t{3});
        run(queue, sums_kernel, dim3(3), dim3(threads), 0, x.data(), y.data());
        expect(y.read()[2] == 0.5f * static_cast<float>(threads), "a sum");
    }
}

constexpr int kTile = 32;

__global__ void transpose_kernel(const double* x, int rows, int columns, double* y) {
    SHARED(double, tile, kTile*(kTile + 1));
    const int column = static_cast<int>(blockIdx.x) * kTile,
              row = static_cast<int>(blockIdx.y) * kTile;
    const int i = static_cast<int>(threadIdx.x), first = static_cast<int>(threadIdx.y);
    for (int k = first; k < kTile; k += static_cast<int>(blockDim.y))
        if (row + k < rows && column + i < columns)
            tile[k * (kTile + 1) + i] = x[(row + k) * columns + column + i];
    __syncthreads();
    for (int k = first; k < kTile; k += static_cast<int>(blockDim.y))
        if (column + k < columns && row + i < rows)
            y[(column + k) * rows + row + i] = tile[i * (kTile + 1) + k];
}

void transposes() {
    const NonBlockingStream queue;
    constexpr int kRows = 70, kColumns = 45;
    std::vector<double> values(kRows * kColumns);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
    const Values<double> x(values), y(values.size());
    run(queue, transpose_kernel, dim3(divide_up(kColumns, kTile), divide_up(kRows, kTile)),
        dim3(kTile, 8), 0, x.data(), kRows, kColumns, y.data());
    const std::vector<double> got = y.read();
    for (size_t i = 0; i < values.size(); ++i)
        expect(got[i % kColumns * kRows + i / kColumns] == values[i], "transpose");
}

__device__ int64_t failures_of_shuffles() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int64_t wrong = 0;
    const auto same = [&](double got, double expected) { wrong += got != expected; };
    same(__shfl_sync(kAllLanes, lane, 5), 5);
    same(__shfl_sync(kAllLanes, lane, 5, 8), lane / 8 * 8 + 5);
    same(__shfl_sync(kAllLanes, lane * 2u, 35), 6);
    same(__shfl_up_sync(kAllLanes, lane * 0.5f, 3), lane < 3 ? lane * 0.5 : (lane - 3) * 0.5);
    same(__shfl_up_sync(kAllLanes, lane, 1, 4), lane % 4 == 0 ? lane : lane - 1);
    same(__shfl_down_sync(kAllLanes, lane * 0.25, 30), (lane < 2 ? lane + 30 : lane) * 0.25);
    same(__shfl_down_sync(kAllLanes, lane, 1, 16), lane % 16 == 15 ? lane : lane + 1);
    same(static_cast<double>(__shfl_xor_sync(kAllLanes, static_cast<int64_t>(lane) << 40, 16)),
         static_cast<double>(static_cast<int64_t>(lane ^ 16) << 40));
    same(__shfl_xor_sync(kAllLanes, lane, 3, 8), lane ^ 3);
    same(__ballot_sync(kAllLanes, lane % 3 == 0), 0x49249249u);
    same(__any_sync(kAllLanes, lane == 9), 1);
    same(__any_sync(kAllLanes, 0), 0);
    same(__all_sync(kAllLanes, lane < 32), 1);
    same(__all_sync(kAllLanes, lane != 9), 0);
    if (lane < 10) same(__shfl_sync(0x3ffu, lane, 9), 9);
    if (lane >= 30) same(__ballot_sync(0xc0000000u, 1), 0xc0000000u);
    __syncwarp();
    same(__syncthreads_count(threadIdx.x % 2 == 0), (blockDim.x + 1) / 2);
    same(__syncthreads_or(threadIdx.x == 40), blockDim.x > 40);
    same(__syncthreads_and(threadIdx.x != 40), blockDim.x <= 40);
    return wrong;
}

__global__ void shuffles_kernel(int64_t* y) { y[threadIdx.x] = failures_of_shuffles(); }

// A last warp that is not whole takes part with the mask of its lanes.
__global__ void part_of_a_warp(int* y) {
    const unsigned left = blockDim.x - threadIdx.x / 32 * 32;
    const unsigned mask = left >= 32 ? kAllLanes : (1u << left) - 1;
    y[threadIdx.x] = __popc(__ballot_sync(mask, 1));
    __syncthreads();
}

void shuffles() {
    const NonBlockingStream queue;
    for (const unsigned threads : {32u, 64u, 256u}) {
        const Values<int64_t> y(threads);
        run(queue, shuffles_kernel, dim3(1), dim3(threads), 0, y.data());
        for (const int64_t wrong : y.read()) expect(wrong == 0, "a shuffle or a vote");
    }
    const Values<int> y(size_t{50});
    run(queue, part_of_a_warp, dim3(1), dim3(50), 0, y.data());
    expect(y.read()[0] == 32 && y.read()[49] == 18, "part of a warp");
}

__global__ void indices_kernel(int* y) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    atomicAdd(y + block * 30 + thread, static_cast<int>(thread + 1));
}

void indices() {
    const NonBlockingStream queue;
    const Values<int> y(size_t{30 * 24});
    run(queue, indices_kernel, dim3(2, 3, 4), dim3(5, 3, 2), 0, y.data());
    const std::vector<int> got = y.read();
    for (size_t i = 0; i < got.size(); ++i)
        expect(got[i] == static_cast<int>(i % 30) + 1, "an index");
}

void no_blocks() {
    const NonBlockingStream queue;
    for_each(queue.context, "fill", 0, Fill{nullptr, 1});
    queue.wait();
    expect(emulator_run_kernels() == 0, "a kernel ran");
}

void graphs() {
    const NonBlockingStream queue;
    const Values<float> x(size_t{1000}), y(size_t{1000});
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    check(cudaStreamBeginCapture(queue.handle(), cudaStreamCaptureModeThreadLocal), "begin");
    check(cudaMemsetAsync(x.data(), 0, x.bytes(), queue.handle()), "fill");
    for_each(queue.context, "fill", 1000, Fill{x.data(), 2});
    for_each(queue.context, "add", 1000, Add{y.data(), x.data()});
    check(cudaStreamEndCapture(queue.handle(), &graph), "end");
    check(cudaGraphInstantiate(&exec, graph), "instantiate");
    check(cudaGraphDestroy(graph), "destroy");
    queue.wait();
    expect(y.read()[999] == 0, "a captured kernel ran");
    for (int i = 0; i < 5; ++i) check(cudaGraphLaunch(exec, queue.handle()), "launch");
    queue.wait();
    expect(y.read()[999] == 10, "five replays");
    check(cudaGraphExecDestroy(exec), "destroy");
}

void events_and_times() {
    const NonBlockingStream queue;
    const Values<float> y(size_t{5000});
    cudaEvent_t begin = nullptr, end = nullptr;
    float passed = -1;
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    check(cudaEventRecord(begin, queue.handle()), "record");
    for_each(queue.context, "fill", 5000, Fill{y.data(), 2});
    check(cudaEventRecord(end, queue.handle()), "record");
    expect(cudaEventElapsedTime(&passed, begin, end) == cudaErrorNotReady, "too early");
    while (cudaEventQuery(end) == cudaErrorNotReady) {
    }
    check(cudaEventSynchronize(end), "synchronise");
    check(cudaEventElapsedTime(&passed, begin, end), "time");
    expect(passed > 0, "no time passed");
    for_each(queue.context, "fill", 5000, Fill{y.data(), 4});
    while (cudaStreamQuery(queue.handle()) == cudaErrorNotReady) {
    }
    expect(y.read()[4999] == 4, "the queue is empty, the work undone");
    check(cudaEventDestroy(begin), "destroy");
    check(cudaEventDestroy(end), "destroy");
}

// The null stream and blocking streams wait for each other.
void null_stream() {
    cudaStream_t blocking = nullptr;
    check(cudaStreamCreate(&blocking), "stream");
    const Values<int> y(size_t{4});
    int got = 0;
    check(cudaMemsetAsync(y.data(), 0, 16, nullptr), "fill");
    check(cudaMemsetAsync(y.data(), 1, 16, blocking), "fill");
    check(cudaMemcpy(&got, y.data(), 4, cudaMemcpyDeviceToHost), "copy");
    expect(got == 0x01010101, "the order of streams");
    check(cudaStreamDestroy(blocking), "destroy");
}

void memory() {
    size_t before = 0, total = 0;
    check(cudaMemGetInfo(&before, &total), "info");
    std::vector<void*> blocks;
    for (size_t i = 0; i < 100; ++i) {
        void* memory = nullptr;
        check(cudaMalloc(&memory, 1 + i * 97), "malloc");
        expect(reinterpret_cast<uintptr_t>(memory) % 256 == 0, "alignment");
        blocks.push_back(memory);
        if (i % 3 == 0) {
            check(cudaFree(blocks[i / 2]), "free");
            check(cudaMalloc(&blocks[i / 2], 1000), "malloc");
        }
    }
    std::sort(blocks.begin(), blocks.end());
    expect(std::unique(blocks.begin(), blocks.end()) == blocks.end(), "the same memory twice");
    cudaPointerAttributes attributes;
    check(cudaPointerGetAttributes(&attributes, blocks[0]), "attributes");
    expect(attributes.type == cudaMemoryTypeDevice, "device memory");
    check(cudaPointerGetAttributes(&attributes, &before), "attributes");
    expect(attributes.type == cudaMemoryTypeUnregistered, "host memory");
    for (void* const memory : blocks) check(cudaFree(memory), "free");
    check(cudaFree(nullptr), "free of null");
    size_t after = 0;
    check(cudaMemGetInfo(&after, &total), "info");
    expect(before == after && emulator_allocated_bytes() == 0, "bytes in use");
}

// A copy from pageable memory takes what it holds at the time of the call.
void staged_copies() {
    const NonBlockingStream queue;
    const Values<int> y(size_t{4});
    int values[4] = {1, 2, 3, 4};
    check(cudaMemcpyAsync(y.data(), values, 16, cudaMemcpyDefault, queue.handle()), "copy");
    values[3] = 7;
    queue.wait();
    expect(y.read()[3] == 4, "a copy that was too late");
}

// ---- the cases ---------------------------------------------------------------------------------

const std::map<std::string, void (*)()> kBugs = {
    {"missing_barrier", rotate_values<false>},
    {"missing_barrier_before_write", rotate_values_often<false>},
    {"divergent_barrier", divergent_barrier},
    {"missed_barrier", missed_barrier},
    {"barrier_in_place_of_shuffle", barrier_in_place_of_shuffle},
    {"missing_warp_barrier", rotate_values_in_warp<false>},
    {"mask_without_caller", [] { shuffle_with_mask(32, 0x0000ffff, 32); }},
    {"mask_beyond_block", [] { shuffle_with_mask(48, kAllLanes, 32); }},
    {"width_of_shuffle", [] { shuffle_with_mask(32, kAllLanes, 12); }},
    {"shuffle_with_ended_lanes", shuffle_with_ended_lanes},
    {"votes_apart", votes_apart},
    {"shared_overrun", [] { fill_shared_from(0, 10); }},
    {"shared_underrun", [] { fill_shared_from(-1, 9); }},
    {"dynamic_overrun", [] { fill_dynamic_memory(256, 65); }},
    {"dynamic_without_size", [] { fill_dynamic_memory(0, 1); }},
    {"shared_overread", [] { read_beyond_end(true, 5); }},
    {"device_overread", [] { read_beyond_end(false, 5); }},
    {"device_underread", [] { read_beyond_end(false, -1); }},
    {"uninitialised_device_memory", uninitialised_device_memory},
    {"uninitialised_shared_memory", uninitialised_shared_memory},
    {"stale_workspace", double_twice<false>},
    {"too_much_static_memory", too_much_static_memory},
    {"race_between_blocks", rotate_by_blocks<true>},
    {"misaligned_vector", [] { copy_vectors_from(2); }},
    {"device_overrun", [] { write_outside(7); }},
    {"device_underrun", [] { write_outside(-1); }},
    {"host_pointer_in_kernel", host_pointer_in_kernel},
    {"host_pointer_in_copy", host_pointer_in_copy},
    {"device_pointer_in_copy", device_pointer_in_copy},
    {"copy_of_too_much", copy_of_too_much},
    {"fill_of_too_much", fill_of_too_much},
    {"host_reads_device_memory", host_reads_device_memory},
    {"double_free", double_free},
    {"free_of_host_memory", free_of_host_memory},
    {"free_within", free_within},
    {"double_free_pinned", double_free_pinned},
    {"leak", leak},
    {"leak_of_handles", leak_of_handles},
    {"copy_after_free", copy_after_free},
    {"block_too_large", [] { launch_of(dim3(1), dim3(32, 33), 0); }},
    {"block_too_deep", [] { launch_of(dim3(1), dim3(1, 1, 65), 0); }},
    {"grid_too_high", [] { launch_of(dim3(1, 65536), dim3(32), 0); }},
    {"too_much_shared_memory", [] { launch_of(dim3(1), dim3(32), 227 * 1024 + 1); }},
    {"read_before_stream_ran", read_from_stream<false>},
    {"streams_without_event", two_streams<false>},
    {"malloc_in_capture", malloc_in_capture},
    {"synchronise_in_capture", synchronise_in_capture},
    {"copy_in_capture", copy_in_capture},
    {"stranger_in_capture", stranger_in_capture},
    {"null_stream_in_capture", null_stream_in_capture},
    {"unjoined_capture", fork_and_join<false>},
    {"destroyed_stream", destroyed_stream},
    {"injected_allocation_failure", injected_allocation_failure},
    {"out_of_memory", out_of_memory},
    {"injected_kernel_failure", injected_kernel_failure},
    {"error_that_stays", error_that_stays},
};

const std::map<std::string, void (*)()> kCorrect = {
    {"barrier", rotate_values<true>},
    {"barriers", rotate_values_often<true>},
    {"warp_barrier", rotate_values_in_warp<true>},
    {"read_to_end", [] { read_beyond_end(true, 4), read_beyond_end(false, 4); }},
    {"shared_memory", [] { fill_shared_from(0, 9); }},
    {"dynamic_shared_memory", [] { fill_dynamic_memory(256, 64); }},
    {"most_shared_memory", [] { fill_dynamic_memory(227 * 1024, 227 * 256); }},
    {"blocks", rotate_by_blocks<false>},
    {"workspace", double_twice<true>},
    {"aligned_vectors", [] { copy_vectors_from(4); }},
    {"largest_block", [] { launch_of(dim3(1), dim3(16, 1, 64), 0); }},
    {"highest_grid", [] { launch_of(dim3(1, 65535), dim3(1), 0); }},
    {"sums", sums},
    {"transposes", transposes},
    {"shuffles", shuffles},
    {"indices", indices},
    {"no_blocks", no_blocks},
    {"graphs", graphs},
    {"fork_and_join", fork_and_join<true>},
    {"events_and_times", events_and_times},
    {"streams_with_event", two_streams<true>},
    {"read_after_stream_ran", read_from_stream<true>},
    {"null_stream", null_stream},
    {"memory", memory},
    {"staged_copies", staged_copies},
};

int run_case(const std::string& name) {
    const auto bug = kBugs.find(name), correct = kCorrect.find(name);
    if (bug == kBugs.end() && correct == kCorrect.end()) {
        std::printf("there is no case %s\n", name.c_str());
        return 2;
    }
    try {
        (bug == kBugs.end() ? correct : bug)->second();
    } catch (const DeviceError& error) {
        std::printf("%s\n", error.what());
        return 1;
    } catch (const std::bad_alloc&) {
        std::printf("%s\n", cudaGetErrorString(cudaErrorMemoryAllocation));
        return 1;
    }
    if (emulator_leaks()[0] != '\0') {
        std::printf("not given back: %s", emulator_leaks());
        return 1;
    }
    std::printf("passed\n");
    return 0;
}

}  // namespace

// With a case's name: runs it. Without: prints the names of all bugs, or of all that is correct.
int main(int count, char** arguments) {
    const std::string what = count > 1 ? arguments[1] : "";
    if (what != "bugs" && what != "correct") return run_case(what);
    for (const auto& [name, function] : what == "bugs" ? kBugs : kCorrect)
        std::printf("%s\n", name.c_str());
    return 0;
}
