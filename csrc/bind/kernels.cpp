// One function that runs any kernel of the list on NumPy arrays.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "array.h"
#include "backend.h"
#include "bind.h"
#include "call.h"
#include "recipe.h"
#include "threads.h"

namespace convkit {
namespace {

// An array of this shape, its contents undefined.
py::object shaped_array(py::handle shape, bool float64) {
    using api = py::detail::npy_api;
    Py_intptr_t sizes[kMostAxes];
    const size_t axes = PyTuple_GET_SIZE(shape.ptr());
    if (axes > kMostAxes) fail("array", "fewer axes");
    for (size_t k = 0; k < axes; ++k) {
        sizes[k] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape.ptr(), k));
        if (sizes[k] < 0) {
            if (PyErr_Occurred()) throw py::error_already_set();
            fail("array", "sizes of at least 0");
        }
    }
    return new_array(float64 ? api::NPY_DOUBLE_ : api::NPY_FLOAT_, static_cast<int>(axes), sizes);
}

// What a call of an op has to know of this one, if it is being traced.
void note(const std::string& name, const py::object& spec, int64_t n, bool float64,
          const py::object& inputs, const py::object& outputs, const py::list& results) {
    Trace* const trace = Trace::active();
    if (!trace) return;
    Trace::Step step{&find_kernel(name), to_spec(spec), n, float64, {}};
    const auto add = [&](py::handle array) {
        step.arguments.push_back(py::reinterpret_borrow<py::object>(array));
    };
    for_each(inputs, add);
    for_each(results, add);
    size_t i = 0;
    for_each(outputs, [&](py::handle output) {
        const py::handle result = PyList_GET_ITEM(results.ptr(), i++);
        if (!result.is(output)) trace->add_made(py::reinterpret_borrow<py::object>(result));
    });
    trace->add(std::move(step));
}

py::list run_kernel(const std::string& name, const py::object& spec, int64_t n,
                    const std::string& dtype, const py::object& inputs, const py::object& outputs) {
    const bool float64 = is_float64(dtype);
    Call call(name, spec, n, float64);
    for_each(inputs, [&](py::handle input) { call.add(input); });
    py::list results;
    for_each(outputs, [&](py::handle output) {
        if (PyTuple_CheckExact(output.ptr())) {
            const py::object made = shaped_array(output, float64);
            call.add(made);
            results.append(made);
        } else {
            call.add(output);
            results.append(output);
        }
    });
    call.run();
    note(name, spec, n, float64, inputs, outputs, results);
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
bool narrow(const void* from, int64_t count, int64_t classes, int32_t* labels) {
    const T* values = static_cast<const T*>(from);
    bool good = true;
    for (int64_t i = 0; i < count; ++i) {
        good &= values[i] >= 0 && static_cast<int64_t>(values[i]) < classes;
        labels[i] = static_cast<int32_t>(values[i]);
    }
    return good;
}

// Labels 0 .. classes - 1 as int32; None where they are not, or not whole numbers of a usual kind.
py::object labels(const py::object& array, int64_t classes) {
    if (!is_array(array) || !is_plain(array)) return py::none();
    const auto* source = fields(array);
    const py::object result =
        new_array(py::detail::npy_api::NPY_INT32_, source->nd, source->dimensions);
    if (!narrow_labels(dtype_fields(array)->type_num, source->data, view(array).elements, classes,
                       static_cast<int32_t*>(view(result).data)))
        return py::none();
    if (Trace* trace = Trace::active()) {
        trace->add_made(result);
        trace->add({nullptr, Elementwise{}, classes, false, {array, result}});
    }
    return result;
}

}  // namespace

bool narrow_labels(int type, const void* from, int64_t count, int64_t classes, int32_t* labels) {
    using api = py::detail::npy_api;
    switch (type) {
        case api::NPY_UBYTE_:
            return narrow<unsigned char>(from, count, classes, labels);
        case api::NPY_INT_:
            return narrow<int>(from, count, classes, labels);
        case api::NPY_LONG_:
            return narrow<long>(from, count, classes, labels);
        case api::NPY_LONGLONG_:
            return narrow<long long>(from, count, classes, labels);
        default:
            return false;
    }
}

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
