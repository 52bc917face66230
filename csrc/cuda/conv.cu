// 2-D convolution (cross-correlation) and its gradients.
//
//   y[i, oh, ow, f] = bias[f] + sum over kh, kw, c of
//       x[i, oh * stride - pad + kh * dilation, ow * stride - pad + kw * dilation, c]
//       * kernel[kh, kw, c, f], where the pixel lies in the picture
//
// x, dx (n, height, width, channels); kernel, dkernel (kernel_height, kernel_width,
// channels / groups, filters); bias, dbias (filters), may be null; y, dy (n, out_height, out_width,
// filters). Each group of channels makes its own group of filters. fused_conv2d is this, then
// max-pooling and an activation: y (n, pooled_height, pooled_width, filters).
//
// Three ways: few filters, conv_direct.cuh; a channel for each group, conv_depthwise.cuh; all else,
// products of matrices, conv_products.cuh. The way, and with it the order of additions in y and dx,
// depends on the geometry alone, so that samples do not depend on their number. Only products go
// through tensor cores, where the queue's precision asks for these.
#include <algorithm>

#include "conv_depthwise.cuh"
#include "conv_direct.cuh"
#include "conv_products.cuh"
#include "cuda_kernels.h"

namespace convkit {
namespace cuda {
namespace {

// Values between a convolution and a pooling that are kept in memory at a time.
constexpr int64_t kBetween = int64_t{1} << 23;

// ---- sums over splits ---------------------------------------------------------------------------

template <class T>
struct FinishForward {
    Epilogue<T> epilogue;
    int64_t filters;
    T* y;

    __device__ void operator()(int64_t i, T sum) const {
        y[i] = epilogue.any(divide(i, filters).remainder, sum);
    }
};

template <class T>
struct FinishInput {
    T* dx;

    __device__ void operator()(int64_t i, T sum) const { dx[i] = sum; }
};

// (dkernel, dbias), one after the other.
template <class T>
struct FinishKernel {
    T *dkernel, *dbias;
    int64_t size;

    __device__ void operator()(int64_t i, T sum) const {
        if (i < size) {
            dkernel[i] = sum;
        } else if (dbias) {
            dbias[i - size] = sum;
        }
    }
};

template <class T>
T* workspace(const Context& context, int64_t values) {
    if (values == 0) return nullptr;
    return static_cast<T*>(context.queue->workspace(static_cast<size_t>(values) * sizeof(T)));
}

// ---- forward ------------------------------------------------------------------------------------

// A convolution by products: with its pooling, where sums of a window stay together.
template <class T>
class ForwardPlan {
 public:
    ForwardPlan(Precision precision, const Conv2d& s, int64_t n, int64_t pool_height,
                int64_t pool_width)
        : precision_(precision), s_(s), n_(n), pool_height_(pool_height), pool_width_(pool_width) {
        const int64_t window = pool_height * pool_width;
        pixels_ = n * (s.out_height / pool_height) * (s.out_width / pool_width);
        area_ = {pixels_ * window, s.filters / s.groups,
                 s.kernel_height * s.kernel_width * (s.channels / s.groups)};
        slices_ = slices_of(area_.depth);
        with_tile<T>(precision, area_, s.groups, [&](auto tile) {
            if (tiles_in<decltype(tile)>(area_) * s.groups < kProcessors) splits_ = slices_;
        });
    }

    int64_t slices() const { return slices_; }
    // Of the memory that run needs, in values.
    int64_t scratch() const { return splits_ > 1 ? splits_ * pixels_ * s_.filters : 0; }

    void run(const Context& context, const char* name, const T* x, const T* kernel,
             const Epilogue<T>& epilogue, T* scratch, T* y) const {
        Epilogue<T> now = epilogue;
        const bool later = splits_ == 1 && !is_cheap(epilogue.kind);
        if (later) now.kind = kLinear;
        int64_t n = n_;
        const Conv2d s = pool_height_ * pool_width_ == 1 ? flattened(s_, &n) : s_;
        T* to = splits_ > 1 ? scratch : y;
        Forward<T> problem = forward_product(s, n, x, kernel, now, to);
        problem.pool_by(pool_height_, pool_width_);
        problem.split_size = splits_ > 1 ? pixels_ * s_.filters : 0;
        with_tile<T>(precision_, area_, s.groups, [&](auto tile) {
            using Tile = decltype(tile);
            run_product<T, Tile>(context, name, problem,
                                 grid_of<Tile>(area_, s.groups, splits_, slices_ / splits_));
        });
        if (splits_ > 1)
            add_partials<T, 1>(context, name, scratch, pixels_ * s_.filters, pixels_ * s_.filters,
                               splits_, FinishForward<T>{epilogue, s_.filters, y});
        if (later) {
            const Activation all = {pixels_ * s_.filters, epilogue.kind,
                                    static_cast<double>(epilogue.slope)};
            activation<T>(context, all, 1, y, y);
        }
    }

