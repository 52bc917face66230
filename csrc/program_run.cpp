#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "backend.h"
#include "float_mode.h"
#include "program.h"
#include "shuffle.h"
#include "threads.h"

namespace convkit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kPollSeconds = 0.05;
constexpr int64_t kMostSamples = int64_t{1} << 40;
// A step that touches less is over before threads are together.
constexpr int64_t kTeamBytes = 1 << 19;
// What a pass of tiles, and a piece of an update, takes at least, in nanoseconds.
constexpr double kPassCost = 20000, kUpdateCost = 3000;
// What an element of a shuffle takes, and how many there are between two looks, some tens of
// milliseconds.
constexpr double kShuffleCost = 12;
constexpr int64_t kShuffled = 1 << 22;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

struct Program::Poll {
    const std::function<void()>& call;
    uint64_t float_mode;  // of the caller
    Clock::time_point last = Clock::now();
    int64_t passes = 8;  // of tiles, that threads go through between two looks

    void operator()() {
        if (seconds_since(last) < kPollSeconds) return;
        const FloatMode mode(float_mode);
        call();
        last = Clock::now();
    }

    // Calls body(begin, end) for pieces of 0 .. count, of at least `least`, with a look before
    // each. An item takes so many passes; pieces become smaller or larger by the time that they
    // take.
    template <class Body>
    void in_pieces(int64_t count, int64_t least, int64_t passes_each, Body body) {
        for (int64_t begin = 0, end = 0; begin < count; begin = end) {
            (*this)();
            end = std::min(begin + std::max(least, passes / passes_each), count);
            const Clock::time_point start = Clock::now();
            body(begin, end);
            const double taken = seconds_since(start);
            if (taken > kPollSeconds && passes > 1) passes /= 2;
            if (taken < kPollSeconds / 4 && (end - begin) * passes_each >= passes) passes *= 2;
        }
    }
};

void Program::profile(bool on) { seconds_.assign(on ? nodes_.size() : 0, 0); }

// The one place where memory safety depends on the numbers in an array: rows to gather.
void Program::check_indices(int64_t begin, int64_t end) const {
    for (const Node& node : nodes_) {
        const Gather* gather = std::get_if<Gather>(&node.spec);
        if (!gather || node.arguments[1] < 0) continue;
        const Value& source = values_[node.arguments[0]];
        const Value& index = values_[node.arguments[1]];
        const auto* rows = reinterpret_cast<const int64_t*>(index.data);
        for (int64_t i = begin; i < end; ++i)
            if (rows[i] < 0 || rows[i] >= source.rows)
                throw std::out_of_range("program: index " + std::to_string(rows[i]) +
                                        " is outside the " + std::to_string(source.rows) +
                                        " rows of its source");
    }
}

std::vector<int> Program::indices() const {
    std::vector<int> found;
    for (const Node& node : nodes_)
        if (std::holds_alternative<Gather>(node.spec) && node.arguments[1] >= 0)
            found.push_back(node.arguments[1]);
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
}

// A permutation of an index's rows is within a source that has as many.
void Program::check_shuffle() const {
    if (indices().empty())
        throw std::invalid_argument("program: expected an index of rows to shuffle, got none");
    for (const Node& node : nodes_) {
        if (!std::holds_alternative<Gather>(node.spec) || node.arguments[1] < 0) continue;
        const int64_t source = values_[node.arguments[0]].rows;
        const int64_t index = values_[node.arguments[1]].rows;
        if (index > source)
            throw std::invalid_argument("program: expected an index of at most the " +
                                        std::to_string(source) + " rows of its source, got " +
                                        std::to_string(index));
    }
}

void Program::shuffle_indices(uint64_t seed, Poll& poll) {
    const Context context{seconds_.empty() ? num_threads() : 1};
    for (int id : indices()) {
        const int64_t rows = values_[id].rows;
        auto* order = reinterpret_cast<int64_t*>(values_[id].data);
        const Shuffle shuffle(rows, seed);
        for (int64_t first = 0; first < rows; first += kShuffled) {
            poll();
            parallel_for(context, std::min(kShuffled, rows - first), kShuffleCost,
                         [&](int64_t begin, int64_t end) {
                             fill_shuffled(shuffle, first + begin, first + end, order);
                         });
        }
    }
}

