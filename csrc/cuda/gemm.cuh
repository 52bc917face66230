// The matrix product behind conv.cu and dense.cu:
//
//   c[m, n] = sum over k of left[m, k] right[k, n]        m < rows, n < columns, k < depth
//
// The operands are not matrices in memory: loaders know where their values lie (windows of a
// picture, a kernel turned round), so that nothing is copied before (implicit GEMM). A block makes
// one tile of c; it brings pieces of kDepth of both operands into shared memory, two stages of
// them, so that one is loaded while the other is multiplied, and keeps its sums in registers.
//
// Order of addition, which is all that the bits depend on: depth is cut into slices by the shape
// alone. Within a slice a value is one chain of additions in the order of k; slices are added in
// their order. So neither the tile nor the number of rows (samples) shows, nor whether one block
// goes through all slices or each has a block of its own and a second kernel adds (add_partials).
// Where a tile has teams, each team of threads takes a slice and the block adds these.
//
// Three parts make a product, and any of them can be exchanged:
//
//   A loader brings one operand. Its constructor takes what the problem hands out for the block
//   (see below), the thread's place in its team, and the range of k. Then, for stage after stage,
//     prepare(stage)  writes what load needs of shared memory; a barrier lies between
//     load(stage)     reads the next kDepth values of k into registers
//     store(memory)   writes them: memory[k * (kCount + kPad) + row or column]; zeros where there
//                     is nothing (beyond the border, the rows, the columns or the end of k)
//   DepthLoader reads along k, RowsLoader along rows with the k's place from a table, and
//   MatrixLoader a plain matrix along columns.
//
//   Sums is the inner product: add(left, right) takes a stage from shared memory, visit(f) calls
//   f(row, column, values) with 4 x 4 neighbouring sums, first row and column a multiple of 4.
//   TensorSums is the same on tensor cores: what lies in shared memory is float in both cases, and
//   is rounded when it is read. Its tiles are fewer (TensorTiles), and the precision, tf32 or bf16,
//   is an argument of the kernel. Which k's one instruction adds up, and in which order, is the
//   GPU's; but it depends on the place in the slice alone, so that here too tiles do not show.
//
//   A problem (conv_products.cuh) says what is multiplied: Left<Tile>, Right<Tile>: the loaders;
//   here(block): what it knows of a block, a struct on top of Block and Area that all of the
//   following take; left, right: what the loaders read; across: DepthLoader's taps in a row;
//   spot_left, spot_right: the Spot of a row or column, where the loader wants them; finish: what
//   becomes of 4 x 4 sums; finish_one: of one sum. What is the same for a whole block lies in
//   shared memory, what is the same for all of them among the kernel's arguments: registers are for
//   sums.
#pragma once

#include <string>
#include <type_traits>

#include "activate.cuh"
#include "gemm_loaders.cuh"
#include "mma.cuh"