 private:
    Precision precision_;
    Conv2d s_;
    int64_t n_, pool_height_, pool_width_;
    int64_t pixels_, slices_, splits_ = 1;
    Area area_;
};

// The convolution alone, and what it needs of memory.
template <class T>
class Convolution {
 public:
    Convolution(Precision precision, const Conv2d& s, int64_t n)
        : s_(s), n_(n), direct_(plan_direct<T>(s, n, 1, 1, &few_)), plan_(precision, s, n, 1, 1) {}

    int64_t scratch() const { return direct_ || is_depthwise(s_) ? 0 : plan_.scratch(); }
    bool is_direct() const { return direct_; }

    void run(const Context& context, const char* name, const T* x, const T* kernel,
             const Epilogue<T>& epilogue, T* scratch, T* y) {
        if (direct_) {
            few_.x = x, few_.kernel = kernel, few_.y = y;
            few_.epilogue = epilogue;
            return run_direct(context, name, few_);
        }
        if (!is_depthwise(s_)) return plan_.run(context, name, x, kernel, epilogue, scratch, y);
        Depthwise<T> p = plan_depthwise<T>(s_, n_);
        p.x = x, p.kernel = kernel, p.to = y;
        p.epilogue = epilogue;
        const bool later = !is_cheap(epilogue.kind);
        if (later) p.epilogue.kind = kLinear;
        const bool wide = s_.filters == s_.channels && is_wide(s_.filters, x) &&
                          is_wide(s_.filters, kernel) && is_wide(s_.filters, y);
        run_depthwise(context, name, p, wide);
        if (!later) return;
        const double slope = static_cast<double>(epilogue.slope);
        activation<T>(context, {s_.output_size(), epilogue.kind, slope}, n_, y, y);
    }

