// Behind a stretch: gradients are added up over the slots or made as products over the batch, each
// in a fixed order, and applied at once; scores are added up, counters move on. One block for a
// piece of a parameter.
#pragma once

#include "activate.cuh"
#include "launch.cuh"

namespace convkit {
namespace cuda {

constexpr int kUpdateThreads = 256, kUpdateWarps = kUpdateThreads / kWarp;
constexpr int kTileInputs = 16, kTileUnits = 32;  // of a dense layer's weights, for a block
constexpr int kTileWeights = kTileInputs * kTileUnits;
constexpr int kChunk = 128;  // rows that are in shared memory at a time
constexpr int kMostTerms = 4, kMostCounters = 4;

enum UpdateKind : int32_t { kProductUpdate, kRowsUpdate, kScoreUpdate, kCountersUpdate };
enum RuleKind : int32_t { kSgdRule, kNesterovRule, kAdamRule };

// How a gradient changes a parameter; the formulas of optimizer.cu.
struct Rule {
    int32_t kind;
    float momentum, rest_1, rest_2, epsilon;
    const float* rate;                  // sgd: the learning rate; adam: alpha, made by the stretch
    float *first, *second, *parameter;  // m or velocity, v; may be null
};

// A sum over rows, `per_sample` for each sample of the batch; 0: one for each slot.
struct Term {
    const float *x, *gradient;  // x: of products alone
    int32_t per_sample, x_pitch;
    int64_t pitch;  // of gradient
};

struct UpdateTask {
    int32_t kind, terms;
    int32_t input, unit;  // where the tile begins; unit: where 32 numbers begin
    int32_t inputs, units;
    Term term[kMostTerms];
    Rule rule;
    double* total;  // of a score
    int64_t* counters[kMostCounters];
};

constexpr int kTaskWords = sizeof(UpdateTask) / sizeof(int64_t);

// What is done once, beside the samples, for the updates behind them: counters move on, learning
// rates are looked up, and Adam's alpha is made, since powers in double take long.
struct Alpha {
    const float* learning_rate;
    const int64_t* step;
    double beta_1, beta_2;
    float* rate;
};

// A learning rate of this step, from a table of the coming ones (regularize.cu).
struct StepRate {
    const int64_t *step, *first;
    const float* table;
    float* value;
    int64_t size;
};

struct Clerk {
    int32_t counters, rates, alphas;
    int64_t* counter[kMostCounters];
    StepRate rate[kMostCounters];
    Alpha alpha[kMostCounters];
};

__device__ inline void do_beside(const Clerk& clerk) {
    if (threadIdx.x == 0)
        for (int i = 0; i < clerk.counters; ++i) *clerk.counter[i] += 1;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < clerk.rates) {
        const StepRate& rate = clerk.rate[threadIdx.x];
        const int64_t at = *rate.step - *rate.first, last = rate.size - 1;
        *rate.value = rate.table[at < 0 ? 0 : at < last ? at : last];
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= clerk.alphas) return;
    const Alpha& alpha = clerk.alpha[threadIdx.x];
    const double step = static_cast<double>(*alpha.step);
    *alpha.rate =
        static_cast<float>(static_cast<double>(*alpha.learning_rate) *
                           ::sqrt(1 - ::pow(alpha.beta_2, step)) / (1 - ::pow(alpha.beta_1, step)));
}

struct UpdateJob {
    const UpdateTask* tasks;
    int64_t batch, slots;
    int64_t* cursor;  // may be null
};

// One number of a parameter and what its rule keeps of it, read early.
struct Parameter {
    float value, first, second;
};

__device__ inline Parameter read_parameter(const Rule& rule, int64_t i) {
    return {rule.parameter[i], rule.first ? rule.first[i] : 0.0f,
            rule.second ? rule.second[i] : 0.0f};
}

__device__ inline void apply(const Rule& rule, float rate, int64_t i, Parameter p, float gradient) {
    if (rule.kind == kAdamRule) {
        p.first += (gradient - p.first) * rule.rest_1;
        p.second += (gradient * gradient - p.second) * rule.rest_2;
        p.value -= p.first * rate / (sqrt_of(p.second) + rule.epsilon);
        rule.second[i] = p.second;
        rule.first[i] = p.first;
    } else {
        const float change = -(gradient * rate);
        if (rule.first) {
            p.first = p.first * rule.momentum + change;
            rule.first[i] = p.first;
            p.value += rule.kind == kNesterovRule ? p.first * rule.momentum + change : p.first;
        } else {
            p.value += change;
        }
    }
    rule.parameter[i] = p.value;
}

__device__ inline int64_t rows_of(const Term& term, const UpdateJob& job) {
    return term.per_sample > 0 ? job.batch * term.per_sample : job.slots;
}

// ---- products: x transposed times gradients ----------------------------------------------------

// kChunk rows of kColumns numbers from column `first`, zeros beyond the last row and column.
template <int kColumns>
__device__ void load_rows(const float* from, int64_t pitch, int first, int64_t row, int64_t rows,
                          float* to) {
    constexpr int kVectors = kColumns / 4;
    CONVKIT_UNROLL
    for (int i = static_cast<int>(threadIdx.x); i < kChunk * kVectors; i += kUpdateThreads) {
        const int at = i / kVectors, column = i % kVectors * 4;
        Vector<float, 4> values{};
        if (row + at < rows && first + column < pitch)
            values = load_vector<float, 4>(from + (row + at) * pitch + first + column);
        store_vector<float, 4>(to + at * kColumns + column, values);
    }
}

// A warp takes an eighth of the rows; a lane four inputs by four units.
__device__ inline void update_by_product(const UpdateTask& task, const UpdateJob& job,
                                         float* memory) {
    constexpr int kEach = kTileWeights / kUpdateThreads, kRowsOfWarp = kChunk / kUpdateWarps;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const float rate = *task.rule.rate;
    Parameter parameters[kEach]{};
    int64_t places[kEach];
    CONVKIT_UNROLL
    for (int k = 0; k < kEach; ++k) {
        const int at = k * kUpdateThreads + thread;
        const int input = task.input + at / kTileUnits, unit = task.unit + at % kTileUnits;
        const bool there = input < task.inputs && unit < task.units;
        places[k] = there ? static_cast<int64_t>(input) * task.units + unit : -1;
        if (there) parameters[k] = read_parameter(task.rule, places[k]);
    }
    float *const xs = memory, *const gradients = memory + kChunk * kTileInputs;
    const int first_input = lane / 8 * 4, first_unit = lane % 8 * 4;
    float sum[4][4] = {};
    for (int t = 0; t < task.terms; ++t) {
        const Term& term = task.term[t];
        const int64_t rows = rows_of(term, job);
        for (int64_t row = 0; row < rows; row += kChunk) {
            load_rows<kTileInputs>(term.x, term.x_pitch, task.input, row, rows, xs);
            load_rows<kTileUnits>(term.gradient, term.pitch, task.unit, row, rows, gradients);
            __syncthreads();
            const int begin = warp * kRowsOfWarp;
            const int64_t left = rows - row;
            const int end =
                left < begin + kRowsOfWarp ? static_cast<int>(left) : begin + kRowsOfWarp;
            for (int r = begin; r < end; ++r) {
                const auto x = load_vector<float, 4>(xs + r * kTileInputs + first_input);
                const auto g = load_vector<float, 4>(gradients + r * kTileUnits + first_unit);
                CONVKIT_UNROLL
                for (int i = 0; i < 4; ++i) {
                    CONVKIT_UNROLL
                    for (int u = 0; u < 4; ++u) sum[i][u] += x.value[i] * g.value[u];
                }
            }
            __syncthreads();
        }
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
        Vector<float, 4> values;
        CONVKIT_UNROLL
        for (int u = 0; u < 4; ++u) values.value[u] = sum[i][u];
        store_vector<float, 4>(
            memory + warp * kTileWeights + (first_input + i) * kTileUnits + first_unit, values);
    }
    __syncthreads();
    CONVKIT_UNROLL
    for (int k = 0; k < kEach; ++k) {
        if (places[k] < 0) continue;
        float gradient = 0;
        CONVKIT_UNROLL
        for (int w = 0; w < kUpdateWarps; ++w)
            gradient += memory[w * kTileWeights + k * kUpdateThreads + thread];
        apply(task.rule, rate, places[k], parameters[k], gradient);
    }
}

// ---- sums of rows -------------------------------------------------------------------------------

// 32 numbers, a lane each; a warp takes every eighth row.
__device__ inline void update_by_rows(const UpdateTask& task, const UpdateJob& job, float* memory) {
    constexpr int kAtOnce = 8;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const int place = task.unit + lane;
    const bool there = place < task.units;
    const float rate = *task.rule.rate;
    Parameter parameter{};
    if (warp == 0 && there) parameter = read_parameter(task.rule, place);
    float sum = 0;
    for (int t = 0; t < task.terms && there; ++t) {
        const Term& term = task.term[t];
        const int64_t rows = rows_of(term, job);
        for (int64_t row = warp; row < rows; row += kAtOnce * kUpdateWarps) {
            float values[kAtOnce];
            CONVKIT_UNROLL
            for (int k = 0; k < kAtOnce; ++k) {
                const int64_t at = row + k * kUpdateWarps;
                values[k] = at < rows ? term.gradient[at * term.pitch + place] : 0.0f;
            }
            CONVKIT_UNROLL
            for (int k = 0; k < kAtOnce; ++k) sum += values[k];
        }
    }
    memory[warp * kWarp + lane] = sum;
    __syncthreads();
    if (warp > 0 || !there) return;
    float gradient = 0;
    for (int w = 0; w < kUpdateWarps; ++w) gradient += memory[w * kWarp + lane];
    apply(task.rule, rate, place, parameter, gradient);
}

// ---- scores and counters ------------------------------------------------------------------------

__device__ inline void add_to_score(const UpdateTask& task, const UpdateJob& job, double* memory) {
    const Term& term = task.term[0];
    const int64_t count = rows_of(term, job);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += kUpdateThreads)
        sum += static_cast<double>(term.gradient[i]);
    sum = block_sum(sum, memory);
    if (threadIdx.x != 0) return;
    task.total[0] += sum;
    task.total[1] += static_cast<double>(count);
}

__global__ void __launch_bounds__(kUpdateThreads, 2) stretch_update_kernel(UpdateJob job) {
    SHARED(float, memory, kChunk*(kTileInputs + kTileUnits));
    SHARED(double, partial, kWarp);
    SHARED(int64_t, words, kTaskWords);  // of the task, so that it is read from afar but once
    for (int i = static_cast<int>(threadIdx.x); i < kTaskWords; i += kUpdateThreads)
        words[i] = reinterpret_cast<const int64_t*>(job.tasks + blockIdx.x)[i];
    __syncthreads();
    const UpdateTask& task = *reinterpret_cast<const UpdateTask*>(words);
    switch (task.kind) {
        case kProductUpdate:
            return update_by_product(task, job, memory);
        case kRowsUpdate:
            return update_by_rows(task, job, memory);
        case kScoreUpdate:
            return add_to_score(task, job, partial);
        default:
            if (threadIdx.x != 0) return;
            for (int i = 0; i < task.terms; ++i) *task.counters[i] += 1;
            if (job.cursor) *job.cursor += job.batch;
    }
}

}  // namespace cuda
}  // namespace convkit
