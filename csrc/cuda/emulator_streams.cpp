// Streams, copies, events and graphs. Streams are lazy: their work waits in a queue until the host
// waits for it.
#include <chrono>
#include <deque>
#include <memory>
#include <thread>
#include <utility>

#include "emulator_state.h"

namespace convkit {
namespace emulator {
namespace {

using Work = std::function<void()>;

struct Stream;

// A stream's work that becomes a graph; other streams join by waiting for its events.
struct Capture {
    std::vector<Work> nodes;
    Stream* origin;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false, ended = false;
};

struct Stream {
    bool blocking = true;  // ordered with the null stream
    std::deque<Work> work;
    std::shared_ptr<Capture> capture;
    size_t captured = 0;    // nodes of the capture that came from here
    bool unjoined = false;  // the last of them is one that no other stream waits for

    void leave_capture() {
        capture = nullptr;
        captured = 0;
        unjoined = false;
    }
};

// What an event stands for since it was last recorded.
struct Mark {
    Stream* stream;
    bool done = false;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture;
    size_t captured = 0;
};

struct Event {
    bool timed;
    std::shared_ptr<Mark> mark;
};

using Nodes = std::shared_ptr<const std::vector<Work>>;

// Things behind CUDA's handles, which are never used twice.
template <class Handle, class T>
class Table {
 public:
    explicit Table(const char* what) : what_(what) {}
    Handle add(T value) {
        const auto handle = reinterpret_cast<Handle>(next_);
        next_ += 16;
        all_.emplace(handle, std::make_unique<T>(std::move(value)));
        return handle;
    }
    T* find(Handle handle) {
        const auto found = all_.find(handle);
        return found == all_.end() ? nullptr : found->second.get();
    }
    cudaError_t remove(Handle handle) { return all_.erase(handle) ? cudaSuccess : unknown(); }
    cudaError_t unknown() const {
        return refuse(cudaErrorInvalidResourceHandle, std::string("there is no such ") + what_);
    }
    std::map<Handle, std::unique_ptr<T>>& all() { return all_; }
    std::string leaks() const {
        return all_.empty() ? std::string() : text_of("%zu of: %s\n", all_.size(), what_);
    }

 private:
    const char* what_;
    uintptr_t next_ = 0x1000;
    std::map<Handle, std::unique_ptr<T>> all_;
};

auto& streams = *new Table<cudaStream_t, Stream>("stream");
auto& events = *new Table<cudaEvent_t, Event>("event");
auto& graphs = *new Table<cudaGraph_t, Nodes>("graph");
auto& execs = *new Table<cudaGraphExec_t, Nodes>("executable graph");
Stream& null_stream = *new Stream;

Stream* find_stream(cudaStream_t handle) {
    if (reinterpret_cast<uintptr_t>(handle) <= 1) return &null_stream;  // 1: cudaStreamLegacy
    return streams.find(handle);
}

// What a function of the runtime does with the thing behind a handle.
template <class F>
cudaError_t call_with_stream(cudaStream_t handle, const F& function) {
    return call([&] {
        Stream* const stream = find_stream(handle);
        return stream ? function(*stream) : streams.unknown();
    });
}

template <class Handle, class T, class F>
cudaError_t call_with(Table<Handle, T>& table, Handle handle, const F& function) {
    return call([&] {
        T* const found = table.find(handle);
        return found ? function(*found) : table.unknown();
    });
}

// ---- work --------------------------------------------------------------------------------------

void run_one(Stream& stream) {
    const Work work = std::move(stream.work.front());
    stream.work.pop_front();
    const Access access;
    work();
}

void run_all(Stream& stream) {
    if (stream.work.empty()) return;
    const Access access;
    while (!stream.work.empty() && lost == cudaSuccess) run_one(stream);
}

void run_until(const Mark& mark) {
    while (!mark.done && lost == cudaSuccess) run_one(*mark.stream);
}

// ---- captures ----------------------------------------------------------------------------------

cudaError_t break_capture(Capture& capture, cudaError_t error, const std::string& text) {
    capture.invalid = true;
    return refuse(error, text);
}

cudaError_t refuse_if_captured(Stream& stream, const char* what) {
    if (!stream.capture) return cudaSuccess;
    return break_capture(*stream.capture, cudaErrorStreamCaptureUnsupported,
                         std::string(what) + " of a captured stream");
}

// ---- copies ------------------------------------------------------------------------------------

cudaError_t check_device_range(const char* what, const void* pointer, size_t bytes) {
    if (!memory.contains(pointer))
        return refuse(cudaErrorInvalidValue,
                      text_of("%s: %p is host memory where device memory must be", what, pointer));
    if (memory.holds_range(pointer, bytes)) return cudaSuccess;
    return refuse(cudaErrorInvalidValue,
                  text_of("%s: the %zu bytes at %p are not within one block of device memory", what,
                          bytes, pointer));
}

cudaError_t check_side(const char* what, bool device, const void* pointer, size_t bytes) {
    if (device) return check_device_range(what, pointer, bytes);
    if (!memory.contains(pointer)) return cudaSuccess;
    return refuse(cudaErrorInvalidValue,
                  text_of("%s: %p is device memory where host memory must be", what, pointer));
}

// The device memory may be gone by the time that work runs.
void lose_unless_held(const char* what, const void* pointer, size_t bytes) {
    if (memory.contains(pointer) && !memory.holds_range(pointer, bytes))
        lose(cudaErrorIllegalAddress, std::string(what) + ": its device memory was freed");
}

struct CopyWork {
    void* to;
    const void* from;
    size_t bytes;
    std::shared_ptr<std::vector<unsigned char>> staged;  // what pageable memory held

