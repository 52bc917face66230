// Blocks of memory for programs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace convkit {

struct FreeMemory {
    void operator()(char* p) const { std::free(p); }
};
using Memory = std::unique_ptr<char, FreeMemory>;

constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector

// At least one byte; contents are undefined. Throws std::bad_alloc.
inline Memory allocate(int64_t bytes) {
    void* memory = nullptr;
    if (bytes < 0 ||
        posix_memalign(&memory, kAlignment, static_cast<size_t>(std::max(bytes, kAlignment))) != 0)
        throw std::bad_alloc();
    return Memory(static_cast<char*>(memory));
}

}  // namespace convkit
