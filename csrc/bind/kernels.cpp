// One function that runs any kernel of the list on NumPy arrays.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "array.h"
#include "backend.h"
#include "bind.h"
#include "threads.h"

namespace convkit {
namespace {

constexpr size_t kMostArguments = 16;
constexpr py::ssize_t kMostAxes = 32;      // as many as any NumPy has
constexpr int64_t kWorthReleasing = 4096;  // elements in all arguments

// Everything that a kernel call is made of, checked as memory safety needs; the results, which come
// after the inputs, are arrays of the caller's or made here.
class Call {
 public:
    Call(const std::string& name, py::handle spec, int64_t n, bool float64)
        : kernel_(find_kernel(name)),
          spec_(to_spec(spec)),
          n_(n),
          float64_(float64),
          counts_(kernel_.counts(spec_, n)) {
        if (n < 0) fail(name, "n >= 0");
        if (counts_.size() > kMostArguments) fail(name, "fewer arguments");
    }

    void add(py::handle object) {
        if (taken_ == counts_.size()) fail(kernel_.name, "fewer arguments");
        const Argument& argument = kernel_.arguments[taken_];
        const Count& count = counts_[taken_];
        void*& pointer = pointers_[taken_++];
        if (object.is_none()) {
            if (!count.optional) refuse(argument, "an array, not None");
            pointer = nullptr;
            return;
        }
        if (const char* expected = objection(object, argument.writes)) refuse(argument, expected);
        if (!holds(object, argument.element, float64_)) refuse(argument, "another dtype");
        const ArrayView array = view(object);
        if (count.any || array.elements != count.elements)
            refuse(argument, "another number of elements");
        pointer = array.data;
        elements_ += array.elements;
    }

    void run() const {
        if (taken_ != counts_.size()) fail(kernel_.name, "more arguments");
        const Context context{num_threads()};
        // Letting other Python threads run costs more than the shortest kernels.
        std::optional<py::gil_scoped_release> release;
        if (elements_ >= kWorthReleasing) release.emplace();
        (float64_ ? kernel_.call_float64 : kernel_.call_float32)(backend(), context, spec_, n_,
                                                                 pointers_);
    }

 private:
    [[noreturn]] void refuse(const Argument& argument, const char* expected) const {
        fail(kernel_.name + ": " + argument.name, expected);
    }

    const KernelInfo& kernel_;
    Spec spec_;
    int64_t n_;
    bool float64_;
    std::vector<Count> counts_;
    size_t taken_ = 0;
    int64_t elements_ = 0;
    void* pointers_[kMostArguments];
};

bool is_float64(const std::string& dtype) {
    expect(dtype == "float64" || dtype == "float32", "dtype", "float32 or float64");
    return dtype == "float64";
}

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

// An array of this shape, its contents undefined. By NumPy's own function: pybind11's constructor
// works out strides first, which takes as long as a short kernel.
py::array new_array(const py::handle shape, bool float64) {
    static PyObject* const dtypes[] = {py::dtype::of<float>().release().ptr(),
                                       py::dtype::of<double>().release().ptr()};
    Py_intptr_t sizes[kMostAxes];
    const py::ssize_t axes = PyTuple_GET_SIZE(shape.ptr());
    if (axes > kMostAxes) fail("array", "fewer axes");
    for (py::ssize_t k = 0; k < axes; ++k) {
        sizes[k] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape.ptr(), k));
        if (sizes[k] < 0) {
            if (PyErr_Occurred()) throw py::error_already_set();
            fail("array", "sizes of at least 0");
        }
    }
    auto& numpy = py::detail::npy_api::get();
    PyObject* const dtype = dtypes[float64];
    Py_INCREF(dtype);  // which the next call takes over
    PyObject* made = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, dtype, static_cast<int>(axes),
                                                 sizes, nullptr, nullptr, 0, nullptr);
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::array>(made);
}

