// Devices for Python: loading their libraries, what these say of themselves, and kernels on their
// memory.
#include "device.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <string>
#include <tuple>

#include "array.h"
#include "bind.h"
#include "call.h"

namespace convkit {
namespace {

constexpr const char* kPrecisions[] = {"float32", "tf32", "bf16", "direct"};  // as Precision counts

void set_precision_by_name(const std::string& name) {
    for (int64_t i = 0; i < 4; ++i)
        if (name == kPrecisions[i]) return set_precision(static_cast<Precision>(i));
    fail("precision", "float32, tf32, bf16 or direct");
}

// Name, compute capability, bytes of memory.
using Description = std::tuple<std::string, std::pair<int, int>, int64_t>;

std::vector<Description> describe(const std::string& backend) {
    const Device& device = find_device(backend);
    std::vector<Description> all;
    for (int i = 0; i < device.count(); ++i) {
        const DeviceDescription one = device.describe(i);
        all.emplace_back(one.name, std::pair(one.major, one.minor), one.memory);
    }
    return all;
}

// A stream of the caller's for one call. Workspaces are from the caller's pool, which gives memory
// to nobody else before the stream is done with it.
class CallersQueue final : public Queue {
 public:
    CallersQueue(int on, uintptr_t handle, py::function allocate) : allocate_(std::move(allocate)) {
        device = on;
        stream = reinterpret_cast<void*>(handle);
        precision = queue_precision();
    }

    void* workspace(size_t bytes) override {
        const py::gil_scoped_acquire acquire;
        owners_.append(allocate_(bytes));
        const py::object owner = owners_[owners_.size() - 1];
        return reinterpret_cast<void*>(owner.attr("ptr").cast<uintptr_t>());
    }

 private:
    py::function allocate_;
    py::list owners_;
};

void run_on_device(const std::string& backend, const std::string& kernel, const py::object& spec,
                   int64_t n, const std::string& dtype, const py::object& arguments, int device,
                   uintptr_t stream, py::function allocate) {
    const Device& library = find_device(backend);
    Call call(kernel, spec, n, is_float64(dtype));
    for_each(arguments, [&](py::handle argument) { call.add_on_device(argument); });
    CallersQueue queue(device, stream, std::move(allocate));
    call.run_in(library, queue);
}

// A queue of a device, for memory that no library of arrays looks after. Copies wait until they
// are done.
class DeviceQueue {
 public:
    DeviceQueue(const std::string& backend, int device, uintptr_t stream)
        : library_(find_device(backend)),
          queue_(library_.make_queue(device, reinterpret_cast<void*>(stream))) {}

    uintptr_t stream() const { return reinterpret_cast<uintptr_t>(queue_->stream); }

    void synchronise() {
        const py::gil_scoped_release release;
        library_.synchronise(*queue_);
    }

    // What this queue is given from now on waits for what the other was given until now.
    void wait_for(DeviceQueue& other) {
        const auto event = library_.make_event(other.queue_->device);
        library_.record(*other.queue_, *event);
        library_.wait(*queue_, *event);
    }

    void to_device(uintptr_t to, const py::array& from) {
        if (const char* expected = objection(from, false)) fail("to_device: from", expected);
        const ArrayView array = view(from);
        copy(to, reinterpret_cast<uintptr_t>(array.data), array.elements * array.item_bytes,
             Direction::kToDevice);
    }

    void to_host(const py::array& to, uintptr_t from) {
        if (const char* expected = objection(to, true)) fail("to_host: to", expected);
        const ArrayView array = view(to);
        copy(reinterpret_cast<uintptr_t>(array.data), from, array.elements * array.item_bytes,
             Direction::kToHost);
    }

 private:
    void copy(uintptr_t to, uintptr_t from, int64_t bytes, Direction direction) {
        const py::gil_scoped_release release;
        library_.copy(*queue_, reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from),
                      static_cast<size_t>(bytes), direction);
        library_.synchronise(*queue_);
    }

    const Device& library_;
    std::unique_ptr<Queue> queue_;
};

}  // namespace

void bind_device(py::module_& m) {
    m.def(
        "load_device",
        [](const std::optional<std::string>& path) {
            return std::string(load_device(path.value_or("")).kernels.name);
        },
        py::arg("path") = py::none(),
        "Loads a device's library, the one beside this module unless a path is given, and returns "
        "the name of its backend. RuntimeError, in one sentence, where its kernels cannot run.");
    m.def(
        "describe_device", &describe, py::arg("backend"),
        "Of each device of a library that was loaded: name, compute capability, bytes of memory.");
    m.def(
        "device_blocks", [](const std::string& backend) { return find_device(backend).blocks(); },
        py::arg("backend"),
        "How many blocks of memory the library has allocated and not released.");
    m.def(
        "run_on_device", &run_on_device, py::arg("backend"), py::arg("kernel"), py::arg("spec"),
        py::arg("n"), py::arg("dtype"), py::arg("arguments"), py::arg("device"), py::arg("stream"),
        py::arg("allocate"),
        "Runs a kernel on memory of a device, in a stream that is not null. An argument is "
        "(address, "
        "number of elements, dtype) or None; allocate(bytes) returns an object whose `ptr` is the "
        "address of memory for what the stream does next.");
    m.def(
        "device_allocate",
        [](const std::string& backend, int device, size_t bytes) {
            return reinterpret_cast<uintptr_t>(find_device(backend).allocate(device, bytes));
        },
        py::arg("backend"), py::arg("device"), py::arg("bytes"), "The address of new memory.");
    m.def(
        "device_release",
        [](const std::string& backend, uintptr_t address) {
            find_device(backend).release(reinterpret_cast<void*>(address));
        },
        py::arg("backend"), py::arg("address"));
    py::class_<DeviceQueue>(m, "DeviceQueue")
        .def(py::init<const std::string&, int, uintptr_t>(), py::arg("backend"),
             py::arg("device") = 0, py::arg("stream") = 0,
             "In the caller's stream, or in one of its own where that is null.")
        .def_property_readonly("stream", &DeviceQueue::stream)
        .def("synchronise", &DeviceQueue::synchronise)
        .def("wait_for", &DeviceQueue::wait_for, py::arg("other"))
        .def("to_device", &DeviceQueue::to_device, py::arg("to"), py::arg("array"))
        .def("to_host", &DeviceQueue::to_host, py::arg("array"), py::arg("address"));
    m.def("get_precision",
          [] { return std::string(kPrecisions[static_cast<int64_t>(precision())]); });
    m.def("set_precision", &set_precision_by_name, py::arg("name"));
    m.attr("cuda_built") = access(device_path().c_str(), R_OK) == 0;
}

}  // namespace convkit