namespace convkit {
namespace cuda {

constexpr int64_t kProcessors = 132;  // of an H200; more or fewer change speed alone

// ---- tiles --------------------------------------------------------------------------------------

// kRows x kColumns sums of a block; each thread of a team has kThreadRows x kThreadColumns. At
// least kResident blocks fit into one processor.
template <int kRows_, int kColumns_, int kDepth_, int kThreadRows_, int kThreadColumns_,
          int kTeams_, int kResident_>
struct Tile {
    static constexpr int kRows = kRows_, kColumns = kColumns_, kDepth = kDepth_;
    static constexpr int kThreadRows = kThreadRows_, kThreadColumns = kThreadColumns_;
    static constexpr int kTeams = kTeams_, kResident = kResident_;
    static constexpr int kAcross = kColumns / kThreadColumns, kDown = kRows / kThreadRows;
    static constexpr int kTeam = kAcross * kDown, kThreads = kTeams * kTeam;
    static constexpr int kLeftPitch = kRows + kPad, kRightPitch = kColumns + kPad;
    static constexpr int kLeftStage = kDepth * kLeftPitch, kRightStage = kDepth * kRightPitch;
    // A warp is 4 x 8 threads, so that what it reads of a stage are few different vectors.
    static_assert(kAcross % 8 == 0 && kDown % 4 == 0, "whole warps");
    static_assert(kThreadRows % kQuad == 0 && kThreadColumns % kQuad == 0, "whole quads");
};

// A tile of TensorSums: thread's rows and columns say how many threads there are, not which sums
// each has.
template <class Shape>
struct TensorTile : Shape {
    static constexpr int kWarps = Shape::kTeam / kWarp;
    // Each warp has 32 columns, and as many rows as make it even.
    static constexpr int kWarpsAcross = Shape::kColumns / 32;
    static constexpr int kWarpRows = Shape::kRows * kWarpsAcross / kWarps;
    static_assert(Shape::kColumns % 32 == 0 && kWarpRows % 32 == 0, "whole pieces of 32 x 32");
    static_assert(Shape::kDepth % 16 == 0, "whole instructions of bf16");
};

// Where a block is: its tile of c, the part of the problem (a group of channels, a class of
// pixels), and which share of the depth.
struct Block {
    int64_t row, column;
    int64_t part, split;
};

// rows x columns sums over `depth` products.
struct Area {
    int64_t rows, columns, depth;
};

// How a launch is cut. Blocks are numbered (split, part, row, column).
struct Grid {
    int64_t rows, columns, parts, splits;  // tiles down, tiles across
    int64_t slice;                         // k's of a slice
    int64_t span;  // k's of a block: one slice for each team, or all of them

    int64_t blocks() const { return rows * columns * parts * splits; }

    template <class Tile>
    __device__ Block block() const {
        Quotient q = divide(blockIdx.x, columns);
        const int64_t column = q.remainder * Tile::kColumns;
        q = divide(q.quotient, rows);
        const int64_t row = q.remainder * Tile::kRows;
        q = divide(q.quotient, parts);
        return {row, column, q.remainder, q.quotient};
    }
};

// ---- the inner product --------------------------------------------------------------------------

// A thread's sums: quads of rows, kRows / (quads) apart, and quads of columns likewise.
template <class T, class Tile>
class Sums {
 public:
    __device__ __forceinline__ Sums(int thread, Precision) {
        const int lane = thread % kWarp, warp = thread / kWarp;
        column_ = (warp % (Tile::kAcross / 8) * 8 + lane % 8) * kQuad;
        row_ = (warp / (Tile::kAcross / 8) * 4 + lane / 8) * kQuad;
        clear();
    }

    __device__ __forceinline__ void clear() {
        CONVKIT_UNROLL
        for (int i = 0; i < Tile::kThreadRows; ++i) CONVKIT_UNROLL
        for (int j = 0; j < Tile::kThreadColumns; ++j) sum_[i][j] = T(0);
    }

    __device__ __forceinline__ void add(const T* left, const T* right) {
        CONVKIT_UNROLL
        for (int k = 0; k < Tile::kDepth; ++k) {
            T a[Tile::kThreadRows], b[Tile::kThreadColumns];
            gather(left + k * Tile::kLeftPitch + row_, a, kRowStep);
            gather(right + k * Tile::kRightPitch + column_, b, kColumnStep);
            CONVKIT_UNROLL
            for (int i = 0; i < Tile::kThreadRows; ++i) CONVKIT_UNROLL
            for (int j = 0; j < Tile::kThreadColumns; ++j) sum_[i][j] += a[i] * b[j];
        }
    }

    template <class F>
    __device__ __forceinline__ void visit(const F& f) {
        CONVKIT_UNROLL
        for (int i = 0; i < Tile::kThreadRows; i += kQuad) CONVKIT_UNROLL
        for (int j = 0; j < Tile::kThreadColumns; j += kQuad) {
            T quad[kQuad][kQuad];
            CONVKIT_UNROLL
            for (int k = 0; k < kQuad * kQuad; ++k)
                quad[k / kQuad][k % kQuad] = sum_[i + k / kQuad][j + k % kQuad];
            f(row_ + i / kQuad * kRowStep, column_ + j / kQuad * kColumnStep, quad);
        }
    }

 private:
    static constexpr int kRowStep = Tile::kDown * kQuad, kColumnStep = Tile::kAcross * kQuad;

