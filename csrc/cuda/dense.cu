// Fully connected layer.
//
//   y = x kernel + bias      dx = dy transposed(kernel)
//   dkernel = transposed(x) dy      dbias = sum of dy over samples and rows
//
// x, dx (n, rows, inputs); kernel, dkernel (inputs, units); bias, dbias (units), may be null;
// y, dy (n, rows, units). fused_dense is this, then an activation.
//
// With a few rows, reading the kernel is all the work: many warps take a share of it each. Up to a
// few hundred rows, the depth of the product is shared out among teams, so that there is work for
// many processors; from there on it is a convolution of pictures of one pixel.
#include <algorithm>

#include "conv_products.cuh"
#include "cuda_kernels.h"

namespace convkit {
namespace cuda {
namespace {

constexpr int64_t kFewRows = 4, kTeamRows = 256;  // up to so many

// ---- a few rows ---------------------------------------------------------------------------------

constexpr int kFewWarps = 16;

template <class T>
struct FewRows {
    const T *x, *kernel;
    T* y;  // or sums of splits, one after the other
    Epilogue<T> epilogue;
    int64_t rows, inputs, units;
    int64_t share;       // inputs of a warp
    int64_t split_size;  // values of y; 0: y itself
};

// A lane has one unit of kRows rows, a warp a share of the inputs; the block adds its warps' sums
// in their order. Blocks are numbered (split, 32 units).
template <class T, int kRows>
__global__ void __launch_bounds__(kFewWarps* kWarp) few_rows_kernel(const FewRows<T> p) {
    SHARED(T, sums, kRows * kFewWarps * kWarp);
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const Quotient block = divide(blockIdx.x, (p.units + kWarp - 1) / kWarp);
    const int64_t unit = block.remainder * kWarp + lane;
    const int64_t begin = (block.quotient * kFewWarps + warp) * p.share;
    const int64_t end = min(p.inputs, begin + p.share);
    T sum[kRows] = {};
    if (unit < p.units) {
        const T* kernel = p.kernel + begin * p.units + unit;
        CONVKIT_UNROLL_BY(8)
        for (int64_t k = begin; k < end; ++k, kernel += p.units) {
            const T w = *kernel;
            CONVKIT_UNROLL
            for (int i = 0; i < kRows; ++i)
                if (i < p.rows) sum[i] += p.x[i * p.inputs + k] * w;
        }
    }
    CONVKIT_UNROLL
    for (int i = 0; i < kRows; ++i) sums[i * kFewWarps * kWarp + threadIdx.x] = sum[i];
    __syncthreads();
    if (warp >= p.rows || warp >= kRows || unit >= p.units) return;
    const T* mine = sums + warp * kFewWarps * kWarp + lane;
    T total = mine[0];
    for (int i = 1; i < kFewWarps; ++i) total += mine[i * kWarp];
    const int64_t at = warp * p.units + unit;
    p.y[block.quotient * p.split_size + at] =
        p.split_size == 0 ? p.epilogue.any(unit, total) : total;
}

template <class T>
struct FinishDense {
    Epilogue<T> epilogue;
    int64_t units;
    T* y;

    __device__ void operator()(int64_t i, T sum) const {
        y[i] = epilogue.any(divide(i, units).remainder, sum);
    }
};

template <class T>
struct FinishPlain {
    T* y;

