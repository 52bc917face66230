// Program for Python: built value by value and node by node, then run with the GIL released.
#include "program.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <map>
#include <optional>

#include "array.h"
#include "bind.h"

namespace convkit {
namespace {

// A program and the arrays that it points to.
class BoundProgram {
 public:
    explicit BoundProgram(const std::string& dtype) : program_(dtype == "float64") {
        expect(dtype == "float32" || dtype == "float64", "program", "dtype float32 or float64");
    }

    int arena(int64_t item_bytes, int64_t elements, bool per_sample) {
        const InUse in_use(*this);
        return program_.add_value(Place::kArena, item_bytes, elements, per_sample);
    }
    int fed(int64_t item_bytes, int64_t elements) {
        const InUse in_use(*this);
        return program_.add_value(Place::kFed, item_bytes, elements, true);
    }
    int state(int64_t item_bytes, int64_t elements) {
        const InUse in_use(*this);
        return program_.add_value(Place::kState, item_bytes, elements, false);
    }
    int tile(int64_t item_bytes, int64_t elements) {
        const InUse in_use(*this);
        return program_.add_value(Place::kTile, item_bytes, elements, true);
    }
    int sum(int64_t item_bytes, int64_t elements) {
        const InUse in_use(*this);
        return program_.add_value(Place::kSum, item_bytes, elements, false);
    }
    void node(const std::string& kernel, const py::object& spec, const std::vector<int>& arguments,
              bool tiled) {
        const InUse in_use(*this);
        program_.add_node(kernel, to_spec(spec), arguments, tiled);
    }
    void set_tiles_at_once(int64_t tiles) {
        const InUse in_use(*this);
        program_.set_tiles_at_once(tiles);
    }
    void keep_weights(int node) {
        const InUse in_use(*this);
        program_.keep_weights(node);
    }
    void weights_changed() const { program_.weights_changed(); }  // others may be at work
    void profile(bool on) {
        const InUse in_use(*this);
        program_.profile(on);
    }

    // State: all elements; what is only the source of a gather, and what is fed: whole rows.
    void bind(int id, const py::array& array) {
        const InUse in_use(*this);
        const Value& value = program_.values().at(id);
        expect_free(value);
        bool writes = false, source = false, whole = false;
        for (const Node& node : program_.nodes())
            for (size_t i = 0; i < node.arguments.size(); ++i)
                if (node.arguments[i] == id) {
                    writes |= node.kernel->arguments[i].writes;
                    const bool any = node.kernel->arguments[i].element == Element::kAny;
                    (any ? source : whole) = true;
                }
        if (const char* expected = objection(array, writes)) fail("program", expected);
        const ArrayView a = view(array);
        expect(a.item_bytes == value.item_bytes, "program", "an array of another dtype");
        const int64_t rows = value.place == Place::kFed || (source && !whole) ? a.rows : 1;
        expect(a.elements == value.elements * rows, "program", "an array of another size");
        program_.bind(id, a.data, rows);
        arrays_[id] = array;
    }

    // Lets go of an array; the value must be bound again before the next run.
    void unbind(int id) {
        const InUse in_use(*this);
        expect_free(program_.values().at(id));
        program_.bind(id, nullptr, 0);
        arrays_.erase(id);
    }

    int64_t run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                std::optional<uint64_t> shuffle) {
        const InUse in_use(*this);
        if (shuffle)
            for (int id : program_.indices())
                expect(!arrays_.count(id) || arrays_[id].writeable(), "program",
                       "an index that can be written, to shuffle it");
        // Ctrl-C between nodes: what Python's handler raises ends the run.
        const auto poll = [] {
            py::gil_scoped_acquire acquire;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        };
        py::gil_scoped_release release;
        return program_.run(begin, end, batch_size, seconds, shuffle, poll);
    }

    const Program& program() const { return program_; }
    // From now on the program's states stay where they are.
    void hold_states() { states_held_ = true; }
    int64_t arena_bytes(int64_t n) const { return program_.arena_bytes(n); }
    int64_t unshared_bytes(int64_t n) const { return program_.unshared_bytes(n); }
    int64_t tile_bytes() const { return program_.tile_bytes(); }
    int64_t sum_bytes(int64_t n) const { return program_.sum_bytes(n); }
    std::vector<double> seconds() const { return program_.seconds(); }

 private:
    // Marks the program as busy; another thread that comes meanwhile is refused, not served
    // wrongly.
    class InUse {
     public:
        explicit InUse(BoundProgram& program) : busy_(program.busy_) {
            if (busy_.exchange(true))
                throw std::runtime_error("program: expected one thread at a time, got two");
        }
        ~InUse() { busy_ = false; }

     private:
        std::atomic<bool>& busy_;
    };

    void expect_free(const Value& value) const {
        expect(!states_held_ || value.place != Place::kState, "program",
               "states to stay where a prepared function reads them");
    }

    Program program_;
    bool states_held_ = false;
    std::atomic<bool> busy_{false};
    std::map<int, py::array> arrays_;
};

}  // namespace

const Program& program_to_prepare(py::handle object) {
    BoundProgram& bound = object.cast<BoundProgram&>();
    bound.hold_states();
    return bound.program();
}

const Program& program_in(py::handle object) { return object.cast<BoundProgram&>().program(); }

void bind_program(py::module_& m) {
    py::class_<BoundProgram>(m, "Program",
                             "Kernel calls in a fixed order over fed arrays, state and an arena.")
        .def(py::init<const std::string&>(), py::arg("dtype"))
        .def("arena", &BoundProgram::arena, py::arg("item_bytes"), py::arg("elements"),
             py::arg("per_sample"))
        .def("fed", &BoundProgram::fed, py::arg("item_bytes"), py::arg("elements"))
        .def("state", &BoundProgram::state, py::arg("item_bytes"), py::arg("elements"))
        .def("tile", &BoundProgram::tile, py::arg("item_bytes"), py::arg("elements"))
        .def("sum", &BoundProgram::sum, py::arg("item_bytes"), py::arg("elements"))
        .def("node", &BoundProgram::node, py::arg("kernel"), py::arg("spec"), py::arg("arguments"),
             py::arg("tiled") = false)
        .def("set_tiles_at_once", &BoundProgram::set_tiles_at_once, py::arg("tiles"))
        .def("keep_weights", &BoundProgram::keep_weights, py::arg("node"),
             "Has a node keep what it works out of its weights until weights_changed().")
        .def("weights_changed", &BoundProgram::weights_changed,
             "To be called behind a change of states; runs may be under way.")
        .def("profile", &BoundProgram::profile, py::arg("on"),
             "Whether runs stay on one thread and add up the seconds of each node.")
        .def("seconds", &BoundProgram::seconds)
        .def("bind", &BoundProgram::bind, py::arg("value"), py::arg("array"))
        .def("unbind", &BoundProgram::unbind, py::arg("value"))
        .def("run", &BoundProgram::run, py::arg("begin"), py::arg("end"), py::arg("batch_size"),
             py::arg("seconds"), py::arg("shuffle") = py::none())
        .def("arena_bytes", &BoundProgram::arena_bytes, py::arg("n"))
        .def("unshared_bytes", &BoundProgram::unshared_bytes, py::arg("n"))
        .def("tile_bytes", &BoundProgram::tile_bytes)
        .def("sum_bytes", &BoundProgram::sum_bytes, py::arg("n"));
}

}  // namespace convkit
