// Declarations of this instruction set's kernels, from the one list. The files beside this define
// them and instantiate each with INSTANTIATE(name); table.cpp collects them.
#pragma once

#include "kernels.h"

namespace convkit {
namespace CONVKIT_ISA {

#define KERNEL(name, Spec, parameters, counts) \
    template <class T>                         \
    void name(const Context& context, const Spec& s, int64_t n, CONVKIT_UNPACK parameters);
#include "kernels.inc"
#undef KERNEL

#define INSTANTIATE(name)                       \
    template decltype(name<float>) name<float>; \
    template decltype(name<double>) name<double>;

}  // namespace CONVKIT_ISA
}  // namespace convkit
