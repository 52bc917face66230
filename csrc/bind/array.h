// NumPy arrays -> pointers. convkit/array.py has made every array contiguous, aligned and of the
// right dtype already; what is checked again here is what memory safety needs.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "registry.h"

namespace convkit {

namespace py = pybind11;

struct ArrayView {
    void* data;
    int64_t elements;
    int64_t item_bytes;
    int64_t rows;  // length of the first axis
};

inline void expect(bool ok, const std::string& who, const char* what) {
    if (!ok) throw std::invalid_argument(who + ": expected " + what);
}

// `who` opens the message. The array must outlive every use of the pointer.
inline ArrayView view(py::handle object, bool writes, const std::string& who) {
    expect(py::isinstance<py::array>(object), who, "a NumPy array");
    const auto array = py::reinterpret_borrow<py::array>(object);
    constexpr int kWanted =
        py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    expect((array.flags() & kWanted) == kWanted, who, "a C-contiguous, aligned array");
    expect(!writes || array.writeable(), who, "a writable array");
    expect(array.dtype().byteorder() != '>', who, "native byte order");
    return {const_cast<void*>(array.data()), array.size(), array.itemsize(),
            array.ndim() > 0 ? array.shape(0) : 1};
}

inline bool holds(py::handle object, Element element, bool float64) {
    const py::dtype dtype = py::reinterpret_borrow<py::array>(object).dtype();
    const char kind = dtype.kind();
    const auto bytes = dtype.itemsize();
    switch (element) {
        case Element::kReal:
            return kind == 'f' && bytes == (float64 ? 8 : 4);
        case Element::kFloat64:
            return kind == 'f' && bytes == 8;
        case Element::kInt32:
            return kind == 'i' && bytes == 4;
        case Element::kInt64:
            return kind == 'i' && bytes == 8;
        case Element::kAny:
            return true;
    }
    return false;
}

}  // namespace convkit