// Where a value is for the samples from `row` of what is fed. `first` is the first of them in the
// batch, other than 0 only for tiles.
char* Program::address(int id, int64_t row, int64_t first, char* tiles, int64_t slot) const {
    const Value& value = values_[id];
    switch (value.place) {
        case Place::kArena:
            return arena_.get() + value.offset + (value.per_sample ? value.bytes(first) : 0);
        case Place::kTile:
            return tiles + value.offset;
        case Place::kSum:
            return sums_.get() + slot * slot_bytes_ + value.offset;
        case Place::kFed:
            return value.data + value.bytes(row + first);
        case Place::kState:
            break;
    }
    return value.data;
}

void Program::call(const Node& node, const Context& context, int64_t n, void* const* arguments) {
    const auto run = float64_ ? node.kernel->call_float64 : node.kernel->call_float32;
    if (seconds_.empty()) return run(processor_backend(), context, node.spec, n, arguments);
    const Clock::time_point start = Clock::now();
    run(processor_backend(), context, node.spec, n, arguments);
    seconds_[&node - nodes_.data()] += seconds_since(start);
}

// Nodes begin .. end on the samples first .. last of the batch of n, a pass of tiles at a time. The
// first pass begins the slot's sums where these are fresh.
void Program::run_tiles(size_t begin, size_t end, int64_t row, int64_t n, int64_t slot, bool fresh,
                        int64_t first, int64_t last) {
    char* tiles = scratch<char>(kTiles, tile_bytes_);
    if (fresh)
        for (int id : cleared_)
            std::fill_n(address(id, 0, 0, nullptr, slot), values_[id].bytes(1), 0);
    for (; first < last; first += pass(n), fresh = false) {
        const int64_t samples = std::min(pass(n), last - first);
        for (size_t i = begin; i < end; ++i) {
            const Node& node = nodes_[i];
            const Context context{1, first, n, fresh && node.stores};
            void* arguments[kMostArguments];
            for (size_t a = 0; a < node.arguments.size(); ++a)
                arguments[a] = node.arguments[a] < 0
                                   ? nullptr
                                   : address(node.arguments[a], row, first, tiles, slot);
            call(node, context, node.widened ? in_tiles(samples) / kTile : samples, arguments);
        }
    }
}

void Program::run_stretch(size_t begin, size_t end, int64_t row, int64_t n, Poll& poll) {
    const Context context{seconds_.empty() ? num_threads() : 1};
    const int64_t pass = this->pass(n), passes = (n + pass - 1) / pass;
    const int64_t least = 4 * context.threads;  // so that none waits long for the others
    if (slot_bytes_ == 0) {                     // nothing to add up: any thread may take any tile
        poll.in_pieces(passes, least, 1, [&](int64_t from, int64_t to) {
            parallel_for(context, to - from, kPassCost, [&](int64_t b, int64_t e) {
                run_tiles(begin, end, row, n, 0, false, (from + b) * pass,
                          std::min((from + e) * pass, n));
            });
        });
        return;
    }
    const int64_t count = slots(n), longest = (passes + count - 1) / count;
    for (int64_t from = 0, to = 0; from < longest; from = to) {  // these passes of every slot
        to = std::min(from + std::max<int64_t>(1, poll.passes / count), longest);
        poll.in_pieces(count, least, to - from, [&](int64_t some, int64_t more) {
            parallel_for(context, more - some, kPassCost, [&](int64_t b, int64_t e) {
                for (int64_t slot = some + b; slot < some + e; ++slot) {
                    const int64_t first = slot * passes / count + from;
                    const int64_t last = std::min(first - from + to, (slot + 1) * passes / count);
                    run_tiles(begin, end, row, n, slot, from == 0, first * pass,
                              std::min(last * pass, n));
                }
            });
        });
    }
    add_up(totals_, n);
}

// Sums of the slots, in their order, into the first; and the update that waits for it.
void Program::add_up(const std::vector<Update>& updates, int64_t n) {
    if (updates.empty()) return;
    const Context context{seconds_.empty() ? num_threads() : 1};
    parallel_for(context, static_cast<int64_t>(updates.size()), kUpdateCost,
                 [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) add_up(updates[i], n);
                 });
}

