// Rows of a data set for one batch.
//   gather         source (samples, size) of any SourceType, index (n) or null ->
//                  y (n, size) = source[index[i]] * scale + offset, without index source[i] ...
//   gather_labels  the same into int32, as they are: floats are cut toward zero; what int32
//                  cannot hold, NaN included, becomes -1, which is no class
#include "cpu_kernels.h"
#include "source.h"

namespace convkit {
namespace CONVKIT_ISA {
namespace {

// y[i] = convert(source[index[i]]) for rows of `size` values.
template <class Y, class Convert>
void gather_rows(const Context& context, const Gather& s, int64_t n, const void* source,
                 const int64_t* index, Y* y, Convert convert) {
    with_source(s.type, source, [&](const auto* x) {
        parallel_for(context, n, 2 + 0.3 * s.size, [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; ++row) {
                const auto* from = x + (index ? index[row] : row) * s.size;
                Y* to = y + row * s.size;
                for (int64_t i = 0; i < s.size; ++i) to[i] = convert(from[i]);
            }
        });
    });
}

}  // namespace

template <class T>
void gather(const Context& context, const Gather& s, int64_t n, const void* source,
            const int64_t* index, T* y) {
    const T scale = static_cast<T>(s.scale), offset = gather_offset<T>(s);
    gather_rows(context, s, n, source, index, y,
                [=](auto v) { return static_cast<T>(v) * scale + offset; });
}

template <class T>
void gather_labels(const Context& context, const Gather& s, int64_t n, const void* source,
                   const int64_t* index, int32_t* y) {
    gather_rows(context, s, n, source, index, y, [](auto v) { return label(v); });
}

INSTANTIATE(gather)
INSTANTIATE(gather_labels)

}  // namespace CONVKIT_ISA
}  // namespace convkit
