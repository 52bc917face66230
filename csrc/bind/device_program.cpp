// DeviceProgram for Python: a native Program's plan on a device, run with the GIL released.
#include "device_program.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>

#include "array.h"
#include "bind.h"

namespace convkit {
namespace {

// A program on a device, and the Python objects whose memory it uses.
class BoundDeviceProgram {
 public:
    BoundDeviceProgram(const py::object& plan, const std::string& backend, int device, bool fused)
        : plan_(plan), program_(program_to_prepare(plan), find_device(backend), device, fused) {}

    // Memory of the host.
    void bind(int id, const py::array& array) {
        const InUse in_use(*this);
        if (const char* expected = objection(array, false)) fail("program", expected);
        const ArrayView a = view(array);
        program_.bind(id, {a.data, a.item_bytes, a.elements, a.rows, true,
                           objection(array, true) == nullptr});
        owners_[id] = array;
    }

    // Memory of the device, which `owner` keeps.
    void bind_device(int id, uintptr_t data, int64_t item_bytes, int64_t elements, int64_t rows,
                     const py::object& owner) {
        const InUse in_use(*this);
        program_.bind(id, {reinterpret_cast<void*>(data), item_bytes, elements, rows, false, true});
        owners_[id] = owner;
    }

    void unbind(int id) {
        const InUse in_use(*this);
        program_.unbind(id);
        owners_.erase(id);
    }

    int64_t wanted(int64_t rows, int64_t batch_size) {
        const InUse in_use(*this);
        const int64_t bytes = program_.wanted(rows, batch_size);
        if (bytes > 0) memory_ = py::none();
        return bytes;
    }

    void lend(uintptr_t memory, const py::object& owner) {
        const InUse in_use(*this);
        program_.lend(reinterpret_cast<void*>(memory));
        memory_ = owner;
    }

    int64_t run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                std::optional<uint64_t> shuffle, uintptr_t stream, bool wait) {
        const InUse in_use(*this);
        for (const auto& [id, owner] : owners_)
            if (shuffle && program_.is_index(id))
                expect(!objection(owner, true), "program",
                       "an index that can be written, to shuffle it");
        // Ctrl-C between steps: what Python's handler raises ends the run.
        const auto poll = [] {
            py::gil_scoped_acquire acquire;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        };
        py::gil_scoped_release release;
        return program_.run(begin, end, batch_size, seconds, shuffle,
                            reinterpret_cast<void*>(stream), wait, poll);
    }

    void set_window(int64_t bytes) {
        const InUse in_use(*this);
        program_.set_window(bytes);
    }
    void profile(bool on) {
        const InUse in_use(*this);
        program_.profile(on);
    }
    int64_t reached() const { return program_.reached(); }
    std::vector<double> seconds() const { return program_.seconds(); }
    int64_t graphs() const { return program_.graphs(); }
    int64_t block_bytes() const { return program_.block_bytes(); }
    int64_t stretch_bytes(int64_t batch_size) const { return program_.stretch_bytes(batch_size); }

 private:
    // Marks the program as busy, as BoundProgram does.
    class InUse {
     public:
        explicit InUse(BoundDeviceProgram& program) : busy_(program.busy_) {
            if (busy_.exchange(true))
                throw std::runtime_error("program: expected one thread at a time, got two");
        }
        ~InUse() { busy_ = false; }

     private:
        std::atomic<bool>& busy_;
    };

    // The last is released first: the program, which waits until the device is done with it all.
    py::object plan_, memory_;
    std::map<int, py::object> owners_;
    std::atomic<bool> busy_{false};
    DeviceProgram program_;
};

}  // namespace

void bind_device_program(py::module_& m) {
    py::class_<BoundDeviceProgram>(m, "DeviceProgram",
                                   "The plan of a Program, carried out on a device: a "
                                   "breadth-first one; or, fused, a depth-first one. DoesNotFit "
                                   "where it cannot be.")
        .def(py::init<const py::object&, const std::string&, int, bool>(), py::arg("plan"),
             py::arg("backend"), py::arg("device"), py::arg("fused") = false)
        .def("bind", &BoundDeviceProgram::bind, py::arg("value"), py::arg("array"))
        .def("bind_device", &BoundDeviceProgram::bind_device, py::arg("value"), py::arg("data"),
             py::arg("item_bytes"), py::arg("elements"), py::arg("rows"), py::arg("owner"))
        .def("unbind", &BoundDeviceProgram::unbind, py::arg("value"))
        .def("wanted", &BoundDeviceProgram::wanted, py::arg("rows"), py::arg("batch_size"),
             "Bytes of device memory that a run needs before it can begin; 0: what was lent will "
             "do.")
        .def("lend", &BoundDeviceProgram::lend, py::arg("memory"), py::arg("owner"))
        .def("run", &BoundDeviceProgram::run, py::arg("begin"), py::arg("end"),
             py::arg("batch_size"), py::arg("seconds"), py::arg("shuffle"), py::arg("stream"),
             py::arg("wait"))
        .def("reached", &BoundDeviceProgram::reached,
             "The row from which a run may go on after a MemoryError.")
        .def("set_window", &BoundDeviceProgram::set_window, py::arg("bytes"),
             "How much of what is on the host goes to the device at a time, at most.")
        .def("profile", &BoundDeviceProgram::profile, py::arg("on"),
             "Whether steps run kernel by kernel and add up the seconds of each node.")
        .def("seconds", &BoundDeviceProgram::seconds)
        .def("block_bytes", &BoundDeviceProgram::block_bytes,
             "Where it is fused: of a block of threads.")
        .def("stretch_bytes", &BoundDeviceProgram::stretch_bytes, py::arg("batch_size"),
             "Where it is fused: of the device's memory.")
        .def("graphs", &BoundDeviceProgram::graphs);
    m.def(
        "free_device_memory",
        [](const std::string& backend, int device) {
            return find_device(backend).free_memory(device);
        },
        py::arg("backend"), py::arg("device"), "Bytes of a device that nobody has allocated.");
}

}  // namespace convkit
