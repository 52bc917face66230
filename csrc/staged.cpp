#include "staged.h"

#include <map>
#include <memory>

namespace convkit {
namespace {

constexpr int kDevice = 0;

// This thread's, by library. One in which something failed is not used again.
thread_local std::map<const Device*, std::unique_ptr<Queue>> queues;

struct Release {
    const Device* library;
    void operator()(void* memory) const { library->release(memory); }
};
using DeviceMemory = std::unique_ptr<void, Release>;

// Waits for a queue in which something may still run, before its memory is released.
struct Finished {
    const Device& library;
    bool well = false;

    ~Finished() {
        if (well) return;
        try {
            library.synchronise(*queues[&library]);
        } catch (const std::exception&) {  // what failed first is what is reported
        }
        queues.erase(&library);
    }
};

}  // namespace

void run_staged(const Device& library, const KernelInfo& kernel, bool float64, Context context,
                const Spec& spec, int64_t n, const std::vector<Count>& counts,
                void* const* arguments, const int64_t* bytes) {
    const size_t count = counts.size();
    const CurrentDevice current(library, kDevice);
    std::unique_ptr<Queue>& queue = queues[&library];
    if (!queue) queue = library.make_queue(kDevice, nullptr);
    queue->precision = queue_precision();
    context.queue = queue.get();

    DeviceMemory owned[kMostArguments];
    void* pointers[kMostArguments] = {};
    Finished finished{library};
    for (size_t i = 0; i < count; ++i) {
        if (!arguments[i]) continue;
        const bool writes = kernel.arguments[i].writes;
        for (size_t j = 0; j < i && writes; ++j)
            if (arguments[j] == arguments[i] && bytes[j] == bytes[i]) pointers[i] = pointers[j];
        if (pointers[i]) continue;
        const size_t size = static_cast<size_t>(bytes[i]);
        owned[i] = DeviceMemory(library.allocate(kDevice, size), Release{&library});
        pointers[i] = owned[i].get();
        if (!writes || counts[i].inout)
            library.copy(*queue, pointers[i], arguments[i], size, Direction::kToDevice);
    }
    (float64 ? kernel.call_float64 : kernel.call_float32)(library.kernels, context, spec, n,
                                                          pointers);
    for (size_t i = 0; i < count; ++i)
        if (arguments[i] && kernel.arguments[i].writes)
            library.copy(*queue, arguments[i], pointers[i], static_cast<size_t>(bytes[i]),
                         Direction::kToHost);
    library.synchronise(*queue);
    finished.well = true;
}

}  // namespace convkit
