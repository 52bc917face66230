// The table of CUDA kernels; the same sources emulated on the host have a name of their own.
#include "cuda_kernels.h"

namespace convkit {
namespace cuda {
namespace {

template <class T>
constexpr Kernels<T> kernels() {
    return {
#define KERNEL(name, Spec, parameters, counts) &name<T>,
#define CPU_KERNEL(name, Spec, parameters, counts) nullptr,
#include "kernels.inc"
#undef KERNEL
    };
}

#ifdef CONVKIT_EMULATED
constexpr const char* kName = "cuda_emulated";
#else
constexpr const char* kName = "cuda";
#endif

}  // namespace

extern const KernelTable table;
const KernelTable table = {kName, kernels<float>(), kernels<double>()};

}  // namespace cuda
}  // namespace convkit
