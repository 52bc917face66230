// Up-sampling by whole factors, x (n, height, width, channels) ->
// y (n, height * scale_height, width * scale_width, channels).
//   nearest   y[i, j] = x[i / scale_height, j / scale_width]
//   bilinear  y[i, j] interpolates x at ((i + 0.5) / scale - 0.5), clamped to the edges, per axis
// Backward, dy (as y) -> dx (as x): each value of dx gathers from the outputs that it took part in.
//
// Forward, a thread takes a vector of channels of one column of y, in all the rows that come from
// the same rows of x; neighbours write what lies together. Backward, a vector of dx.
#include <algorithm>

#include "cuda_kernels.h"
#include "index.cuh"

namespace convkit {
namespace cuda {
namespace {

// One axis. kScale is 2 where the kernel knows that, else 0.
template <int kScale, class I>
class Axis {
 public:
    Axis(int64_t size, int64_t scale)
        : size_(static_cast<I>(size)),
          scale_(static_cast<I>(scale)),
          by_scale_(scale),
          by_twice_(2 * scale) {}

    __device__ I size() const { return size_; }
    __device__ I scale() const { return kScale > 0 ? kScale : scale_; }
    __device__ I outputs() const { return size_ * scale(); }
    __device__ I nearest(I out) const {
        return kScale > 0 ? out / kScale : by_scale_.quotient(out);
    }

    // Outputs that lie between the same two inputs are a group, so are those before the first and
    // those behind the last; there are `size` + 1. Where they begin.
    __device__ I group_begin(I group) const {
        const I begin = (group - 1) * scale() + scale() / 2;
        return group == 0 ? 0 : min(begin, outputs());
    }
    __device__ I group(I out) const {
        const I position = place(out) + 2 * scale();
        return kScale > 0 ? position / (2 * kScale) : by_twice_.quotient(position);
    }
    __device__ I before(I group) const { return max(group - 1, I(0)); }
    __device__ I behind(I group) const { return min(group, size_ - 1); }

    // How much of the input behind an output is in it.
    template <class T>
    __device__ T share(I group, I out) const {
        if (group == 0 || group == size_) return T(0);  // one input alone
        return part<T>(place(out) - 2 * scale() * (group - 1));
    }

    // The outputs that an input is in, and how much of it. An output before the first input has
    // that input alone, as if it were itself and, mirrored at the border, one more; so it counts
    // twice, and every input has the same weights.
    __device__ I reached() const { return scale() / 2 + 3 * scale() / 2; }
    __device__ I reached(I in, I k) const {
        const I out = in * scale() - scale() / 2 + k;
        return out < 0 ? -1 - out : out < outputs() ? out : 2 * outputs() - 1 - out;
    }
    template <class T>
    __device__ T weight(I k) const {
        const I distance = 2 * k + 1 - scale() - scale() / 2 * 2;
        return part<T>(2 * scale() - (distance < 0 ? -distance : distance));
    }

 private:
    // Where an output is, in units of 1 / (2 scale) between inputs.
    __device__ I place(I out) const { return 2 * out + 1 - scale(); }
    template <class T>
    __device__ T part(I units) const {
        return static_cast<T>(units) * (T(1) / static_cast<T>(2 * scale()));
    }

    I size_, scale_;
    Divisor<I> by_scale_, by_twice_;
};

template <int kScale, class I>
struct Scaling {
    Axis<kScale, I> rows, columns;
    Places<I> forward;   // of threads: groups of rows, columns of y
    Places<I> backward;  // x
    int64_t channels;

    Scaling(const Upsample2d& s, int64_t n, int width)
        : rows(s.height, s.scale_height),
          columns(s.width, s.scale_width),
          forward(n, s.height + (s.bilinear ? 1 : 0), s.width * s.scale_width, s.channels / width),
          backward(n, s.height, s.width, s.channels / width),
          channels(s.channels) {}