    template <int kCount>
    static __device__ __forceinline__ void gather(const T* from, T (&to)[kCount], int step) {
        CONVKIT_UNROLL
        for (int i = 0; i < kCount; i += kQuad) {
            T quad[kQuad];
            load_many(from + i / kQuad * step, quad);
            CONVKIT_UNROLL
            for (int j = 0; j < kQuad; ++j) to[i + j] = quad[j];
        }
    }

    int row_, column_;
    T sum_[Tile::kThreadRows][Tile::kThreadColumns];
};

#ifdef CONVKIT_TENSOR_CORES
// A warp's sums, by pieces of 32 x 32 below each other. The rows and columns of an instruction's
// fragments (mma.cuh) are dealt out so that a lane reads 4 neighbours at a time, and that its sums
// are quads: of the 2 fragments down, row r + 8 h of fragment i is row 4 r + 2 i + h of the piece;
// of the 4 across, column c of fragment j is column 4 c + j. The k's are dealt out so that lanes
// that read at the same time find different banks: in each pair of tf32 k's, t and t + 4 are 2 t
// and 2 t + 1.
template <class Tile>
class TensorSums {
 public:
    __device__ __forceinline__ TensorSums(int thread, Precision precision) : precision_(precision) {
        const Lane lane(thread);
        left_ = 2 * lane.place * Tile::kLeftPitch + lane.row + lane.group * kQuad;
        right_ = 2 * lane.place * Tile::kRightPitch + lane.column + lane.group * kQuad;
        clear();
    }

    __device__ __forceinline__ void clear() {
        CONVKIT_UNROLL
        for (int p = 0; p < kPieces; ++p) CONVKIT_UNROLL
        for (int i = 0; i < 2; ++i) CONVKIT_UNROLL
        for (int j = 0; j < 4; ++j) CONVKIT_UNROLL
        for (int k = 0; k < 4; ++k) sum_[p][i][j][k] = 0;
    }

    __device__ __forceinline__ void add(const float* left, const float* right) {
        left += left_, right += right_;
        if (precision_ == Precision::kBf16) {
            CONVKIT_UNROLL
            for (int k = 0; k < Tile::kDepth; k += 16)
                add_step<Bf16>(left + k * Tile::kLeftPitch, right + k * Tile::kRightPitch);
        } else {
            CONVKIT_UNROLL
            for (int k = 0; k < Tile::kDepth; k += 8)
                add_step<Tf32>(left + k * Tile::kLeftPitch, right + k * Tile::kRightPitch);
        }
    }

    template <class F>
    __device__ __forceinline__ void visit(const F& f) {
        const Lane lane(threadIdx.x % Tile::kTeam);  // again, rather than in registers till now
        CONVKIT_UNROLL
        for (int p = 0; p < kPieces; ++p) CONVKIT_UNROLL
        for (int c = 0; c < 2; ++c) {
            float quad[kQuad][kQuad];
            CONVKIT_UNROLL
            for (int k = 0; k < kQuad * kQuad; ++k) {
                const int r = k / kQuad;
                quad[r][k % kQuad] = sum_[p][r / 2][k % kQuad][r % 2 * 2 + c];
            }
            f(lane.row + p * kPiece + lane.group * kQuad,
              lane.column + (2 * lane.place + c) * kQuad, quad);
        }
    }

 private:
    static constexpr int kPiece = 32, kPieces = Tile::kWarpRows / kPiece;

    struct Lane {
        int row, column;   // of the warp
        int group, place;  // g and t in mma.cuh

        __device__ __forceinline__ explicit Lane(int thread) {
            const int warp = thread / kWarp, lane = thread % kWarp;
            row = warp / Tile::kWarpsAcross * Tile::kWarpRows;
            column = warp % Tile::kWarpsAcross * kPiece;
            group = lane / 4, place = lane % 4;
        }
    };

    // The k's of half a fragment for 4 rows or columns, as registers of the instruction.
    struct Tf32 {
        static constexpr int kSecond = 1;  // from the first half's k to the second's

