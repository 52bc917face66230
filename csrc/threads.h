// Threads for kernels and programs: how many (a setting of the process), and one team for many
// kernels.
#pragma once

#include <functional>

#include "context.h"

namespace convkit {

// Calls body() on this thread, with threads at hand for all parallel_fors in it: one region of
// OpenMP in place of one for each. Rethrows what body throws.
void with_team(const Context& context, const std::function<void()>& body);

// At first the least of processor affinity, control-group quota and OMP_NUM_THREADS.
int num_threads();
void set_num_threads(int threads);
const char* thread_runtime();

}  // namespace convkit
