// Rows of a data set: their type is known only at run time.
#pragma once

#include <limits>
#include <type_traits>

#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

// f(source), as a pointer to what it holds.
template <class F>
static inline void with_source(int64_t type, const void* source, F f) {
    switch (type) {
        case kUint8:
        case kBool:
            return f(static_cast<const uint8_t*>(source));
        case kInt32:
            return f(static_cast<const int32_t*>(source));
        case kInt64:
            return f(static_cast<const int64_t*>(source));
        case kFloat32:
            return f(static_cast<const float*>(source));
        case kFloat64:
            return f(static_cast<const double*>(source));
    }
}

// What is added to what was read: to add -0 changes nothing, where 0 would make 0 of -0.
template <class T>
static inline T gather_offset(const Gather& s) {
    return s.offset == 0 ? T(-0.0) : static_cast<T>(s.offset);
}

// A label from any number: floats are cut toward zero; what int32 cannot hold, NaN included, is -1,
// which is no class.
template <class Source>
static inline int32_t label(Source v) {
    if constexpr (std::is_floating_point_v<Source>) {
        const auto wide = static_cast<double>(v);
        return wide > -2147483649.0 && wide < 2147483648.0 ? static_cast<int32_t>(wide) : -1;
    } else {
        using Limits = std::numeric_limits<int32_t>;
        const auto wide = static_cast<int64_t>(v);
        return wide < Limits::min() || wide > Limits::max() ? -1 : static_cast<int32_t>(wide);
    }
}

}  // namespace CONVKIT_ISA
}  // namespace convkit
