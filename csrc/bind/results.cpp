// Memory of large results. New pages cost more than most kernels that fill them: the system clears
// each of them first, at a few GB/s. So what large results had is kept, within bounds, when they
// are gone, and serves the next ones.
//
// NumPy asks for it by a handler (NEP 49), so that such a result owns its memory and can be resized
// as any other array.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "bind.h"

namespace py = pybind11;

namespace convkit {
namespace {

constexpr size_t kLeast = size_t{1} << 20;       // smaller results are NumPy's own
constexpr size_t kMostKept = size_t{256} << 20;  // of what is free, in all
constexpr size_t kHugePage = size_t{2} << 20, kWorthHugePages = size_t{4} << 20;

// What stands before a block, whose values begin on a cache line of their own.
struct alignas(64) Header {
    size_t bytes;  // with the header
};

size_t rounded(size_t bytes) {
    const auto whole = [&](size_t step) { return (bytes + step - 1) / step * step; };
    // Huge pages to the end, unless much of the last would be idle.
    const size_t huge = whole(kHugePage);
    const bool fills = bytes >= kWorthHugePages && huge - bytes <= bytes / 8;
    return fills ? huge : whole(size_t{64} << 10);
}

Header* make(size_t bytes) {
    const bool huge = bytes >= kWorthHugePages;
    void* memory = nullptr;
    if (posix_memalign(&memory, huge ? kHugePage : 4096, bytes) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
    if (huge) madvise(memory, bytes, MADV_HUGEPAGE);  // what it refuses works all the same
#endif
    return new (memory) Header{bytes};
}

// Blocks that are free, the oldest first.
class FreeBlocks {
 public:
    // A block of at least so many bytes, a new one if need be; null where there is no memory.
    Header* take(size_t bytes) {
        const size_t wanted = rounded(bytes);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            auto best = blocks_.end();
            for (auto b = blocks_.begin(); b != blocks_.end(); ++b) {
                const size_t size = (*b)->bytes;
                // Not one that is much too large, for a larger result to come.
                if (size < wanted || size - wanted > wanted / 4) continue;
                if (best == blocks_.end() || size <= (*best)->bytes) best = b;
            }
            if (best != blocks_.end()) {
                Header* const block = *best;
                blocks_.erase(best);
                bytes_ -= block->bytes;
                return block;
            }
        }
        Header* const made = make(wanted);
        if (made) return made;
        release();
        return make(wanted);
    }

    void give(Header* block) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (closed_ || block->bytes > kMostKept) return std::free(block);
        bytes_ += block->bytes;
        blocks_.push_back(block);
        auto first = blocks_.begin();
        while (bytes_ > kMostKept) {
            bytes_ -= (*first)->bytes;
            std::free(*first++);
        }
        blocks_.erase(blocks_.begin(), first);
    }

    void release() {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (Header* block : blocks_) std::free(block);
        blocks_.clear();
        bytes_ = 0;
    }

    // From now on what is given back is freed at once.
    void close() {
        release();
        closed_ = true;
    }

    size_t bytes() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return bytes_;
    }

 private:
    std::mutex mutex_;
    std::vector<Header*> blocks_;
    size_t bytes_ = 0;
    bool closed_ = false;
};

// Never destroyed: arrays may outlive it.
FreeBlocks& free_blocks() {
    static FreeBlocks* const all = new FreeBlocks;
    return *all;
}

// ---- NumPy's handler ----------------------------------------------------------------------------
void* take(void*, size_t bytes) {
    Header* const block =
        bytes > SIZE_MAX / 2 ? nullptr : free_blocks().take(bytes + sizeof(Header));
    return block ? block + 1 : nullptr;
}

void give(void*, void* values, size_t) {
    if (values) free_blocks().give(static_cast<Header*>(values) - 1);
}

void* take_zeros(void*, size_t count, size_t size) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
    void* const values = take(nullptr, bytes);
    if (values) std::memset(values, 0, bytes);
    return values;
}

void* resize(void*, void* values, size_t bytes) {
    void* const made = take(nullptr, bytes);
    if (!made || !values) return made;
    const size_t held = (static_cast<Header*>(values) - 1)->bytes - sizeof(Header);
    std::memcpy(made, values, std::min(held, bytes));
    give(nullptr, values, held);
    return made;
}

// PyDataMem_Handler of numpy/ndarraytypes.h, version 1.
struct DataMemory {
    char name[127];
    uint8_t version;
    void* context;
    void* (*allocate)(void*, size_t);
    void* (*allocate_zeros)(void*, size_t, size_t);
    void* (*reallocate)(void*, void*, size_t);
    void (*release)(void*, void*, size_t);
};

struct Handlers {
    PyObject* (*set)(PyObject*);  // PyDataMem_SetHandler, which returns the one before
    PyObject* numpys;             // PyDataMem_DefaultHandler
    PyObject* ours;
};

const Handlers& handlers() {
    static DataMemory memory{"convkit", 1, nullptr, take, take_zeros, resize, give};
    static const Handlers* const found = [] {
        const auto numpy = py::detail::import_numpy_core_submodule("multiarray");
        const auto capsule = numpy.attr("_ARRAY_API");
        void** const api = static_cast<void**>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
        if (!api) throw py::error_already_set();
        PyObject* const ours = PyCapsule_New(&memory, "mem_handler", nullptr);
        if (!ours) throw py::error_already_set();
        return new Handlers{reinterpret_cast<PyObject* (*)(PyObject*)>(api[304]),
                            *static_cast<PyObject**>(api[306]), ours};
    }();
    return *found;
}

// While this lives, arrays that this thread makes take their memory here; not where somebody has
// given NumPy a handler of theirs.
class OurMemory {
 public:
    OurMemory() : before_(handlers().set(handlers().ours)) {
        if (!before_) throw py::error_already_set();
        if (before_ != handlers().numpys) put_back();
    }
    ~OurMemory() {
        if (before_) put_back();
    }
    OurMemory(const OurMemory&) = delete;
    OurMemory& operator=(const OurMemory&) = delete;

 private:
    void put_back() {
        PyObject* const ours = handlers().set(before_);
        if (!ours) PyErr_Clear();
        Py_XDECREF(ours);
        Py_CLEAR(before_);
    }

    PyObject* before_;
};

// By NumPy's own function: pybind11's constructor works out strides first, which takes as long as a
// short kernel.
py::object make_array(int type, int axes, const Py_intptr_t* sizes) {
    auto& numpy = py::detail::npy_api::get();
    // A new reference, which the next call takes over.
    PyObject* const dtype = numpy.PyArray_DescrFromType_(type);
    PyObject* const made = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, dtype, axes, sizes,
                                                       nullptr, nullptr, 0, nullptr);
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
}

}  // namespace

py::object new_array(int type, int axes, const Py_intptr_t* sizes) {
    double bytes = type == py::detail::npy_api::NPY_DOUBLE_ ? 8 : 4;
    for (int k = 0; k < axes; ++k) bytes *= static_cast<double>(sizes[k]);
    if (bytes < static_cast<double>(kLeast)) return make_array(type, axes, sizes);
    const OurMemory memory;
    return make_array(type, axes, sizes);
}

void bind_results(py::module_& m) {
    m.def(
        "kept_memory", [] { return free_blocks().bytes(); },
        "Bytes that large results had and the next ones will have.");
    m.def("release_memory", [] { free_blocks().release(); }, "Gives those back to the system.");
    py::module_::import("atexit").attr("register")(py::cpp_function([] { free_blocks().close(); }));
}

}  // namespace convkit
