// Kernels of a device on memory of the host: copied there, run, copied back. For arrays of NumPy
// while a device's table is in use, which is how kernels are tested; what is to be fast stays on
// the device.
#pragma once

#include <vector>

#include "device.h"
#include "registry.h"

namespace convkit {

// Runs the kernel in a queue of the calling thread, and returns when all is done. Arguments are of
// the host and have so many bytes each; an output that is the memory of an input is so on the
// device.
void run_staged(const Device& device, const KernelInfo& kernel, bool float64, Context context,
                const Spec& spec, int64_t n, const std::vector<Count>& counts,
                void* const* arguments, const int64_t* bytes);

}  // namespace convkit
