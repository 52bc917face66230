// A graph of kernel calls, planned for memory and run step after step without Python.
//
// The number of samples is an argument of run, not part of the plan. Values live in one of three
// places: fed (the caller's arrays, one row per sample), state (arrays that stay: parameters,
// optimizer state, counters) and the arena (everything between).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "registry.h"

namespace convkit {

enum class Place { kFed, kState, kArena };

struct Value {
    Place place;
    int64_t item_bytes;  // of one element
    int64_t elements;    // per sample if per_sample, else in all
    bool per_sample;
    char* data = nullptr;  // fed: row 0; state: the array
    int64_t rows = 0;      // fed: rows that data holds
    int64_t offset = -1;   // arena: set by the plan

    int64_t bytes(int64_t n) const { return item_bytes * elements * (per_sample ? n : 1); }
};

struct Node {
    const KernelInfo* kernel;
    Spec spec;
    std::vector<int> arguments;  // value ids; -1: null
    bool per_sample;             // false: runs once a step, over values without samples
};

class Program {
 public:
    explicit Program(bool float64) : float64_(float64) {}

    int add_value(Place place, int64_t item_bytes, int64_t elements, bool per_sample);
    // Throws std::invalid_argument where the arguments do not fit the kernel.
    void add_node(const std::string& kernel, const Spec& spec, const std::vector<int>& arguments);

    // State: the whole array. Fed: an array of `rows` rows, one per sample.
    void bind(int value, void* data, int64_t rows);

    // Runs the samples begin .. end in steps of batch_size; the last step may be smaller. Returns
    // the sample that it came to: less than `end` where `seconds` had passed after a whole step.
    // `poll` is called now and then, but never while a step updates state: it may throw.
    int64_t run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                const std::function<void()>& poll);

    // Bytes of the arena for n samples, and what they would be if no memory was shared.
    int64_t arena_bytes(int64_t n) const;
    int64_t unshared_bytes(int64_t n) const;

    const std::vector<Node>& nodes() const { return nodes_; }
    const std::vector<Value>& values() const { return values_; }
    bool float64() const { return float64_; }

 private:
    struct Free {
        void operator()(char* p) const;
    };
    struct Poll;

    std::vector<int64_t> place_values(int64_t n, int64_t* total) const;
    int64_t touched_bytes(int64_t n) const;
    void reserve(int64_t n);
    void check_indices(int64_t begin, int64_t end) const;
    void step(int64_t first, int64_t n, Poll& poll);

    bool float64_;
    std::vector<Value> values_;
    std::vector<Node> nodes_;
    std::unique_ptr<char, Free> arena_;
    int64_t capacity_ = -1;  // samples that the arena is laid out for
};

}  // namespace convkit
