#include "stretch.h"

#include <algorithm>
#include <map>
#include <string>

#include "program.h"

namespace convkit {
namespace {

// The spec of one sample, of what takes a tile for a sample: in_lanes the other way.
struct OutOfLanes {
    void operator()(Pool2d& s) const { s.channels /= kTile; }
    void operator()(Upsample2d& s) const { s.channels /= kTile; }
    void operator()(Elementwise& s) const { s.size /= kTile; }
    void operator()(Activation& s) const { s.size /= kTile; }
    void operator()(Rescale& s) const { s.size /= kTile; }
    void operator()(Softmax& s) const { s.inner /= kTile; }
    void operator()(Loss& s) const { s.inner /= kTile; }
    void operator()(Concatenate& s) const {
        s.first /= kTile;
        s.second /= kTile;
    }
    template <class Other>
    void operator()(Other&) const {}
};

class Planner {
 public:
    explicit Planner(const Program& program) : program_(program) {
        if (program.float64()) refuse("float64");
        for (const convkit::Value& value : program.values())
            plan_.values.push_back({place_of(value), value.item_bytes, value.elements});
        bool begun = false;
        for (const Node& node : program.nodes()) {
            if (node.tiled) {
                add(node);
                begun = true;
            } else if (!begun) {
                refuse(node.kernel->name + " before the stretch");
            } else {
                add_behind(node);
            }
        }
        if (!begun) refuse("a program without a stretch");
        place_counters();
    }

    StretchPlan take() { return std::move(plan_); }

 private:
    using Gradients = std::vector<StretchPlan::Gradient>;

    [[noreturn]] static void refuse(const std::string& what) {
        throw DoesNotFit("stretch: a block of threads has no " + what);
    }

    static StretchPlan::Place place_of(const Value& value) {
        switch (value.place) {
            case Place::kFed:
                return StretchPlan::Place::kFed;
            case Place::kState:
                return StretchPlan::Place::kState;
            case Place::kTile:
                return StretchPlan::Place::kSample;
            case Place::kSum:
                return StretchPlan::Place::kSum;
            case Place::kArena:
                break;
        }
        return StretchPlan::Place::kBatch;
    }

    static KernelNumber number_of(const KernelInfo& kernel) {
        return static_cast<KernelNumber>(&kernel - kernel_list().data());
    }

    void add(const Node& node) {
        Spec spec = node.spec;
        if (node.widened) std::visit(OutOfLanes{}, spec);
        const int number = static_cast<int>(plan_.nodes.size());
        for (size_t i = 0; i < node.arguments.size(); ++i) {
            const int id = node.arguments[i];
            if (id < 0) continue;
            const Place place = program_.values()[id].place;
            const bool writes = node.kernel->arguments[i].writes;
            if (place == Place::kSum &&
                !gradients_.emplace(id, Gradients{{number, static_cast<int>(i)}}).second)
                refuse("sum that two nodes add to");
            if (place == Place::kArena && !writes)
                refuse(node.kernel->name + " of what was made before the stretch");
            if (place == Place::kState && !writes) ++readers_[id];
        }
        plan_.nodes.push_back({number_of(*node.kernel), spec, node.arguments});
    }

    void add_behind(const Node& node) {
        const std::vector<int>& ids = node.arguments;
        switch (number_of(*node.kernel)) {
            case KernelNumber::accumulate: {
                const int64_t rows = std::get<Mean>(node.spec).rows;
                if (program_.values()[ids[0]].place != Place::kArena) break;
                plan_.scores.push_back({ids[0], ids[1], rows});
                return;
            }
            case KernelNumber::add: {
                if (!gradients_.count(ids[0]) || !gradients_.count(ids[1])) break;
                Gradients both = gradients_[ids[0]];
                for (const StretchPlan::Gradient& one : gradients_[ids[1]]) both.push_back(one);
                gradients_[ids[2]] = both;
                return;
            }
            case KernelNumber::next_step:
                plan_.counters.push_back({ids[0], std::get<Elementwise>(node.spec).size, false});
                return;
            case KernelNumber::rate_of_step:
                plan_.rates.push_back(
                    {ids[0], ids[1], ids[2], ids[3], std::get<Elementwise>(node.spec).size});
                return read_step(ids[0]);
            case KernelNumber::sgd:
                return add_update(node, ids[1], -1);
            case KernelNumber::adam:
                return add_update(node, ids[2], ids[1]);
            default:
                break;
        }
        refuse(node.kernel->name + " behind the stretch");
    }

    void add_update(const Node& node, int gradient, int step) {
        if (!gradients_.count(gradient)) refuse("update by what is no gradient of the stretch");
        plan_.updates.push_back({node.spec, node.arguments, gradients_[gradient]});
        if (step >= 0) read_step(step);
    }

    // Whether a step was counted before it is read.
    void read_step(int step) {
        const auto is_step = [&](const StretchPlan::Counter& one) { return one.value == step; };
        const bool counted = std::any_of(plan_.counters.begin(), plan_.counters.end(), is_step);
        counted_before_.emplace(step, counted);
        if (counted_before_[step] != counted) refuse("counter that moves on between updates");
    }

    // What the updates read must have moved on before them, when the stretch no longer reads it.
    void place_counters() {
        for (StretchPlan::Counter& counter : plan_.counters) {
            const auto found = counted_before_.find(counter.value);
            counter.before_updates = found != counted_before_.end();
            if (counter.before_updates && (!found->second || readers_.count(counter.value)))
                refuse("counter that is read before and after it moves on");
        }
    }

    const Program& program_;
    StretchPlan plan_;
    std::map<int, Gradients> gradients_;  // of values
    std::map<int, int> readers_;          // of states, in the stretch
    std::map<int, bool> counted_before_;  // of the steps of updates
};

}  // namespace

StretchPlan plan_stretch(const Program& program) { return Planner(program).take(); }

}  // namespace convkit
