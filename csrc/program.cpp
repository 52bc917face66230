#include "program.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace convkit {
namespace {

// Sizes beyond these are refused, so that no product of them leaves 64 bits.
constexpr int64_t kMostElements = int64_t{1} << 40, kMostBytes = int64_t{1} << 55;
constexpr int64_t kMostTilesAtOnce = 64;
// Elements of a gradient that a thread adds up and applies at a time.
constexpr int64_t kPiece = 4096;
// The tiles of a batch are cut into so many slots at most; each sums up gradients of its own.
// At least 4 where a batch is large enough, but 2 where their sums would crowd out a core's cache.
constexpr int64_t kLeastSlots = 4, kLeastLargeSlots = 2, kLargeSlot = 1 << 19;
constexpr int64_t kMostSlots = 32, kTilesPerSlot = 4;

int64_t round_up(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

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

// Whether a kernel for tiles takes an argument as rows of the batch.
bool in_rows(const KernelInfo& kernel, const Argument& argument) {
    return argument.name == "index" || (kernel.name == "untile" && argument.name == "y");
}

bool made_for_tiles(const KernelInfo& kernel) {
    return kernel.name.rfind("tile_", 0) == 0 || kernel.name == "untile";
}

}  // namespace

int Program::add_value(Place place, int64_t item_bytes, int64_t elements, bool per_sample) {
    if (item_bytes < 1 || item_bytes > 8 || elements < 0 || elements > kMostElements)
        throw std::invalid_argument(
            "program: expected a size of 0 to 2**40 elements of 1 to 8 bytes");
    values_.push_back({place, item_bytes, elements, per_sample});
    if (place == Place::kSum) {
        values_.back().offset = slot_bytes_;
        slot_bytes_ += round_up(values_.back().bytes(1));
    }
    capacity_ = -1;
    return static_cast<int>(values_.size()) - 1;
}

void Program::add_node(const std::string& name, const Spec& spec, const std::vector<int>& arguments,
                       bool tiled) {
    const KernelInfo& kernel = find_kernel(name);
    if (arguments.size() != kernel.arguments.size())
        bad_argument(name, "expected " + std::to_string(kernel.arguments.size()) + " arguments,",
                     "got " + std::to_string(arguments.size()));
    Node node{&kernel, spec, arguments, false, tiled, tiled && !made_for_tiles(kernel)};
    if (made_for_tiles(kernel) && !tiled) bad_argument(name, "a kernel for tiles", "in no stretch");
    if (node.widened && !in_lanes(node.spec)) bad_argument(name, "no kernel", "for tiles");
    // The tiles of one stretch are gone when the next begins, and so are its sums.
    if (tiled && !nodes_.empty() && !nodes_.back().tiled &&
        std::any_of(nodes_.begin(), nodes_.end(), [](const Node& other) { return other.tiled; }))
        bad_argument(name, "a second stretch", "in one program");
    for (int id : arguments) {
        if (id >= static_cast<int>(values_.size()) || id < -1)
            bad_argument(name, "an argument", "is no value of this program");
        node.per_sample |= id >= 0 && values_[id].per_sample;
    }
    // The same for one sample (or tile) and for two shows whether a value grows with the batch.
    const int64_t unit = tiled && !node.widened ? kTile : 1;
    const int64_t samples = tiled ? kTile : 1;
    const std::vector<Count> one = kernel.counts(node.spec, unit);
    const std::vector<Count> two = kernel.counts(node.spec, node.per_sample ? 2 * unit : unit);
    for (size_t i = 0; i < arguments.size(); ++i) {
        const Argument& argument = kernel.arguments[i];
        if (arguments[i] < 0) {
            if (!one[i].optional) bad_argument(name, argument.name, "may not be null");
            continue;
        }
        const Value& value = values_[arguments[i]];
        const bool ours = value.place != Place::kFed && value.place != Place::kState;
        const bool summed = value.place == Place::kSum;
        // What is bound was checked against the nodes that were there.
        if (value.data) bad_argument(name, argument.name, "is bound already");
        if (ours && !value.made && !argument.writes)
            bad_argument(name, argument.name, "is read before it is made");
        if (one[i].any) {
            // Only a gather has one: from anywhere in a state by an index that is fed and checked
            // before it is read, or row by row from what is fed or made before.
            const Gather* gather = std::get_if<Gather>(&spec);
            const int index = arguments[i + 1];
            if (!gather || value.item_bytes * value.elements != gather->row_bytes())
                bad_argument(name, argument.name, "has rows of another size");
            const bool rows = value.place == Place::kFed ||
                              (tiled && value.place == Place::kArena && value.per_sample);
            if (index < 0 ? !rows
                          : value.place != Place::kState || values_[index].place != Place::kFed)
                bad_argument(name, argument.name, "and its index are in the wrong place");
            continue;
        }
        if (one[i].inout && value.place != Place::kState && !(tiled && summed))
            bad_argument(name, argument.name, "is updated and must be state");
        if (summed && argument.writes && !(tiled && one[i].inout))
            bad_argument(name, argument.name, "is a sum and can only be added to");
        if (tiled && summed && !argument.writes)
            bad_argument(name, argument.name, "is a sum that is not whole yet");
        if (tiled && argument.writes && !summed && !value.per_sample)
            bad_argument(name, argument.name, "would be written by many threads");
        const bool of_tile = tiled && !in_rows(kernel, argument);
        if (value.per_sample && (value.place == Place::kTile) != of_tile)
            bad_argument(name, argument.name, "is in the wrong place");
        if (value.item_bytes != item_bytes(argument.element, float64_))
            bad_argument(name, argument.name, "has elements of another type");
        const int64_t first = value.per_sample ? samples * value.elements : value.elements;
        const int64_t second = value.per_sample ? 2 * first : first;
        if (one[i].elements != first || two[i].elements != second)
            bad_argument(name, argument.name,
                         "needs " + std::to_string(one[i].elements) + " elements, has " +
                             std::to_string(first));
    }
    for (size_t i = 0; i < arguments.size(); ++i)
        if (arguments[i] >= 0 && kernel.arguments[i].writes) values_[arguments[i]].made = true;
    nodes_.push_back(std::move(node));
    capacity_ = -1;
}

void Program::set_tiles_at_once(int64_t tiles) {
    if (tiles < 1 || tiles > kMostTilesAtOnce)
        throw std::invalid_argument("program: expected 1 to 64 tiles");
    tiles_at_once_ = tiles;
    capacity_ = -1;
}

void Program::bind(int id, void* data, int64_t rows) {
    Value& value = values_.at(id);
    if (value.place != Place::kFed && value.place != Place::kState)
        throw std::invalid_argument("program: cannot bind what the program makes itself");
    value.data = static_cast<char*>(data);
    value.rows = rows;
}

void Program::keep_weights(int index) {
    Node& node = nodes_.at(index);
    for (int id : node.arguments)
        if (id >= 0 && values_[id].place == Place::kState && values_[id].made)
            bad_argument(node.kernel->name, "a state", "is written");
    node.kept = std::make_shared<Kept>();
}

void Program::weights_changed() const {
    for (const Node& node : nodes_)
        if (node.kept) node.kept->renew();
}

// Offsets in one kind of memory: larger values first, each at the lowest place that no value alive
// at the same time covers. An output may take over the memory of an input that dies at the same
// node.
std::vector<int64_t> Program::place_values(Place place, int64_t n, int64_t* total) const {
    const int count = static_cast<int>(values_.size());
    std::vector<int> owner(count), first(count, -1), last(count, -1);
    for (int v = 0; v < count; ++v) owner[v] = v;
    for (int i = 0; i < static_cast<int>(nodes_.size()); ++i)
        for (int v : nodes_[i].arguments) {
            if (v < 0) continue;
            if (first[v] < 0) first[v] = i;
            last[v] = i;
        }
    // A stretch begins anew with each pass of tiles, so what it has in the arena holds through all
    // of it.
    const auto tiled = [](const Node& node) { return node.tiled; };
    const auto stretch = std::find_if(nodes_.begin(), nodes_.end(), tiled);
    const auto behind = std::find_if_not(stretch, nodes_.end(), tiled);
    for (auto node = stretch; node != behind; ++node)
        for (int v : node->arguments) {
            if (v < 0 || values_[v].place != Place::kArena) continue;
            first[v] = std::min(first[v], static_cast<int>(stretch - nodes_.begin()));
            last[v] = std::max(last[v], static_cast<int>(behind - nodes_.begin()) - 1);
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
            if (values_[from].place != place || values_[to].place != place || last[from] != i ||
                first[to] != i || uses != 1 || values_[from].bytes(n) != values_[to].bytes(n))
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
        if (values_[v].place == place && owner[v] == v && first[v] >= 0) order.push_back(v);
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
        if (values_[v].place == place && first[v] >= 0) offsets[v] = offsets[owner[v]];
    return offsets;
}

void Program::check_size(int64_t n) const {
    const int64_t most = std::max(n, kTile * kMostTilesAtOnce);
    int64_t total = 0;
    for (const Value& value : values_) {
        if (value.bytes(1) > kMostBytes / most) throw std::bad_alloc();
        total += value.bytes(most);
        if (total > kMostBytes) throw std::bad_alloc();
    }
}

int64_t Program::arena_bytes(int64_t n) const {
    int64_t total = 0;
    place_values(Place::kArena, n, &total);
    return total;
}

int64_t Program::unshared_bytes(int64_t n) const {
    int64_t total = 0;
    for (const Value& value : values_)
        if (value.place == Place::kArena) total += round_up(value.bytes(n));
    return total;
}

int64_t Program::tile_bytes() const {
    int64_t total = 0;
    place_values(Place::kTile, kTile * tiles_at_once_, &total);
    return total;
}

int64_t Program::sum_bytes(int64_t n) const { return slot_bytes_ * slots(n); }

// The samples that a thread takes through a stretch at a time, and how many parts of a batch have
// sums of their own: by the number of samples alone, so that sums are the same on any number of
// threads.
int64_t Program::pass(int64_t n) const {
    return kTile * std::min(tiles_at_once_, std::max<int64_t>(1, in_tiles(n) / kTile / 2));
}

int64_t Program::slots(int64_t n) const {
    const int64_t passes = (n + pass(n) - 1) / pass(n);
    const int64_t least = slot_bytes_ > kLargeSlot ? kLeastLargeSlots : kLeastSlots;
    const int64_t wanted = std::min(std::max(passes / kTilesPerSlot, least), kMostSlots);
    return std::min(passes, wanted);
}

// Of a batch of n or less: fewer samples may have more slots, as their passes are shorter.
int64_t Program::most_slots(int64_t n) const {
    int64_t most = slots(n);
    for (int64_t less = kTile; less < std::min(n, 2 * kTile * tiles_at_once_); less += kTile)
        most = std::max(most, slots(less));
    return most;
}

// A node that alone adds to its sums begins them with its first tiles, so that large ones are
// neither cleared nor read for it. Other sums are cleared.
void Program::plan_sums() {
    std::vector<int> uses(values_.size(), 0);
    for (const Node& node : nodes_)
        for (int id : node.arguments)
            if (id >= 0 && node.tiled) ++uses[id];
    std::vector<bool> begun(values_.size(), false);
    for (Node& node : nodes_) {
        const auto alone = [&](int id) {
            return id < 0 || values_[id].place != Place::kSum || uses[id] == 1;
        };
        node.stores = node.tiled && made_for_tiles(*node.kernel) &&
                      std::all_of(node.arguments.begin(), node.arguments.end(), alone);
        for (int id : node.arguments)
            if (id >= 0 && node.stores && values_[id].place == Place::kSum) begun[id] = true;
    }
    cleared_.clear();
    for (size_t id = 0; id < values_.size(); ++id)
        if (values_[id].place == Place::kSum && !begun[id])
            cleared_.push_back(static_cast<int>(id));
}

// The sum that is the gradient of an optimizer's node and read by nothing else; -1: it is none.
int Program::update_of(const Node& node, const std::vector<int>& readers) const {
    if (!std::get_if<Sgd>(&node.spec) && !std::get_if<Adam>(&node.spec)) return -1;
    for (size_t i = 0; i < node.arguments.size(); ++i) {
        const int id = node.arguments[i];
        if (node.kernel->arguments[i].name == "gradient")
            return values_[id].place == Place::kSum && readers[id] == 1 ? id : -1;
    }
    return -1;
}

// A sum that only an optimizer at the end of the program reads is added up and applied piece by
// piece, while it is in a core's nearest cache. The others are added up behind their stretch.
void Program::plan_updates() {
    const int count = static_cast<int>(values_.size());
    std::vector<int> readers(count, 0), reader(count, -1);
    for (int i = 0; i < static_cast<int>(nodes_.size()); ++i)
        for (int id : nodes_[i].arguments)
            if (id >= 0 && values_[id].place == Place::kSum && !nodes_[i].tiled) {
                ++readers[id];
                reader[id] = i;
            }
    // In any order: there is one for each parameter, and they share nothing that they change.
    first_update_ = nodes_.size();
    while (first_update_ > 0 && update_of(nodes_[first_update_ - 1], readers) >= 0) --first_update_;
    totals_.clear();
    updates_.clear();
    for (int id = 0; id < count; ++id) {
        if (values_[id].place != Place::kSum) continue;
        const int64_t size = values_[id].elements;
        const bool at_end = readers[id] == 1 && reader[id] >= static_cast<int>(first_update_);
        uint32_t sliced = 0;
        if (at_end) {
            const Node& node = nodes_[reader[id]];
            const std::vector<Count> counts = node.kernel->counts(node.spec, 1);
            for (size_t i = 0; i < counts.size(); ++i)
                if (counts[i].elements == size) sliced |= 1u << i;
        }
        for (int64_t begin = 0; begin < size; begin += kPiece)
            (at_end ? updates_ : totals_)
                .push_back(
                    {id, at_end ? reader[id] : -1, sliced, begin, std::min(begin + kPiece, size)});
    }
}

void Program::reserve(int64_t n) {
    if (n <= capacity_) return;
    check_size(n);
    capacity_ = -1;
    int64_t arena_bytes = 0;
    const std::vector<int64_t> in_arena = place_values(Place::kArena, n, &arena_bytes);
    const std::vector<int64_t> in_tile =
        place_values(Place::kTile, kTile * tiles_at_once_, &tile_bytes_);
    for (size_t v = 0; v < values_.size(); ++v) {
        if (values_[v].place == Place::kSum) continue;  // where add_value put it
        values_[v].offset = values_[v].place == Place::kTile ? in_tile[v] : in_arena[v];
    }
    arena_.reset();
    sums_.reset();
    arena_ = allocate(arena_bytes);
    sums_ = allocate(slot_bytes_ * most_slots(n));
    plan_sums();
    plan_updates();
    capacity_ = n;
}

}  // namespace convkit
