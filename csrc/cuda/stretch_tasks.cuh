// What the second kernel of a step does: pieces of updates, scores, counters; as tables whose
// pointers are set when memory is bound.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "stretch.h"
#include "stretch_cut.cuh"
#include "stretch_update.cuh"

namespace convkit {
namespace cuda {

constexpr int64_t rounded(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

[[noreturn]] inline void refuse_stretch(const std::string& what) {
    throw DoesNotFit("stretch: a block of threads has no " + what);
}

// A pointer of a table.
struct TablePointer {
    int64_t at;      // in the table
    int value;       // that is bound; -1: none, but memory of the stretch
    int64_t offset;  // in its memory
};

// Memory of a stretch for up to `most` samples, by bytes from its beginning.
class StretchMemory {
 public:
    StretchMemory(const StretchPlan& plan, int64_t most)
        : plan_(plan), most_(most), of_batch_(plan.values.size(), -1) {}

    int64_t take(int64_t bytes) {
        const int64_t at = bytes_;
        bytes_ += rounded(bytes, 256);
        return at;
    }
    int64_t take_rows(int64_t bytes) { return take(most_ * bytes); }

    // A value of every sample.
    int64_t of_batch(int value) {
        int64_t& at = of_batch_[static_cast<size_t>(value)];
        if (at < 0) at = take_rows(plan_.values[value].elements * 4);
        return at;
    }

    int64_t bytes() const { return bytes_; }

 private:
    const StretchPlan& plan_;
    const int64_t most_;
    std::vector<int64_t> of_batch_;
    int64_t bytes_ = 0;
};

// A gradient: a sum in the slots, or of rows that were kept.
struct GradientSource {
    bool in_slots;
    int64_t x, gradient;  // where they are: in a slot in numbers, else in memory in bytes; -1
    int64_t x_pitch, pitch, per_sample;
    int64_t inputs, units;  // of a product; the others have units alone
};

// By node and argument.
using GradientSources = std::map<std::pair<int, int>, GradientSource>;

struct MadeTask {
    UpdateTask task{};
    std::vector<TablePointer> pointers;  // at: in the task
};

class StretchTasks {
 public:
    StretchTasks(const StretchPlan& plan, const GradientSources& sources, int64_t slots_at,
                 int64_t slot_floats, StretchMemory& memory)
        : sources_(sources), slots_at_(slots_at), slot_floats_(slot_floats), memory_(memory) {
        for (const StretchPlan::Update& update : plan.updates) add_update(update);
        // Blocks with more to do begin first.
        std::stable_sort(tasks_.begin(), tasks_.end(), [](const MadeTask& a, const MadeTask& b) {
            return a.task.kind < b.task.kind;
        });
        for (const StretchPlan::Score& score : plan.scores) {
            MadeTask made;
            made.task.kind = kScoreUpdate;
            made.task.terms = 1;
            made.task.term[0].per_sample = small(score.rows);
            point(made, &made.task.term[0].gradient, -1, memory_.of_batch(score.x));
            point(made, &made.task.total, score.total, 0);
            tasks_.push_back(made);
        }
        MadeTask last;
        last.task.kind = kCountersUpdate;
        for (const StretchPlan::Counter& counter : plan.counters) {
            const int64_t offset = (counter.size - 1) * 8;
            if (counter.before_updates) {
                check_count(clerk_.counters);
                point_clerk(&clerk_.counter[clerk_.counters++], counter.value, offset);
            } else {
                check_count(last.task.terms);
                point(last, &last.task.counters[last.task.terms++], counter.value, offset);
            }
        }
        counters_ = last.task.terms;
        tasks_.push_back(last);
        for (const StretchPlan::StepRate& rate : plan.rates) {
            check_count(clerk_.rates);
            StepRate& made = clerk_.rate[clerk_.rates++];
            made.size = rate.size;
            point_clerk(&made.step, rate.step, 0);
            point_clerk(&made.first, rate.first, 0);
            point_clerk(&made.table, rate.table, 0);
            point_clerk(&made.value, rate.value, 0);
        }
    }

    const std::vector<MadeTask>& tasks() const { return tasks_; }
    int counters() const { return counters_; }  // that the last task moves on
    const Clerk& clerk() const { return clerk_; }
    const std::vector<TablePointer>& clerk_pointers() const { return clerk_pointers_; }

 private:
    static void point(MadeTask& made, const void* member, int value, int64_t offset) {
        const int64_t at =
            static_cast<const char*>(member) - reinterpret_cast<const char*>(&made.task);
        made.pointers.push_back({at, value, offset});
    }

    static void check_count(int count) {
        if (count >= kMostCounters) refuse_stretch("room for so many counters");
    }

    void point_clerk(const void* member, int value, int64_t offset) {
        const int64_t at =
            static_cast<const char*>(member) - reinterpret_cast<const char*>(&clerk_);
        clerk_pointers_.push_back({at, value, offset});
    }

    // Where the rate of Adam is made, once for all parameters that share it.
    int64_t alpha_of(const Adam& s, int learning_rate, int step) {
        const auto key = std::make_tuple(learning_rate, step, s.beta_1, s.beta_2);
        const auto found = alphas_.find(key);
        if (found != alphas_.end()) return found->second;
        check_count(clerk_.alphas);
        Alpha& alpha = clerk_.alpha[clerk_.alphas++];
        alpha.beta_1 = s.beta_1;
        alpha.beta_2 = s.beta_2;
        const int64_t rate = memory_.take(4);
        point_clerk(&alpha.learning_rate, learning_rate, 0);
        point_clerk(&alpha.step, step, 0);
        point_clerk(&alpha.rate, -1, rate);
        return alphas_[key] = rate;
    }

    void add_update(const StretchPlan::Update& update) {
        MadeTask made;
        UpdateTask& task = made.task;
        Rule& rule = task.rule;
        const std::vector<int>& a = update.arguments;
        const auto optional = [&](const void* member, int value) {
            if (value >= 0) point(made, member, value, 0);
        };
        if (const Sgd* s = std::get_if<Sgd>(&update.spec)) {
            rule.kind = s->nesterov ? kNesterovRule : kSgdRule;
            rule.momentum = static_cast<float>(s->momentum);
            point(made, &rule.rate, a[0], 0);
            optional(&rule.first, a[2]);
            point(made, &rule.parameter, a[3], 0);
        } else {
            const Adam& adam = std::get<Adam>(update.spec);
            rule.kind = kAdamRule;
            rule.rest_1 = static_cast<float>(1 - adam.beta_1);
            rule.rest_2 = static_cast<float>(1 - adam.beta_2);
            rule.epsilon = static_cast<float>(adam.epsilon);
            point(made, &rule.rate, -1, alpha_of(adam, a[0], a[1]));
            point(made, &rule.first, a[3], 0);
            point(made, &rule.second, a[4], 0);
            point(made, &rule.parameter, a[5], 0);
        }
        if (update.gradients.size() > kMostTerms)
            refuse_stretch("room for so many uses of a layer");
        bool product = false;
        for (const StretchPlan::Gradient& gradient : update.gradients) {
            const GradientSource& source = sources_.at({gradient.node, gradient.argument});
            Term& term = task.term[task.terms];
            const bool is_product = source.x >= 0;
            if (task.terms > 0 && product != is_product) refuse_stretch("sum of unlike gradients");
            product = is_product;
            ++task.terms;
            if (product) point(made, &term.x, -1, source.x);
            term.x_pitch = small(source.x_pitch);
            term.per_sample = small(source.per_sample);
            term.pitch = source.in_slots ? slot_floats_ : source.pitch;
            point(made, &term.gradient, -1,
                  source.in_slots ? slots_at_ + source.gradient * 4 : source.gradient);
            task.inputs = small(source.inputs);
            task.units = small(source.units);
        }
        task.kind = product ? kProductUpdate : kRowsUpdate;
        if (product) {
            for (; task.input < task.inputs; task.input += kTileInputs)
                for (task.unit = 0; task.unit < task.units; task.unit += kTileUnits)
                    tasks_.push_back(made);
        } else {
            for (; task.unit < task.units; task.unit += kWarp) tasks_.push_back(made);
        }
    }

    const GradientSources& sources_;
    const int64_t slots_at_, slot_floats_;
    StretchMemory& memory_;
    std::vector<MadeTask> tasks_;
    int counters_ = 0;
    Clerk clerk_{};
    std::vector<TablePointer> clerk_pointers_;
    std::map<std::tuple<int, int, double, double>, int64_t> alphas_;
};

}  // namespace cuda
}  // namespace convkit
