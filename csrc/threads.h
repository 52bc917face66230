// How many threads kernels and programs use; the setting belongs to the process.
#pragma once

namespace convkit {

// The least of processor affinity, control-group quota and OMP_NUM_THREADS.
int default_threads();
int num_threads();
void set_num_threads(int threads);
const char* thread_runtime();

}  // namespace convkit
