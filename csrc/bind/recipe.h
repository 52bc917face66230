// What a call of an op did, noted while it ran (Trace), as something that can be done again on
// other arrays of the same shapes without Python (Recipe).
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "registry.h"

namespace convkit {

constexpr size_t kMostArrays = 32;  // among the arguments of a call, or made in it

// The arrays among the arguments of a call, in order, those in lists and tuples too. Borrowed.
struct GivenArrays {
    PyObject* items[kMostArrays];
    size_t count = 0;
};

// Whether two arrays that are not the same object have memory in common.
bool any_overlap(const GivenArrays& given);

// The kernels that a thread runs while a trace is active in it, and the arrays they run on.
class Trace {
 public:
    struct Step {
        const KernelInfo* kernel;  // null: the labels in the first array, narrowed into the second
        Spec spec;
        int64_t n;  // of labels: how many classes there are
        bool float64;
        std::vector<pybind11::object> arguments;
    };

    Trace();  // makes it this thread's active one
    ~Trace();
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;

    // This thread's; null if there is none.
    static Trace* active();

    // An array that was made for the next steps, its contents undefined.
    void add_made(pybind11::object array);
    void add(Step step);

    const std::vector<Step>& steps() const { return steps_; }
    const std::vector<pybind11::object>& made() const { return made_; }
    // False once it would have kept too much memory from being freed: then it noted no more.
    bool complete() const { return complete_; }

 private:
    std::vector<Step> steps_;
    std::vector<pybind11::object> made_;
    int64_t bytes_ = 0;  // of made_
    bool complete_ = true;
};

class Recipe {
 public:
    // Null where the trace is not all that the call did: where a kernel reads what is neither an
    // argument nor the work of an earlier one, or the result is not the work of kernels.
    static std::unique_ptr<const Recipe> from(const Trace& trace, const GivenArrays& given,
                                              pybind11::handle result);

    // The result for arrays of the shapes and dtypes that the recipe was made for; null where these
    // arrays take a look by the op itself: one to be written to is read-only or overlaps another, a
    // label is none; or where a device's kernels are in use, which need them elsewhere.
    pybind11::object run(const GivenArrays& given) const;

 private:
    struct Made {
        int type;  // as NumPy numbers them
        std::vector<Py_intptr_t> sizes;
    };
    // Arguments are places among the given arrays and, after those, the made ones; -1 for None.
    struct Step {
        const KernelInfo* kernel;
        Spec spec;
        int64_t n;
        bool float64;
        std::vector<int> arguments;
    };

    bool may_write(const GivenArrays& given) const;
    bool run_steps(const KernelTable& table, PyObject* const* arrays) const;

    std::vector<Made> made_;
    std::vector<Step> steps_;
    std::vector<int> results_;
    std::vector<int> written_;  // places of given arrays
    bool tuple_ = false;
    bool worth_releasing_ = false;
};

}  // namespace convkit
