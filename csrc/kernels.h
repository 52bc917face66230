// kernels.inc expanded into a table of functions: one table per backend, chosen in backend.cpp.
#pragma once

#include <cstdint>

#include "context.h"
#include "specs.h"

namespace convkit {

#define CONVKIT_UNPACK(...) __VA_ARGS__

template <class T>
struct Kernels {
#define KERNEL(name, Spec, parameters, counts) \
    void (*name)(const Context& context, const Spec& s, int64_t n, CONVKIT_UNPACK parameters);
#include "kernels.inc"
#undef KERNEL
};

// All kernels of one backend.
struct KernelTable {
    const char* name;  // "generic", "avx2", "avx512", "neon"
    Kernels<float> float32;
    Kernels<double> float64;
};

}  // namespace convkit
