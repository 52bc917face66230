// Whether memory may be read and written a vector at a time.
#pragma once

#include <cstdint>

#include "launch.cuh"

namespace convkit {
namespace cuda {

constexpr int kVectorBytes = 16;  // the most of one access

// Memory that begins where a vector of kCount values may; none at all does too.
template <int kCount, class T>
bool in_vectors(const T* memory) {
    return reinterpret_cast<uintptr_t>(memory) % sizeof(Vector<T, kCount>) == 0;
}

}  // namespace cuda
}  // namespace convkit
