// The device's memory, and pinned memory of the host.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "emulator_state.h"

namespace convkit {
namespace emulator {

Memory& memory = *new Memory;

namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kHugePage = 2 << 20;

auto& pinned = *new std::map<const unsigned char*, size_t>;

unsigned char pattern_byte(uint64_t pattern, size_t offset) {
    return static_cast<unsigned char>(pattern >> offset % 8 * 8);
}

}  // namespace

// ---- garbage -----------------------------------------------------------------------------------

void fill(unsigned char* base, size_t begin, size_t end, uint64_t pattern) {
    for (; begin < end && begin % 8 != 0; ++begin) base[begin] = pattern_byte(pattern, begin);
    for (; begin + 8 <= end; begin += 8) std::memcpy(base + begin, &pattern, 8);
    for (; begin < end; ++begin) base[begin] = pattern_byte(pattern, begin);
}

bool guard_holds([[maybe_unused]] const unsigned char* base, [[maybe_unused]] size_t begin,
                 [[maybe_unused]] size_t end, [[maybe_unused]] uint64_t guard) {
#ifndef CONVKIT_ASAN
    for (; begin < end && begin % 8 != 0; ++begin)
        if (base[begin] != pattern_byte(guard, begin)) return false;
    for (; begin + 8 <= end; begin += 8)
        if (std::memcmp(base + begin, &guard, 8) != 0) return false;
    for (; begin < end; ++begin)
        if (base[begin] != pattern_byte(guard, begin)) return false;
#endif
    return true;
}

// ---- blocks of memory --------------------------------------------------------------------------

unsigned char* Memory::base() {
    if (base_) return base_;
    for (bytes_ = size_t{1} << 36; bytes_ >= size_t{1} << 28; bytes_ /= 4) {
        void* reserved = mmap(nullptr, bytes_ + kHugePage, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved == MAP_FAILED) continue;
        size_t space = bytes_ + kHugePage;
        std::align(kHugePage, bytes_, reserved, space);
        madvise(reserved, bytes_, MADV_HUGEPAGE);  // few pages change access quickly
        return base_ = static_cast<unsigned char*>(reserved);
    }
    throw std::bad_alloc();
}

bool Memory::contains(const void* pointer) {
    const auto at = reinterpret_cast<uintptr_t>(pointer);
    const auto begin = reinterpret_cast<uintptr_t>(base());
    return at >= begin && at < begin + bytes_;
}

void Memory::open() {
    if (open_++ > 0 || top_ == 0) return;
    mprotect(base(), round_up(top_, kHugePage), PROT_READ | PROT_WRITE);
    for (const auto& [at, allocation] : all_) permit(base() + at, allocation.bytes);
}

void Memory::close() {
    if (--open_ > 0 || top_ == 0) return;
    for (const auto& [at, allocation] : all_) forbid(base() + at, allocation.bytes);
    mprotect(base(), round_up(top_, kHugePage), PROT_NONE);
}

void* Memory::allocate(size_t bytes) {
    base();
    const size_t slot = round_up(bytes + 2 * kAlignment, kAlignment);
    auto hole = holes_.begin();
    while (hole != holes_.end() && hole->second - hole->first < slot) ++hole;
    size_t begin = top_;
    if (hole != holes_.end()) {
        begin = hole->first;
        const size_t end = hole->second;
        holes_.erase(hole);
        if (begin + slot < end) holes_[begin + slot] = end;
    } else {
        if (slot > bytes_ - top_) return nullptr;
        top_ += slot;
        mprotect(base(), round_up(top_, kHugePage), PROT_READ | PROT_WRITE);
    }
    const Access access;
    const size_t at = begin + kAlignment;
    all_[at] = {bytes, begin, begin + slot, ++serial_};
    lay_guards_of(at, all_[at]);
    fill(base(), at, at + bytes, kGarbage[0].unwritten);
    freed_.erase(at);
    used_ += bytes;
    return base() + at;
}

bool Memory::free(void* pointer) {
    const auto found = all_.find(offset(pointer));
    if (found == all_.end()) return false;
    const Access access;
    const Allocation gone = found->second;
    fill(base(), found->first, found->first + gone.bytes, guard_);  // who reads on reads NaNs
    forbid(base() + gone.slot_begin, gone.slot_end - gone.slot_begin);
    freed_.insert(found->first);
    all_.erase(found);
    used_ -= gone.bytes;
    auto hole = holes_.emplace(gone.slot_begin, gone.slot_end).first;
    const auto next = std::next(hole);
    if (next != holes_.end() && next->first == hole->second) {
        hole->second = next->second;
        holes_.erase(next);
    }
    if (hole != holes_.begin() && std::prev(hole)->second == hole->first) {
        std::prev(hole)->second = hole->second;
        holes_.erase(hole);
    }
    return true;
}

bool Memory::holds_range(const void* from, size_t bytes) {
    const size_t at = offset(from);
    auto found = all_.upper_bound(at);
    if (found == all_.begin()) return false;
    --found;
    return bytes <= found->second.bytes && at - found->first <= found->second.bytes - bytes;
}

void Memory::check_guards(const std::string& kernel) {
    for (const auto& [at, allocation] : all_) {
        const bool before = !guard_holds(base(), allocation.slot_begin, at, guard_);
        if (!before && guard_holds(base(), at + allocation.bytes, allocation.slot_end, guard_))
            continue;
        lose(cudaErrorIllegalAddress,
             kernel + ": device memory was written " + (before ? "before" : "behind") +
                 text_of(" the %zu bytes of allocation %lld", allocation.bytes,
                         static_cast<long long>(allocation.serial)));
        return;
    }
}

void Memory::lay_guards(uint64_t guard) {
    const Access access;
    guard_ = guard;
    for (const auto& [at, allocation] : all_) lay_guards_of(at, allocation);
}

void Memory::lay_guards_of(size_t at, const Allocation& allocation) {
    const size_t end = at + allocation.bytes;
    permit(base() + allocation.slot_begin, allocation.slot_end - allocation.slot_begin);
    fill(base(), allocation.slot_begin, at, guard_);
    fill(base(), end, allocation.slot_end, guard_);
    forbid(base() + allocation.slot_begin, at - allocation.slot_begin);
    forbid(base() + end, allocation.slot_end - end);
}

void Memory::free_all() {
    while (!all_.empty()) free(base() + all_.begin()->first);
}

void Memory::save(std::vector<unsigned char>& contents) {
    contents.resize(used_);
    unsigned char* to = contents.data();
    for (const auto& [at, allocation] : all_) {
        std::memcpy(to, base() + at, allocation.bytes);
        to += allocation.bytes;
    }
}

void Memory::restore(const std::vector<unsigned char>& contents) {
    const unsigned char* from = contents.data();
    for (const auto& [at, allocation] : all_) {
        if (std::memcmp(base() + at, from, allocation.bytes) != 0)
            std::memcpy(base() + at, from, allocation.bytes);
        from += allocation.bytes;
    }
}

std::string Memory::difference(const std::vector<unsigned char>& contents) {
    const unsigned char* other = contents.data();
    for (const auto& [at, allocation] : all_) {
        const unsigned char* const here = base() + at;
        if (std::memcmp(here, other, allocation.bytes) != 0) {
            size_t first = allocation.bytes, count = 0;
            for (size_t i = 0; i < allocation.bytes; ++i)
                if (here[i] != other[i]) first = std::min(first, i), ++count;
            return text_of("%zu bytes of the %zu of allocation %lld, the first at %zu", count,
                           allocation.bytes, static_cast<long long>(allocation.serial), first);
        }
        other += allocation.bytes;
    }
    return {};
}

// ---- pinned memory -----------------------------------------------------------------------------

bool is_pinned(const void* pointer) {
    const auto* const at = static_cast<const unsigned char*>(pointer);
    const auto next = pinned.upper_bound(at);
    if (next == pinned.begin()) return false;
    const auto& [begin, bytes] = *std::prev(next);
    return at < begin + bytes;
}

bool is_host_memory(const void* pointer) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return !memory.contains(pointer) && !is_pinned(pointer);
}

