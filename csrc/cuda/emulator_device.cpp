// Errors, what kind of device this is, and what tests control.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "emulator_state.h"

namespace convkit {
namespace emulator {

std::recursive_mutex& lock() {
    static auto& mutex = *new std::recursive_mutex;
    return mutex;
}

// ---- errors ------------------------------------------------------------------------------------

cudaError_t lost = cudaSuccess;

namespace {

thread_local cudaError_t last_error = cudaSuccess;
auto& lost_report = *new std::string;
cudaError_t reported = cudaSuccess;  // what the report is about
auto& report = *new std::string;

struct KnownError {
    cudaError_t error;
    const char *name, *text;
};
constexpr KnownError kErrors[] = {
#define CONVKIT_ERROR(name, number, text) {name, #name, text},
    CONVKIT_CUDA_ERRORS(CONVKIT_ERROR)
#undef CONVKIT_ERROR
};

const KnownError& known(cudaError_t error) {
    static constexpr KnownError kUnknown = {cudaErrorUnknown, "unrecognized error code",
                                            "unrecognized error code"};
    for (const KnownError& one : kErrors)
        if (one.error == error) return one;
    return kUnknown;
}

}  // namespace

cudaError_t refuse(cudaError_t error, const std::string& text) {
    reported = error;
    report = text;
    return error;
}

void lose(cudaError_t error, const std::string& text) {
    if (lost != cudaSuccess) return;  // what follows from the first
    lost = error;
    lost_report = text;
}

cudaError_t result_of_call(cudaError_t error) {
    if (lost != cudaSuccess) error = refuse(lost, lost_report);
    if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
    return error;
}

std::string text_of(const char* format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

std::string text_of(const dim3& v) { return text_of("(%u, %u, %u)", v.x, v.y, v.z); }

// ---- settings ----------------------------------------------------------------------------------

namespace {

bool set_order(Settings& of, const std::string& order) {
    const bool random = order.rfind("random:", 0) == 0;
    of.verify = order == "verify";
    of.order = random ? Order::kRandom : order == "reverse" ? Order::kReverse : Order::kForward;
    of.seed = random ? std::strtoull(order.c_str() + 7, nullptr, 10) : 0;
    return random || of.verify || order == "reverse" || order == "forward";
}

Settings settings_of_environment() {
    Settings found;
    if (const char* const order = std::getenv("CONVKIT_EMULATOR_ORDER"))
        if (!set_order(found, order))
            lose(cudaErrorInitializationError,
                 std::string("CONVKIT_EMULATOR_ORDER: there is no order ") + order);
    if (const char* const k = std::getenv("CONVKIT_EMULATOR_FAIL_ALLOCATION"))
        found.fail_allocation = std::atoll(k);
    return found;
}

bool has_device(int device) { return device >= 0 && device < settings.devices; }

cudaError_t no_device(int device) {
    return refuse(cudaErrorInvalidDevice, text_of("there is no device %d", device));
}

thread_local int current_device = 0;

}  // namespace

Settings settings = settings_of_environment();

}  // namespace emulator
}  // namespace convkit

// ---- CUDA's functions --------------------------------------------------------------------------

using namespace convkit::emulator;

const char* cudaGetErrorName(cudaError_t error) { return known(error).name; }

const char* cudaGetErrorString(cudaError_t error) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    static auto& kept = *new std::set<std::string>;  // callers keep the pointer
    if (error == reported && !report.empty()) return kept.insert(report).first->c_str();
    return known(error).text;
}

cudaError_t cudaGetLastError() {
    const cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    if (lost != cudaSuccess) return refuse(lost, lost_report);
    return last_error;
}

cudaError_t cudaGetDeviceCount(int* count) {
    return call([&] {
        *count = 0;
        if (settings.driver < settings.runtime / 1000 * 1000)
            return refuse(cudaErrorInsufficientDriver, "");
        if (settings.devices < 0) return refuse(cudaErrorInitializationError, "");
        if (settings.devices == 0) return refuse(cudaErrorNoDevice, "");
        *count = static_cast<int>(settings.devices);
        return cudaSuccess;
    });
}

