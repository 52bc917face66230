#include "call_key.h"

#include <cstring>

#include "array.h"
#include "backend.h"
#include "device.h"

namespace convkit {
namespace {

// Floats for kernels, and the integers that labels come in.
bool is_usual(int type) {
    using api = py::detail::npy_api;
    return type == api::NPY_FLOAT_ || type == api::NPY_DOUBLE_ || type == api::NPY_UBYTE_ ||
           type == api::NPY_INT_ || type == api::NPY_LONG_ || type == api::NPY_LONGLONG_;
}

}  // namespace

bool CallKey::build(PyObject* const* arguments, size_t positional, PyObject* names) {
    if (!add_word(reinterpret_cast<uintptr_t>(&backend())) ||
        !add_word(static_cast<uint64_t>(precision())) || !add_items(arguments, positional, kTuple))
        return false;
    const size_t named = names ? PyTuple_GET_SIZE(names) : 0;
    for (size_t i = 0; i < named; ++i)
        if (!add_text(PyTuple_GET_ITEM(names, i)) || !add(arguments[positional + i])) return false;
    return true;
}

bool CallKey::add_word(uint64_t word) {
    if (count_ == kMostWords) return false;
    words_[count_++] = word;
    return true;
}

bool CallKey::add_items(PyObject* const* items, size_t count, Tag tag) {
    if (!add_head(tag, count)) return false;
    for (size_t i = 0; i < count; ++i)
        if (!add(items[i])) return false;
    return true;
}

// The type is a part of every key: 1, 1.0 and True are equal, yet ops may tell them apart.
bool CallKey::add(PyObject* object) {
    static PyTypeObject* const array_type = py::detail::npy_api::get().PyArray_Type_;
    PyTypeObject* const type = Py_TYPE(object);
    if (type == array_type) return add_array(object);
    if (object == Py_None) return add_head(kNone, 0);
    if (type == &PyUnicode_Type) return add_text(object);
    if (type == &PyBool_Type) return add_head(kBool, object == Py_True);
    if (type == &PyLong_Type) {
        int overflow = 0;
        const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
        return !overflow && add_head(kInt, 0) && add_word(static_cast<uint64_t>(value));
    }
    if (type == &PyFloat_Type) {
        const double value = PyFloat_AS_DOUBLE(object);
        uint64_t bits;
        std::memcpy(&bits, &value, sizeof(bits));
        return add_head(kFloat, 0) && add_word(bits);
    }
    // A list that holds itself fills the key, which ends the recursion.
    if (type == &PyTuple_Type || type == &PyList_Type)
        return add_items(PySequence_Fast_ITEMS(object), PySequence_Fast_GET_SIZE(object),
                         type == &PyTuple_Type ? kTuple : kList);
    return false;
}

bool CallKey::add_array(PyObject* array) {
    const int type = dtype_fields(array)->type_num;
    if (!is_plain(array) || !is_usual(type) || arrays_.count == kMostArrays) return false;
    size_t same = 0;  // the first argument that is this object
    while (same < arrays_.count && arrays_.items[same] != array) ++same;
    arrays_.items[arrays_.count++] = array;
    const auto* f = fields(array);
    if (!add_head(kArray, same | type << 8 | static_cast<uint64_t>(f->nd) << 16)) return false;
    for (int axis = 0; axis < f->nd; ++axis)
        if (!add_word(static_cast<uint64_t>(f->dimensions[axis]))) return false;
    return true;
}

bool CallKey::add_text(PyObject* text) {
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text, &size);
    if (!bytes) {  // lone surrogates
        PyErr_Clear();
        return false;
    }
    const size_t words = (size + sizeof(uint64_t) - 1) / sizeof(uint64_t);
    if (count_ + 1 + words > kMostWords || !add_head(kText, size)) return false;
    if (words > 0) words_[count_ + words - 1] = 0;  // what the last word has no bytes for
    std::memcpy(words_ + count_, bytes, size);
    count_ += words;
    return true;
}

}  // namespace convkit
