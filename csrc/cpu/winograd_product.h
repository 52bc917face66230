// The matrix products of winograd_conv.h, one for each place of the transforms. What is multiplied
// lies in blocks of kWinogradBlock channels or filters: value (row, column) at row *
// kWinogradBlock + column, so that the distance between rows is known to the compiler.
#pragma once

#include "gemm.h"

namespace convkit {
namespace CONVKIT_ISA {

constexpr int64_t kWinogradBlock = 64;

// c (rows, columns) = (first ? 0 : c) + a (rows, depth) b (depth, columns) for up to a block of
// columns. a lies in blocks, a_block apart. b lies in panels of kPanel columns, b_panel apart:
// value (k, j) at k * kPanel + j of its panel. Columns up to the next multiple of kLanes are
// written.
template <class T>
void winograd_multiply(const T* a, int64_t a_block, const T* b, int64_t b_panel, int64_t rows,
                       int64_t columns, int64_t depth, bool first, T* c);

// c (rows, columns) = (first ? 0 : c) + transposed a (depth, rows) b (depth, columns), each a
// block.
template <class T>
void winograd_correlate(const T* a, const T* b, int64_t rows, int64_t columns, int64_t depth,
                        bool first, T* c);

}  // namespace CONVKIT_ISA
}  // namespace convkit