cudaError_t cudaSetDevice(int device) {
    return call([&] {
        if (!has_device(device)) return no_device(device);
        current_device = device;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDevice(int* device) {
    return call([&] {
        *device = current_device;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    return call([&] {
        if (!has_device(device)) return no_device(device);
        *properties = {};
        std::snprintf(properties->name, sizeof properties->name, "emulated");
        properties->totalGlobalMem = static_cast<size_t>(settings.memory);
        properties->sharedMemPerBlock = kStaticShared;
        properties->sharedMemPerBlockOptin = static_cast<size_t>(settings.shared);
        properties->major = static_cast<int>(settings.major);
        properties->minor = static_cast<int>(settings.minor);
        properties->multiProcessorCount = static_cast<int>(settings.multiprocessors);
        properties->warpSize = warpSize;
        properties->maxThreadsPerBlock = kMostThreads;
        properties->l2CacheSize = 50 << 20;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess) return error;
    const std::map<cudaDeviceAttr, size_t> all = {
        {cudaDevAttrMaxThreadsPerBlock, properties.maxThreadsPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlock, properties.sharedMemPerBlock},
        {cudaDevAttrWarpSize, properties.warpSize},
        {cudaDevAttrMultiProcessorCount, properties.multiProcessorCount},
        {cudaDevAttrL2CacheSize, properties.l2CacheSize},
        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrComputeCapabilityMajor, properties.major},
        {cudaDevAttrComputeCapabilityMinor, properties.minor},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, properties.sharedMemPerBlockOptin + 1024},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, properties.sharedMemPerBlockOptin}};
    *value = static_cast<int>(all.at(attribute));
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    return call([&] {
        *version = static_cast<int>(settings.driver);
        return cudaSuccess;
    });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    return call([&] {
        *version = static_cast<int>(settings.runtime);
        return cudaSuccess;
    });
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
    return call([&] {
        if (value >= 0 && value <= settings.shared) return cudaSuccess;
        return refuse(cudaErrorInvalidValue,
                      text_of("%d bytes of shared memory, of which a block has %lld", value,
                              static_cast<long long>(settings.shared)));
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    return call([&] {
        const auto version = static_cast<int>(settings.major * 10 + settings.minor);
        if (version * 10 < __CUDA_ARCH_LIST__) return refuse(cudaErrorNoKernelImageForDevice, "");
        *attributes = {version, kMostThreads};
        return cudaSuccess;
    });
}

// ---- for tests ---------------------------------------------------------------------------------

int emulator_set_order(const char* order) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return set_order(settings, order) ? 0 : -1;
}

void emulator_fail_allocation(int64_t k) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    settings.fail_allocation = k;
}

void emulator_fail_kernel(int64_t k) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    settings.fail_kernel = k;
}

int emulator_set(const char* property, int64_t value) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    const std::map<std::string, int64_t*> all = {
        {"devices", &settings.devices}, {"driver", &settings.driver},
        {"runtime", &settings.runtime}, {"major", &settings.major},
        {"minor", &settings.minor},     {"multiprocessors", &settings.multiprocessors},
        {"shared", &settings.shared},   {"memory", &settings.memory},
    };
    const auto found = all.find(property);
    if (found == all.end()) return -1;
    *found->second = value;
    return 0;
}

void emulator_recover() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    lost = last_error = reported = cudaSuccess;
    report.clear();
    memory.lay_guards(kGarbage[0].guard);
    drop_work();
}

void emulator_reset() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    emulator_recover();
    reset_streams();
    reset_memory();
    settings = settings_of_environment();
    launched_kernels = run_kernels = 0;
}

int64_t emulator_allocated_bytes() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return static_cast<int64_t>(memory.used());
}

int64_t emulator_launched_kernels() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return launched_kernels;
}

int64_t emulator_run_kernels() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return run_kernels;
}

const char* emulator_leaks() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    static auto& text = *new std::string;
    text = leaks_of_memory() + leaks_of_streams();
    return text.c_str();
}