        static __device__ __forceinline__ void read(const float* from, int, uint32_t (&to)[kQuad]) {
            float values[kQuad];
            load_many(from, values);
            CONVKIT_UNROLL
            for (int i = 0; i < kQuad; ++i) to[i] = round_tf32(values[i]);
        }
        static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                        const uint32_t (&b)[2]) {
            multiply_tf32(c, a, b);
        }
    };
    struct Bf16 {
        static constexpr int kSecond = 8;

        static __device__ __forceinline__ void read(const float* from, int pitch,
                                                    uint32_t (&to)[kQuad]) {
            float first[kQuad], second[kQuad];
            load_many(from, first);
            load_many(from + pitch, second);
            CONVKIT_UNROLL
            for (int i = 0; i < kQuad; ++i) to[i] = round_bf16(first[i], second[i]);
        }
        static __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4],
                                                        const uint32_t (&b)[2]) {
            multiply_bf16(c, a, b);
        }
    };

    // The k's of one instruction.
    template <class Format>
    __device__ __forceinline__ void add_step(const float* left, const float* right) {
        constexpr int kSecond = Format::kSecond;
        uint32_t b[2][kQuad];
        Format::read(right, Tile::kRightPitch, b[0]);
        Format::read(right + kSecond * Tile::kRightPitch, Tile::kRightPitch, b[1]);
        CONVKIT_UNROLL
        for (int p = 0; p < kPieces; ++p) {
            uint32_t a[2][kQuad];
            Format::read(left + p * kPiece, Tile::kLeftPitch, a[0]);
            Format::read(left + p * kPiece + kSecond * Tile::kLeftPitch, Tile::kLeftPitch, a[1]);
            CONVKIT_UNROLL
            for (int i = 0; i < 2; ++i) CONVKIT_UNROLL
            for (int j = 0; j < 4; ++j)
                Format::multiply(sum_[p][i][j],
                                 {a[0][2 * i], a[0][2 * i + 1], a[1][2 * i], a[1][2 * i + 1]},
                                 {b[0][j], b[1][j]});
        }
    }

    const Precision precision_;
    int left_, right_;  // where the lane begins in a stage
    float sum_[kPieces][2][4][4];
};

template <class T, class Tile>
struct ChooseSums {
    using Type = Sums<T, Tile>;
};
template <class Shape>
struct ChooseSums<float, TensorTile<Shape>> {
    using Type = TensorSums<TensorTile<Shape>>;
};
template <class T, class Tile>
using SumsOf = typename ChooseSums<T, Tile>::Type;
#else
// Older GPUs multiply in float32.
template <class T, class Tile>
using SumsOf = Sums<T, Tile>;
#endif

// Where visit takes quads: to the problem, or to shared memory.
template <class Problem>
struct ToProblem {
    const Problem& problem;
    const typename Problem::Here& here;
    bool first, last;  // of the slices

    template <class Quad>
    __device__ __forceinline__ void operator()(int row, int column, Quad& quad) const {
        problem.finish(here, here.row + row, here.column + column, quad, first, last);
    }
};

template <class T, class Tile>
struct ToShared {
    T* memory;

    template <class Quad>
    __device__ __forceinline__ void operator()(int row, int column, Quad& quad) const {
        CONVKIT_UNROLL
        for (int i = 0; i < kQuad; ++i)
            store_many(memory + (row + i) * Tile::kColumns + column, quad[i]);
    }
};

// ---- the kernel ---------------------------------------------------------------------------------

// Sums of the columns of the right operand, for problems that want them (kColumnSums) in the blocks
// of the first rows: the first kColumns threads of a team have one each.
template <class T, class Tile>
__device__ __forceinline__ void add_columns(const T* right, int thread, T& sum) {
    if (thread >= Tile::kColumns) return;
    CONVKIT_UNROLL_BY(4)
    for (int k = 0; k < Tile::kDepth; ++k) sum += right[k * Tile::kRightPitch + thread];
}

// Code for GPUs before Hopper needs a few registers more.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kMostResident = 3;
#else
constexpr int kMostResident = 8;
#endif

