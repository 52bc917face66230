#include "device_program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace convkit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMostSamples = int64_t{1} << 40;
constexpr int64_t kBlockAlignment = 256;
// Steps that are recorded into one graph, where there are many to come: a launch of a graph costs
// the host some microseconds, and the device waits for it.
constexpr int64_t kStepsPerGraph = 8;
constexpr size_t kMostRecorded = 64;
// The device has at most two groups of steps to do, each of about so many seconds: so that Ctrl-C
// is soon heeded, and the device never waits.
constexpr double kGroupSeconds = 0.1, kPollSeconds = 0.05;
constexpr int64_t kMostPace = 1 << 16;
// Of a window; two of them are in memory. Large enough for the speed of a copy.
constexpr int64_t kWindowBytes = 16 << 20;
// What a row, and a byte of it, takes to copy, and an element of a shuffle, in nanoseconds.
constexpr double kRowCost = 20, kByteCost = 0.1, kShuffleCost = 12;
constexpr int64_t kShuffled = 1 << 22;

int64_t round_up(int64_t bytes) {
    return (bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void refuse(const std::string& expected) {
    throw std::invalid_argument("program: expected " + expected);
}

void expect(bool ok, const char* what) {
    if (!ok) refuse(what);
}

DeviceProgram::Given nothing() {
    DeviceProgram::Given given;
    given.bound = false;
    return given;
}

bool is_gather(const Node& node) { return std::holds_alternative<Gather>(node.spec); }

}  // namespace

// How far the host may be ahead of the device, and when a run's time is over.
class DeviceProgram::Pace {
 public:
    Pace(DeviceProgram& program, double seconds, const std::function<void()>& poll)
        : program_(program), seconds_(seconds), poll_(poll) {}

    // At most so many steps are to be given at once.
    int64_t most() const { return seconds_ > 0 ? program_.pace_ : 1; }

    // After so many steps were given: waits where the device is behind, and looks for signals.
    // Whether the run's time is over.
    bool given(int64_t steps) {
        given_ += steps;
        if (seconds_ <= 0) {
            program_.library_.synchronise(*program_.queue_);
            look();
            return true;
        }
        if (given_ < program_.pace_) return false;
        given_ = 0;
        std::unique_ptr<Event>& event = program_.paced_[turn_];
        if (!event) event = program_.library_.make_event(program_.device_);
        program_.library_.record(*program_.queue_, *event);
        turn_ ^= 1;
        if (++groups_ > 1) {
            program_.library_.finish(*program_.paced_[turn_]);
            const double taken = seconds_since(last_);
            if (taken > kGroupSeconds && program_.pace_ > 1) program_.pace_ /= 2;
            if (taken < kGroupSeconds / 4 && program_.pace_ < kMostPace) program_.pace_ *= 2;
        }
        last_ = Clock::now();
        look();
        return seconds_since(start_) >= seconds_;
    }

    void look() {
        if (seconds_since(looked_) < kPollSeconds) return;
        poll_();
        looked_ = Clock::now();
    }

 private:
    DeviceProgram& program_;
    const double seconds_;
    const std::function<void()>& poll_;
    const Clock::time_point start_ = Clock::now();
    Clock::time_point last_ = start_, looked_ = start_;
    int64_t given_ = 0, groups_ = 0;
    int turn_ = 0;
};

DeviceProgram::DeviceProgram(const Program& plan, const Device& library, int device, bool fused)
    : plan_(plan),
      library_(library),
      device_(device),
      queue_(library.make_queue(device, nullptr)),
      given_(plan.values().size(), nothing()),
      arena_(plan.values().size(), -1),
      windows_(plan.values().size(), -1),
      addresses_(plan.values().size()),
      window_bytes_(kWindowBytes) {
    if (fused) {
        stretch_plan_ = plan_stretch(plan);
        block_bytes_ = library.make_stretch(device, *stretch_plan_, 1)->block_bytes();
    }
    for (const Node& node : plan.nodes()) expect(fused || !node.tiled, "a breadth-first plan");
    const std::vector<int> indices = plan.indices();
    expect(indices.size() <= 1, "one index of rows at most");
    if (!indices.empty()) index_ = indices[0];
}

DeviceProgram::~DeviceProgram() {
    settle();
    recorded_.clear();
    library_.release_pinned(pinned_);
}

// ---- arrays and memory
// ---------------------------------------------------------------------------

void DeviceProgram::bind(int id, const Given& given) {
    const Value& value = plan_.values().at(id);
    expect(value.place == Place::kFed || value.place == Place::kState,
           "to bind what the program does not make itself");
    unbind(id);
    bool writes = false, source = false, whole = false;
    for (const Node& node : plan_.nodes())
        for (size_t i = 0; i < node.arguments.size(); ++i)
            if (node.arguments[i] == id) {
                writes |= node.kernel->arguments[i].writes;
                const bool any = node.kernel->arguments[i].element == Element::kAny;
                (any ? source : whole) = true;
            }
    const bool in_rows = value.place == Place::kFed || (source && !whole);
    expect(!writes || given.writable, "a writable array");
    expect(given.item_bytes == value.item_bytes, "an array of another dtype");
    expect(given.elements == value.elements * (in_rows ? given.rows : 1),
           "an array of another size");
    expect(id != index_ || given.on_host, "an index in memory of the host");
    expect(!given.on_host || in_rows, "variables in memory of the device");
    given_[id] = given;
    if (!in_rows) given_[id].rows = 1;
}

void DeviceProgram::unbind(int id) {
    given_.at(id) = nothing();
    if (id != index_) return;
    order_there_ = false;
    order_seed_.reset();
}

// Whether a value is on the host and goes to the device (or comes from it) in windows.
bool DeviceProgram::is_window(int id) const {
    return given_[id].bound && given_[id].on_host && id != index_;
}

bool DeviceProgram::waits_on_host() const {
    for (int id = 0; id < static_cast<int>(given_.size()); ++id)
        if (is_window(id)) return true;
    return false;
}

// The rows of a window: of as many steps as fit, at least one.
int64_t DeviceProgram::window_rows(int64_t rows, int64_t batch) const {
    int64_t row_bytes = 0;
    for (int id = 0; id < static_cast<int>(given_.size()); ++id)
        if (is_window(id)) row_bytes += plan_.values()[id].item_bytes * plan_.values()[id].elements;
    const int64_t n = std::min(batch, rows);
    const int64_t steps = window_bytes_ / std::max<int64_t>(1, row_bytes * n);
    return std::min(rows, n * std::max<int64_t>(1, steps));
}

int64_t DeviceProgram::wanted(int64_t rows, int64_t batch) {
    if (rows <= 0 || batch <= 0) return 0;
    bool same = true;
    for (int id = 0; id < static_cast<int>(given_.size()); ++id)
        same &= is_window(id) == (windows_[id] >= 0);
    Size size{std::min(batch, rows), waits_on_host() ? window_rows(rows, batch) : 0, 0};
    if (index_ >= 0) size.order = size.window > 0 ? size.window : given_[index_].rows;
    if (memory_ && same && size.batch <= size_.batch && size.window <= size_.window &&
        size.order <= size_.order)
        return 0;
    plan_.check_size(size.batch);
    if (memory_ && same)
        size = {std::max(size.batch, size_.batch), std::max(size.window, size_.window),
                std::max(size.order, size_.order)};
    asked_ = size;

    int64_t at = 0;
    if (!stretch_plan_) arena_ = plan_.place_values(Place::kArena, size.batch, &at);
    slots_at_ = at = round_up(at);
    slot_bytes_ = 0;
    for (int id = 0; id < static_cast<int>(given_.size()); ++id) {
        windows_[id] = is_window(id) ? slot_bytes_ : -1;
        if (is_window(id))
            slot_bytes_ +=
                round_up(plan_.values()[id].item_bytes * plan_.values()[id].elements * size.window);
    }
    at += kSlots * slot_bytes_;
    order_at_ = at;
    at += round_up(8 * size.order);
    batch_index_at_ = at;
    at += index_ >= 0 ? round_up(8 * size.batch) : 0;
    cursor_at_ = at;
    // What was laid out anew cannot be used with the block from before.
    lend(nullptr);
    return at + kBlockAlignment;
}

void DeviceProgram::lend(void* memory) {
    if (memory_) library_.synchronise(*queue_);
    recorded_.clear();
    memory_ = nullptr;
    order_there_ = false;
    library_.release_pinned(pinned_);
    pinned_ = nullptr;
    if (!memory) return;
    const CurrentDevice current(library_, device_);
    if (slot_bytes_ > 0)
        pinned_ = library_.allocate_pinned(static_cast<size_t>(kSlots * slot_bytes_));
    memory_ = static_cast<char*>(memory);
    size_ = asked_;
}

void DeviceProgram::set_window(int64_t bytes) {
    expect(bytes >= 1, "a window of at least one byte");
    window_bytes_ = bytes;
}

void DeviceProgram::profile(bool on) { seconds_.assign(on ? plan_.nodes().size() : 0, 0); }

int64_t DeviceProgram::stretch_bytes(int64_t batch) const {
    if (!stretch_plan_) return 0;
    return library_.make_stretch(device_, *stretch_plan_, batch)->device_bytes();
}

int64_t DeviceProgram::graphs() const {
    return std::count_if(recorded_.begin(), recorded_.end(),
                         [](const auto& each) { return each.second.graph != nullptr; });
}

// ---- the order of rows
// ---------------------------------------------------------------------------

void DeviceProgram::check_bound(int64_t end) const {
    for (size_t id = 0; id < given_.size(); ++id) {
        const Value& value = plan_.values()[id];
        if (value.place != Place::kFed && value.place != Place::kState) continue;
        expect(given_[id].bound || value.elements == 0, "every value to be bound");
        expect(value.place != Place::kFed || given_[id].rows >= end, "arrays with enough rows");
    }
}

// Gathers are from memory of the device alone or of the host alone; so is all that a Stretch takes
// by rows.
void DeviceProgram::check_sources() const {
    bool device = false, host = false;
    for (size_t id = 0; stretch_plan_ && id < given_.size(); ++id)
        if (plan_.values()[id].place == Place::kFed && static_cast<int>(id) != index_)
            (given_[id].on_host ? host : device) = true;
    for (const Node& node : plan_.nodes())
        if (is_gather(node) && node.arguments[1] >= 0)
            (given_[node.arguments[0]].on_host ? host : device) = true;
    expect(!device || !host, "all that is taken by rows on one side");
}

// The one place where memory safety depends on the numbers in an array.
void DeviceProgram::check_order(int64_t begin, int64_t end) const {
    const auto* rows = static_cast<const int64_t*>(given_[index_].data);
    for (const Node& node : plan_.nodes()) {
        if (!is_gather(node) || node.arguments[1] < 0) continue;
        const int64_t source = given_[node.arguments[0]].rows;
        for (int64_t i = begin; i < end; ++i)
            if (rows[i] < 0 || rows[i] >= source)
                throw std::out_of_range("program: index " + std::to_string(rows[i]) +
                                        " is outside the " + std::to_string(source) +
                                        " rows of its source");
    }
}

// A permutation of an index's rows is within a source that has as many.
void DeviceProgram::check_shuffle() const {
    expect(index_ >= 0, "an index of rows to shuffle, got none");
    const int64_t index = given_[index_].rows;
    for (const Node& node : plan_.nodes()) {
        if (!is_gather(node) || node.arguments[1] < 0) continue;
        const int64_t source = given_[node.arguments[0]].rows;
        if (index > source)
            refuse("an index of at most the " + std::to_string(source) +
                   " rows of its source, got " + std::to_string(index));
    }
}

void DeviceProgram::fill_order_on_host(uint64_t seed, Pace& pace) {
    const int64_t rows = given_[index_].rows;
    auto* order = static_cast<int64_t*>(given_[index_].data);
    const Shuffle shuffle(rows, seed);
    for (int64_t first = 0; first < rows; first += kShuffled) {
        pace.look();
        parallel_for(Context{num_threads()}, std::min(kShuffled, rows - first), kShuffleCost,
                     [&](int64_t begin, int64_t end) {
                         fill_shuffled(shuffle, first + begin, first + end, order);
                     });
    }
}

// In memory of the device: of the whole epoch; or of a window, whose rows are in order already.
void DeviceProgram::prepare_order(std::optional<uint64_t> shuffle) {
    auto* const order = reinterpret_cast<int64_t*>(memory_ + order_at_);
    const int64_t rows = given_[index_].rows;
    if (shuffle) {
        order_seed_ = shuffle;
        order_there_ = false;
    }
    if (order_there_) return;
    if (size_.window > 0) {
        std::vector<int64_t> in_order(static_cast<size_t>(size_.order));
        std::iota(in_order.begin(), in_order.end(), int64_t{0});
        library_.copy(*queue_, order, in_order.data(), in_order.size() * 8, Direction::kToDevice);
    } else if (order_seed_) {
        library_.fill_shuffled(*queue_, Shuffle(rows, *order_seed_), order);
    } else {
        check_order(0, rows);
        library_.copy(*queue_, order, given_[index_].data, static_cast<size_t>(rows) * 8,
                      Direction::kToDevice);
    }
    order_there_ = true;
}

void DeviceProgram::set_cursor(int64_t row) {
    cursor_ = row;
    library_.copy(*queue_, memory_ + cursor_at_, &cursor_, sizeof cursor_, Direction::kToDevice);
}

// ---- steps
// ---------------------------------------------------------------------------------------

// Where a value is for the step that begins at `row` of what is fed, `in_window` of its window.
void* DeviceProgram::address(int id, int64_t row, int64_t in_window, int slot) const {
    const Value& value = plan_.values()[id];
    char* const data = static_cast<char*>(given_[id].data);
    if (value.place == Place::kArena) return memory_ + arena_[id];
    if (id == index_) return memory_ + batch_index_at_;
    if (is_window(id)) {
        char* const window = memory_ + slots_at_ + slot * slot_bytes_ + windows_[id];
        return window + (value.place == Place::kFed ? value.bytes(in_window) : 0);
    }
    return value.place == Place::kFed ? data + value.bytes(row) : data;
}

// Gives one step or several, of the rows row .. end; returns how many steps.
int64_t DeviceProgram::give_steps(int64_t row, int64_t in_window, int slot, int64_t batch,
                                  int64_t end, const Pace& pace) {
    const int64_t n = std::min(batch, end - row);
    const int count = static_cast<int>(addresses_.size());
    bool moves = false;  // whether the next step has other pointers
    key_ = {static_cast<uint64_t>(n), 1, static_cast<uint64_t>(queue_->precision)};
    if (stretch_plan_) {
        prepare_stretch(slot);
        key_.push_back(static_cast<uint64_t>(slot));  // a graph has no other pointers
    }
    for (int id = 0; id < count && !stretch_plan_; ++id) {
        addresses_[id] = address(id, row, in_window, slot);
        const Place place = plan_.values()[id].place;
        moves |= place == Place::kFed && id != index_;
        if (place != Place::kArena) key_.push_back(reinterpret_cast<uintptr_t>(addresses_[id]));
    }
    if (!seconds_.empty()) {
        measure_step(n);
        return 1;
    }
    if (recorded_.size() >= kMostRecorded) forget();
    Recorded& one = recorded_[key_];
    if (one.seen == 0 || (stretch_plan_ && fused_[slot].fresh)) {
        give_step(n);
        one.seen = 1;
        return 1;
    }
    int64_t steps = 1;
    if (!moves && pace.most() >= kStepsPerGraph && (end - row) / n >= 2 * kStepsPerGraph)
        steps = kStepsPerGraph;
    key_[1] = static_cast<uint64_t>(steps);
    Recorded& several = steps > 1 ? recorded_[key_] : one;
    if (!several.graph) {
        library_.begin_graph(*queue_);
        try {
            for (int64_t step = 0; step < steps; ++step) give_step(n);
        } catch (...) {
            library_.abandon_graph(*queue_);
            throw;
        }
        several.graph = library_.end_graph(*queue_);
    }
    library_.replay(*queue_, *several.graph);
    return steps;
}

void DeviceProgram::forget() {
    library_.synchronise(*queue_);
    recorded_.clear();
}

// The Stretch of a slot, as large as it must be and bound to what is bound here.
void DeviceProgram::prepare_stretch(int slot) {
    slot_ = slot;
    Fused& fused = fused_[slot];
    if (fused.most < size_.batch) {
        forget();  // graphs that use the one from before
        fused = {};
        fused.stretch = library_.make_stretch(device_, *stretch_plan_, size_.batch);
        fused.bound.assign(given_.size(), nullptr);
        fused.most = size_.batch;
    }
    for (int id = 0; id < static_cast<int>(given_.size()); ++id) {
        if (!given_[id].bound) continue;
        // The cursor tells how far it is from there.
        void* const begin = id == index_ ? memory_ + order_at_ : address(id, 0, 0, slot);
        if (fused.bound[id] == begin) continue;
        fused.stretch->bind(id, begin);
        fused.bound[id] = begin;
        fused.fresh = true;
    }
}

// All of a step's work, in the queue.
void DeviceProgram::give_step(int64_t n) {
    if (stretch_plan_) {
        fused_[slot_].stretch->run(*queue_, n, 0, reinterpret_cast<int64_t*>(memory_ + cursor_at_));
        fused_[slot_].fresh = false;
        return;
    }
    take_rows(n);
    for (size_t node = 0; node < plan_.nodes().size();) node = give_node(node, n);
}

void DeviceProgram::take_rows(int64_t n) {
    if (index_ < 0) return;
    library_.take_rows(*queue_, reinterpret_cast<int64_t*>(memory_ + order_at_),
                       reinterpret_cast<int64_t*>(memory_ + cursor_at_), n,
                       reinterpret_cast<int64_t*>(memory_ + batch_index_at_));
}

// One node, or several that are one piece of work; returns the node that comes next.
size_t DeviceProgram::give_node(size_t index, int64_t n) {
    const Node& node = plan_.nodes()[index];
    void* arguments[kMostArguments];
    for (size_t i = 0; i < node.arguments.size(); ++i)
        arguments[i] = node.arguments[i] < 0 ? nullptr : addresses_[node.arguments[i]];
    Context context;
    context.batch = n;
    context.queue = queue_.get();
    (plan_.float64() ? node.kernel->call_float64 : node.kernel->call_float32)(
        library_.kernels, context, node.spec, node.per_sample ? n : 1, arguments);
    return index + 1;
}

void DeviceProgram::measure_step(int64_t n) {
    const size_t nodes = stretch_plan_ ? 1 : plan_.nodes().size();
    while (marks_.size() <= nodes) marks_.push_back(library_.make_event(device_));
    std::vector<size_t> next(nodes, nodes);
    if (stretch_plan_) {
        library_.record(*queue_, *marks_[0]);
        give_step(n);
    } else {
        take_rows(n);
        for (size_t node = 0; node < nodes; node = next[node]) {
            library_.record(*queue_, *marks_[node]);
            next[node] = give_node(node, n);
        }
    }
    library_.record(*queue_, *marks_[nodes]);
    library_.synchronise(*queue_);
    for (size_t node = 0; node < nodes; node = next[node])
        seconds_[node] += library_.seconds(*marks_[node], *marks_[next[node]]);
}

// ---- windows
// -------------------------------------------------------------------------------------

// Rows of what is on the host into pinned memory and on to the device.
void DeviceProgram::send_window(int slot, int64_t row, int64_t rows) {
    const Context context{num_threads()};
    const auto* order = index_ < 0 ? nullptr : static_cast<const int64_t*>(given_[index_].data);
    if (order) check_order(row, row + rows);
    if (!copies_) copies_ = library_.make_queue(device_, nullptr);
    for (int id = 0; id < static_cast<int>(given_.size()); ++id) {
        const Value& value = plan_.values()[id];
        if (!is_window(id) || value.made) continue;
        const int64_t bytes = value.item_bytes * value.elements;
        const auto* from = static_cast<const char*>(given_[id].data);
        const int64_t at = slot * slot_bytes_ + windows_[id];
        char* const to = static_cast<char*>(pinned_) + at;
        const bool gathered = value.place == Place::kState;
        parallel_for(context, rows, kRowCost + kByteCost * static_cast<double>(bytes),
                     [&](int64_t begin, int64_t end) {
                         if (!gathered) {
                             std::memcpy(to + begin * bytes, from + (row + begin) * bytes,
                                         static_cast<size_t>((end - begin) * bytes));
                             return;
                         }
                         for (int64_t i = begin; i < end; ++i)
                             std::memcpy(to + i * bytes, from + order[row + i] * bytes,
                                         static_cast<size_t>(bytes));
                     });
        library_.copy(*copies_, memory_ + slots_at_ + at, to, static_cast<size_t>(rows * bytes),
                      Direction::kToDevice);
    }
    if (!copied_[slot]) copied_[slot] = library_.make_event(device_);
    library_.record(*copies_, *copied_[slot]);
    library_.wait(*queue_, *copied_[slot]);
}

// Results of a window into pinned memory, and the moment at which all of it is done.
void DeviceProgram::receive_window(int slot, int64_t row, int64_t rows) {
    for (int id = 0; id < static_cast<int>(given_.size()); ++id) {
        const Value& value = plan_.values()[id];
        if (!is_window(id) || !value.made) continue;
        const int64_t at = slot * slot_bytes_ + windows_[id];
        library_.copy(*queue_, static_cast<char*>(pinned_) + at, memory_ + slots_at_ + at,
                      static_cast<size_t>(value.bytes(rows)), Direction::kToHost);
    }
    if (!computed_[slot]) computed_[slot] = library_.make_event(device_);
    library_.record(*queue_, *computed_[slot]);
    in_slot_[slot] = {true, row, rows};
}

// Waits until a slot is free, and takes its results.
void DeviceProgram::take_window(int slot) {
    if (!in_slot_[slot].used) return;
    library_.finish(*computed_[slot]);
    for (int id = 0; id < static_cast<int>(given_.size()); ++id) {
        const Value& value = plan_.values()[id];
        if (!is_window(id) || !value.made) continue;
        const char* from = static_cast<char*>(pinned_) + slot * slot_bytes_ + windows_[id];
        std::memcpy(static_cast<char*>(given_[id].data) + value.bytes(in_slot_[slot].row), from,
                    static_cast<size_t>(value.bytes(in_slot_[slot].rows)));
    }
    in_slot_[slot].used = false;
}

int64_t DeviceProgram::run_windows(int64_t begin, int64_t end, int64_t batch, int64_t window,
                                   Pace& pace) {
    int64_t row = begin;
    bool over = false;
    bool results = false;  // which an error leaves in their windows
    for (int id = 0; id < static_cast<int>(given_.size()); ++id)
        results |= is_window(id) && plan_.values()[id].made;
    for (int slot = 0; row < end && !over; slot = (slot + 1) % kSlots) {
        const int64_t first = row, last = std::min(row + window, end);
        take_window(slot);
        pace.look();
        send_window(slot, first, last - first);
        if (index_ >= 0 || stretch_plan_) set_cursor(0);
        while (row < last && !over) {
            const int64_t steps = give_steps(row, row - first, slot, batch, last, pace);
            row = std::min(row + steps * batch, last);
            if (!results) reached_ = row;
            over = pace.given(steps);
        }
        receive_window(slot, first, row - first);
    }
    for (int slot = 0; slot < kSlots; ++slot) take_window(slot);
    return row;
}

// ---- runs
// ----------------------------------------------------------------------------------------

// After an error: nothing is left to do, and nobody waits for a window.
void DeviceProgram::settle() noexcept {
    for (Window& window : in_slot_) window.used = false;
    for (Queue* queue : {copies_.get(), queue_.get()}) {
        try {
            if (queue) library_.synchronise(*queue);
        } catch (const std::exception&) {  // what failed first is what is reported
        }
    }
}

int64_t DeviceProgram::run(int64_t begin, int64_t end, int64_t batch, double seconds,
                           std::optional<uint64_t> shuffle, void* stream, bool wait,
                           const std::function<void()>& poll) {
    expect(begin >= 0 && end >= begin && end <= kMostSamples && batch >= 1,
           "0 <= begin <= end and batch_size >= 1");
    reached_ = begin;
    check_bound(end);
    if (shuffle) check_shuffle();
    check_sources();
    if (begin == end) return end;
    const bool on_host = waits_on_host();
    // One step at a time, a window of many would be gathered in vain.
    const int64_t rows = seconds > 0 ? end - begin : std::min(batch, end - begin);
    expect(wanted(rows, batch) == 0, "enough memory of the device");
    const CurrentDevice current(library_, device_);
    queue_->precision = queue_precision();
    Pace pace(*this, seconds, poll);
    try {
        library_.follow(*queue_, stream);
        int64_t row = begin;
        if (on_host) {
            if (shuffle) fill_order_on_host(*shuffle, pace);
            if (index_ >= 0) prepare_order({});
            row = run_windows(begin, end, batch, window_rows(rows, batch), pace);
        } else {
            if (index_ >= 0) prepare_order(shuffle);
            if (index_ >= 0 || stretch_plan_) set_cursor(begin);
            for (bool over = false; row < end && !over;) {
                const int64_t steps = give_steps(row, 0, 0, batch, end, pace);
                row = reached_ = std::min(row + steps * batch, end);
                over = pace.given(steps);
            }
        }
        if (wait) {
            library_.synchronise(*queue_);
        } else {
            library_.lead(*queue_, stream);
        }
        return row;
    } catch (...) {
        settle();
        throw;
    }
}

}  // namespace convkit
