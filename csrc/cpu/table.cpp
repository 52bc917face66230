// This instruction set's table of kernels.
#include "cpu_kernels.h"

#define CONVKIT_STRING_OF(x) #x
#define CONVKIT_STRING(x) CONVKIT_STRING_OF(x)

namespace convkit {
namespace CONVKIT_ISA {

template <class T>
static constexpr Kernels<T> kernels() {
    return {
#define KERNEL(name, Spec, parameters, counts) &name<T>,
#include "kernels.inc"
#undef KERNEL
    };
}

extern const KernelTable table;
const KernelTable table = {CONVKIT_STRING(CONVKIT_ISA), kernels<float>(), kernels<double>()};

}  // namespace CONVKIT_ISA
}  // namespace convkit
