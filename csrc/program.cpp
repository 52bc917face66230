#include "program.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>

#include "backend.h"
#include "threads.h"

namespace convkit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kAlignment = 64;
constexpr double kPollSeconds = 0.05;
// Sizes beyond these are refused, so that no product of them leaves 64 bits.
constexpr int64_t kMostElements = int64_t{1} << 40, kMostSamples = int64_t{1} << 40;
constexpr int64_t kMostBytes = int64_t{1} << 55;
// A step that touches less is over before threads are together.
constexpr int64_t kTeamBytes = 1 << 19;

int64_t round_up(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void bad_argument(const std::string& kernel, const std::string& argument,
                               const std::string& what) {
    throw std::invalid_argument("program: " + kernel + ": " + argument + " " + what);
}

int64_t item_bytes(Element element, bool float64) {
    switch (element) {
        case Element::kReal:
            return float64 ? 8 : 4;
        case Element::kUint8:
            return 1;
        case Element::kInt32:
            return 4;
        case Element::kInt64:
        case Element::kFloat64:
            return 8;
        case Element::kAny:
            break;
    }
    return 0;
}

}  // namespace

struct Program::Poll {
    const std::function<void()>& call;
    Clock::time_point last = Clock::now();

    void operator()() {
        if (seconds_since(last) < kPollSeconds) return;
        call();
        last = Clock::now();
    }
};

void Program::Free::operator()(char* p) const { std::free(p); }

int Program::add_value(Place place, int64_t item_bytes, int64_t elements, bool per_sample) {
    if (item_bytes <= 0 || elements < 0 || elements > kMostElements)
        throw std::invalid_argument("program: expected a size of 0 to 2**40 elements");
    Value value{place, item_bytes, elements, per_sample};
    values_.push_back(value);
    capacity_ = -1;
    return static_cast<int>(values_.size()) - 1;
}

void Program::add_node(const std::string& name, const Spec& spec,
                       const std::vector<int>& arguments) {
    const KernelInfo& kernel = find_kernel(name);
    if (arguments.size() != kernel.arguments.size())
        bad_argument(name, "expected " + std::to_string(kernel.arguments.size()) + " arguments,",
                     "got " + std::to_string(arguments.size()));
    bool per_sample = false;
    for (int id : arguments) {
        if (id >= static_cast<int>(values_.size()) || id < -1)
            bad_argument(name, "an argument", "is no value of this program");
        per_sample |= id >= 0 && values_[id].per_sample;
    }
    // The same for one sample and for two shows whether a value grows with the batch.
    const std::vector<Count> one = kernel.counts(spec, 1);
    const std::vector<Count> two = kernel.counts(spec, per_sample ? 2 : 1);
    for (size_t i = 0; i < arguments.size(); ++i) {
        const Argument& argument = kernel.arguments[i];
        if (arguments[i] < 0) {
            if (!one[i].optional) bad_argument(name, argument.name, "may not be null");
            continue;
        }
        const Value& value = values_[arguments[i]];
        if (one[i].any) {
            // Only a gather has one: from anywhere in a state by an index that is fed and checked
            // before it is read, or from what is fed, row by row.
            const Gather* gather = std::get_if<Gather>(&spec);
            const int index = arguments[i + 1];
            if (!gather || value.item_bytes * value.elements != gather->row_bytes())
                bad_argument(name, argument.name, "has rows of another size");
            if (index < 0 ? value.place != Place::kFed
                          : value.place != Place::kState || values_[index].place != Place::kFed)
                bad_argument(name, argument.name, "and its index are in the wrong place");
            continue;
        }
        if (one[i].inout && value.place != Place::kState)
            bad_argument(name, argument.name, "is updated and must be state");
        if (value.item_bytes != item_bytes(argument.element, float64_))
            bad_argument(name, argument.name, "has elements of another type");
        const int64_t first = value.elements;
        const int64_t second = value.per_sample ? 2 * first : first;
        if (one[i].elements != first || two[i].elements != second)
            bad_argument(name, argument.name,
                         "needs " + std::to_string(one[i].elements) + " elements, has " +
                             std::to_string(first));
    }
    nodes_.push_back({&kernel, spec, arguments, per_sample});
    capacity_ = -1;
}

void Program::bind(int id, void* data, int64_t rows) {
    Value& value = values_.at(id);
    if (value.place == Place::kArena) throw std::invalid_argument("program: cannot bind the arena");
    value.data = static_cast<char*>(data);
    value.rows = rows;
}

