// Uses a device's library as the main module does, and prints "passed" or what is wrong: streams,
// events, graphs, pinned memory, workspaces. tests/test_device.py compiles and runs it.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "device.h"

using namespace convkit;

namespace {

void expect(bool ok, const char* what) {
    if (ok) return;
    std::printf("expected %s\n", what);
    std::exit(1);
}

template <class Error, class F>
void expect_throw(F f, const char* what) {
    try {
        f();
    } catch (const Error&) {
        return;
    }
    expect(false, what);
}

constexpr int64_t kCount = 1000;
constexpr size_t kBytes = kCount * sizeof(float);

// An array of the device, and what is in it.
struct Array {
    const Device& library;
    float* data;

    explicit Array(const Device& library)
        : library(library), data(static_cast<float*>(library.allocate(0, kBytes))) {}
    ~Array() { library.release(data); }

    bool holds(Queue& queue, float value) const {
        std::vector<float> host(kCount);
        library.copy(queue, host.data(), data, kBytes, Direction::kToHost);
        library.synchronise(queue);
        for (float v : host)
            if (v != value) return false;
        return true;
    }
};

// y += x, kCount values.
void add(const Device& library, Queue& queue, const Array& x, const Array& y) {
    Context context;
    context.queue = &queue;
    library.kernels.float32.add(context, Elementwise{kCount}, 1, x.data, y.data, y.data);
}

void copies(const Device& library) {
    const auto queue = library.make_queue(0, nullptr);
    const Array x(library), y(library);
    auto* pinned = static_cast<float*>(library.allocate_pinned(kBytes));
    for (int i = 0; i < kCount; ++i) pinned[i] = 2;
    library.copy(*queue, x.data, pinned, kBytes, Direction::kToDevice);
    library.copy(*queue, y.data, x.data, kBytes, Direction::kWithin);
    add(library, *queue, x, y);
    expect(y.holds(*queue, 4), "a sum of copies");
    library.fill(*queue, y.data, 0, kBytes);
    expect(y.holds(*queue, 0), "zeros where it was filled");
    library.copy(*queue, nullptr, nullptr, 0, Direction::kToDevice);
    library.fill(*queue, nullptr, 0, 0);
    library.release(library.allocate(0, 0));
    library.release_pinned(library.allocate_pinned(0));
    library.release(nullptr);
    library.release_pinned(nullptr);
    library.release_pinned(pinned);
    expect_throw<std::bad_alloc>([&] { library.allocate(0, SIZE_MAX / 2); },
                                 "no memory of this size");
    expect(y.holds(*queue, 0), "a failed allocation to change nothing");
}

// A queue on another's stream, and work in one that waits for the other's.
void streams(const Device& library) {
    const auto first = library.make_queue(0, nullptr), second = library.make_queue(0, nullptr);
    const auto same = library.make_queue(0, first->stream);
    expect(same->stream == first->stream && second->stream != first->stream, "streams as given");
    const auto begin = library.make_event(0), end = library.make_event(0);
    const Array x(library), y(library);
    const std::vector<float> host(kCount, 1);
    library.record(*first, *begin);
    library.copy(*first, x.data, host.data(), kBytes, Direction::kToDevice);
    library.fill(*same, y.data, 0, kBytes);
    add(library, *first, x, y);
    library.record(*first, *end);
    library.wait(*second, *end);
    add(library, *second, x, y);
    expect(y.holds(*second, 2), "one queue to wait for the other");
    expect(library.seconds(*begin, *end) >= 0, "a time");
}

void graphs(const Device& library) {
    const auto queue = library.make_queue(0, nullptr);
    const Array x(library), y(library);
    const std::vector<float> host(kCount, 1);
    library.copy(*queue, x.data, host.data(), kBytes, Direction::kToDevice);
    library.fill(*queue, y.data, 0, kBytes);
    library.synchronise(*queue);

    library.begin_graph(*queue);
    for (int i = 0; i < 3; ++i) add(library, *queue, x, y);
    const auto graph = library.end_graph(*queue);
    expect(y.holds(*queue, 0), "what is recorded not to be done");
    library.replay(*queue, *graph);
    library.replay(*queue, *graph);
    expect(y.holds(*queue, 6), "a graph to be replayed twice");

    library.begin_graph(*queue);
    add(library, *queue, x, y);
    library.abandon_graph(*queue);
    add(library, *queue, x, y);
    expect(y.holds(*queue, 7), "an abandoned graph to leave the queue as it was");
}

void workspaces(const Device& library) {
    const auto queue = library.make_queue(0, nullptr);
    const auto aligned = [](void* p) { return reinterpret_cast<uintptr_t>(p) % 256 == 0; };
    const int64_t before = library.blocks();
    expect(queue->workspace(0) && aligned(queue->workspace(0)), "a workspace of no bytes");
    expect(aligned(queue->workspace(5000)), "an aligned workspace");
    expect(library.blocks() == before + 1, "one block");
    char* const once = static_cast<char*>(queue->workspace(100));
    library.begin_graph(*queue);
    expect(queue->workspace(100) == once, "the same workspace in a graph");
    library.fill(*queue, once, 1, 100);
    expect_throw<DeviceError>([&] { queue->workspace(size_t{64} << 20); }, "no growth in a graph");
    const auto graph = library.end_graph(*queue);
    expect(aligned(queue->workspace(size_t{64} << 20)), "growth after a graph");
    expect(library.blocks() == before + 2, "the graph's workspace to be kept");
    library.replay(*queue, *graph);
    library.synchronise(*queue);
    expect_throw<std::bad_alloc>([&] { queue->workspace(SIZE_MAX); }, "no workspace of any size");
    expect_throw<std::bad_alloc>([&] { queue->workspace(SIZE_MAX / 2); }, "no such workspace");
    expect(aligned(queue->workspace(10)), "a workspace after a failure");
}

void devices_and_errors(const Device& library) {
    library.require(0);
    const int count = library.count();
    expect(count >= 1 && library.current() == 0, "the first device");
    expect_throw<DeviceError>([&] { library.require(count); }, "no such device");
    expect_throw<DeviceError>([&] { library.require(-1); }, "no negative device");
    expect_throw<DeviceError>([&] { library.make_current(count); }, "no such device to use");
    if (count > 1) {
        {
            const CurrentDevice second(library, 1);
            expect(library.current() == 1, "the second device");
        }
        expect(library.current() == 0, "the first device again");
    }
    expect(!library.describe(0).name.empty() && library.describe(0).memory > 0, "a description");
}

}  // namespace

int main(int, char** arguments) {
    void* const opened = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    expect(opened, dlerror());
    const auto layout = reinterpret_cast<DeviceLayout>(dlsym(opened, "convkit_device_layout"));
    expect(layout && layout() == device_layout(), "a library of these sources");
    const Device& library = *reinterpret_cast<DeviceLibrary>(dlsym(opened, "convkit_device"))();
    devices_and_errors(library);
    copies(library);
    streams(library);
    graphs(library);
    workspaces(library);
    expect(library.blocks() == 0, "nothing left in memory");
    std::puts("passed");
}