    __device__ int64_t input(I sample, I row, I column, int64_t channel) const {
        const int64_t line = static_cast<int64_t>(sample) * rows.size() + row;
        return (line * columns.size() + column) * channels + channel;
    }
    __device__ int64_t output(I sample, I row, I column, int64_t channel) const {
        const int64_t line = static_cast<int64_t>(sample) * rows.outputs() + row;
        return (line * columns.outputs() + column) * channels + channel;
    }
};

template <class T, int kWidth>
__device__ inline void add_product(Vector<T, kWidth>& sum, const Vector<T, kWidth>& v, T weight) {
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e) sum.value[e] += v.value[e] * weight;
}

// (1 - share) a + share b.
template <class T, int kWidth>
__device__ inline Vector<T, kWidth> mixed(const Vector<T, kWidth>& a, const Vector<T, kWidth>& b,
                                          T share) {
    Vector<T, kWidth> result;
    CONVKIT_UNROLL
    for (int e = 0; e < kWidth; ++e)
        result.value[e] = a.value[e] * (T(1) - share) + b.value[e] * share;
    return result;
}

// ---- nearest
// -------------------------------------------------------------------------------------

template <class T, int kWidth, int kScale, class I>
__global__ void nearest_kernel(Scaling<kScale, I> s, const T* x, T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.forward.count) return;
    const Place<I> p = s.forward.at(item);
    const int64_t channel = static_cast<int64_t>(p.vector) * kWidth;
    const int64_t from = s.input(p.sample, p.row, s.columns.nearest(p.column), channel);
    const auto value = load_vector<T, kWidth>(x + from);
    const int64_t line = s.columns.outputs() * s.channels;
    T* const to = y + s.output(p.sample, p.row * s.rows.scale(), p.column, channel);
    for (I i = 0; i < s.rows.scale(); ++i) write_vector<T, kWidth>(to + i * line, value);
}

template <class T, int kWidth, int kScale, class I>
__global__ void nearest_backward_kernel(Scaling<kScale, I> s, const T* dy, T* dx) {
    const I item = item_of_thread<I>();
    if (item >= s.backward.count) return;
    const Place<I> p = s.backward.at(item);
    const int64_t line = s.columns.outputs() * s.channels;
    const T* const from =
        dy + s.output(p.sample, p.row * s.rows.scale(), p.column * s.columns.scale(),
                      static_cast<int64_t>(p.vector) * kWidth);
    Vector<T, kWidth> sum{};
    for (I j = 0; j < s.columns.scale(); ++j) {
        Vector<T, kWidth> column{};
        for (I i = 0; i < s.rows.scale(); ++i)
            add_product(column, load_vector<T, kWidth>(from + i * line + j * s.channels), T(1));
        add_product(sum, column, T(1));
    }
    write_vector<T, kWidth>(dx + static_cast<int64_t>(item) * kWidth, sum);
}

// ---- bilinear
// ------------------------------------------------------------------------------------

template <class T, int kWidth, int kScale, class I>
__global__ void bilinear_kernel(Scaling<kScale, I> s, const T* x, T* y) {
    const I item = item_of_thread<I>();
    if (item >= s.forward.count) return;
    const Place<I> p = s.forward.at(item);
    const int64_t channel = static_cast<int64_t>(p.vector) * kWidth;
    const I begin = s.rows.group_begin(p.row), end = s.rows.group_begin(p.row + 1);
    const I columns = s.columns.group(p.column);
    const T share = s.columns.template share<T>(columns, p.column);
    const I left = s.columns.before(columns), right = s.columns.behind(columns);
    const int64_t above = s.input(p.sample, s.rows.before(p.row), 0, channel);
    const int64_t below = s.input(p.sample, s.rows.behind(p.row), 0, channel);
    const auto upper = mixed(load_vector<T, kWidth>(x + above + left * s.channels),
                             load_vector<T, kWidth>(x + above + right * s.channels), share);
    const auto lower = mixed(load_vector<T, kWidth>(x + below + left * s.channels),
                             load_vector<T, kWidth>(x + below + right * s.channels), share);
    for (I row = begin; row < end; ++row) {
        const T part = s.rows.template share<T>(p.row, row);
        write_vector<T, kWidth>(y + s.output(p.sample, row, p.column, channel),
                                mixed(upper, lower, part));
    }
}

template <class T, int kWidth, int kScale, class I>
__global__ void bilinear_backward_kernel(Scaling<kScale, I> s, const T* dy, T* dx) {
    const I item = item_of_thread<I>();
    if (item >= s.backward.count) return;
    const Place<I> p = s.backward.at(item);
    Vector<T, kWidth> sum{};
    for (I i = 0; i < s.rows.reached(); ++i) {
        const int64_t from = s.output(p.sample, s.rows.reached(p.row, i), 0,
                                      static_cast<int64_t>(p.vector) * kWidth);
        Vector<T, kWidth> row{};
        for (I j = 0; j < s.columns.reached(); ++j) {
            const int64_t at = from + s.columns.reached(p.column, j) * s.channels;
            add_product(row, load_vector<T, kWidth>(dy + at), s.columns.template weight<T>(j));
        }
        add_product(sum, row, s.rows.template weight<T>(i));
    }
    write_vector<T, kWidth>(dx + static_cast<int64_t>(item) * kWidth, sum);
}

// ---- launches
// ------------------------------------------------------------------------------------

template <class T, int kWidth, int kScale, class I>
void run(const Context& context, bool forward, const Upsample2d& given, int64_t n, const T* from,
         T* to) {
    const Scaling<kScale, I> s(given, n, kWidth);
    if (forward) {
        launch(context, "upsample2d",
               given.bilinear ? bilinear_kernel<T, kWidth, kScale, I>
                              : nearest_kernel<T, kWidth, kScale, I>,
               blocks_for(s.forward.count), dim3(kThreads), 0, s, from, to);
    } else {
        launch(context, "upsample2d_backward",
               given.bilinear ? bilinear_backward_kernel<T, kWidth, kScale, I>
                              : nearest_backward_kernel<T, kWidth, kScale, I>,
               blocks_for(s.backward.count), dim3(kThreads), 0, s, from, to);
    }
}

template <class T>
void choose(const Context& context, bool forward, const Upsample2d& s, int64_t n, const T* from,
            T* to) {
    if (n * s.input_size() == 0) return;
    const int width = vector_width<T>(s.channels, {from, to});
    const int64_t place =
        4 * std::max((s.height + 1) * s.scale_height, (s.width + 1) * s.scale_width);
    const int64_t items = n * (s.height + 1) * s.width * s.scale_width * s.channels;
    with_variant<T>(width, std::max(items, place * width), [&](auto variant) {
        constexpr int kWidth = decltype(variant)::width;
        using I = typename decltype(variant)::Index;
        if constexpr (sizeof(I) == 4) {
            if (s.scale_height == 2 && s.scale_width == 2)
                return run<T, kWidth, 2, I>(context, forward, s, n, from, to);
        }
        run<T, kWidth, 0, I>(context, forward, s, n, from, to);
    });
}

}  // namespace

template <class T>
void upsample2d(const Context& context, const Upsample2d& s, int64_t n, const T* x, T* y) {
    choose(context, true, s, n, x, y);
}

template <class T>
void upsample2d_backward(const Context& context, const Upsample2d& s, int64_t n, const T* dy,
                         T* dx) {
    choose(context, false, s, n, dy, dx);
}

INSTANTIATE(upsample2d)
INSTANTIATE(upsample2d_backward)

}  // namespace cuda
}  // namespace convkit