// ---- for tests ---------------------------------------------------------------------------------

void reset_memory() {
    memory.free_all();
    for (const auto& [pointer, bytes] : pinned) std::free(const_cast<unsigned char*>(pointer));
    pinned.clear();
}

std::string leaks_of_memory() {
    std::string text;
    for (const auto& [at, allocation] : memory.all())
        text += text_of("%zu bytes of device memory, allocation %lld\n", allocation.bytes,
                        static_cast<long long>(allocation.serial));
    for (const auto& [pointer, bytes] : pinned) text += text_of("%zu pinned bytes\n", bytes);
    return text;
}

}  // namespace emulator
}  // namespace convkit

// ---- CUDA's functions --------------------------------------------------------------------------

using namespace convkit::emulator;

cudaError_t cudaMalloc(void** result, size_t bytes) {
    return call([&] {
        if (!result) return refuse(cudaErrorInvalidValue, "cudaMalloc: no place for the result");
        const cudaError_t error = refuse_in_capture("cudaMalloc");
        if (error != cudaSuccess) return error;
        *result = nullptr;
        if (settings.fail_allocation > 0 && --settings.fail_allocation == 0)
            return refuse(cudaErrorMemoryAllocation, "cudaMalloc: a failure that a test asked for");
        if (bytes == 0) return cudaSuccess;
        const size_t all = static_cast<size_t>(settings.memory);
        if (memory.used() <= all && bytes <= all - memory.used()) *result = memory.allocate(bytes);
        if (*result) return cudaSuccess;
        return refuse(
            cudaErrorMemoryAllocation,
            text_of("cudaMalloc: %zu bytes, with %zu of %zu in use", bytes, memory.used(), all));
    });
}

