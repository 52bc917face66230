#include "backend.h"

#include <atomic>
#include <stdexcept>

#include "device.h"

namespace convkit {

#ifdef CONVKIT_HAVE_GENERIC
namespace generic {
extern const KernelTable table;
}
#endif
#ifdef CONVKIT_HAVE_AVX2
namespace avx2 {
extern const KernelTable table;
}
#endif
#ifdef CONVKIT_HAVE_AVX512
namespace avx512 {
extern const KernelTable table;
}
#endif
#ifdef CONVKIT_HAVE_NEON
namespace neon {
extern const KernelTable table;
}
#endif

namespace {
std::atomic<const KernelTable*> chosen{nullptr};
}

std::vector<const KernelTable*> available_backends() {
    std::vector<const KernelTable*> tables;
#ifdef CONVKIT_HAVE_GENERIC
    tables.push_back(&generic::table);
#endif
#ifdef CONVKIT_HAVE_NEON
    tables.push_back(&neon::table);
#endif
    // __builtin_cpu_supports also asks whether the operating system saves the wide registers.
#ifdef CONVKIT_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables.push_back(&avx2::table);
#endif
#ifdef CONVKIT_HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables.push_back(&avx512::table);
#endif
    return tables;
}

const KernelTable& backend() {
    const KernelTable* table = chosen.load(std::memory_order_relaxed);
    if (!table) {
        table = available_backends().back();
        chosen = table;
    }
    return *table;
}

const KernelTable& processor_backend() {
    const KernelTable& table = backend();
    if (device_of(table))
        throw DeviceError(std::string("program: expected a processor's backend, got ") +
                          table.name);
    return table;
}

void use_backend(const std::string& name) {
    std::vector<const KernelTable*> tables = available_backends();
    for (const Device* device : devices()) tables.push_back(&device->kernels);
    std::string names;
    for (const KernelTable* table : tables) {
        if (name == table->name) {
            chosen = table;
            return;
        }
        names += (names.empty() ? "" : ", ") + std::string(table->name);
    }
    throw std::invalid_argument("backend: expected one of " + names +
                                " (what this build and this processor can run), got '" + name +
                                "'");
}

}  // namespace convkit
