#include "recipe.h"

#include <optional>

#include "array.h"
#include "backend.h"
#include "bind.h"
#include "device.h"
#include "threads.h"

namespace convkit {
namespace {

thread_local Trace* active_trace = nullptr;

// In arrays that a call makes. A trace and a replay keep them until its end, others may free them
// before; and with so much to do it makes no difference that Python is slow.
constexpr int64_t kMostBytes = 64 << 20;

// References to all arrays of a call, until it ends.
struct Held {
    PyObject* items[2 * kMostArrays];
    size_t count = 0;

    Held() = default;
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    ~Held() {
        for (size_t i = 0; i < count; ++i) Py_DECREF(items[i]);
    }
    void take(py::object object) { items[count++] = object.release().ptr(); }
};

int64_t elements(py::handle array) {
    const auto* f = fields(array);
    int64_t product = 1;
    for (int axis = 0; axis < f->nd; ++axis) product *= f->dimensions[axis];
    return product;
}

int64_t bytes(py::handle array) {
    return elements(array) * py::reinterpret_borrow<py::array>(array).itemsize();
}

bool overlap(py::handle a, py::handle b) {
    const auto end = [](py::handle array) { return fields(array)->data + bytes(array); };
    return a.ptr() != b.ptr() && fields(a)->data < end(b) && fields(b)->data < end(a);
}

bool writes(const Trace::Step& step, size_t argument) {
    return step.kernel ? step.kernel->arguments[argument].writes : argument == 1;
}

bool reads(const Trace::Step& step, const std::vector<int>& places, int place) {
    for (size_t k = 0; k < places.size(); ++k)
        if (places[k] == place && !writes(step, k)) return true;
    return false;
}

// A question about the spec alone, such as which algorithm it is: the answer goes to Python.
bool only_asks(const Trace::Step& step) {
    for (size_t k = 0; k < step.arguments.size(); ++k)
        if (!writes(step, k)) return false;
    return !step.arguments.empty();
}

bool is_large(const Trace::Step& step) {
    int64_t total = 0;
    for (const py::object& argument : step.arguments)
        if (!argument.is_none()) total += elements(argument);
    return total >= kWorthReleasing;
}

}  // namespace

bool any_overlap(const GivenArrays& given) {
    for (size_t i = 0; i < given.count; ++i)
        for (size_t j = 0; j < i; ++j)
            if (overlap(given.items[i], given.items[j])) return true;
    return false;
}

Trace::Trace() { active_trace = this; }
Trace::~Trace() { active_trace = nullptr; }
Trace* Trace::active() { return active_trace; }

void Trace::add_made(py::object array) {
    bytes_ += bytes(array);
    complete_ = complete_ && bytes_ <= kMostBytes && made_.size() < kMostArrays;
    if (complete_) {
        made_.push_back(std::move(array));
    } else {
        steps_.clear();
        made_.clear();
    }
}

void Trace::add(Step step) {
    if (complete_) steps_.push_back(std::move(step));
}

std::unique_ptr<const Recipe> Recipe::from(const Trace& trace, const GivenArrays& given,
                                           py::handle result) {
    constexpr int kNone = -1, kUnknown = -2;
    const int first_made = static_cast<int>(given.count);
    if (!trace.complete()) return nullptr;
    const auto place_of = [&](py::handle array) {
        if (array.is_none()) return kNone;
        for (int i = 0; i < first_made; ++i)
            if (given.items[i] == array.ptr()) return i;
        for (size_t i = 0; i < trace.made().size(); ++i)
            if (trace.made()[i].is(array)) return first_made + static_cast<int>(i);
        return kUnknown;
    };

    auto recipe = std::make_unique<Recipe>();
    bool written[2 * kMostArrays] = {}, twice[2 * kMostArrays] = {};
    int returned[2 * kMostArrays] = {};
    for (const Trace::Step& step : trace.steps()) {
        if (only_asks(step) && place_of(step.arguments[0]) == kUnknown) continue;
        Step copy{step.kernel, step.spec, step.n, step.float64, {}};
        for (size_t k = 0; k < step.arguments.size(); ++k) {
            const int place = place_of(step.arguments[k]);
            if (place == kUnknown) return nullptr;
            if (place >= first_made && !writes(step, k) && !written[place]) return nullptr;
            copy.arguments.push_back(place);
        }
        for (size_t k = 0; k < step.arguments.size(); ++k) {
            const int place = copy.arguments[k];
            if (place == kNone || !writes(step, k)) continue;
            // What a kernel changes in place is its own work and that of the kernel before.
            twice[place] |= written[place] && !reads(step, copy.arguments, place);
            written[place] = true;
        }
        recipe->steps_.push_back(std::move(copy));
        recipe->worth_releasing_ |= is_large(step);
    }

    recipe->tuple_ = PyTuple_CheckExact(result.ptr());
    const size_t count = recipe->tuple_ ? PyTuple_GET_SIZE(result.ptr()) : 1;
    for (size_t i = 0; i < count; ++i) {
        const int place =
            place_of(recipe->tuple_ ? PyTuple_GET_ITEM(result.ptr(), i) : result.ptr());
        if (place == kUnknown || (place != kNone && !written[place])) return nullptr;
        if (place != kNone) ++returned[place];
        recipe->results_.push_back(place);
    }
    // Whatever else is written to an argument, by NumPy, leaves no trace. An argument that is
    // written once, and then at most changed in place, and that comes back once is all the work of
    // kernels.
    for (int i = 0; i < first_made; ++i) {
        if (!written[i]) continue;
        if (twice[i] || returned[i] != 1) return nullptr;
        recipe->written_.push_back(i);
    }
    for (const py::object& array : trace.made()) {
        const auto* f = fields(array);
        recipe->made_.push_back(
            {dtype_fields(array)->type_num, {f->dimensions, f->dimensions + f->nd}});
    }
    return recipe;
}

bool Recipe::may_write(const GivenArrays& given) const {
    for (const int place : written_) {
        const py::handle out = given.items[place];
        if (objection(out, true)) return false;
        for (size_t i = 0; i < given.count; ++i)
            if (overlap(out, given.items[i])) return false;
    }
    return true;
}

bool Recipe::run_steps(const KernelTable& table, PyObject* const* arrays) const {
    const Context context{num_threads()};
    for (const Step& step : steps_) {
        void* pointers[kMostArguments];
        for (size_t k = 0; k < step.arguments.size(); ++k) {
            const int place = step.arguments[k];
            pointers[k] = place < 0 ? nullptr : fields(arrays[place])->data;
        }
        if (step.kernel) {
            const auto call = step.float64 ? step.kernel->call_float64 : step.kernel->call_float32;
            call(table, context, step.spec, step.n, pointers);
        } else {
            const py::handle source = arrays[step.arguments[0]];
            if (!narrow_labels(dtype_fields(source)->type_num, pointers[0], elements(source),
                               step.n, static_cast<int32_t*>(pointers[1])))
                return false;
        }
    }
    return true;
}

py::object Recipe::run(const GivenArrays& given) const {
    const KernelTable& table = backend();
    if (device_of(table) || (!written_.empty() && !may_write(given))) return {};
    Held held;
    for (size_t i = 0; i < given.count; ++i)
        held.take(py::reinterpret_borrow<py::object>(given.items[i]));
    for (const Made& made : made_)
        held.take(new_array(made.type, static_cast<int>(made.sizes.size()), made.sizes.data()));
    {
        std::optional<py::gil_scoped_release> release;
        if (worth_releasing_) release.emplace();
        if (!run_steps(table, held.items)) return {};
    }

    const auto result = [&](size_t i) {
        const int place = results_[i];
        return py::reinterpret_borrow<py::object>(place < 0 ? Py_None : held.items[place]);
    };
    if (!tuple_) return result(0);
    py::tuple results(results_.size());
    for (size_t i = 0; i < results_.size(); ++i)
        PyTuple_SET_ITEM(results.ptr(), i, result(i).release().ptr());
    return std::move(results);
}

}  // namespace convkit
