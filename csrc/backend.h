// Detection of the processor and choice of a table of kernels. Compiled for the baseline alone.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace convkit {

// Tables that are compiled in and that this processor and operating system can run, best last.
std::vector<const KernelTable*> available_backends();

// The table in use: the best one, unless another was chosen.
const KernelTable& backend();

// Throws std::invalid_argument that names the available ones.
void use_backend(const std::string& name);

}  // namespace convkit
