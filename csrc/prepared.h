// A program made ready for small batches: kernel calls resolved and their pointers set beforehand,
// in memory of their own, so that a run is these calls and nothing else.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.h"
#include "program.h"

namespace convkit {

class Prepared {
 public:
    // From value `x`, which is fed, to value `y`, for at most so many samples. States are used
    // where the program has them now, and must stay there. Throws std::invalid_argument if the
    // program needs or does more than that.
    Prepared(const Program& program, int x, int y, int64_t most);

    // One thread at a time. 0 <= n <= most.
    void run(const void* x, void* y, int64_t n);

    // Whether a run is over before it would be worth while to let others go ahead meanwhile.
    bool brief() const { return brief_; }

 private:
    struct Call {
        void (*function)(const KernelTable&, const Context&, const Spec&, int64_t n,
                         void* const* arguments);
        Spec spec;
        bool per_sample;
        std::vector<void*> arguments;
        std::shared_ptr<Kept> kept;
    };
    // Where in the arguments of which call x or y stands.
    struct Use {
        size_t call, argument;
        bool is_x;
    };

    void run_calls(int64_t n) const;

    std::vector<Call> calls_;
    std::vector<Use> uses_;
    Memory arena_;
    bool brief_;
};

}  // namespace convkit
