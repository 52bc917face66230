// Op: a function that remembers, for the shapes and options it was called with, which kernels it
// ran, and runs just those when such a call comes again. To Python it is the function it wraps, as
// functools.lru_cache's wrappers are.
#include <pybind11/pybind11.h>
#include <structmember.h>

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "bind.h"
#include "call_key.h"
#include "recipe.h"

namespace py = pybind11;

namespace convkit {
namespace {

constexpr size_t kMostMemories = 512;  // of one op; then it starts afresh

struct Memory {
    std::string key;
    std::unique_ptr<const Recipe> recipe;  // null: such calls cannot be replayed
};

// By the key in the memory itself. Shared: one may be forgotten while another thread replays it.
using Memories = std::unordered_map<std::string_view, std::shared_ptr<const Memory>>;

struct Op {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject* function;
    PyObject* dict;
    PyObject* weak_references;
    Memories* memories;
    long long replays;
};

Op* as_op(PyObject* self) { return reinterpret_cast<Op*>(self); }

// Calls the function and remembers what it did.
py::object call_and_learn(Op* op, const CallKey& key, PyObject* const* arguments, size_t nargsf,
                          PyObject* names) {
    std::unique_ptr<const Recipe> recipe;
    py::object result;
    {
        Trace trace;
        result = py::reinterpret_steal<py::object>(
            PyObject_Vectorcall(op->function, arguments, nargsf, names));
        if (!result) throw py::error_already_set();
        recipe = Recipe::from(trace, key.arrays(), result);
    }
    // Arrays that overlap may have forced a copy that others of their shapes do without.
    if (!recipe && any_overlap(key.arrays())) return result;
    auto memory =
        std::make_shared<const Memory>(Memory{std::string(key.bytes()), std::move(recipe)});
    if (op->memories->size() >= kMostMemories) op->memories->clear();
    op->memories->emplace(memory->key, memory);
    return result;
}

PyObject* call(PyObject* self, PyObject* const* arguments, size_t nargsf, PyObject* names) {
    Op* const op = as_op(self);
    try {
        CallKey key;
        // Within another op's call it is that one which learns.
        if (!Trace::active() && key.build(arguments, PyVectorcall_NARGS(nargsf), names)) {
            const auto found = op->memories->find(key.bytes());
            if (found == op->memories->end())
                return call_and_learn(op, key, arguments, nargsf, names).release().ptr();
            const std::shared_ptr<const Memory> memory = found->second;
            if (memory->recipe) {
                if (py::object result = memory->recipe->run(key.arrays())) {
                    ++op->replays;
                    return result.release().ptr();
                }
            }
        }
    } catch (py::error_already_set& error) {
        error.restore();
        return nullptr;
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
    return PyObject_Vectorcall(op->function, arguments, nargsf, names);
}

// ---- the Python type ----------------------------------------------------------------------------

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as_op(self)->function);
    Py_VISIT(as_op(self)->dict);
    return 0;
}

int clear(PyObject* self) {
    Py_CLEAR(as_op(self)->function);
    Py_CLEAR(as_op(self)->dict);
    return 0;
}

void deallocate(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (as_op(self)->weak_references) PyObject_ClearWeakRefs(self);
    clear(self);
    delete as_op(self)->memories;
    type->tp_free(self);
    Py_DECREF(type);
}

// As a function does: an op in the body of a class is a method.
PyObject* bind(PyObject* self, PyObject* object, PyObject*) {
    return object && object != Py_None ? PyMethod_New(self, object) : Py_NewRef(self);
}

PyObject* represent(PyObject* self) {
    return PyUnicode_FromFormat("<op of %R>", as_op(self)->function);
}

// Where it is to be found: an op is pickled and copied by its name.
PyObject* reduce(PyObject* self, PyObject*) { return PyObject_GetAttrString(self, "__qualname__"); }

PyTypeObject* make_type() {
    static PyMemberDef members[] = {
        {"__vectorcalloffset__", T_PYSSIZET, offsetof(Op, vectorcall), READONLY, nullptr},
        {"__dictoffset__", T_PYSSIZET, offsetof(Op, dict), READONLY, nullptr},
        {"__weaklistoffset__", T_PYSSIZET, offsetof(Op, weak_references), READONLY, nullptr},
        {"replays", T_LONGLONG, offsetof(Op, replays), READONLY,
         "How many calls were replayed, without the function."},
        {}};
    static PyGetSetDef properties[] = {
        {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr}, {}};
    static PyMethodDef methods[] = {{"__reduce__", reduce, METH_NOARGS, nullptr}, {}};
    static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                  {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
                                  {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                                  {Py_tp_clear, reinterpret_cast<void*>(clear)},
                                  {Py_tp_repr, reinterpret_cast<void*>(represent)},
                                  {Py_tp_descr_get, reinterpret_cast<void*>(bind)},
                                  {Py_tp_members, members},
                                  {Py_tp_getset, properties},
                                  {Py_tp_methods, methods},
                                  {}};
    static PyType_Spec spec = {"convkit._core.Op", sizeof(Op), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                   Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    PyObject* type = PyType_FromSpec(&spec);
    if (!type) throw py::error_already_set();
    return reinterpret_cast<PyTypeObject*>(type);
}

py::object replayed(const py::function& function) {
    static PyTypeObject* const type = make_type();
    const auto made = py::reinterpret_steal<py::object>(type->tp_alloc(type, 0));
    if (!made) throw py::error_already_set();
    Op* const op = as_op(made.ptr());
    op->memories = new Memories;
    op->function = py::object(function).release().ptr();
    op->vectorcall = call;
    return py::module_::import("functools").attr("update_wrapper")(made, function);
}

}  // namespace

void bind_replay(py::module_& m) {
    m.def("replayed", &replayed, py::arg("function"),
          "The function, but that its Python runs once per shapes and options: the kernels it ran "
          "are then run again by themselves. For functions of which the work depends on nothing "
          "else.");
}

}  // namespace convkit