void Program::add_up(const Update& update, int64_t n) {
    static const KernelInfo& add = find_kernel("add");
    const Clock::time_point start = Clock::now();
    const Value& sum = values_[update.sum];
    const int64_t size = update.end - update.begin, offset = update.begin * sum.item_bytes;
    const Context context{};
    char* total = address(update.sum, 0, 0, nullptr, 0) + offset;
    for (int64_t slot = 1; slot < slots(n); ++slot) {
        void* const arguments[] = {total, total + slot * slot_bytes_, total};
        (float64_ ? add.call_float64 : add.call_float32)(processor_backend(), context,
                                                         Elementwise{size}, 1, arguments);
    }
    if (update.node < 0) return;
    Node node = nodes_[update.node];
    if (Sgd* sgd = std::get_if<Sgd>(&node.spec)) sgd->size = size;
    if (Adam* adam = std::get_if<Adam>(&node.spec)) adam->size = size;
    void* arguments[kMostArguments];
    for (size_t a = 0; a < node.arguments.size(); ++a) {
        const int id = node.arguments[a];
        arguments[a] = id < 0
                           ? nullptr
                           : address(id, 0, 0, nullptr, 0) + (update.sliced >> a & 1 ? offset : 0);
    }
    (float64_ ? node.kernel->call_float64 : node.kernel->call_float32)(processor_backend(), context,
                                                                       node.spec, 1, arguments);
    if (!seconds_.empty()) seconds_[update.node] += seconds_since(start);
}

void Program::step(int64_t row, int64_t n, Poll& poll) {
    const Context context{seconds_.empty() ? num_threads() : 1, 0, n};
    bool updating = false;
    for (size_t i = 0; i < first_update_; ++i) {
        const Node& node = nodes_[i];
        if (node.tiled) {
            size_t end = i;
            while (end < nodes_.size() && nodes_[end].tiled) ++end;
            run_stretch(i, end, row, n, poll);
            i = end - 1;
            continue;
        }
        void* arguments[kMostArguments];
        for (size_t a = 0; a < node.arguments.size(); ++a) {
            const int id = node.arguments[a];
            arguments[a] = id < 0 ? nullptr : address(id, row, 0, nullptr, 0);
            updating |=
                id >= 0 && values_[id].place == Place::kState && node.kernel->arguments[a].writes;
        }
        if (!updating) poll();
        Context own = context;
        own.kept = node.kept.get();
        call(node, own, node.per_sample ? n : 1, arguments);
    }
    add_up(updates_, n);
}

int64_t Program::run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                     std::optional<uint64_t> shuffle, const std::function<void()>& poll_call) {
    if (begin < 0 || end < begin || end > kMostSamples || batch_size < 1)
        throw std::invalid_argument("program: expected 0 <= begin <= end and batch_size >= 1");
    for (const Value& value : values_) {
        if (value.place != Place::kFed && value.place != Place::kState) continue;
        if (!value.data && value.elements > 0)
            throw std::invalid_argument("program: a value was never bound");
        if (value.place == Place::kFed && value.per_sample && value.rows < end)
            throw std::invalid_argument("program: a fed array has too few rows");
    }
    if (shuffle) check_shuffle();
    const int64_t most = std::min(batch_size, end - begin);
    reserve(most);
    const Clock::time_point start = Clock::now();
    const FloatMode mode(FloatMode::flushing());
    Poll poll{poll_call, mode.before()};
    int64_t row = begin;
    const auto steps = [&] {
        if (shuffle) shuffle_indices(*shuffle, poll);
        while (row < end) {
            const int64_t n = std::min(batch_size, end - row);
            if (!shuffle) check_indices(row, row + n);
            step(row, n, poll);
            row += n;
            if (seconds_since(start) >= seconds) break;
        }
    };
    if (touched_bytes(most) < kTeamBytes || !seconds_.empty()) {
        steps();
    } else {
        with_team(Context{num_threads()}, steps);
    }
    return row;
}

// Of the program's own memory, and of states.
int64_t Program::touched_bytes(int64_t n) const {
    int64_t total = 0;
    for (const Value& value : values_)
        if (value.place != Place::kFed) total += value.bytes(n);
    return total;
}

}  // namespace convkit
