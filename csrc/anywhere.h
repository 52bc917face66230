// For code that runs on processors and on GPUs alike.
#pragma once

#ifdef __CUDACC__
#define CONVKIT_ANYWHERE __host__ __device__
#define CONVKIT_UNROLL _Pragma("unroll")
#else
#define CONVKIT_ANYWHERE
#define CONVKIT_UNROLL _Pragma("GCC unroll 8")
#endif
