// A Stretch of CUDA, for device.cu.
#pragma once

#include "stretch.h"

namespace convkit {

class Device;

namespace cuda {

// For up to `most` samples at a time. Throws DoesNotFit, and std::bad_alloc.
std::unique_ptr<Stretch> make_stretch(const Device& library, int device, const StretchPlan& plan,
                                      int64_t most);

}  // namespace cuda
}  // namespace convkit
