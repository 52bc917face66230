// Detection of the processor and choice of a table of kernels, the processor's or a device's.
// Compiled for the baseline alone.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace convkit {

// Tables that are compiled in and that this processor and operating system can run, best last.
std::vector<const KernelTable*> available_backends();

// The table in use: the best one, unless another was chosen.
const KernelTable& backend();

// The table in use for work in memory of the host. Throws DeviceError where a device's is in use.
const KernelTable& processor_backend();

// One of these, or the table of a device that was loaded. Throws std::invalid_argument that names
// them.
void use_backend(const std::string& name);

}  // namespace convkit