template <class T, class Tile, class Problem>
__global__ void __launch_bounds__(Tile::kThreads,
                                  Tile::kResident < kMostResident ? Tile::kResident : kMostResident)
    product_kernel(const Problem problem, const Grid grid, const Precision precision) {
    using Left = typename Problem::template Left<Tile>;
    using Right = typename Problem::template Right<Tile>;
    constexpr int kTeams = Tile::kTeams;
    constexpr int kStages = 2 * kTeams * (Tile::kLeftStage + Tile::kRightStage);
    constexpr int kReduced = kTeams > 1 ? kTeams * Tile::kRows * Tile::kColumns : 0;
    constexpr int kTeamSpots = Left::kTeamSpots + Right::kTeamSpots;
    SHARED(T, memory, (kStages > kReduced ? kStages : kReduced));
    SHARED(Spot, spots, (Left::kSpots + Right::kSpots + kTeams * kTeamSpots));

    SHARED(typename Problem::Here, block, 1);

    if (threadIdx.x == 0) block[0] = problem.here(grid.template block<Tile>());
    __syncthreads();
    const typename Problem::Here& here = block[0];
    if (here.row >= here.rows) return;  // this part has fewer than others
    for (int i = threadIdx.x; i < Left::kSpots; i += Tile::kThreads)
        spots[i] = problem.spot_left(here, here.row + i);
    if constexpr (Right::kSpots > 0) {
        for (int i = threadIdx.x; i < Right::kSpots; i += Tile::kThreads)
            spots[Left::kSpots + i] = problem.spot_right(here, here.column + i);
    }

    const int team = threadIdx.x / Tile::kTeam, thread = threadIdx.x % Tile::kTeam;
    Spot* team_spots = spots + Left::kSpots + Right::kSpots + team * kTeamSpots;
    T* const lefts = memory + team * 2 * Tile::kLeftStage;
    T* const rights = memory + kTeams * 2 * Tile::kLeftStage + team * 2 * Tile::kRightStage;

    const bool with_columns = Problem::kColumnSums && here.row == 0;
    T column_sum = T(0);
    SumsOf<T, Tile> sums(thread, precision);
    // One slice after the other, or one for each team.
    for (int slice = 0;; ++slice) {
        const int64_t block_end = min(here.depth, (here.split + 1) * grid.span);
        const int64_t from = here.split * grid.span + slice * grid.slice;
        const int64_t begin = min(block_end, from + team * grid.slice);
        const int64_t end = min(block_end, begin + grid.slice);
        const int64_t longest = min(block_end - from, grid.slice);
        const int stages = static_cast<int>((longest + Tile::kDepth - 1) / Tile::kDepth);
        const bool last = block_end - from <= grid.slice;
        Left left(problem.left, here, spots, team_spots, thread, begin, end);
        Right right(problem.right, here, spots + Left::kSpots, team_spots + Left::kTeamSpots,
                    thread, begin, end);
        left.prepare(0);
        right.prepare(0);
        __syncthreads();
        if (stages > 0) {
            left.load(0);
            right.load(0);
            left.store(lefts);
            right.store(rights);
            left.prepare(1);
            right.prepare(1);
            __syncthreads();
        }
        for (int stage = 0; stage < stages; ++stage) {
            const bool more = stage + 1 < stages;
            if (more) {
                left.load(stage + 1);
                right.load(stage + 1);
            }
            left.prepare(stage);
            right.prepare(stage);
            const T* right_stage = rights + stage % 2 * Tile::kRightStage;
            sums.add(lefts + stage % 2 * Tile::kLeftStage, right_stage);
            if (with_columns) add_columns<T, Tile>(right_stage, thread, column_sum);
            if (more) {
                left.store(lefts + (stage + 1) % 2 * Tile::kLeftStage);
                right.store(rights + (stage + 1) % 2 * Tile::kRightStage);
            }
            __syncthreads();
        }
        if constexpr (kTeams > 1) {
            break;
        } else {
            sums.visit(ToProblem<Problem>{problem, here, slice == 0, last});
            if (last) break;
            sums.clear();
        }
    }

    if constexpr (kTeams > 1) {
        sums.visit(ToShared<T, Tile>{memory + team * Tile::kRows * Tile::kColumns});
        __syncthreads();
        CONVKIT_UNROLL_BY(1)
        for (int i = threadIdx.x; i < Tile::kRows * Tile::kColumns; i += Tile::kThreads) {
            T sum = memory[i];
            CONVKIT_UNROLL
            for (int t = 1; t < kTeams; ++t) sum += memory[t * Tile::kRows * Tile::kColumns + i];
            problem.finish_one(here, here.row + i / Tile::kColumns,
                               here.column + i % Tile::kColumns, sum);
        }
    }
    if constexpr (Problem::kColumnSums) {
        if (!with_columns) return;
        if constexpr (kTeams > 1) {
            __syncthreads();
            if (thread < Tile::kColumns) memory[team * Tile::kColumns + thread] = column_sum;
            __syncthreads();
            if (team == 0 && thread < Tile::kColumns)
                for (int t = 1; t < kTeams; ++t) column_sum += memory[t * Tile::kColumns + thread];
        }
        if (team == 0 && thread < Tile::kColumns)
            problem.finish_column(here, here.column + thread, column_sum);
    }
}

