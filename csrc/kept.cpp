#include "kept.h"

#include <algorithm>

namespace convkit {

void* Kept::values(const void* maker, size_t bytes, KeptBody fill, void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto found = std::find_if(all_.begin(), all_.end(),
                              [&](const Values& values) { return values.maker == maker; });
    if (found == all_.end())
        found = all_.insert(all_.end(), {maker, 0, allocate(static_cast<int64_t>(bytes))});
    if (found->version != version_) {
        fill(data, found->memory.get());
        found->version = version_;
    }
    return found->memory.get();
}

void Kept::renew() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++version_;
}

void* kept_values(Kept& kept, const void* maker, size_t bytes, KeptBody fill, void* data) {
    return kept.values(maker, bytes, fill, data);
}

}  // namespace convkit
