// Prepared: a program as a function of an array, with nothing between the two but the checks that
// memory safety needs.
#include "prepared.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <structmember.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "array.h"
#include "bind.h"

namespace convkit {
namespace {

// Arrays on one side of the function: some samples of one shape and type.
struct Side {
    int value;  // of the program
    int type;   // as NumPy numbers them
    int64_t sample_bytes;
    std::vector<Py_intptr_t> sample;  // its shape

    Side(const Program& program, int value, const std::vector<Py_intptr_t>& sample,
         const py::dtype& dtype)
        : value(value), type(dtype.num()), sample_bytes(dtype.itemsize()), sample(sample) {
        expect(sample.size() < kMostAxes, "program", "fewer axes");
        for (Py_intptr_t size : sample) sample_bytes *= size;
        expect(program.values().at(value).bytes(1) == sample_bytes, "program",
               "an array of another size");
    }

    // How many samples are in an array that a kernel can take as it is; -1: it is none.
    int64_t samples(py::handle array) const {
        if (!is_array(array) || !is_plain(array) || dtype_fields(array)->type_num != type)
            return -1;
        const auto* f = fields(array);
        if (f->nd != axes() || !std::equal(sample.begin(), sample.end(), f->dimensions + 1))
            return -1;
        return f->dimensions[0];
    }

    py::object array(int64_t samples) const {
        Py_intptr_t sizes[kMostAxes] = {samples};
        std::copy(sample.begin(), sample.end(), sizes + 1);
        return new_array(type, axes(), sizes);
    }

 private:
    int axes() const { return static_cast<int>(sample.size()) + 1; }
};

struct State {
    py::object owner;  // of the program, and of the arrays that are its states
    const Program& program;
    Side x, y;
    int64_t most;
    size_t made;  // as many as ever ran at the same time
    std::vector<std::unique_ptr<Prepared>> resting;
};

// One for this run alone, from and back to those at rest. The GIL is held when it comes and goes.
class Taken {
 public:
    explicit Taken(State& state) : state_(state) {
        if (!state.resting.empty()) {
            prepared_ = std::move(state.resting.back());
            state.resting.pop_back();
            return;
        }
        state.resting.reserve(state.made + 1);
        prepared_ =
            std::make_unique<Prepared>(state.program, state.x.value, state.y.value, state.most);
        ++state.made;
    }
    ~Taken() { state_.resting.push_back(std::move(prepared_)); }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;

    void run(const void* x, void* y, int64_t n) {
        // To let other Python threads run takes time, too.
        std::optional<py::gil_scoped_release> release;
        if (!prepared_->brief()) release.emplace();
        prepared_->run(x, y, n);
    }

 private:
    State& state_;
    std::unique_ptr<Prepared> prepared_;
};

bool overlap(const char* a, int64_t a_bytes, const char* b, int64_t b_bytes) {
    return a < b + b_bytes && b < a + a_bytes;
}

// The result for x, in `out` unless that is None; None where they are not as kernels take them.
py::object run(State& state, py::handle x, py::handle out) {
    const int64_t n = state.x.samples(x);
    if (n < 0 || n > state.most) return py::none();
    const char* source = fields(x)->data;
    py::object result;
    if (out.is_none()) {
        result = state.y.array(n);
    } else {
        if (state.y.samples(out) != n || objection(out, true) ||
            overlap(source, n * state.x.sample_bytes, fields(out)->data, n * state.y.sample_bytes))
            return py::none();
        result = py::reinterpret_borrow<py::object>(out);
    }
    Taken(state).run(source, fields(result)->data, n);
    return result;
}

struct Function {
    PyObject_HEAD vectorcallfunc vectorcall;
    State* state;
};

PyObject* call(PyObject* self, PyObject* const* arguments, size_t nargsf, PyObject* names) {
    if (PyVectorcall_NARGS(nargsf) != 2 || (names && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "prepared: expected x and out");
        return nullptr;
    }
    try {
        State& state = *reinterpret_cast<Function*>(self)->state;
        return run(state, arguments[0], arguments[1]).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

void destroy(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    delete reinterpret_cast<Function*>(self)->state;
    type->tp_free(self);
    Py_DECREF(type);
}

PyTypeObject* function_type() {
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(Function, vectorcall), READONLY, nullptr},
        {nullptr, 0, 0, 0, nullptr}};
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, reinterpret_cast<void*>(destroy)},
        {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
        {Py_tp_members, members},
        {Py_tp_doc, const_cast<char*>("A prepared program: a function of x and out (or None), "
                                      "which returns None for arrays that it does not take.")},
        {0, nullptr}};
    static PyType_Spec spec = {
        "convkit._core.Prepared", sizeof(Function), 0,
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    static PyObject* const type = PyType_FromSpec(&spec);
    if (!type) throw py::error_already_set();
    return reinterpret_cast<PyTypeObject*>(type);
}

py::object prepare(const py::object& owner, int x, const std::vector<Py_intptr_t>& x_sample,
                   const py::dtype& x_dtype, int y, const std::vector<Py_intptr_t>& y_sample,
                   const py::dtype& y_dtype, int64_t most) {
    const Program& program = program_to_prepare(owner);
    auto state = std::make_unique<State>(State{owner,
                                               program,
                                               Side(program, x, x_sample, x_dtype),
                                               Side(program, y, y_sample, y_dtype),
                                               most,
                                               0,
                                               {}});
    Taken first(*state);  // what cannot be prepared fails here
    PyTypeObject* const type = function_type();
    PyObject* const made = type->tp_alloc(type, 0);
    if (!made) throw py::error_already_set();
    auto* const function = reinterpret_cast<Function*>(made);
    function->vectorcall = call;
    function->state = state.release();
    return py::reinterpret_steal<py::object>(made);
}

}  // namespace

void bind_prepared(py::module_& m) {
    m.attr("Prepared") =
        py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(function_type()));
    m.def("prepare", &prepare, py::arg("program"), py::arg("x"), py::arg("x_shape"),
          py::arg("x_dtype"), py::arg("y"), py::arg("y_shape"), py::arg("y_dtype"), py::arg("most"),
          "A function of arrays from a program whose only fed values are x and y, whose samples "
          "have these shapes and dtypes; it takes at most so many at a time.");
}

}  // namespace convkit