cudaError_t cudaFree(void* pointer) {
    return call([&] {
        const cudaError_t error = refuse_in_capture("cudaFree");
        if (error != cudaSuccess || !pointer) return error;
        if (!memory.contains(pointer))
            return refuse(cudaErrorInvalidValue,
                          text_of("cudaFree: %p is not device memory", pointer));
        run_everything();
        if (memory.free(pointer)) return cudaSuccess;
        return refuse(cudaErrorInvalidValue,
                      text_of("cudaFree: %p %s", pointer,
                              memory.was_freed(pointer) ? "was freed already"
                                                        : "does not begin a block of memory"));
    });
}

cudaError_t cudaMallocHost(void** result, size_t bytes) {
    return call([&] {
        if (!result) return refuse(cudaErrorInvalidValue, "cudaMallocHost: no place");
        const cudaError_t error = refuse_in_capture("cudaMallocHost");
        if (error != cudaSuccess) return error;
        *result = nullptr;
        if (bytes == 0) return cudaSuccess;
        *result = std::aligned_alloc(kAlignment, round_up(bytes, kAlignment));
        if (!*result) return refuse(cudaErrorMemoryAllocation, "cudaMallocHost");
        fill(static_cast<unsigned char*>(*result), 0, bytes, kGarbage[0].unwritten);
        pinned[static_cast<unsigned char*>(*result)] = bytes;
        return cudaSuccess;
    });
}

cudaError_t cudaFreeHost(void* pointer) {
    return call([&] {
        const cudaError_t error = refuse_in_capture("cudaFreeHost");
        if (error != cudaSuccess || !pointer) return error;
        run_everything();
        if (!pinned.erase(static_cast<unsigned char*>(pointer)))
            return refuse(cudaErrorInvalidValue,
                          text_of("cudaFreeHost: %p is not memory of cudaMallocHost, or was freed "
                                  "already",
                                  pointer));
        std::free(pointer);
        return cudaSuccess;
    });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    return call([&] {
        *total = static_cast<size_t>(settings.memory);
        *free = *total - std::min(*total, memory.used());
        return cudaSuccess;
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    return call([&] {
        void* const plain = const_cast<void*>(pointer);
        *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, plain};
        if (memory.contains(pointer) && memory.holds_range(pointer, 1)) {
            *attributes = {cudaMemoryTypeDevice, 0, plain, nullptr};
        } else if (is_pinned(pointer)) {
            *attributes = {cudaMemoryTypeHost, 0, plain, plain};
        }
        return cudaSuccess;
    });
}