    void operator()() const {
        lose_unless_held("cudaMemcpy", to, bytes);
        lose_unless_held("cudaMemcpy", from, bytes);
        if (lost == cudaSuccess) std::memmove(to, staged ? staged->data() : from, bytes);
    }
};

cudaError_t copy(const char* what, void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t handle, bool wait) {
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return refuse(cudaErrorInvalidMemcpyDirection, what);
    if (bytes == 0) return cudaSuccess;
    const bool guess = kind == cudaMemcpyDefault, within = kind == cudaMemcpyDeviceToDevice;
    const bool to_device = guess ? memory.contains(to) : within || kind == cudaMemcpyHostToDevice;
    const bool from_device =
        guess ? memory.contains(from) : within || kind == cudaMemcpyDeviceToHost;
    cudaError_t error = check_side(what, to_device, to, bytes);
    if (error == cudaSuccess) error = check_side(what, from_device, from, bytes);
    if (error != cudaSuccess) return error;
    Stream* const stream = find_stream(handle);
    if (!stream) return streams.unknown();
    CopyWork work{to, from, bytes, nullptr};
    if (!from_device && !is_pinned(from) && !stream->capture) {
        const auto* const begin = static_cast<const unsigned char*>(from);
        work.staged = std::make_shared<std::vector<unsigned char>>(begin, begin + bytes);
    }
    error = enqueue(handle, std::move(work));
    if (error != cudaSuccess || stream->capture) return error;
    if (wait || (!to_device && !is_pinned(to))) run_all(*stream);
    return cudaSuccess;
}

cudaError_t set_memory(const char* what, void* to, int value, size_t bytes, cudaStream_t stream) {
    if (bytes == 0) return cudaSuccess;
    const cudaError_t error = check_device_range(what, to, bytes);
    if (error != cudaSuccess) return error;
    return enqueue(stream, [=] {
        lose_unless_held("cudaMemset", to, bytes);
        if (lost == cudaSuccess) std::memset(to, value, bytes);
    });
}

}  // namespace

// ---- for the other parts -----------------------------------------------------------------------

cudaError_t enqueue(cudaStream_t handle, Work work) {
    Stream* const stream = find_stream(handle);
    if (!stream) return streams.unknown();
    if (stream->capture) {
        if (stream->capture->invalid)
            return refuse(cudaErrorStreamCaptureInvalidated, "the capture has failed already");
        stream->capture->nodes.push_back(std::move(work));
        ++stream->captured;
        stream->unjoined = stream->capture->origin != stream;
        return cudaSuccess;
    }
    // Earlier than need be, but in the order that the null stream asks for.
    if (stream == &null_stream) {
        for (auto& [other, one] : streams.all())
            if (one->blocking && one->capture)
                return break_capture(*one->capture, cudaErrorStreamCaptureImplicit,
                                     "the null stream is used while a blocking stream is captured");
        for (auto& [other, one] : streams.all())
            if (one->blocking) run_all(*one);
    } else if (stream->blocking) {
        run_all(null_stream);
    }
    stream->work.push_back(std::move(work));
    return cudaSuccess;
}

void run_everything() {
    run_all(null_stream);
    if (settings.order == Order::kReverse) {
        for (auto i = streams.all().rbegin(); i != streams.all().rend(); ++i) run_all(*i->second);
    } else {
        for (auto& [handle, stream] : streams.all()) run_all(*stream);
    }
}

cudaError_t refuse_in_capture(const char* what) {
    for (auto& [handle, stream] : streams.all()) {
        const std::shared_ptr<Capture>& capture = stream->capture;
        if (!capture || capture->mode == cudaStreamCaptureModeRelaxed) continue;
        if (capture->mode == cudaStreamCaptureModeThreadLocal &&
            capture->thread != std::this_thread::get_id())
            continue;
        return break_capture(*capture, cudaErrorStreamCaptureUnsupported,
                             std::string(what) + " while a stream is captured");
    }
    return cudaSuccess;
}

void drop_work() {
    null_stream.work.clear();
    for (auto& [handle, stream] : streams.all()) {
        stream->work.clear();
        stream->leave_capture();
    }
    for (auto& [handle, event] : events.all()) event->mark = nullptr;
}

void reset_streams() {
    drop_work();
    events.all().clear();
    execs.all().clear();
    graphs.all().clear();
    streams.all().clear();
}

std::string leaks_of_streams() {
    return streams.leaks() + events.leaks() + graphs.leaks() + execs.leaks();
}

}  // namespace emulator
}  // namespace convkit

