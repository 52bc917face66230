// One function that runs any kernel of the list on NumPy arrays.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "array.h"
#include "backend.h"
#include "bind.h"
#include "threads.h"

namespace convkit {
namespace {

constexpr size_t kMostArguments = 16;

void run_kernel(const std::string& name, const Spec& spec, int64_t n, const std::string& dtype,
                const py::tuple& arrays) {
    const KernelInfo& kernel = find_kernel(name);
    const std::vector<Count> counts = kernel.counts(spec, n);
    const bool float64 = dtype == "float64";
    expect(float64 || dtype == "float32", name, "dtype float32 or float64");
    expect(n >= 0, name, "n >= 0");
    expect(arrays.size() == counts.size() && counts.size() <= kMostArguments, name,
           "another number of arguments");
    void* pointers[kMostArguments];
    for (size_t i = 0; i < counts.size(); ++i) {
        const py::handle object = arrays[i];
        const Argument& argument = kernel.arguments[i];
        if (object.is_none()) {
            expect(counts[i].optional, name + ": " + argument.name, "an array, not None");
            pointers[i] = nullptr;
            continue;
        }
        const std::string who = name + ": " + argument.name;
        const ArrayView array = view(object, argument.writes, who);
        expect(holds(object, argument.element, float64), who, "another dtype");
        expect(!counts[i].any, who, "a kernel with arguments of known length");
        expect(array.elements == counts[i].elements, who, "another number of elements");
        pointers[i] = array.data;
    }
    const Context context{num_threads()};
    py::gil_scoped_release release;
    (float64 ? kernel.call_float64 : kernel.call_float32)(backend(), context, spec, n, pointers);
}

}  // namespace

void bind_kernels(py::module_& m) {
    m.def("run_kernel", &run_kernel, py::arg("name"), py::arg("spec"), py::arg("n"),
          py::arg("dtype"), py::arg("arrays"),
          "Runs the kernel `name` on n samples; None stands for an optional array.");
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
    m.def("default_num_threads", &default_threads);
    m.def("thread_runtime", &thread_runtime);
}

}  // namespace convkit