 private:
    Conv2d s_;
    int64_t n_;
    Direct<T> few_ = {};
    bool direct_;
    ForwardPlan<T> plan_;
};

Pool2d pooling_of(const FusedConv2d& s) {
    Pool2d pool = {};
    pool.height = s.conv.out_height, pool.width = s.conv.out_width;
    pool.channels = s.conv.filters;
    pool.pool_height = pool.stride_height = s.pool_height;
    pool.pool_width = pool.stride_width = s.pool_width;
    pool.dilation_height = pool.dilation_width = 1;
    pool.out_height = s.pooled_height(), pool.out_width = s.pooled_width();
    return pool;
}

// The convolution, then the pooling, some samples at a time.
template <class T>
void convolve_then_pool(const Context& context, const char* name, const FusedConv2d& s, int64_t n,
                        const T* x, const T* kernel, const Epilogue<T>& epilogue, T* y) {
    const Conv2d& c = s.conv;
    const Precision precision = context.queue->precision;
    const int64_t most = std::min(n, std::max<int64_t>(1, kBetween / c.output_size()));
    // Fewer samples may be split further than many.
    int64_t scratch = 0;
    for (const int64_t count : {most, n % most})
        if (count > 0) scratch = std::max(scratch, Convolution<T>(precision, c, count).scratch());
    const int64_t between = divide_up<int64_t>(most * c.output_size(), 64) * 64;
    T* z = workspace<T>(context, between + scratch);
    for (int64_t first = 0; first < n; first += most) {
        const int64_t count = std::min(most, n - first);
        Convolution<T>(precision, c, count)
            .run(context, name, x + first * c.input_size(), kernel, epilogue, z + between, z);
        max_pool2d<T>(context, pooling_of(s), count, z, y + first * s.output_size());
    }
}

// ---- backward, input ----------------------------------------------------------------------------

// The convolution of dy with the turned kernel that gives dx; for strides of 1 and one group.
Conv2d mirrored(const Conv2d& s) {
    Conv2d m = s;
    m.height = s.out_height, m.width = s.out_width, m.channels = s.filters;
    m.out_height = s.height, m.out_width = s.width, m.filters = s.channels;
    m.pad_top = (s.kernel_height - 1) * s.dilation_height - s.pad_top;
    m.pad_left = (s.kernel_width - 1) * s.dilation_width - s.pad_left;
    return m;
}

// ---- backward, kernel ---------------------------------------------------------------------------

// Calls f(Tile, blocks that share the depth): the largest tile of which there are enough, if each
// is to have some hundred pixels.
template <class T, class F>
void with_kernel_tile(Precision precision, const Area& area, int64_t parts, F f) {
    const auto splits = [&](int64_t tiles, int64_t least) {
        const int64_t wanted = divide_up<int64_t>(2 * kProcessors, std::max<int64_t>(tiles, 1));
        // No share of more pixels than an int counts.
        const int64_t shares = divide_up<int64_t>(area.depth, int64_t{1} << 28);
        const int64_t most = std::max<int64_t>(1, area.depth / least);
        return std::max({std::min(wanted, most), shares, int64_t{1}});
    };
    const auto enough = [&](int64_t tiles) {
        return tiles * divide_up<int64_t>(area.depth, 512) >= kProcessors;
    };
    const auto choose = [&](auto large, int64_t columns, auto middle, auto team) {
        const int64_t larges = tiles_in<decltype(large)>(area) * parts;
        const int64_t middles = tiles_in<decltype(middle)>(area) * parts;
        const int64_t teams = tiles_in<decltype(team)>(area) * parts;
        if (area.rows > 64 && area.columns > columns && enough(larges)) {
            f(large, splits(larges, 256));
        } else if (area.rows > 32 && area.columns > 32 && enough(middles)) {
            f(middle, splits(middles, 256));
        } else {
            f(team, splits(teams, 4 * kLeastSlice));
        }
    };
    if constexpr (std::is_same<T, float>::value) {
        using S = TensorTiles;
        if (precision != Precision::kFloat32) return choose(S::Large(), 64, S::Middle(), S::Team());
    }
    using S = ProductTiles<T>;
    choose(typename S::Deep(), 32, typename S::Middle(), typename S::Team());
}

template <class T>
void depthwise_backward(const Context& context, const Conv2d& s, int64_t n, const T* dy, const T* x,
                        T* dkernel, T* dbias) {
    const int64_t taps = s.kernel_height * s.kernel_width;
    const int64_t filter_blocks = divide_up<int64_t>(s.filters, kWarp);
    const int64_t lines = n * s.out_height;
    const int64_t wanted = divide_up<int64_t>(8 * kProcessors, filter_blocks * (taps + 1));
    const int64_t most = divide_up<int64_t>(lines, 2 * kDepthwiseWarps);
    const int64_t chunk = divide_up<int64_t>(lines, std::max<int64_t>(1, std::min(wanted, most)));
    const int64_t chunks = chunk > 0 ? divide_up(lines, chunk) : 1;
    const int64_t size = s.kernel_size() + s.filters;
    T* partial = workspace<T>(context, chunks * size);
    Depthwise<T> p = plan_depthwise<T>(s, n);
    p.x = x, p.dy = dy, p.to = partial;
    p.chunk = chunk;
    p.with_bias = dbias != nullptr;
    const int64_t all_taps = taps + (dbias ? 1 : 0);
    const dim3 grid(static_cast<unsigned>(chunks * filter_blocks),
                    static_cast<unsigned>(std::min<int64_t>(all_taps, 65535)));
    launch(context, "conv2d_backward_kernel", depthwise_backward_kernel<T>, grid,
           dim3(kDepthwiseWarps * kWarp), 0, p, filter_blocks);
    add_partials<T, kTogether>(context, "conv2d_backward_kernel", partial,
                               dbias ? size : s.kernel_size(), size, chunks,
                               FinishKernel<T>{dkernel, dbias, s.kernel_size()});
}

}  // namespace

// ---- the kernels --------------------------------------------------------------------------------

template <class T>
void conv2d(const Context& context, const Conv2d& s, int64_t n, const T* x, const T* kernel,
            const T* bias, T* y) {
    if (n * s.output_size() == 0) return;
    check_sides("conv2d", s);
    Convolution<T> convolution(context.queue->precision, s, n);
    T* scratch = workspace<T>(context, convolution.scratch());
    convolution.run(context, "conv2d", x, kernel, {bias, kLinear, T(0)}, scratch, y);
}

template <class T>
void fused_conv2d(const Context& context, const FusedConv2d& s, int64_t n, const T* x,
                  const T* kernel, const T* bias, T* y) {
    constexpr const char* kName = "fused_conv2d";
    if (n * s.output_size() == 0) return;
    check_sides(kName, s.conv);
    const Epilogue<T> epilogue = {bias, s.activation, static_cast<T>(s.slope)};
    const int64_t window = s.pool_height * s.pool_width;
    Convolution<T> convolution(context.queue->precision, s.conv, n);
    if (window == 1) {
        T* scratch = workspace<T>(context, convolution.scratch());
        return convolution.run(context, kName, x, kernel, epilogue, scratch, y);
    }
    if (convolution.is_direct()) {
        Direct<T> few = {};
        if (plan_direct(s.conv, n, s.pool_height, s.pool_width, &few)) {
            few.x = x, few.kernel = kernel, few.y = y;
            few.epilogue = epilogue;
            return run_direct(context, kName, few);
        }
    } else if ((window == 2 || window == 4) && !is_depthwise(s.conv)) {
        const ForwardPlan<T> plan(context.queue->precision, s.conv, n, s.pool_height, s.pool_width);
        if (plan.slices() == 1) return plan.run(context, kName, x, kernel, epilogue, nullptr, y);
    }
    convolve_then_pool(context, kName, s, n, x, kernel, epilogue, y);
}

template <class T>
void conv2d_backward_input(const Context& context, const Conv2d& given, int64_t samples,
                           const T* dy, const T* kernel, T* dx) {
    constexpr const char* kName = "conv2d_backward_input";
    if (samples * given.input_size() == 0) return;
    check_sides(kName, given);
    if (is_depthwise(given)) {
        Depthwise<T> p = plan_depthwise<T>(given, samples);
        p.dy = dy, p.kernel = kernel, p.to = dx;
        const bool wide = given.filters == given.channels && is_wide(given.filters, dy) &&
                          is_wide(given.filters, kernel) && is_wide(given.filters, dx);
        return run_depthwise_backward_input(context, kName, p, wide);
    }
    Direct<T> few = {};
    if (given.stride_height == 1 && given.stride_width == 1 && given.output_size() > 0 &&
        plan_direct(mirrored(given), samples, 1, 1, &few)) {
        few.x = dy, few.kernel = kernel, few.y = dx;
        few.turned = true;
        return run_direct(context, kName, few);
    }
    int64_t n = samples;
    const Conv2d s = flattened(given, &n);
    const Area area = backward_input_area(s, n);
    const int64_t slices = slices_of(area.depth), size = n * s.input_size();
    BackwardInput<T> problem = backward_input_product(s, n, dy, kernel, dx);
    const int64_t parts = s.groups * problem.down.classes * problem.across.classes;
    with_tile<T>(context.queue->precision, area, parts, [&](auto tile) {
        using Tile = decltype(tile);
        const bool split = slices > 1 && tiles_in<Tile>(area) * parts < kProcessors;
        if (split) {
            problem.dx = workspace<T>(context, slices * size);
            problem.split_size = size;
            problem.wide_dx = s.channels / s.groups % kQuad == 0;
        }
        run_product<T, Tile>(context, kName, problem,
                             grid_of<Tile>(area, parts, split ? slices : 1, split ? 1 : slices));
        if (split)
            add_partials<T, 1>(context, kName, problem.dx, size, size, slices, FinishInput<T>{dx});
    });
}

template <class T>
void conv2d_backward_kernel(const Context& context, const Conv2d& given, int64_t samples,
                            const T* dy, const T* x, T* dkernel, T* dbias) {
    constexpr const char* kName = "conv2d_backward_kernel";
    check_sides(kName, given);
    if (is_depthwise(given))
        return depthwise_backward(context, given, samples, dy, x, dkernel, dbias);
    int64_t n = samples;
    const Conv2d s = flattened(given, &n);
    const Area area = {s.kernel_height * s.kernel_width * (s.channels / s.groups),
                       s.filters / s.groups, n * s.out_height * s.out_width};
    with_kernel_tile<T>(context.queue->precision, area, s.groups, [&](auto tile, int64_t splits) {
        using Tile = decltype(tile);
        BackwardKernel<T> problem = backward_kernel_product(s, n, dy, x, dkernel, dbias);
        const int64_t size = s.kernel_size() + s.filters;
        T* partial = splits > 1 ? workspace<T>(context, splits * size) : nullptr;
        if (partial) {
            problem.dkernel = partial;
            problem.dbias = dbias ? partial + s.kernel_size() : nullptr;
            problem.split_size = size;
            problem.wide_to = s.filters / s.groups % kQuad == 0;
        }
        const int64_t share = divide_up<int64_t>(area.depth, splits);
        run_product<T, Tile>(context, kName, problem,
                             grid_of<Tile>(area, s.groups, splits,
                                           Tile::kTeams > 1 ? Tile::kTeams : slices_of(share)));
        if (partial)
            add_partials<T, kTogether>(context, kName, partial, dbias ? size : s.kernel_size(),
                                       size, splits,
                                       FinishKernel<T>{dkernel, dbias, s.kernel_size()});
    });
}

INSTANTIATE(conv2d)
INSTANTIATE(fused_conv2d)
INSTANTIATE(conv2d_backward_input)
INSTANTIATE(conv2d_backward_kernel)

}  // namespace cuda
}  // namespace convkit
