// Rows of a data set for one batch.
//   gather         source (samples, size) of any SourceType, index (n) or null ->
//                  y (n, size) = source[index[i]] * scale + offset, without index source[i] ...
//   gather_labels  the same into int32, as they are: floats are cut toward zero; what int32
//                  cannot hold, NaN included, becomes -1, which is no class
#include "cuda_kernels.h"
#include "vectors.cuh"

namespace convkit {
namespace cuda {
namespace {

template <class T>
struct Scaled {
    T scale, offset;

    template <class S>
    __device__ T operator()(S v) const {
        return static_cast<T>(v) * scale + offset;
    }
};

struct AsLabel {
    __device__ int32_t operator()(float v) const { return (*this)(static_cast<double>(v)); }
    __device__ int32_t operator()(double v) const {
        return v > -2147483649.0 && v < 2147483648.0 ? static_cast<int32_t>(v) : -1;
    }
    __device__ int32_t operator()(uint8_t v) const { return v; }
    __device__ int32_t operator()(int32_t v) const { return v; }
    __device__ int32_t operator()(int64_t v) const {
        return v < INT32_MIN || v > INT32_MAX ? -1 : static_cast<int32_t>(v);
    }
};

// Rows of so many vectors of kCount values. `width` neighbours take a row together; along y, blocks
// share long rows.
template <int kCount, class S, class Y, class Convert>
__global__ void gather_kernel(int64_t n, int64_t vectors, int width, const S* source,
                              const int64_t* index, Y* y, Convert convert) {
    const int64_t at_once = kThreads / width, across = static_cast<int64_t>(width) * gridDim.y;
    const int64_t left = blockIdx.y * width + threadIdx.x % width;
    for (int64_t row = at_once * blockIdx.x + threadIdx.x / width; row < n;
         row += at_once * gridDim.x) {
        const S* const from = source + (index ? index[row] : row) * vectors * kCount;
        Y* const to = y + row * vectors * kCount;
        for (int64_t i = left; i < vectors; i += across) {
            const Vector<S, kCount> read = load_vector<S, kCount>(from + i * kCount);
            Vector<Y, kCount> made;
            for (int k = 0; k < kCount; ++k) made.value[k] = convert(read.value[k]);
            store_vector<Y, kCount>(to + i * kCount, made);
        }
    }
}

template <int kCount, class S, class Y, class Convert>
void gather_vectors(const Context& context, const char* name, int64_t n, int64_t vectors,
                    const S* source, const int64_t* index, Y* y, const Convert& convert) {
    int width = 1;
    while (width < vectors && width < kThreads) width *= 2;
    const int64_t blocks = divide_up<int64_t>(n, kThreads / width);
    const int64_t down = blocks < kMostBlocks ? blocks : kMostBlocks;
    if (down == 0) return;
    const int64_t room = kMostBlocks / down, pieces = divide_up<int64_t>(vectors, width);
    const int64_t across = pieces < room ? pieces : room;
    launch(context, name, gather_kernel<kCount, S, Y, Convert>,
           dim3(static_cast<unsigned>(down), static_cast<unsigned>(across)), dim3(kThreads), 0, n,
           vectors, width, source, index, y, convert);
}

template <class S, class Y, class Convert>
void gather_from(const Context& context, const char* name, const Gather& s, int64_t n,
                 const S* source, const int64_t* index, Y* y, const Convert& convert) {
    constexpr int kCount =
        kVectorBytes / static_cast<int>(sizeof(S) > sizeof(Y) ? sizeof(S) : sizeof(Y));
    if (s.size % kCount == 0 && in_vectors<kCount>(source) && in_vectors<kCount>(y)) {
        gather_vectors<kCount>(context, name, n, s.size / kCount, source, index, y, convert);
    } else {
        gather_vectors<1>(context, name, n, s.size, source, index, y, convert);
    }
}

template <class Y, class Convert>
void gather_rows(const Context& context, const char* name, const Gather& s, int64_t n,
                 const void* source, const int64_t* index, Y* y, const Convert& convert) {
    const auto from = [&](const auto* rows) {
        gather_from(context, name, s, n, rows, index, y, convert);
    };
    switch (s.type) {
        case kUint8:
        case kBool:
            return from(static_cast<const uint8_t*>(source));
        case kInt32:
            return from(static_cast<const int32_t*>(source));
        case kInt64:
            return from(static_cast<const int64_t*>(source));
        case kFloat32:
            return from(static_cast<const float*>(source));
        case kFloat64:
            return from(static_cast<const double*>(source));
    }
}

}  // namespace

template <class T>
void gather(const Context& context, const Gather& s, int64_t n, const void* source,
            const int64_t* index, T* y) {
    // To add -0 changes nothing, where 0 would make 0 of -0.
    const T offset = s.offset == 0 ? T(-0.0) : static_cast<T>(s.offset);
    gather_rows(context, "gather", s, n, source, index, y,
                Scaled<T>{static_cast<T>(s.scale), offset});
}

template <class T>
void gather_labels(const Context& context, const Gather& s, int64_t n, const void* source,
                   const int64_t* index, int32_t* y) {
    gather_rows(context, "gather_labels", s, n, source, index, y, AsLabel{});
}

INSTANTIATE(gather)
INSTANTIATE(gather_labels)

}  // namespace cuda
}  // namespace convkit
