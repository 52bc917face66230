// Specs as small immutable Python objects: Conv2d(height=..., ...), with every field readable.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "bind.h"
#include "specs.h"

namespace py = pybind11;

namespace convkit {
namespace {

template <class S, class... M>
void bind_spec(py::module_& m, const char* name, std::pair<const char*, M S::*>... fields) {
    static_assert(sizeof(S) == (sizeof(M) + ...), "a field is missing");
    const std::string who = name;
    py::class_<S> cls(m, name);
    cls.def(py::init([who, fields...](const py::kwargs& values) {
        S s{};
        size_t taken = 0;
        auto set = [&](const char* field, auto member) {
            if (!values.contains(field)) throw py::type_error(who + ": missing " + field);
            using F = std::decay_t<decltype(s.*member)>;
            s.*member = py::cast<F>(values[field]);
            ++taken;
        };
        (set(fields.first, fields.second), ...);
        if (taken != values.size()) throw py::type_error(who + ": an unknown field");
        return s;
    }));
    (cls.def_readonly(fields.first, fields.second), ...);
    cls.def("__repr__", [who, fields...](const S& s) {
        std::string text;
        auto add = [&](const char* field, auto value) {
            text += (text.empty() ? "" : ", ") + std::string(field) + "=" +
                    py::cast<std::string>(py::repr(py::cast(value)));
        };
        (add(fields.first, s.*fields.second), ...);
        return who + "(" + text + ")";
    });
}

// The Python class of each alternative of Spec, in order. A look-up here is many times faster than
// trying to convert to one after the other.
PyTypeObject* spec_types[std::variant_size_v<Spec>];

template <size_t... I>
void remember_types(std::index_sequence<I...>) {
    ((spec_types[I] = reinterpret_cast<PyTypeObject*>(
          py::type::of<std::variant_alternative_t<I, Spec>>().ptr())),
     ...);
}

template <size_t I = 0>
Spec to_spec_from(py::handle object) {
    if constexpr (I == std::variant_size_v<Spec>) {
        throw py::type_error("expected a spec");
    } else {
        if (Py_TYPE(object.ptr()) == spec_types[I])
            return py::cast<const std::variant_alternative_t<I, Spec>&>(object);
        return to_spec_from<I + 1>(object);
    }
}

#define FIELD(S, name) std::make_pair(#name, &S::name)

}  // namespace

void bind_specs(py::module_& m) {
#define F(name) FIELD(Conv2d, name)
    bind_spec<Conv2d>(m, "Conv2d", F(height), F(width), F(channels), F(kernel_height),
                      F(kernel_width), F(filters), F(groups), F(stride_height), F(stride_width),
                      F(dilation_height), F(dilation_width), F(pad_top), F(pad_left), F(out_height),
                      F(out_width));
#undef F
#define F(name) FIELD(Dense, name)
    bind_spec<Dense>(m, "Dense", F(rows), F(inputs), F(units));
#undef F
#define F(name) FIELD(Pool2d, name)
    bind_spec<Pool2d>(m, "Pool2d", F(height), F(width), F(channels), F(pool_height), F(pool_width),
                      F(stride_height), F(stride_width), F(dilation_height), F(dilation_width),
                      F(pad_top), F(pad_bottom), F(pad_left), F(pad_right), F(out_height),
                      F(out_width), F(count_include_pad));
#undef F
#define F(name) FIELD(Upsample2d, name)
    bind_spec<Upsample2d>(m, "Upsample2d", F(height), F(width), F(channels), F(scale_height),
                          F(scale_width), F(bilinear));
#undef F
    bind_spec<Elementwise>(m, "Elementwise", FIELD(Elementwise, size));
    bind_spec<Activation>(m, "Activation", FIELD(Activation, size), FIELD(Activation, kind),
                          FIELD(Activation, slope));
    bind_spec<Rescale>(m, "Rescale", FIELD(Rescale, size), FIELD(Rescale, scale),
                       FIELD(Rescale, offset));
    bind_spec<Softmax>(m, "Softmax", FIELD(Softmax, outer), FIELD(Softmax, size),
                       FIELD(Softmax, inner));
    bind_spec<Concatenate>(m, "Concatenate", FIELD(Concatenate, outer), FIELD(Concatenate, first),
                           FIELD(Concatenate, second));
    bind_spec<Transpose>(m, "Transpose", FIELD(Transpose, rows), FIELD(Transpose, columns));
    bind_spec<Dropout>(m, "Dropout", FIELD(Dropout, size), FIELD(Dropout, stream),
                       FIELD(Dropout, rate));
    bind_spec<Loss>(m, "Loss", FIELD(Loss, rows), FIELD(Loss, size), FIELD(Loss, inner),
                    FIELD(Loss, from_logits));
    bind_spec<Mean>(m, "Mean", FIELD(Mean, rows));
    bind_spec<Gather>(m, "Gather", FIELD(Gather, size), FIELD(Gather, type), FIELD(Gather, scale),
                      FIELD(Gather, offset));
    bind_spec<Sgd>(m, "Sgd", FIELD(Sgd, size), FIELD(Sgd, momentum), FIELD(Sgd, nesterov));
    bind_spec<Adam>(m, "Adam", FIELD(Adam, size), FIELD(Adam, beta_1), FIELD(Adam, beta_2),
                    FIELD(Adam, epsilon));
#define F(name) FIELD(FusedConv2d, name)
    bind_spec<FusedConv2d>(m, "FusedConv2d", F(conv), F(activation), F(slope), F(pool_height),
                           F(pool_width));
#undef F
    bind_spec<FusedDense>(m, "FusedDense", FIELD(FusedDense, dense), FIELD(FusedDense, activation),
                          FIELD(FusedDense, slope));
    remember_types(std::make_index_sequence<std::variant_size_v<Spec>>());
}

Spec to_spec(py::handle object) { return to_spec_from(object); }

}  // namespace convkit
