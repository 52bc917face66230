// A depth-first program for a device: a block of threads takes one sample at a time through the
// stretch, with all its values in the block's own memory, then parameters are updated. The plan is
// what the main module hands to a device's library; the library makes a Stretch of it.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "registry.h"

namespace convkit {

class Program;
class Queue;

// Why a program cannot run so: what it does, or its size. It can still run node by node.
struct DoesNotFit : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Kernels by their place in kernels.inc.
enum class KernelNumber : int32_t {
#define KERNEL(name, Spec, parameters, counts) name,
#include "kernels.inc"
#undef KERNEL
};

struct StretchPlan {
    // Values have the numbers that they have in the program.
    enum class Place {
        kSample,  // of the sample in work
        kBatch,   // written for every sample of the batch, for what comes behind the stretch
        kFed,     // bound: a row for each sample, from the run's first on
        kState,   // bound
        kSum,     // a gradient of weights
    };
    struct Value {
        Place place;
        int64_t item_bytes, elements;  // per sample, where it is one's
    };
    // Specs are of one sample. Arguments are values, -1: null.
    struct Node {
        KernelNumber kernel;
        Spec spec;
        std::vector<int> arguments;
    };
    // A gradient of weights as a node of the stretch gives it: by its argument number `argument`.
    struct Gradient {
        int node, argument;
    };
    // An optimizer's step, with the sum of these gradients in the place of its own.
    struct Update {
        Spec spec;
        std::vector<int> arguments;
        std::vector<Gradient> gradients;
    };
    // total += the sum of x, and how many.
    struct Score {
        int x, total;
        int64_t rows;
    };
    // The last of `size` numbers goes up by one: before the updates, or when all is done.
    struct Counter {
        int value;
        int64_t size;
        bool before_updates;
    };

    // value = table[step - first], when counters have moved on before the updates.
    struct StepRate {
        int step, first, table, value;
        int64_t size;
    };

    std::vector<Value> values;
    std::vector<Node> nodes;
    std::vector<Update> updates;
    std::vector<Score> scores;
    std::vector<Counter> counters;
    std::vector<StepRate> rates;
};

// Of a program with a depth-first plan. Throws DoesNotFit.
StretchPlan plan_stretch(const Program& program);

// A plan in memory of a device. Not for two threads at the same time.
class Stretch {
 public:
    virtual ~Stretch() = default;

    // Memory of the device for a state (all of it) or a fed value (its row 0); 16-byte aligned, and
    // states of 8-byte numbers, but for the sources of gathers, are whole. Every such value that a
    // node uses must be bound before a run.
    virtual void bind(int value, void* memory) = 0;

    // One step over n samples: those from row `first` of what is fed, or where there is a cursor,
    // a number in device memory, from the row that it says; it goes up by n then. Starts kernels in
    // the queue and returns without waiting. After a bind, the first run may not be one that is
    // recorded. Bits depend on n and the plan alone.
    virtual void run(Queue& queue, int64_t n, int64_t first, int64_t* cursor) = 0;

    // Bytes of a block's own memory, and of device memory.
    virtual int64_t block_bytes() const = 0;
    virtual int64_t device_bytes() const = 0;
};

}  // namespace convkit