using namespace convkit::emulator;

// ---- CUDA's functions: copies ------------------------------------------------------------------

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return call([&] {
        const cudaError_t error = refuse_in_capture("cudaMemcpy");
        if (error != cudaSuccess) return error;
        return copy("cudaMemcpy", to, from, bytes, kind, nullptr, true);
    });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return call([&] { return copy("cudaMemcpyAsync", to, from, bytes, kind, stream, false); });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    return call([&] { return set_memory("cudaMemset", to, value, bytes, nullptr); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    return call([&] { return set_memory("cudaMemsetAsync", to, value, bytes, stream); });
}

// ---- streams -----------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* result, unsigned flags) {
    return call([&] {
        Stream stream;
        stream.blocking = flags != cudaStreamNonBlocking;
        *result = streams.add(std::move(stream));
        return cudaSuccess;
    });
}

cudaError_t cudaStreamCreate(cudaStream_t* result) {
    return cudaStreamCreateWithFlags(result, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    return call_with(streams, handle, [&](Stream& stream) {
        const cudaError_t error = refuse_if_captured(stream, "the end");
        if (error != cudaSuccess) return error;
        run_all(stream);
        return streams.remove(handle);
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    return call_with_stream(handle, [](Stream& stream) {
        const cudaError_t error = refuse_if_captured(stream, "cudaStreamSynchronize");
        if (error == cudaSuccess) run_all(stream);
        return error;
    });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    return call_with_stream(handle, [](Stream& stream) {
        const cudaError_t error = refuse_if_captured(stream, "cudaStreamQuery");
        if (error != cudaSuccess || stream.work.empty()) return error;
        run_one(stream);
        return cudaErrorNotReady;
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    return call_with_stream(handle, [&](Stream& stream) {
        Event* const found = events.find(event);
        if (!found) return events.unknown();
        const std::shared_ptr<Mark> mark = found->mark;
        if (!mark) return cudaSuccess;  // never recorded: nothing to wait for
        if (mark->capture && mark->capture->ended)
            return refuse(cudaErrorCapturedEvent, "cudaStreamWaitEvent");
        if (mark->capture) {
            if (stream.capture && stream.capture != mark->capture) {
                mark->capture->invalid = true;
                return break_capture(*stream.capture, cudaErrorStreamCaptureMerge,
                                     "cudaStreamWaitEvent");
            }
            stream.capture = mark->capture;
            if (mark->stream != &stream) {
                stream.unjoined = mark->capture->origin != &stream;
                if (mark->captured == mark->stream->captured) mark->stream->unjoined = false;
            }
            return cudaSuccess;
        }
        if (stream.capture)
            return break_capture(*stream.capture, cudaErrorStreamCaptureUnsupported,
                                 "cudaStreamWaitEvent: the event is not of the capture");
        return enqueue(handle, [mark] { run_until(*mark); });
    });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    return call_with_stream(handle, [&](Stream& stream) {
        if (&stream == &null_stream)
            return refuse(cudaErrorStreamCaptureUnsupported, "the null stream cannot be captured");
        if (stream.capture)
            return break_capture(*stream.capture, cudaErrorStreamCaptureUnsupported,
                                 "the stream is captured already");
        stream.capture = std::make_shared<Capture>();
        stream.capture->origin = &stream;
        stream.capture->mode = mode;
        stream.capture->thread = std::this_thread::get_id();
        return cudaSuccess;
    });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    return call_with_stream(handle, [&](Stream& stream) {
        *graph = nullptr;
        const std::shared_ptr<Capture> capture = stream.capture;
        if (!capture || capture->origin != &stream)
            return refuse(cudaErrorStreamCaptureUnmatched, "no capture began in this stream");
        if (capture->mode != cudaStreamCaptureModeRelaxed &&
            capture->thread != std::this_thread::get_id())
            return break_capture(*capture, cudaErrorStreamCaptureWrongThread,
                                 "cudaStreamEndCapture");
        capture->ended = true;
        bool unjoined = false;
        for (auto& [other, one] : streams.all()) {
            if (one->capture != capture) continue;
            unjoined = unjoined || one->unjoined;
            one->leave_capture();
        }
        if (capture->invalid)
            return refuse(cudaErrorStreamCaptureInvalidated, "the capture had failed");
        if (unjoined)
            return refuse(cudaErrorStreamCaptureUnjoined,
                          "the stream does not wait for all work that was captured in others");
        *graph = graphs.add(std::make_shared<const std::vector<Work>>(std::move(capture->nodes)));
        return cudaSuccess;
    });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    return call_with_stream(handle, [&](Stream& stream) {
        *status = !stream.capture           ? cudaStreamCaptureStatusNone
                  : stream.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                            : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

// ---- graphs ------------------------------------------------------------------------------------

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, CUgraphNode_st** nodes, size_t* count) {
    return call_with(graphs, graph, [&](const Nodes& found) {
        if (nodes) return refuse(cudaErrorNotSupported, "cudaGraphGetNodes: only their number");
        *count = found->size();
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    return call_with(graphs, graph, [&](const Nodes& found) {
        *exec = execs.add(found);
        return cudaSuccess;
    });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    return call_with(execs, exec, [&](const Nodes& found) {
        return enqueue(stream, [nodes = found] {
            for (const Work& node : *nodes)
                if (lost == cudaSuccess) node();
        });
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return call([&] { return execs.remove(exec); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return call([&] { return graphs.remove(graph); });
}

// ---- events ------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    return call([&] {
        *event = events.add({(flags & cudaEventDisableTiming) == 0, nullptr});
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    return call_with(events, event, [&](Event& found) {
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        const auto mark = std::make_shared<Mark>();
        mark->stream = stream;
        mark->capture = stream->capture;
        mark->captured = stream->captured;
        found.mark = mark;
        if (stream->capture) return cudaSuccess;
        return enqueue(handle, [mark] {
            mark->done = true;
            mark->time = std::chrono::steady_clock::now();
        });
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return call_with(events, event, [](const Event& found) {
        if (!found.mark) return cudaSuccess;
        if (found.mark->capture) return refuse(cudaErrorCapturedEvent, "cudaEventSynchronize");
        run_until(*found.mark);
        return cudaSuccess;
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    return call_with(events, event, [](const Event& found) {
        if (!found.mark || found.mark->done) return cudaSuccess;
        if (found.mark->capture) return refuse(cudaErrorCapturedEvent, "cudaEventQuery");
        run_one(*found.mark->stream);
        return cudaErrorNotReady;
    });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    return call([&] {
        const Event *const from = events.find(start), *const to = events.find(end);
        if (!from || !to) return events.unknown();
        if (!from->timed || !to->timed || !from->mark || !to->mark)
            return refuse(cudaErrorInvalidResourceHandle,
                          "cudaEventElapsedTime: an event without a time");
        if (!from->mark->done || !to->mark->done) return cudaErrorNotReady;
        const std::chrono::duration<float, std::milli> passed = to->mark->time - from->mark->time;
        *milliseconds = passed.count();
        return cudaSuccess;
    });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return call([&] { return events.remove(event); });
}

cudaError_t cudaDeviceSynchronize() {
    return call([] {
        const cudaError_t error = refuse_in_capture("cudaDeviceSynchronize");
        if (error == cudaSuccess) run_everything();
        return error;
    });
}
