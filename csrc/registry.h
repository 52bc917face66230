// kernels.inc expanded into descriptions: what arguments a kernel takes, how long each must be, and
// one uniform way to call it. The bindings and the executor know kernels only through this.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"

namespace convkit {

using Spec =
    std::variant<Conv2d, Dense, Pool2d, Upsample2d, Elementwise, Activation, Softmax, Concatenate,
                 Transpose, Dropout, Loss, Mean, Gather, Sgd, Adam, FusedConv2d, FusedDense,
                 Rescale, Unary, Binary, Reduce, Expand, ChannelAffine, BatchNorm, LayerNorm, PRelu,
                 Fold, MovingAverage, Pad2d, Permute, SpatialDropout, GaussianNoise,
                 RandomTransform, RandomContrast, PointwiseLoss, TopK, Confusion, ThresholdCounts,
                 Rmsprop, Nadam, Adagrad, Adadelta, Lion, Decay, Clip, Regularizer, Constraint>;

// kReal is the T of a kernel: float or double.
enum class Element { kReal, kUint8, kInt32, kInt64, kFloat64, kAny };

struct Argument {
    std::string name;
    Element element;
    bool writes;
};

// How many elements an argument has for a given spec and number of samples.
struct Count {
    int64_t elements = 0;
    bool optional = false;  // may be null
    bool inout = false;     // read before it is written
    bool any = false;       // length unknown to the spec
    int overlay = -1;       // the argument whose memory this output may take over

    Count(int64_t elements) : elements(elements) {}  // NOLINT: plain numbers in kernels.inc
};

constexpr size_t kMostArguments = 16;  // of a kernel

struct KernelInfo {
    std::string name;
    std::vector<Argument> arguments;
    // Throw std::bad_variant_access if the spec is another kernel's, and std::invalid_argument if
    // the table has no such kernel.
    std::vector<Count> (*counts)(const Spec& spec, int64_t n);
    void (*call_float32)(const KernelTable&, const Context&, const Spec&, int64_t n,
                         void* const* arguments);
    void (*call_float64)(const KernelTable&, const Context&, const Spec&, int64_t n,
                         void* const* arguments);
    // The function itself in a table, for the test that proves which instruction set runs.
    const void* (*address)(const KernelTable&);
};

const std::vector<KernelInfo>& kernel_list();

// The spec under which a kernel that works along other axes than the samples' and channels' takes a
// tile for one sample with kTile times the channels; false where there is none.
bool in_lanes(Spec& spec);

// Throws std::invalid_argument.
const KernelInfo& find_kernel(const std::string& name);

}  // namespace convkit
