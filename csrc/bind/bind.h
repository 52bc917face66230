// The parts of the module; module.cpp calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace convkit {

void bind_specs(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_program(pybind11::module_& m);

}  // namespace convkit
