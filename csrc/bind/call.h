// One call of a kernel from Python: its arguments, checked as memory safety needs, and the run.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "array.h"
#include "backend.h"
#include "bind.h"
#include "staged.h"
#include "threads.h"

namespace convkit {

// What is in a list or tuple, item by item, without making an object of each look.
template <class F>
void for_each(const py::object& items, F f) {
    const auto fast =
        py::reinterpret_steal<py::object>(PySequence_Fast(items.ptr(), "expected a sequence"));
    if (!fast) throw py::error_already_set();
    PyObject* const* item = PySequence_Fast_ITEMS(fast.ptr());
    const py::ssize_t count = PySequence_Fast_GET_SIZE(fast.ptr());
    for (py::ssize_t k = 0; k < count; ++k) f(py::handle(item[k]));
}

inline bool is_float64(const std::string& dtype) {
    expect(dtype == "float64" || dtype == "float32", "dtype", "float32 or float64");
    return dtype == "float64";
}

// Arguments are added in order, the results after the inputs: all of the host or all of a device.
class Call {
 public:
    Call(const std::string& name, py::handle spec, int64_t n, bool float64)
        : kernel_(find_kernel(name)),
          spec_(to_spec(spec)),
          n_(n),
          float64_(float64),
          counts_(kernel_.counts(spec_, n)) {
        if (n < 0) fail(name, "n >= 0");
    }

    // A NumPy array, or None.
    void add(py::handle object) {
        const Argument* const argument = next(object);
        if (!argument) return;
        if (const char* expected = objection(object, argument->writes)) refuse(*argument, expected);
        if (!holds(object, argument->element, float64_)) refuse(*argument, "another dtype");
        take(*argument, view(object));
    }

    // A contiguous array on a device as (address, number of elements, dtype), or None.
    void add_on_device(py::handle object) {
        const Argument* const argument = next(object);
        if (!argument) return;
        const auto [address, elements, dtype] =
            py::cast<std::tuple<uintptr_t, int64_t, py::dtype>>(object);
        if (!is_of(dtype, argument->element, float64_)) refuse(*argument, "another dtype");
        const int64_t item = dtype.itemsize();
        if (address % static_cast<size_t>(item) != 0) refuse(*argument, "an aligned array");
        const auto* gather = std::get_if<Gather>(&spec_);
        const int64_t row = gather ? gather->row_bytes() : 0;
        take(*argument, {reinterpret_cast<void*>(address), elements, item,
                         row > 0 ? elements * item / row : 0});
    }

    void run() const {
        expect_all();
        if (std::holds_alternative<Gather>(spec_)) check_rows();
        const Context context{num_threads()};
        const KernelTable& table = backend();
        const Device* const device = device_of(table);
        // Letting other Python threads run costs more than the shortest kernels.
        std::optional<py::gil_scoped_release> release;
        if (elements_ >= kWorthReleasing || device) release.emplace();
        if (device)
            return run_staged(*device, kernel_, float64_, context, spec_, n_, counts_, pointers_,
                              bytes_);
        launch(table, context);
    }

    // Returns when the kernel is in the queue.
    void run_in(const Device& device, Queue& queue) const {
        expect_all();
        if (std::holds_alternative<Gather>(spec_)) {
            if (pointers_[1]) refuse(kernel_.arguments[1], "None: its rows cannot be checked");
            if (rows_ < n_) refuse(kernel_.arguments[0], "rows that the source has");
        }
        const py::gil_scoped_release release;  // a full queue makes the call wait
        const CurrentDevice current(device, queue.device);
        Context context;
        context.queue = &queue;
        launch(device.kernels, context);
    }

 private:
    [[noreturn]] void refuse(const Argument& argument, const char* expected) const {
        fail(kernel_.name + ": " + argument.name, expected);
    }

    // The next argument; null if the object is None, as it may be.
    const Argument* next(py::handle object) {
        if (taken_ == counts_.size()) fail(kernel_.name, "fewer arguments");
        const Argument& argument = kernel_.arguments[taken_++];
        if (!object.is_none()) return &argument;
        if (!counts_[taken_ - 1].optional) refuse(argument, "an array, not None");
        pointers_[taken_ - 1] = nullptr;
        return nullptr;
    }

    void take(const Argument& argument, const ArrayView& array) {
        const Count& count = counts_[taken_ - 1];
        if (count.any) {
            rows_ = array.rows;
            if (array.elements * array.item_bytes != rows_ * std::get<Gather>(spec_).row_bytes())
                refuse(argument, "rows of another size");
        } else if (array.elements != count.elements) {
            refuse(argument, "another number of elements");
        }
        pointers_[taken_ - 1] = array.data;
        bytes_[taken_ - 1] = array.elements * array.item_bytes;
        elements_ += array.elements;
    }

    void expect_all() const {
        if (taken_ != counts_.size()) fail(kernel_.name, "more arguments");
    }

    // Of a gather's source, the first argument, by the index, the second.
    void check_rows() const {
        const auto* index = static_cast<const int64_t*>(pointers_[1]);
        bool good = index || rows_ >= n_;
        for (int64_t i = 0; index && i < n_; ++i) good &= index[i] >= 0 && index[i] < rows_;
        if (!good) refuse(kernel_.arguments[index ? 1 : 0], "rows that the source has");
    }

    void launch(const KernelTable& table, const Context& context) const {
        (float64_ ? kernel_.call_float64 : kernel_.call_float32)(table, context, spec_, n_,
                                                                 pointers_);
    }

    const KernelInfo& kernel_;
    Spec spec_;
    int64_t n_;
    bool float64_;
    std::vector<Count> counts_;
    size_t taken_ = 0;
    int64_t elements_ = 0;
    int64_t rows_ = 0;  // of a gather's source
    void* pointers_[kMostArguments];
    int64_t bytes_[kMostArguments];
};

}  // namespace convkit
