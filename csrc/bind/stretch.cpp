// Stretch for Python: a depth-first Program carried out by blocks of threads on a device, over the
// arrays of the host that the program is bound to. For tests: arrays go to the device and back with
// each run.
#include "stretch.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>

#include "bind.h"
#include "device.h"

namespace convkit {
namespace {

namespace py = pybind11;

class BoundStretch {
 public:
    BoundStretch(const py::object& program, const std::string& backend, int64_t most)
        : program_(program),
          library_(find_device(backend)),
          queue_(library_.make_queue(kDevice, nullptr)),
          stretch_(library_.make_stretch(kDevice, plan_stretch(program_in(program)), most)),
          cursor_(allocate(sizeof(int64_t))) {}

    // Steps of batch_size from row `begin` to row `end`. With a cursor, rows are taken from where
    // that stands in device memory; recorded, steps of the same size are replays of a graph.
    void run(int64_t begin, int64_t end, int64_t batch_size, bool cursor, bool recorded) {
        if (begin < 0 || end < begin || batch_size < 1)
            throw std::invalid_argument("stretch: expected 0 <= begin <= end and batch_size >= 1");
        const Program& program = program_in(program_);
        std::map<int, Memory> arrays;
        for (int id = 0; id < static_cast<int>(program.values().size()); ++id) {
            const Value& value = program.values()[id];
            if (!value.data) continue;
            Memory& memory = arrays.emplace(id, allocate(bytes_of(value))).first->second;
            copy(memory.get(), value.data, bytes_of(value), Direction::kToDevice);
            stretch_->bind(id, memory.get());
        }
        auto* const at = static_cast<int64_t*>(cursor_.get());
        copy(at, &begin, sizeof begin, Direction::kToDevice);
        library_.synchronise(*queue_);
        std::unique_ptr<Graph> graph;
        for (int64_t row = begin; row < end; row += batch_size) {
            const int64_t n = std::min(batch_size, end - row);
            const bool replays = recorded && row > begin && n == batch_size;
            if (replays && !graph) graph = record(n, at);
            if (replays) {
                library_.replay(*queue_, *graph);
            } else {
                stretch_->run(*queue_, n, row, cursor ? at : nullptr);
            }
        }
        for (const auto& [id, memory] : arrays) {
            const Value& value = program.values()[id];
            if (is_written(program, id))
                copy(value.data, memory.get(), bytes_of(value), Direction::kToHost);
        }
        library_.synchronise(*queue_);
    }

    int64_t block_bytes() const { return stretch_->block_bytes(); }
    int64_t device_bytes() const { return stretch_->device_bytes(); }

 private:
    static constexpr int kDevice = 0;

    struct Release {
        const Device* library;
        void operator()(void* memory) const { library->release(memory); }
    };
    using Memory = std::unique_ptr<void, Release>;

    Memory allocate(int64_t bytes) const {
        return Memory(library_.allocate(kDevice, static_cast<size_t>(bytes)), Release{&library_});
    }

    void copy(void* to, const void* from, int64_t bytes, Direction direction) const {
        library_.copy(*queue_, to, from, static_cast<size_t>(bytes), direction);
    }

    static int64_t bytes_of(const Value& value) {
        return value.item_bytes * value.elements * value.rows;
    }

    static bool is_written(const Program& program, int id) {
        for (const Node& node : program.nodes())
            for (size_t a = 0; a < node.arguments.size(); ++a)
                if (node.arguments[a] == id && node.kernel->arguments[a].writes) return true;
        return false;
    }

    std::unique_ptr<Graph> record(int64_t n, int64_t* cursor) const {
        library_.begin_graph(*queue_);
        try {
            stretch_->run(*queue_, n, 0, cursor);
        } catch (...) {
            library_.abandon_graph(*queue_);
            throw;
        }
        return library_.end_graph(*queue_);
    }

    py::object program_;
    const Device& library_;
    std::unique_ptr<Queue> queue_;
    std::unique_ptr<Stretch> stretch_;
    Memory cursor_;
};

}  // namespace

void bind_stretch(py::module_& m) {
    py::register_exception<DoesNotFit>(m, "DoesNotFit", PyExc_ValueError);
    py::class_<BoundStretch>(m, "Stretch",
                             "A depth-first Program carried out by blocks of threads on a device, "
                             "over arrays of the host. DoesNotFit where it cannot be.")
        .def(py::init<const py::object&, const std::string&, int64_t>(), py::arg("program"),
             py::arg("backend"), py::arg("most"))
        .def("run", &BoundStretch::run, py::arg("begin"), py::arg("end"), py::arg("batch_size"),
             py::arg("cursor"), py::arg("recorded"))
        .def("block_bytes", &BoundStretch::block_bytes)
        .def("device_bytes", &BoundStretch::device_bytes);
}

}  // namespace convkit
