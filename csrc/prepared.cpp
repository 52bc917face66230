#include "prepared.h"

#include <stdexcept>
#include <string>

#include "backend.h"
#include "float_mode.h"
#include "threads.h"

namespace convkit {
namespace {

// What a brief run does at most: some tens of microseconds.
constexpr int64_t kBriefBytes = 1 << 19, kBriefMultiplyAdds = 1 << 22;

void expect(bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(std::string("program: expected ") + what);
}

int64_t multiply_adds(const Spec& spec) {
    if (const Conv2d* conv = std::get_if<Conv2d>(&spec)) return conv->multiply_adds();
    if (const Dense* dense = std::get_if<Dense>(&spec)) return dense->multiply_adds();
    if (const auto* fused = std::get_if<FusedConv2d>(&spec)) return fused->conv.multiply_adds();
    if (const auto* fused = std::get_if<FusedDense>(&spec)) return fused->dense.multiply_adds();
    return 0;
}

}  // namespace

Prepared::Prepared(const Program& program, int x, int y, int64_t most) {
    const std::vector<Value>& values = program.values();
    const int count = static_cast<int>(values.size());
    expect(most >= 1, "at least one sample");
    expect(x >= 0 && x < count && y >= 0 && y < count && x != y, "values of the program");
    expect(values[y].made, "y to be made by a node");
    program.check_size(most);
    int64_t total = 0;
    const std::vector<int64_t> offsets = program.place_values(Place::kArena, most, &total);
    arena_ = allocate(total);

    int64_t touched = total, work = 0;
    for (const Node& node : program.nodes()) {
        Call call{program.float64() ? node.kernel->call_float64 : node.kernel->call_float32,
                  node.spec,
                  node.per_sample,
                  {},
                  node.kept};
        expect(!node.tiled, "no stretches");
        const Gather* gather = std::get_if<Gather>(&node.spec);
        expect(!gather || node.arguments[1] < 0, "no rows by index");
        for (size_t i = 0; i < node.arguments.size(); ++i) {
            const int id = node.arguments[i];
            void* data = nullptr;
            if (id == x || id == y) {
                expect(values[id].place == Place::kFed, "x and y to be fed");
                expect(id == y || !node.kernel->arguments[i].writes, "x to be read");
                uses_.push_back({calls_.size(), i, id == x});
            } else if (id >= 0 && values[id].place == Place::kArena) {
                data = arena_.get() + offsets[id];
            } else if (id >= 0) {
                expect(values[id].place == Place::kState, "no fed arrays but x and y");
                expect(values[id].data || values[id].elements == 0, "states to be bound");
                expect(!node.kernel->arguments[i].writes, "states to be read only");
                data = values[id].data;
                touched += values[id].bytes(1);
            }
            call.arguments.push_back(data);
        }
        work += multiply_adds(node.spec) * most;
        calls_.push_back(std::move(call));
    }
    brief_ = touched < kBriefBytes && work < kBriefMultiplyAdds;
}

void Prepared::run(const void* x, void* y, int64_t n) {
    for (const Use& use : uses_)
        calls_[use.call].arguments[use.argument] = use.is_x ? const_cast<void*>(x) : y;
    const FloatMode mode(FloatMode::flushing());
    if (brief_) {
        run_calls(n);
    } else {
        with_team(Context{num_threads()}, [&] { run_calls(n); });
    }
}

void Prepared::run_calls(int64_t n) const {
    const KernelTable& table = processor_backend();
    Context context{num_threads()};
    for (const Call& call : calls_) {
        context.kept = call.kept.get();
        call.function(table, context, call.spec, call.per_sample ? n : 1, call.arguments.data());
    }
}

}  // namespace convkit
