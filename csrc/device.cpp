#include "device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace convkit {
namespace {

constexpr int kMostDevices = 4;  // libraries: CUDA, and its emulation in tests

// Only ever more, so that reading takes no lock.
std::atomic<const Device*> loaded[kMostDevices];
std::atomic<int> loaded_count{0};
std::mutex loading;

std::atomic<Precision> chosen_precision{Precision::kFloat32};

// A function of the library, which stays open: kernels may run in it until the process ends.
void* symbol(const std::string& path, const char* name) {
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw DeviceError(std::string("device: could not load ") + dlerror());
    void* const found = dlsym(library, name);
    if (!found) throw DeviceError("device: expected a library of convkit, got " + path);
    return found;
}

}  // namespace

std::string device_path() {
    Dl_info here;
    if (!dladdr(reinterpret_cast<void*>(&device_path), &here) || !here.dli_fname) return "_cuda.so";
    const std::string file = here.dli_fname;
    return file.substr(0, file.rfind('/') + 1) + "_cuda.so";
}

const Device& load_device(const std::string& given) {
    const std::string path = given.empty() ? device_path() : given;
    if (access(path.c_str(), R_OK) != 0) {
        if (!given.empty()) throw DeviceError("device: no library at " + path);
        throw DeviceError(
            "cuda: this convkit was built without CUDA; where nvcc is, "
            "`pip install . -Ccmake.define.CONVKIT_CUDA=ON` builds it in");
    }
    const auto layout = reinterpret_cast<DeviceLayout>(symbol(path, "convkit_device_layout"));
    if (layout() != device_layout())
        throw DeviceError("device: expected a library of the same build as convkit's, got " + path);
    const Device& device = *reinterpret_cast<DeviceLibrary>(symbol(path, "convkit_device"))();
    device.require(0);

    const std::lock_guard<std::mutex> lock(loading);
    const int count = loaded_count;
    for (int i = 0; i < count; ++i) {
        if (loaded[i] == &device) return device;
        if (std::string(loaded[i].load()->kernels.name) == device.kernels.name)
            throw DeviceError(std::string("device: another ") + device.kernels.name +
                              " is loaded already, not from " + path);
    }
    if (count == kMostDevices) throw DeviceError("device: too many libraries");
    loaded[count] = &device;
    loaded_count = count + 1;
    return device;
}

std::vector<const Device*> devices() { return {loaded, loaded + loaded_count}; }

const Device& find_device(const std::string& name) {
    for (const Device* device : devices())
        if (name == device->kernels.name) return *device;
    throw std::invalid_argument("device: expected one that was loaded, got '" + name + "'");
}

const Device* device_of(const KernelTable& table) {
    const int count = loaded_count.load(std::memory_order_acquire);
    for (int i = 0; i < count; ++i) {
        const Device* const device = loaded[i].load(std::memory_order_relaxed);
        if (&device->kernels == &table) return device;
    }
    return nullptr;
}

Precision precision() { return chosen_precision.load(std::memory_order_relaxed); }

Precision queue_precision() {
    const Precision chosen = precision();
    return chosen == Precision::kDirect ? Precision::kFloat32 : chosen;
}

bool only_direct() { return precision() == Precision::kDirect; }

void set_precision(Precision precision) { chosen_precision = precision; }

}  // namespace convkit
