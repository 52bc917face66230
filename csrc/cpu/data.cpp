// Rows of a data set for one batch.
//   gather         source (samples, size) of any SourceType, index (n) or null ->
//                  y (n, size) = source[index[i]] * scale, without index source[i] * scale
//   gather_labels  the same into int32, without scale: floats are cut toward zero; what int32
//                  cannot hold, NaN included, becomes -1, which is no class
#include <limits>
#include <type_traits>

#include "cpu_kernels.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// y[i] = convert(source[index[i]]) for rows of `size` values.
template <class Source, class Y, class Convert>
void gather_rows(const Context& context, int64_t size, int64_t n, const void* source,
                 const int64_t* index, Y* y, Convert convert) {
    const Source* x = static_cast<const Source*>(source);
    parallel_for(context, n, 2 + 0.3 * size, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const Source* from = x + (index ? index[row] : row) * size;
            Y* to = y + row * size;
            for (int64_t i = 0; i < size; ++i) to[i] = convert(from[i]);
        }
    });
}

template <class Y, class Convert>
void gather_any(const Context& context, const Gather& s, int64_t n, const void* source,
                const int64_t* index, Y* y, Convert convert) {
    switch (s.type) {
        case kUint8:
        case kBool:
            return gather_rows<uint8_t>(context, s.size, n, source, index, y, convert);
        case kInt32:
            return gather_rows<int32_t>(context, s.size, n, source, index, y, convert);
        case kInt64:
            return gather_rows<int64_t>(context, s.size, n, source, index, y, convert);
        case kFloat32:
            return gather_rows<float>(context, s.size, n, source, index, y, convert);
        case kFloat64:
            return gather_rows<double>(context, s.size, n, source, index, y, convert);
    }
}

int32_t label(int64_t v) {
    using Limits = std::numeric_limits<int32_t>;
    return v < Limits::min() || v > Limits::max() ? -1 : static_cast<int32_t>(v);
}

int32_t label(double v) {
    return v > -2147483649.0 && v < 2147483648.0 ? static_cast<int32_t>(v) : -1;
}

}  // namespace

template <class T>
void gather(const Context& context, const Gather& s, int64_t n, const void* source,
            const int64_t* index, T* y) {
    const T scale = static_cast<T>(s.scale);
    gather_any(context, s, n, source, index, y, [=](auto v) { return static_cast<T>(v) * scale; });
}

template <class T>
void gather_labels(const Context& context, const Gather& s, int64_t n, const void* source,
                   const int64_t* index, int32_t* y) {
    gather_any(context, s, n, source, index, y, [](auto v) {
        using Widest = std::conditional_t<std::is_floating_point_v<decltype(v)>, double, int64_t>;
        return label(static_cast<Widest>(v));
    });
}

INSTANTIATE(gather)
INSTANTIATE(gather_labels)

}  // namespace CONVKIT_ISA
}  // namespace convkit
