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

[[noreturn]] inline void fail(const std::string& who, const char* what) {
    throw std::invalid_argument(who + ": expected " + what);
}

inline void expect(bool ok, const char* who, const char* what) {
    if (!ok) fail(who, what);
}

// The fields that every NumPy array has, without a detour through Python objects.
inline const py::detail::PyArray_Proxy* fields(py::handle array) {
    return py::detail::array_proxy(array.ptr());
}

inline const py::detail::PyArrayDescr_Proxy* dtype_fields(py::handle array) {
    return py::detail::array_descriptor_proxy(fields(array)->descr);
}

inline bool is_array(py::handle object) { return py::isinstance<py::array>(object); }

// Contiguous, aligned and in native byte order.
inline bool is_plain(py::handle array) {
    constexpr int kWanted =
        py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    return (fields(array)->flags & kWanted) == kWanted && dtype_fields(array)->byteorder != '>';
}

// Why a kernel may not read (or write) this object; null if it may.
inline const char* objection(py::handle object, bool writes) {
    if (!is_array(object)) return "a NumPy array";
    if (!is_plain(object)) return "a C-contiguous, aligned array in native byte order";
    if (writes && !(fields(object)->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_))
        return "a writable array";
    return nullptr;
}

// The array must outlive every use of the pointer.
inline ArrayView view(py::handle object) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    return {const_cast<void*>(array.data()), array.size(), array.itemsize(),
            array.ndim() > 0 ? array.shape(0) : 1};
}

inline bool is_of(const py::dtype& dtype, char kind, int64_t bytes) {
    return dtype.kind() == kind && dtype.itemsize() == bytes;
}

inline bool is_of(const py::dtype& dtype, Element element, bool float64) {
    switch (element) {
        case Element::kReal:
            return is_of(dtype, 'f', float64 ? 8 : 4);
        case Element::kFloat64:
            return is_of(dtype, 'f', 8);
        case Element::kUint8:
            return is_of(dtype, 'u', 1);
        case Element::kInt32:
            return is_of(dtype, 'i', 4);
        case Element::kInt64:
            return is_of(dtype, 'i', 8);
        case Element::kAny:
            return true;
    }
    return false;
}

inline bool holds(py::handle array, char kind, int64_t bytes) {
    return is_of(py::reinterpret_borrow<py::array>(array).dtype(), kind, bytes);
}

inline bool holds(py::handle array, Element element, bool float64) {
    return is_of(py::reinterpret_borrow<py::array>(array).dtype(), element, float64);
}

}  // namespace convkit
