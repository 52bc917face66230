// What the library exports: CUDA's devices, memory, streams, events and graphs as device.h states
// them. Sources of kernels see nothing of this but check().
#include "device.h"

#include <atomic>
#include <new>
#include <string>
#include <vector>

#include "epoch.h"
#include "launch.cuh"
#include "stretch_make.h"

namespace convkit {
namespace cuda {

extern const KernelTable table;

namespace {

#ifdef CONVKIT_EMULATED
constexpr bool kSpoils = true;           // so that what an earlier call left there is NaN
constexpr size_t kWorkspaceStep = 256;   // so that what runs over its end is seen
constexpr const void* kProbe = nullptr;  // whichever kernel: the emulator has code of all
#else
constexpr bool kSpoils = false;
constexpr size_t kWorkspaceStep = 2 << 20;  // so that it seldom grows
__global__ void probe_kernel() {}
constexpr auto kProbe = probe_kernel;
#endif
constexpr size_t kWorkspaceAlignment = 256;

std::atomic<int64_t> allocated{0};  // blocks of memory, not released

size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

std::string version(int number) {  // 13010 -> "13.1"
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

// Where nothing can be thrown: what CUDA could not release is gone with its device.
void ignore(cudaError_t) { cudaGetLastError(); }

// Why there is no GPU to be seen, as far as CUDA tells.
std::string none_found(cudaError_t error) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "cuda: no NVIDIA driver was found";
    if (error == cudaErrorInsufficientDriver)
        return "cuda: the NVIDIA driver is too old: expected one for CUDA " + version(runtime) +
               ", got one for CUDA " + version(driver);
    if (error == cudaSuccess || error == cudaErrorNoDevice) return "cuda: no GPU was found";
    return std::string("cuda: no GPU can be used: ") + cudaGetErrorString(error);
}

// Of a GPU that has none of this build's code.
std::string built_for_others(const DeviceDescription& gpu) {
    std::string capabilities;
    for (const int architecture : {__CUDA_ARCH_LIST__}) {  // 750, 800, 900
        if (!capabilities.empty()) capabilities += ", ";
        capabilities +=
            std::to_string(architecture / 100) + "." + std::to_string(architecture % 100 / 10);
    }
    return "cuda: this build has no code that the GPU can run: it is for compute capability " +
           capabilities + ", the GPU is " + std::to_string(gpu.major) + "." +
           std::to_string(gpu.minor) + " (" + gpu.name + ")";
}

// Of any queue, those of the main module too.
cudaStream_t handle_of(Queue& queue) { return static_cast<cudaStream_t>(queue.stream); }

class Stream final : public Queue {
 public:
    Stream(const Device& library, int on, void* given) : library_(library) {
        device = on;
        stream = given;
        if (given) return;
        const CurrentDevice current(library_, device);
        check(cudaStreamCreateWithFlags(&own_, cudaStreamNonBlocking), "a stream");
        stream = own_;
    }
    ~Stream() override {
        ignore(cudaStreamSynchronize(handle_of(*this)));
        if (joint_) ignore(cudaEventDestroy(joint_));
        for (char* memory : kept_) library_.release(memory);
        if (workspace_) library_.release(workspace_);
        if (own_) ignore(cudaStreamDestroy(own_));
    }

    // The end of what there is, so that what runs over it leaves the memory.
    void* workspace(size_t bytes) override {
        if (bytes > SIZE_MAX - kWorkspaceStep) throw std::bad_alloc();
        const size_t rounded = round_up(bytes, kWorkspaceAlignment);
        if (rounded > capacity_ || !workspace_) grow(round_up(bytes + 1, kWorkspaceStep));
        if (kSpoils)
            check(cudaMemsetAsync(workspace_, 0xff, capacity_, handle_of(*this)), "the workspace");
        return workspace_ + (capacity_ - rounded);
    }

    // From now on: graphs that are recorded use those of then.
    void keep_workspaces() { keeps_ = true; }

    // Where this stream and another one meet.
    cudaEvent_t joint() {
        if (!joint_) check(cudaEventCreateWithFlags(&joint_, cudaEventDisableTiming), "an event");
        return joint_;
    }

 private:
    void grow(size_t bytes) {
        cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
        check(cudaStreamIsCapturing(handle_of(*this), &status), "the workspace");
        if (status != cudaStreamCaptureStatusNone)
            throw DeviceError(
                "cuda: the workspace would grow while a graph is recorded; expected the same work "
                "to have run before");
        if (workspace_ && keeps_) {
            kept_.push_back(workspace_);
        } else if (workspace_) {
            check(cudaStreamSynchronize(handle_of(*this)), "the workspace");
            library_.release(workspace_);
        }
        workspace_ = nullptr;
        capacity_ = 0;
        workspace_ = static_cast<char*>(library_.allocate(device, bytes));
        capacity_ = bytes;
    }

