// The parts of the module, which module.cpp calls, and what they share.
#pragma once

#include <pybind11/pybind11.h>

#include "program.h"
#include "registry.h"

namespace convkit {

void bind_specs(pybind11::module_& m);
// The spec in a Python object. Throws py::type_error.
Spec to_spec(pybind11::handle object);

void bind_kernels(pybind11::module_& m);
constexpr size_t kMostAxes = 32;           // of an array; every NumPy has room for them
constexpr int64_t kWorthReleasing = 4096;  // elements in all arguments of a kernel
// Whether all labels, whole numbers of a type that NumPy numbers so, are 0 .. classes - 1; they are
// written to `labels` as they are read.
bool narrow_labels(int type, const void* from, int64_t count, int64_t classes, int32_t* labels);

void bind_results(pybind11::module_& m);
// A new array of a type of 4 or 8 bytes that NumPy numbers so; its contents are undefined.
pybind11::object new_array(int type, int axes, const Py_intptr_t* sizes);

void bind_replay(pybind11::module_& m);
void bind_program(pybind11::module_& m);
// The program in a Python object, whose states can be bound no more. Throws py::cast_error.
const Program& program_to_prepare(pybind11::handle object);
// The same, to be looked at while it is bound as before.
const Program& program_in(pybind11::handle object);
void bind_prepared(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_device_program(pybind11::module_& m);
void bind_stretch(pybind11::module_& m);

}  // namespace convkit
