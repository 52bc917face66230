// What kernels work out of weights that stay the same, kept from one run of a program to the next.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>

#include "context.h"
#include "memory.h"

namespace convkit {

// Of one node. Threads may come at the same time.
class Kept {
 public:
    void* values(const void* maker, size_t bytes, KeptBody fill, void* data);

    // The weights have changed: values are made anew when they are next asked for, in the same
    // memory, since other threads may be at work with them.
    void renew();

 private:
    struct Values {
        const void* maker;
        int64_t version;
        Memory memory;
    };

    std::mutex mutex_;
    int64_t version_ = 1;
    std::list<Values> all_;
};

}  // namespace convkit