    __device__ void operator()(int64_t i, T sum) const { y[i] = sum; }
};

// How many blocks share the depth: as many as give all processors work, if each has enough of it.
int64_t splits_for(int64_t blocks, int64_t depth, int64_t least) {
    return std::max<int64_t>(1, std::min(kProcessors / blocks, depth / least));
}

template <class T>
void multiply_few(const Context& context, const char* name, const Dense& s, int64_t rows,
                  const T* x, const T* kernel, const Epilogue<T>& epilogue, T* y) {
    const int64_t across = divide_up<int64_t>(s.units, kWarp);
    const int64_t splits = splits_for(across, s.inputs, kFewWarps * 16);
    const int64_t size = rows * s.units;
    FewRows<T> p = {x, kernel, y, epilogue, rows, s.inputs, s.units, 0, 0};
    p.share = divide_up(s.inputs, splits * kFewWarps);
    if (splits > 1) {
        const size_t bytes = static_cast<size_t>(splits * size) * sizeof(T);
        p.y = static_cast<T*>(context.queue->workspace(bytes));
        p.split_size = size;
    }
    const dim3 grid(static_cast<unsigned>(across * splits)), block(kFewWarps * kWarp);
    if (rows == 1) {
        launch(context, name, few_rows_kernel<T, 1>, grid, block, 0, p);
    } else {
        launch(context, name, few_rows_kernel<T, kFewRows>, grid, block, 0, p);
    }
    if (splits > 1)
        add_partials<T, 1>(context, name, p.y, size, size, splits,
                           FinishDense<T>{epilogue, s.units, y});
}

// ---- products in teams --------------------------------------------------------------------------

// problem.*to, of `size` values, by blocks of teams; where these share the depth, finish(i, sum)
// takes the sums.
template <class T, class Problem, class Finish>
void run_teams(const Context& context, const char* name, Problem problem, T* Problem::* to,
               const Area& area, int64_t size, const Finish& finish) {
    with_team<T>(context.queue->precision, [&](auto tile) {
        using Tile = decltype(tile);
        const int64_t splits =
            splits_for(tiles_in<Tile>(area), area.depth, Tile::kTeams * kLeastSlice);
        if (splits > 1) {
            const size_t bytes = static_cast<size_t>(splits * size) * sizeof(T);
            problem.*to = static_cast<T*>(context.queue->workspace(bytes));
            problem.split_size = size;
        }
        run_product<T, Tile>(context, name, problem, grid_of<Tile>(area, 1, splits, Tile::kTeams));
        if (splits > 1) add_partials<T, 1>(context, name, problem.*to, size, size, splits, finish);
    });
}

template <class T>
void multiply(const Context& context, const char* name, const Dense& s, int64_t n, const T* x,
              const T* kernel, const T* bias, int64_t kind, double slope, T* y) {
    int64_t rows = n * s.rows;
    if (rows * s.units == 0) return;
    const Epilogue<T> epilogue = {bias, kind, static_cast<T>(slope)};
    if (rows <= kFewRows) return multiply_few(context, name, s, rows, x, kernel, epilogue, y);
    if (rows > kTeamRows)
        return fused_conv2d<T>(context, {as_convolution(s), kind, slope, 1, 1}, rows, x, kernel,
                               bias, y);
    check_sides(name, as_convolution(s));
    const Area area = {rows, s.units, s.inputs};
    const int64_t size = rows * s.units;
    const Conv2d flat = flattened(as_convolution(s), &rows);
    run_teams<T>(context, name, forward_product(flat, rows, x, kernel, epilogue, y), &Forward<T>::y,
                 area, size, FinishDense<T>{epilogue, s.units, y});
}

}  // namespace

// ---- the kernels --------------------------------------------------------------------------------

template <class T>
void dense(const Context& context, const Dense& s, int64_t n, const T* x, const T* kernel,
           const T* bias, T* y) {
    multiply(context, "dense", s, n, x, kernel, bias, kLinear, 0, y);
}

template <class T>
void fused_dense(const Context& context, const FusedDense& s, int64_t n, const T* x,
                 const T* kernel, const T* bias, T* y) {
    multiply(context, "fused_dense", s.dense, n, x, kernel, bias, s.activation, s.slope, y);
}

template <class T>
void dense_backward_input(const Context& context, const Dense& s, int64_t n, const T* dy,
                          const T* kernel, T* dx) {
    int64_t rows = n * s.rows;
    if (rows * s.inputs == 0) return;
    const Conv2d all = as_convolution(s);
    if (rows > kTeamRows) return conv2d_backward_input<T>(context, all, rows, dy, kernel, dx);
    check_sides("dense_backward_input", all);
    const Area area = {rows, s.inputs, s.units};
    const int64_t size = rows * s.inputs;
    const Conv2d flat = flattened(all, &rows);
    run_teams<T>(context, "dense_backward_input",
                 backward_input_product(flat, rows, dy, kernel, dx), &BackwardInput<T>::dx, area,
                 size, FinishPlain<T>{dx});
}

template <class T>
void dense_backward_kernel(const Context& context, const Dense& s, int64_t n, const T* dy,
                           const T* x, T* dkernel, T* dbias) {
    conv2d_backward_kernel<T>(context, as_convolution(s), n * s.rows, dy, x, dkernel, dbias);
}

INSTANTIATE(dense)
INSTANTIATE(fused_dense)
INSTANTIATE(dense_backward_input)
INSTANTIATE(dense_backward_kernel)

}  // namespace cuda
}  // namespace convkit
