// convkit._core: the contents of the module, in order.
#include <pybind11/pybind11.h>

#include <cstdlib>

#include "backend.h"
#include "bind.h"

#ifndef CONVKIT_VERSION
#define CONVKIT_VERSION "0+unknown"  // a build without pip
#endif

PYBIND11_MODULE(_core, m) {
    m.doc() = "Native kernels of convkit; the public functions are in convkit.ops.";
    m.attr("__version__") = CONVKIT_VERSION;
    convkit::bind_specs(m);
    convkit::bind_kernels(m);
    convkit::bind_results(m);
    convkit::bind_replay(m);
    convkit::bind_program(m);
    convkit::bind_prepared(m);
    convkit::bind_device(m);
    convkit::bind_device_program(m);
    convkit::bind_stretch(m);

    if (const char* name = std::getenv("CONVKIT_BACKEND"); name && *name) {
        try {
            convkit::use_backend(name);
        } catch (const std::exception& error) {
            throw pybind11::import_error(std::string("CONVKIT_BACKEND: ") + error.what());
        }
    }
}