// ---- how a product is cut -----------------------------------------------------------------------

// Registers of a thread: 8 x 8, 8 x 4 or 4 x 4 sums. TeamTile is for products so small or so deep
// that their depth must be shared out: four teams take a slice each.
template <class T>
struct ProductTiles {
    using Small = Tile<32, 32, 8, 4, 4, 1, 8>;
    using Team = Tile<32, 32, 8, 4, 4, 4, 2>;
    using Middle = Tile<64, 64, 8, 8, 4, 1, 3>;
    using Narrow = Middle;
    using Tall = Middle;
    using Deep = Middle;
    using Large = Middle;
};

template <>
struct ProductTiles<float> {
    using Small = Tile<32, 32, 16, 4, 4, 1, 8>;
    using Team = Tile<32, 32, 16, 4, 4, 4, 2>;
    using Middle = Tile<64, 64, 16, 8, 4, 1, 4>;
    using Narrow = Tile<128, 32, 16, 8, 4, 1, 4>;
    using Tall = Tile<128, 64, 8, 8, 8, 1, 4>;
    using Deep = Tile<128, 64, 8, 8, 8, 1, 3>;  // for loaders with more to remember
    using Large = Tile<128, 128, 8, 8, 8, 1, 2>;
};

// On tensor cores; for two precisions each.
struct TensorTiles {
    using Team = TensorTile<Tile<32, 32, 16, 8, 4, 4, 3>>;
    using Middle = TensorTile<Tile<64, 64, 16, 8, 4, 1, 4>>;
    using Large = TensorTile<Tile<128, 128, 16, 8, 8, 1, 1>>;
};

constexpr int64_t kSlice = 1024;     // k's of a slice at most, where nothing else asks for fewer
constexpr int64_t kLeastSlice = 64;  // worth the work of adding it to others

// Slices of the same length but for the last, in whole stages of every tile.
inline int64_t slice_of(int64_t depth, int64_t slices) {
    const int64_t slice = divide_up<int64_t>(divide_up<int64_t>(depth, slices), 16) * 16;
    return slice > 0 ? slice : 16;
}

inline int64_t slices_of(int64_t depth) {
    return depth > kSlice ? divide_up<int64_t>(depth, kSlice) : 1;
}

template <class Tile>
int64_t tiles_in(const Area& area) {
    return divide_up<int64_t>(area.rows, Tile::kRows) *
           divide_up<int64_t>(area.columns, Tile::kColumns);
}

// `slices` of the depth in each of `splits` blocks.
template <class Tile>
Grid grid_of(const Area& area, int64_t parts, int64_t splits, int64_t slices) {
    Grid grid = {};
    grid.rows = divide_up<int64_t>(area.rows, Tile::kRows);
    grid.columns = divide_up<int64_t>(area.columns, Tile::kColumns);
    grid.parts = parts;
    grid.splits = splits;
    grid.slice = slice_of(area.depth, splits * slices);
    grid.span = grid.slice * slices;
    return grid;
}

