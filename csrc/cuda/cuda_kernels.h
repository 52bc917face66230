// Declarations of the CUDA kernels' host functions, from the one list. The files beside this define
// them and instantiate each with INSTANTIATE(name); table.cu collects them.
#pragma once

#include "kernels.h"

namespace convkit {
namespace cuda {

#define KERNEL(name, Spec, parameters, counts) \
    template <class T>                         \
    void name(const Context& context, const Spec& s, int64_t n, CONVKIT_UNPACK parameters);
#define CPU_KERNEL(name, Spec, parameters, counts)
#include "kernels.inc"
#undef KERNEL

#define INSTANTIATE(name)                       \
    template decltype(name<float>) name<float>; \
    template decltype(name<double>) name<double>;

}  // namespace cuda
}  // namespace convkit
