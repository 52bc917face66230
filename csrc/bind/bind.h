// The parts of the module; module.cpp calls them.
#pragma once

#include <pybind11/pybind11.h>

#include "registry.h"

namespace convkit {

void bind_specs(pybind11::module_& m);
// The spec in a Python object. Throws py::type_error.
Spec to_spec(pybind11::handle object);
void bind_kernels(pybind11::module_& m);
void bind_program(pybind11::module_& m);

}  // namespace convkit