    const Device& library_;
    cudaStream_t own_ = nullptr;
    cudaEvent_t joint_ = nullptr;
    char* workspace_ = nullptr;
    size_t capacity_ = 0;
    bool keeps_ = false;
    std::vector<char*> kept_;
};

// One that make_queue made.
Stream& as_stream(Queue& queue) { return static_cast<Stream&>(queue); }

struct CudaEvent final : Event {
    ~CudaEvent() override {
        if (event) ignore(cudaEventDestroy(event));
    }
    cudaEvent_t event = nullptr;
};

cudaEvent_t handle_of(Event& event) { return static_cast<CudaEvent&>(event).event; }

struct CudaGraph final : Graph {
    ~CudaGraph() override {
        if (graph) ignore(cudaGraphExecDestroy(graph));
    }
    cudaGraphExec_t graph = nullptr;
};

class Cuda final : public Device {
 public:
    Cuda() : Device(table) {}

    void require(int device) const override {
        const int found = count();
        if (device < 0 || device >= found)
            throw DeviceError("cuda: expected one of " + std::to_string(found) + " GPUs, got " +
                              std::to_string(device));
        const CurrentDevice current(*this, device);
        cudaFuncAttributes attributes;
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kProbe);
        if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
            cudaGetLastError();
            throw DeviceError(built_for_others(describe(device)));
        }
        check(error, "the first kernel");
    }

    int count() const override {
        int found = 0;
        const cudaError_t error = cudaGetDeviceCount(&found);
        if (error != cudaSuccess || found == 0) {
            cudaGetLastError();
            throw DeviceError(none_found(error));
        }
        return found;
    }

    DeviceDescription describe(int device) const override {
        cudaDeviceProp properties;
        check(cudaGetDeviceProperties(&properties, device), "a description");
        return {properties.name, properties.major, properties.minor,
                static_cast<int64_t>(properties.totalGlobalMem)};
    }

    int current() const override {
        int device = 0;
        check(cudaGetDevice(&device), "the current device");
        return device;
    }

    void make_current(int device) const override {
        check(cudaSetDevice(device), "the current device");
    }

    std::unique_ptr<Queue> make_queue(int device, void* stream) const override {
        return std::make_unique<Stream>(*this, device, stream);
    }

    void* allocate(int device, size_t bytes) const override {
        const CurrentDevice current(*this, device);
        void* memory = nullptr;
        check(cudaMalloc(&memory, bytes > 0 ? bytes : 1), "memory");
        ++allocated;
        return memory;
    }

    void release(void* memory) const noexcept override {
        if (!memory) return;
        ignore(cudaFree(memory));
        --allocated;
    }

    void* allocate_pinned(size_t bytes) const override {
        void* memory = nullptr;
        check(cudaMallocHost(&memory, bytes > 0 ? bytes : 1), "pinned memory");
        ++allocated;
        return memory;
    }

    void release_pinned(void* memory) const noexcept override {
        if (!memory) return;
        ignore(cudaFreeHost(memory));
        --allocated;
    }

    int64_t blocks() const override { return allocated; }

    int64_t free_memory(int device) const override {
        const CurrentDevice current(*this, device);
        size_t free = 0, total = 0;
        check(cudaMemGetInfo(&free, &total), "the memory that is free");
        return static_cast<int64_t>(free);
    }

    void copy(Queue& queue, void* to, const void* from, size_t bytes,
              Direction direction) const override {
        constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                             cudaMemcpyDeviceToDevice};
        if (bytes == 0) return;
        const CurrentDevice current(*this, queue.device);
        check(
            cudaMemcpyAsync(to, from, bytes, kKinds[static_cast<int>(direction)], handle_of(queue)),
            "a copy");
    }

    void fill(Queue& queue, void* memory, uint8_t value, size_t bytes) const override {
        if (bytes == 0) return;
        const CurrentDevice current(*this, queue.device);
        check(cudaMemsetAsync(memory, value, bytes, handle_of(queue)), "a fill");
    }

    void synchronise(Queue& queue) const override {
        const CurrentDevice current(*this, queue.device);
        check(cudaStreamSynchronize(handle_of(queue)), "a kernel or a copy");
    }

