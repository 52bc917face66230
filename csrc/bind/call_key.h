// What the work of an op depends on, as bytes to look it up by: the shapes and dtypes of the arrays
// among its arguments, which of them are one object, the values of all other arguments, and the
// settings of the process by which an op may choose or refuse: kernels and precision.
#pragma once

#include <pybind11/pybind11.h>

#include <string_view>

#include "recipe.h"

namespace convkit {

class CallKey {
 public:
    // Arguments as vectorcall passes them. False where one is neither a plain array, a usual
    // constant, nor a list or tuple of these: then there is no key.
    bool build(PyObject* const* arguments, size_t positional, PyObject* names);

    std::string_view bytes() const {
        return {reinterpret_cast<const char*>(words_), count_ * sizeof(uint64_t)};
    }
    const GivenArrays& arrays() const { return arrays_; }

 private:
    enum Tag : uint64_t { kNone, kBool, kInt, kFloat, kText, kTuple, kList, kArray };

    bool add(PyObject* object);
    bool add_array(PyObject* array);
    bool add_text(PyObject* text);
    bool add_items(PyObject* const* items, size_t count, Tag tag);
    bool add_word(uint64_t word);
    // An item's first word: what it is, and how much follows.
    bool add_head(Tag tag, uint64_t more) { return add_word(tag | more << 8); }

    static constexpr size_t kMostWords = 160;
    uint64_t words_[kMostWords];
    size_t count_ = 0;
    GivenArrays arrays_;
};

}  // namespace convkit