py::list run_kernel(const std::string& name, const py::object& spec, int64_t n,
                    const std::string& dtype, const py::object& inputs, const py::object& outputs) {
    const bool float64 = is_float64(dtype);
    Call call(name, spec, n, float64);
    for_each(inputs, [&](py::handle input) { call.add(input); });
    py::list results;
    for_each(outputs, [&](py::handle output) {
        if (PyTuple_CheckExact(output.ptr())) {
            const py::array made = new_array(output, float64);
            call.add(made);
            results.append(made);
        } else {
            call.add(output);
            results.append(output);
        }
    });
    call.run();
    return results;
}

bool ready(const py::tuple& values, bool last_optional) {
    const size_t count = values.size();
    bool float64 = false;
    for (size_t i = 0; i < count; ++i) {
        const py::handle value = values[i];
        if (value.is_none() && last_optional && i > 0 && i + 1 == count) continue;
        if (!is_array(value) || !is_plain(value)) return false;
        if (i == 0) float64 = holds(value, 'f', 8);
        if (!holds(value, Element::kReal, float64)) return false;
    }
    return true;
}

template <class T>
bool narrow(const py::handle array, int64_t classes, int32_t* labels) {
    const ArrayView from = view(array);
    const T* values = static_cast<const T*>(from.data);
    bool good = true;
    for (int64_t i = 0; i < from.elements; ++i) {
        good &= values[i] >= 0 && static_cast<int64_t>(values[i]) < classes;
        labels[i] = static_cast<int32_t>(values[i]);
    }
    return good;
}

// Labels 0 .. classes - 1 as int32; None where they are not, or not whole numbers of a usual kind.
py::object labels(const py::object& array, int64_t classes) {
    if (!is_array(array) || !is_plain(array)) return py::none();
    const auto source = py::reinterpret_borrow<py::array>(array);
    py::array_t<int32_t> result(
        std::vector<py::ssize_t>(source.shape(), source.shape() + source.ndim()));
    bool good = false;
    if (holds(array, 'i', 8)) good = narrow<int64_t>(array, classes, result.mutable_data());
    if (holds(array, 'i', 4)) good = narrow<int32_t>(array, classes, result.mutable_data());
    if (holds(array, 'u', 1)) good = narrow<uint8_t>(array, classes, result.mutable_data());
    return good ? py::object(result) : py::none();
}

}  // namespace

void bind_kernels(py::module_& m) {
    m.def(
        "run_kernel", &run_kernel, py::arg("name"), py::arg("spec"), py::arg("n"), py::arg("dtype"),
        py::arg("inputs"), py::arg("outputs"),
        "Runs the kernel `name` on n samples and returns its outputs. An output is the shape of an "
        "array to make, an array to write to, or None where it is optional.");
    m.def(
        "ready", &ready, py::arg("values"), py::arg("last_optional"),
        "Whether all values are arrays of one float dtype that kernels take as they are; the last "
        "may be None if it is optional.");
    m.def("labels", &labels, py::arg("array"), py::arg("classes"),
          "Labels 0 .. classes - 1 as int32, or None where it takes a closer look.");
    m.def("kernel_names", [] {
        std::vector<std::string> names;
        for (const KernelInfo& kernel : kernel_list()) names.push_back(kernel.name);
        return names;
    });
    m.def(
        "kernel_address",
        [](const std::string& name) {
            return reinterpret_cast<uintptr_t>(find_kernel(name).address(backend()));
        },
        py::arg("name"), "Where the function is that the backend in use runs for float32.");
    m.def("backend_name", [] { return std::string(backend().name); });
    m.def("available_backends", [] {
        std::vector<std::string> names;
        for (const KernelTable* table : available_backends()) names.emplace_back(table->name);
        return names;
    });
    m.def("use_backend", &use_backend, py::arg("name"));
    m.def("get_num_threads", &num_threads);
    m.def("set_num_threads", &set_num_threads, py::arg("threads"));
    m.def("thread_runtime", &thread_runtime);
}

}  // namespace convkit