    std::unique_ptr<Event> make_event(int device) const override {
        const CurrentDevice current(*this, device);
        auto event = std::make_unique<CudaEvent>();
        check(cudaEventCreate(&event->event), "an event");
        return event;
    }

    void record(Queue& queue, Event& event) const override {
        const CurrentDevice current(*this, queue.device);
        check(cudaEventRecord(handle_of(event), handle_of(queue)), "an event");
    }

    void wait(Queue& queue, Event& event) const override {
        const CurrentDevice current(*this, queue.device);
        check(cudaStreamWaitEvent(handle_of(queue), handle_of(event), 0), "an event");
    }

    double seconds(Event& begin, Event& end) const override {
        float milliseconds = 0;
        check(cudaEventSynchronize(handle_of(end)), "an event");
        check(cudaEventElapsedTime(&milliseconds, handle_of(begin), handle_of(end)), "a time");
        return milliseconds / 1000.0;
    }

    void finish(Event& event) const override {
        check(cudaEventSynchronize(handle_of(event)), "a kernel or a copy");
    }

    void follow(Queue& queue, void* stream) const override {
        meet(queue, static_cast<cudaStream_t>(stream), handle_of(queue));
    }

    void lead(Queue& queue, void* stream) const override {
        meet(queue, handle_of(queue), static_cast<cudaStream_t>(stream));
    }

    void begin_graph(Queue& queue) const override {
        const CurrentDevice current(*this, queue.device);
        if (Stream* const stream = dynamic_cast<Stream*>(&queue)) stream->keep_workspaces();
        check(cudaStreamBeginCapture(handle_of(queue), cudaStreamCaptureModeThreadLocal),
              "a graph");
    }

    std::unique_ptr<Graph> end_graph(Queue& queue) const override {
        const CurrentDevice current(*this, queue.device);
        auto made = std::make_unique<CudaGraph>();
        cudaGraph_t graph = nullptr;
        check(cudaStreamEndCapture(handle_of(queue), &graph), "a graph");
        const cudaError_t error = cudaGraphInstantiate(&made->graph, graph, 0);
        ignore(cudaGraphDestroy(graph));
        check(error, "a graph");
        return made;
    }

    void abandon_graph(Queue& queue) const noexcept override {
        cudaGraph_t graph = nullptr;
        ignore(cudaStreamEndCapture(handle_of(queue), &graph));
        if (graph) ignore(cudaGraphDestroy(graph));
    }

    void replay(Queue& queue, Graph& graph) const override {
        const CurrentDevice current(*this, queue.device);
        check(cudaGraphLaunch(static_cast<CudaGraph&>(graph).graph, handle_of(queue)), "a graph");
    }

    void fill_shuffled(Queue& queue, const Shuffle& shuffle, int64_t* order) const override {
        const CurrentDevice current(*this, queue.device);
        cuda::fill_shuffled(context_of(queue), shuffle, order);
    }

    void take_rows(Queue& queue, const int64_t* order, int64_t* cursor, int64_t n,
                   int64_t* batch_index) const override {
        const CurrentDevice current(*this, queue.device);
        cuda::take_rows(context_of(queue), order, cursor, n, batch_index);
    }

 private:
    static Context context_of(Queue& queue) {
        Context context;
        context.queue = &queue;
        return context;
    }

    void meet(Queue& queue, cudaStream_t first, cudaStream_t second) const {
        const CurrentDevice current(*this, queue.device);
        const cudaEvent_t joint = as_stream(queue).joint();
        check(cudaEventRecord(joint, first), "an event");
        check(cudaStreamWaitEvent(second, joint, 0), "an event");
    }

    std::unique_ptr<Stretch> make_stretch(int device, const StretchPlan& plan,
                                          int64_t most) const override {
        const CurrentDevice current(*this, device);
        return cuda::make_stretch(*this, device, plan, most);
    }
};

}  // namespace

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    const std::string text = cudaGetErrorString(error);
    cudaGetLastError();  // or the next call would report it again
    if (error == cudaErrorMemoryAllocation) throw std::bad_alloc();
    throw DeviceError(std::string("cuda: ") + what + ": " + text);
}

}  // namespace cuda
}  // namespace convkit

#define CONVKIT_LIBRARY extern "C" __attribute__((visibility("default")))

CONVKIT_LIBRARY uint64_t convkit_device_layout() { return convkit::device_layout(); }

CONVKIT_LIBRARY const convkit::Device* convkit_device() {
    static const convkit::cuda::Cuda device;
    return &device;
}