// Offsets in the arena: larger values first, each at the lowest place that no value alive at the
// same time covers. An output may take over the memory of an input that dies at the same node.
std::vector<int64_t> Program::place_values(int64_t n, int64_t* total) const {
    const int count = static_cast<int>(values_.size());
    std::vector<int> owner(count), first(count, -1), last(count, -1);
    for (int v = 0; v < count; ++v) owner[v] = v;
    for (int i = 0; i < static_cast<int>(nodes_.size()); ++i)
        for (int v : nodes_[i].arguments) {
            if (v < 0) continue;
            if (first[v] < 0) first[v] = i;
            last[v] = i;
        }
    for (int i = 0; i < static_cast<int>(nodes_.size()); ++i) {
        const Node& node = nodes_[i];
        const std::vector<Count> counts = node.kernel->counts(node.spec, node.per_sample ? n : 1);
        for (size_t a = 0; a < counts.size(); ++a) {
            if (counts[a].overlay < 0) continue;
            const int from = node.arguments[counts[a].overlay], to = node.arguments[a];
            // Not where the same value is another argument too: the kernel would read what it
            // wrote.
            const auto uses = std::count(node.arguments.begin(), node.arguments.end(), from);
            if (values_[from].place != Place::kArena || values_[to].place != Place::kArena ||
                last[from] != i || first[to] != i || uses != 1 ||
                values_[from].bytes(n) != values_[to].bytes(n))
                continue;
            const int root = owner[from];
            // Earlier overlays end here, so the whole chain is dead but for `to`.
            owner[to] = root;
        }
    }
    std::vector<int> begin(count, std::numeric_limits<int>::max()), end(count, -1);
    for (int v = 0; v < count; ++v) {
        if (first[v] < 0) continue;
        begin[owner[v]] = std::min(begin[owner[v]], first[v]);
        end[owner[v]] = std::max(end[owner[v]], last[v]);
    }
    std::vector<int> order;
    for (int v = 0; v < count; ++v)
        if (values_[v].place == Place::kArena && owner[v] == v && first[v] >= 0) order.push_back(v);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return values_[a].bytes(n) > values_[b].bytes(n); });
    std::vector<int64_t> offsets(count, -1);
    std::vector<int> placed;
    *total = 0;
    for (int v : order) {
        const int64_t bytes = round_up(values_[v].bytes(n));
        std::vector<std::pair<int64_t, int64_t>> taken;
        for (int p : placed)
            if (begin[p] <= end[v] && begin[v] <= end[p])
                taken.emplace_back(offsets[p], offsets[p] + round_up(values_[p].bytes(n)));
        std::sort(taken.begin(), taken.end());
        int64_t offset = 0;
        for (const auto& [from, to] : taken) {
            if (offset + bytes <= from) break;
            offset = std::max(offset, to);
        }
        offsets[v] = offset;
        *total = std::max(*total, offset + bytes);
        placed.push_back(v);
    }
    for (int v = 0; v < count; ++v)
        if (values_[v].place == Place::kArena && first[v] >= 0) offsets[v] = offsets[owner[v]];
    return offsets;
}

int64_t Program::arena_bytes(int64_t n) const {
    int64_t total = 0;
    place_values(n, &total);
    return total;
}

int64_t Program::unshared_bytes(int64_t n) const {
    int64_t total = 0;
    for (const Value& value : values_)
        if (value.place == Place::kArena) total += round_up(value.bytes(n));
    return total;
}

void Program::reserve(int64_t n) {
    if (n <= capacity_) return;
    int64_t total = 0;
    const std::vector<int64_t> offsets = place_values(n, &total);
    arena_.reset();
    capacity_ = -1;
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, std::max(total, kAlignment)) != 0)
        throw std::bad_alloc();
    arena_.reset(static_cast<char*>(memory));
    for (size_t v = 0; v < values_.size(); ++v) values_[v].offset = offsets[v];
    capacity_ = n;
}

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

void Program::step(int64_t row, int64_t n, Poll& poll) {
    const KernelTable& table = backend();
    const Context context{num_threads()};
    bool updating = false;
    std::vector<void*> pointers;
    for (const Node& node : nodes_) {
        pointers.clear();
        for (size_t i = 0; i < node.arguments.size(); ++i) {
            const int id = node.arguments[i];
            if (id < 0) {
                pointers.push_back(nullptr);
                continue;
            }
            const Value& value = values_[id];
            char* data = value.place == Place::kArena ? arena_.get() + value.offset : value.data;
            // A fed value moves on with the batch; the source of a gather stays where it is.
            if (value.place == Place::kFed && value.per_sample) data += value.bytes(row);
            pointers.push_back(data);
            updating |= value.place == Place::kState && node.kernel->arguments[i].writes;
        }
        if (!updating) poll();
        (float64_ ? node.kernel->call_float64 : node.kernel->call_float32)(
            table, context, node.spec, node.per_sample ? n : 1, pointers.data());
    }
}

int64_t Program::run(int64_t begin, int64_t end, int64_t batch_size, double seconds,
                     const std::function<void()>& poll_call) {
    if (begin < 0 || end < begin || end > kMostSamples || batch_size < 1)
        throw std::invalid_argument("program: expected 0 <= begin <= end and batch_size >= 1");
    for (const Value& value : values_)
        if (value.elements * value.item_bytes > kMostBytes / std::max<int64_t>(1, end - begin))
            throw std::bad_alloc();
    for (const Value& value : values_) {
        if (value.place == Place::kArena) continue;
        if (!value.data && value.elements > 0)
            throw std::invalid_argument("program: a value was never bound");
        if (value.place == Place::kFed && value.per_sample && value.rows < end)
            throw std::invalid_argument("program: a fed array has too few rows");
    }
    reserve(std::min(batch_size, end - begin));
    const Clock::time_point start = Clock::now();
    Poll poll{poll_call};
    int64_t row = begin;
    const auto steps = [&] {
        while (row < end) {
            const int64_t n = std::min(batch_size, end - row);
            check_indices(row, row + n);
            step(row, n, poll);
            row += n;
            if (seconds_since(start) >= seconds) break;
        }
    };
    const Context context{num_threads()};
    if (touched_bytes(std::min(batch_size, end - begin)) < kTeamBytes) {
        steps();
    } else {
        with_team(context, steps);
    }
    return row;
}

int64_t Program::touched_bytes(int64_t n) const {
    int64_t total = 0;
    for (const Value& value : values_)
        if (value.data == nullptr || value.place == Place::kState) total += value.bytes(n);
    return total;
}

}  // namespace convkit
