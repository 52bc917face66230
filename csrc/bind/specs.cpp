// Specs as small immutable Python objects: Conv2d(height=..., ...), with every field readable.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bind.h"
#include "specs.h"

namespace py = pybind11;

namespace convkit {
namespace {

// A field of some spec, for functions that are compiled once and not for each spec and field.
struct Field {
    const char* name;
    size_t offset;  // bytes
    void (*set)(void* field, py::handle value);
    py::object (*get)(const void* field);
};

template <class M>
void set_field(void* field, py::handle value) {
    *static_cast<M*>(field) = py::cast<M>(value);
}

template <class M>
py::object get_field(const void* field) {
    return py::cast(*static_cast<const M*>(field));
}

template <class S, class M>
Field field_of(std::pair<const char*, M S::*> named) {
    const S s{};
    const char* const at = reinterpret_cast<const char*>(&(s.*named.second));
    return {named.first, static_cast<size_t>(at - reinterpret_cast<const char*>(&s)), set_field<M>,
            get_field<M>};
}

struct Fields {
    std::string who;
    std::vector<Field> all;

    void read(const py::kwargs& values, void* spec) const {
        for (const Field& field : all) {
            if (!values.contains(field.name)) throw py::type_error(who + ": missing " + field.name);
            field.set(static_cast<char*>(spec) + field.offset, values[field.name]);
        }
        if (all.size() != values.size()) throw py::type_error(who + ": an unknown field");
    }
    std::string text(const void* spec) const {
        std::string values;
        for (const Field& field : all) {
            values += (values.empty() ? "" : ", ") + std::string(field.name) + "=" +
                      py::cast<std::string>(
                          py::repr(field.get(static_cast<const char*>(spec) + field.offset)));
        }
        return who + "(" + values + ")";
    }
};

template <class S, class... M>
void bind_spec(py::module_& m, const char* name, std::pair<const char*, M S::*>... named) {
    static_assert(sizeof(S) == (sizeof(M) + ...), "a field is missing");
    const Fields fields{name, {field_of(named)...}};
    py::class_<S> cls(m, name);
    cls.def(py::init([fields](const py::kwargs& values) {
        S s{};
        fields.read(values, &s);
        return s;
    }));
    for (const Field& field : fields.all) {
        const auto offset = field.offset;
        const auto get = field.get;
        cls.def_property_readonly(field.name, [offset, get](const S& s) {
            return get(reinterpret_cast<const char*>(&s) + offset);
        });
    }
    cls.def("__repr__", [fields](const S& s) { return fields.text(&s); });
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
                      F(out_width), F(algorithm));
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
#define F(name) FIELD(Unary, name)
    bind_spec<Unary>(m, "Unary", F(size), F(kind), F(a), F(b));
#undef F
#define F(name) FIELD(Binary, name)
    bind_spec<Binary>(m, "Binary", F(size), F(kind));
#undef F
#define F(name) FIELD(Reduce, name)
    bind_spec<Reduce>(m, "Reduce", F(outer), F(size), F(inner), F(kind));
#undef F
#define F(name) FIELD(Expand, name)
    bind_spec<Expand>(m, "Expand", F(outer), F(repeats), F(inner));
#undef F
#define F(name) FIELD(ChannelAffine, name)
    bind_spec<ChannelAffine>(m, "ChannelAffine", F(rows), F(channels));
#undef F
#define F(name) FIELD(BatchNorm, name)
    bind_spec<BatchNorm>(m, "BatchNorm", F(rows), F(channels), F(epsilon));
#undef F
#define F(name) FIELD(LayerNorm, name)
    bind_spec<LayerNorm>(m, "LayerNorm", F(rows), F(size), F(epsilon));
#undef F
#define F(name) FIELD(PRelu, name)
    bind_spec<PRelu>(m, "PRelu", F(rows), F(size));
#undef F
#define F(name) FIELD(Fold, name)
    bind_spec<Fold>(m, "Fold", F(rows), F(filters));
#undef F
#define F(name) FIELD(MovingAverage, name)
    bind_spec<MovingAverage>(m, "MovingAverage", F(size), F(momentum));
#undef F
#define F(name) FIELD(Pad2d, name)
    bind_spec<Pad2d>(m, "Pad2d", F(height), F(width), F(channels), F(top), F(left), F(out_height),
                     F(out_width));
#undef F
#define F(name) FIELD(Permute, name)
    bind_spec<Permute>(m, "Permute", F(size_0), F(size_1), F(size_2), F(size_3), F(from_0),
                       F(from_1), F(from_2), F(from_3), F(inner));
#undef F
#define F(name) FIELD(SpatialDropout, name)
    bind_spec<SpatialDropout>(m, "SpatialDropout", F(rows), F(channels), F(stream), F(rate));
#undef F
#define F(name) FIELD(GaussianNoise, name)
    bind_spec<GaussianNoise>(m, "GaussianNoise", F(size), F(stream), F(stddev));
#undef F
#define F(name) FIELD(RandomTransform, name)
    bind_spec<RandomTransform>(
        m, "RandomTransform", F(height), F(width), F(channels), F(out_height), F(out_width),
        F(stream), F(crop), F(bilinear), F(fill), F(fill_value), F(flip_horizontal),
        F(flip_vertical), F(angle_low), F(angle_high), F(shift_height_low), F(shift_height_high),
        F(shift_width_low), F(shift_width_high), F(zoom_height_low), F(zoom_height_high),
        F(zoom_width_low), F(zoom_width_high), F(zoom_both));
#undef F
#define F(name) FIELD(RandomContrast, name)
    bind_spec<RandomContrast>(m, "RandomContrast", F(rows), F(channels), F(stream), F(low), F(high),
                              F(value_low), F(value_high));
#undef F
#define F(name) FIELD(PointwiseLoss, name)
    bind_spec<PointwiseLoss>(m, "PointwiseLoss", F(rows), F(size), F(inner), F(kind),
                             F(from_logits), F(a), F(b));
#undef F
#define F(name) FIELD(TopK, name)
    bind_spec<TopK>(m, "TopK", F(rows), F(size), F(inner), F(k));
#undef F
#define F(name) FIELD(Confusion, name)
    bind_spec<Confusion>(m, "Confusion", F(rows), F(columns));
#undef F
#define F(name) FIELD(ThresholdCounts, name)
    bind_spec<ThresholdCounts>(m, "ThresholdCounts", F(rows), F(columns), F(thresholds),
                               F(per_column), F(largest));
#undef F
#define F(name) FIELD(Rmsprop, name)
    bind_spec<Rmsprop>(m, "Rmsprop", F(size), F(rho), F(momentum), F(epsilon));
#undef F
#define F(name) FIELD(Nadam, name)
    bind_spec<Nadam>(m, "Nadam", F(size), F(beta_1), F(beta_2), F(epsilon));
#undef F
#define F(name) FIELD(Adagrad, name)
    bind_spec<Adagrad>(m, "Adagrad", F(size), F(epsilon));
#undef F
#define F(name) FIELD(Adadelta, name)
    bind_spec<Adadelta>(m, "Adadelta", F(size), F(rho), F(epsilon));
#undef F
#define F(name) FIELD(Lion, name)
    bind_spec<Lion>(m, "Lion", F(size), F(beta_1), F(beta_2));
#undef F
#define F(name) FIELD(Decay, name)
    bind_spec<Decay>(m, "Decay", F(size), F(rate));
#undef F
#define F(name) FIELD(Clip, name)
    bind_spec<Clip>(m, "Clip", F(size), F(limit));
#undef F
#define F(name) FIELD(Regularizer, name)
    bind_spec<Regularizer>(m, "Regularizer", F(size), F(l1), F(l2));
#undef F
#define F(name) FIELD(Constraint, name)
    bind_spec<Constraint>(m, "Constraint", F(outer), F(size), F(inner), F(kind), F(low), F(high),
                          F(rate));
#undef F
    remember_types(std::make_index_sequence<std::variant_size_v<Spec>>());
}

Spec to_spec(py::handle object) { return to_spec_from(object); }

}  // namespace convkit