// Calls f(Tile) for the tile that is done first with `parts` areas as large as this one. What
// counts is how many sums the busiest processor makes, and how fast: larger tiles read less for
// each product.
template <class T, class F>
void with_tile(Precision precision, const Area& area, int64_t parts, F f) {
    using S = ProductTiles<T>;
    const auto cost = [&](auto tile, double speed) {
        using Tile = decltype(tile);
        const double sums = static_cast<double>(Tile::kRows * Tile::kColumns);
        return static_cast<double>(divide_up(tiles_in<Tile>(area) * parts, kProcessors)) * sums /
               speed;
    };
    if constexpr (std::is_same<T, float>::value) {
        using Tensor = TensorTiles;
        if (precision != Precision::kFloat32) {
            if (cost(Tensor::Large(), 1.0) <= cost(Tensor::Middle(), 0.6))
                return f(Tensor::Large());
            return f(Tensor::Middle());
        }
    }
    const double costs[] = {cost(typename S::Large(), 1.0), cost(typename S::Tall(), 0.95),
                            cost(typename S::Middle(), 0.75), cost(typename S::Narrow(), 0.7),
                            cost(typename S::Small(), 0.45)};
    int best = 4;
    for (int i = 3; i >= 0; --i)
        if (costs[i] <= costs[best]) best = i;
    if (best == 0) return f(typename S::Large());
    if (best == 1) return f(typename S::Tall());
    if (best == 2) return f(typename S::Middle());
    if (best == 3) return f(typename S::Narrow());
    f(typename S::Small());
}

// Calls f(Tile) for the tile of teams.
template <class T, class F>
void with_team(Precision precision, F f) {
    if constexpr (std::is_same<T, float>::value) {
        if (precision != Precision::kFloat32) return f(TensorTiles::Team());
    }
    f(typename ProductTiles<T>::Team());
}

// The most blocks of one launch. The emulator, which sees no arrays that large, comes to it too.
#ifdef CONVKIT_EMULATED
constexpr int64_t kMostOfLaunch = 1 << 20;
#else
constexpr int64_t kMostOfLaunch = INT32_MAX;
#endif

template <class T, class Tile, class Problem>
void run_product(const Context& context, const char* name, const Problem& problem,
                 const Grid& grid) {
    if (grid.blocks() > kMostOfLaunch)
        throw DeviceError(std::string(name) + ": more blocks than a launch can have");
    launch(context, name, product_kernel<T, Tile, Problem>,
           dim3(static_cast<unsigned>(grid.blocks())), dim3(Tile::kThreads), 0, problem, grid,
           context.queue->precision);
}

// ---- sums over splits ---------------------------------------------------------------------------

constexpr int kTogether = 8;  // threads that share the splits of one value

// finish(i, sum over splits of partial[split * pitch + i]) for i < count. With several threads for
// a value, each adds every kThreadsEach-th split, then these are added in their order.
template <class T, int kThreadsEach, class F>
__global__ void add_partials_kernel(const T* partial, int64_t count, int64_t pitch, int64_t splits,
                                    F finish) {
    SHARED(T, sums, kTogether * kWarp);
    constexpr int kEach = kTogether * kWarp / kThreadsEach;  // values of a block
    const int mine = threadIdx.x % kEach, part = threadIdx.x / kEach;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kEach + mine;
    T sum = T(0);
    if (i < count && part < splits) {
        sum = partial[part * pitch + i];
        CONVKIT_UNROLL_BY(4)
        for (int64_t split = part + kThreadsEach; split < splits; split += kThreadsEach)
            sum += partial[split * pitch + i];
    }
    if (kThreadsEach > 1) {
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (part == 0)
            for (int j = 1; j < kThreadsEach; ++j) sum += sums[j * kEach + mine];
    }
    if (part == 0 && i < count) finish(i, sum);
}

// kThreadsEach 1: the splits are slices, to be added one after the other.
template <class T, int kThreadsEach, class F>
void add_partials(const Context& context, const char* name, const T* partial, int64_t count,
                  int64_t pitch, int64_t splits, const F& finish) {
    constexpr int64_t kEach = kTogether * kWarp / kThreadsEach;
    launch(context, name, add_partials_kernel<T, kThreadsEach, F>,
           dim3(static_cast<unsigned>(divide_up(count, kEach))), dim3(kTogether * kWarp), 0,
           partial, count, pitch, splits, finish);
}

}  // namespace cuda
}  // namespace convkit
