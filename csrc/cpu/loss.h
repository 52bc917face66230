// The losses of loss.cpp for values that lie `inner` apart: target and prediction
// (outer, size, inner), or labels (outer, inner), loss and dloss (outer, inner). With inner = 1
// they are rows of a batch, with inner = kTile rows of tiles.
#pragma once

#include "context.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

struct Columns {
    int64_t outer, inner;
};

static inline Columns rows_of_batch(const Loss& s, int64_t n) { return {n * s.rows, 1}; }
static inline Columns rows_of_tiles(const Loss& s, int64_t n) {
    return {in_tiles(n) / kTile * s.rows, kTile};
}

// Target: T, or int32_t for labels; dtarget is null for these.
template <class T, class Target>
void categorical(const Context& context, const Loss& s, Columns columns, const Target* target,
                 const T* prediction, T* loss);
template <class T, class Target>
void categorical_backward(const Context& context, const Loss& s, Columns columns, const T* dloss,
                          const Target* target, const T* prediction, T* dtarget, T* dprediction);

enum class Term { kBinaryCrossentropy, kSquaredError, kAbsoluteError };

template <class T>
void mean_of_terms(const Context& context, const Loss& s, Term term, Columns columns,
                   const T* target, const T* prediction, T* loss);
template <class T>
void mean_of_terms_backward(const Context& context, const Loss& s, Term term, Columns columns,
                            const T* dloss, const T* target, const T* prediction, T* dtarget,
                            T* dprediction);

}  // namespace CONVKIT_ISA
}  // namespace convkit
