// What the main module knows of a device that is not the processor: a library beside it, loaded
// when first needed (device.cpp), that has a table of kernels and runs them in queues. No CUDA
// header is needed to include this. What a device cannot do is a DeviceError, or std::bad_alloc for
// memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "shuffle.h"

namespace convkit {

class Stretch;
struct StretchPlan;

// What a device reports: it is missing, too old, or a kernel failed.
struct DeviceError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// How float32 convolutions and dense layers multiply: as they are, or rounded to the 10 or 7 bits
// of tensor cores; sums are float32 in each case. kDirect: as they are, and by adding up the
// products themselves, see ConvAlgorithm.
enum class Precision : int64_t { kFloat32, kTf32, kBf16, kDirect };

// Where kernels of a device run, one after the other. Not for two threads at the same time. Kernels
// are called while its device is the current one (CurrentDevice).
class Queue {
 public:
    virtual ~Queue() = default;

    // Memory of the device for the call that asks: 256-byte aligned, contents undefined. What an
    // earlier call was given is no longer its own; work of its kernels is done by then, since all
    // run in this queue. Throws std::bad_alloc, and DeviceError where it would grow while a graph
    // is recorded.
    virtual void* workspace(size_t bytes) = 0;

    void* stream = nullptr;  // cudaStream_t
    int device = 0;
    Precision precision = Precision::kFloat32;
};

// A moment in a queue, once it was recorded there.
struct Event {
    virtual ~Event() = default;
};

// What a queue was given while a graph was recorded, to be done again at once.
struct Graph {
    virtual ~Graph() = default;
};

struct DeviceDescription {
    std::string name;
    int major, minor;  // compute capability
    int64_t memory;    // bytes
};

enum class Direction { kToDevice, kToHost, kWithin };

// One of each library. Copies, fills, events and graphs are begun in the queue's order, and may not
// be over when the call is.
class Device {
 public:
    // Throws DeviceError, one sentence that tells why kernels cannot run: no driver, no GPU, one of
    // them too old.
    virtual void require(int device) const = 0;
    virtual int count() const = 0;
    virtual DeviceDescription describe(int device) const = 0;

    // Of the calling thread.
    virtual int current() const = 0;
    virtual void make_current(int device) const = 0;

    // In the caller's stream, or in one of its own where that is null. (CUDA's default stream has a
    // handle that is not null, cudaStreamLegacy.)
    virtual std::unique_ptr<Queue> make_queue(int device, void* stream) const = 0;

    // At least one byte, 256-byte aligned, contents undefined. Pinned: of the host, and copied at
    // full speed. Nothing may still use what is released.
    virtual void* allocate(int device, size_t bytes) const = 0;
    virtual void release(void* memory) const noexcept = 0;
    virtual void* allocate_pinned(size_t bytes) const = 0;
    virtual void release_pinned(void* memory) const noexcept = 0;
    // Blocks that were allocated here and not released, those of workspaces too.
    virtual int64_t blocks() const = 0;
    // Bytes that nobody has allocated.
    virtual int64_t free_memory(int device) const = 0;

    virtual void copy(Queue& queue, void* to, const void* from, size_t bytes,
                      Direction direction) const = 0;
    virtual void fill(Queue& queue, void* memory, uint8_t value, size_t bytes) const = 0;
    // Returns when all is done. An error of an earlier kernel is reported here at the latest.
    virtual void synchronise(Queue& queue) const = 0;

    virtual std::unique_ptr<Event> make_event(int device) const = 0;
    virtual void record(Queue& queue, Event& event) const = 0;
    // What the queue is given from now on waits for the event.
    virtual void wait(Queue& queue, Event& event) const = 0;
    // Between two that were recorded; waits for the second.
    virtual double seconds(Event& begin, Event& end) const = 0;
    // Returns when what the queue was given before the event is done.
    virtual void finish(Event& event) const = 0;

    // What the queue is given from now on waits for what a stream of the caller's was given so far;
    // and the other way round. (Null: CUDA's default stream.)
    virtual void follow(Queue& queue, void* stream) const = 0;
    virtual void lead(Queue& queue, void* stream) const = 0;

    // What this thread gives the queue between the two is recorded, not done. Workspaces cannot
    // grow meanwhile: run the same work once before. A graph is replayed in the queue in which it
    // was recorded, and no longer than that lives.
    virtual void begin_graph(Queue& queue) const = 0;
    virtual std::unique_ptr<Graph> end_graph(Queue& queue) const = 0;
    // After an exception between the two.
    virtual void abandon_graph(Queue& queue) const noexcept = 0;
    virtual void replay(Queue& queue, Graph& graph) const = 0;

    // The order of an epoch and the part of it that a batch takes, in memory of the device; see
    // csrc/cuda/epoch.h.
    virtual void fill_shuffled(Queue& queue, const Shuffle& shuffle, int64_t* order) const = 0;
    virtual void take_rows(Queue& queue, const int64_t* order, int64_t* cursor, int64_t n,
                           int64_t* batch_index) const = 0;

    // A plan for up to `most` samples at a time, in memory of the device. Throws DoesNotFit
    // (stretch.h) where it asks too much of a block of threads, and std::bad_alloc.
    virtual std::unique_ptr<Stretch> make_stretch(int device, const StretchPlan& plan,
                                                  int64_t most) const = 0;

    const KernelTable& kernels;

 protected:
    explicit Device(const KernelTable& kernels) : kernels(kernels) {}
    ~Device() = default;
};

// Makes a device the current one of this thread for as long as it lives.
class CurrentDevice {
 public:
    CurrentDevice(const Device& library, int device)
        : library_(library), before_(library.current()) {
        if (device != before_) library.make_current(device);
    }
    ~CurrentDevice() {
        try {
            if (library_.current() != before_) library_.make_current(before_);
        } catch (const std::exception&) {  // the device is lost, and the next call will say so
        }
    }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
    const Device& library_;
    int before_;
};

// Differs between builds whose kernels, specs or devices differ, so that a library left over from
// another build is refused.
inline uint64_t device_layout() {
    constexpr uint64_t kInterface = 3;  // of Device and Queue: goes up when they change
    uint64_t hash = 14695981039346656037u ^ kInterface;
    const auto add = [&](const char* text, size_t bytes) {
        for (; *text; ++text) hash = (hash ^ static_cast<unsigned char>(*text)) * 1099511628211u;
        hash = (hash ^ bytes) * 1099511628211u;
    };
#define KERNEL(name, Spec, parameters, counts) add(#name #parameters, sizeof(Spec));
#include "kernels.inc"
#undef KERNEL
    add("context", sizeof(Context));
    add("queue", sizeof(Queue));
    return hash;
}

// What a library exports, under these names.
using DeviceLayout = uint64_t (*)();        // convkit_device_layout: device_layout() of its build
using DeviceLibrary = const Device* (*)();  // convkit_device

// ---- what the main module makes of it (device.cpp) --------------------------------------------

// The library's device, from then on one of those that use_backend knows; the library beside the
// main module where no path is given. Throws DeviceError, one sentence that tells why its kernels
// cannot be had.
const Device& load_device(const std::string& path = "");

// Where the library beside the main module is, or would be.
std::string device_path();

// By the name of its table, "cuda" or "cuda_emulated". Throws std::invalid_argument.
const Device& find_device(const std::string& name);

// Whose table this is; null: the processor's.
const Device* device_of(const KernelTable& table);

// All that were loaded.
std::vector<const Device*> devices();

// A setting of the process; and what it means to queues, which never transform.
Precision precision();
Precision queue_precision();
void set_precision(Precision precision);

}  // namespace convkit
