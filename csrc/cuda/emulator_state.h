// What the parts of the emulator share. emulator.cpp runs kernels, thread by thread;
// emulator_memory.cpp is the device's memory; emulator_streams.cpp has streams, copies, events and
// graphs; emulator_device.cpp errors, the device's properties and what tests control.
//
// One lock guards all of it, and kernels run under it, so there is one running thread at a time.
// What is global is never destroyed: something may still use it at the end of the process.
#pragma once

#include <map>
#include <mutex>
#include <new>
#include <set>
#include <vector>

#include "emulator.h"

#if defined(__SANITIZE_ADDRESS__)
#define CONVKIT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CONVKIT_ASAN 1
#endif
#endif
#ifdef CONVKIT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace convkit {
namespace emulator {

std::recursive_mutex& lock();

// ---- errors (emulator_device.cpp) --------------------------------------------------------------

extern cudaError_t lost;  // the error of a kernel, which stays

// The error as a function's result; the text tells more of it.
cudaError_t refuse(cudaError_t error, const std::string& text);
// The device fails: from now on the error is the result of every function.
void lose(cudaError_t error, const std::string& text);
// The result of a call, after an error that stays; others are kept for cudaGetLastError.
cudaError_t result_of_call(cudaError_t error);

std::string text_of(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text_of(const dim3& v);

// What every function of the runtime does around its own work.
template <class F>
cudaError_t call(const F& function) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    if (lost != cudaSuccess) return result_of_call(lost);
    try {
        return result_of_call(function());
    } catch (const std::bad_alloc&) {
        return result_of_call(refuse(cudaErrorMemoryAllocation, "no memory of the host is left"));
    }
}

// ---- the device, as tests set it (emulator_device.cpp) -----------------------------------------

enum class Order { kForward, kReverse, kRandom };

struct Settings {
    Order order = Order::kForward;
    uint64_t seed = 0;
    bool verify = false;
    int64_t fail_allocation = 0, fail_kernel = 0;  // counted down to 0: then one fails
    int64_t devices = 1, driver = 13000, runtime = 13000, major = 9, minor = 0;
    int64_t multiprocessors = 132, shared = 227 * 1024, memory = int64_t{16} << 30;
};
extern Settings settings;

constexpr size_t kMostThreads = 1024, kStaticShared = 48 * 1024;

// ---- garbage (emulator_memory.cpp) -------------------------------------------------------------
// Memory that was not written yet, and zones between pieces of memory, are full of bytes that are
// signalling NaNs as doubles, and as floats signalling and quiet ones. Results that are others with
// other garbage depend on it.

struct Garbage {
    uint64_t unwritten, guard;
};
constexpr Garbage kGarbage[] = {{0x7ff4a5a57fa5a5a5, 0x7ff65a5a7fb65a5a},
                                {0xfff3c3c3ffb3c3c3, 0xfff71e1effb71e1e},
                                {0x0000000000000000, 0x4141414141414141}};

void fill(unsigned char* base, size_t begin, size_t end, uint64_t pattern);
// Whether nobody wrote into a guard zone. Where AddressSanitizer watches, it would have told.
bool guard_holds(const unsigned char* base, size_t begin, size_t end, uint64_t guard);

// To AddressSanitizer.
inline void forbid([[maybe_unused]] const void* from, [[maybe_unused]] size_t bytes) {
#ifdef CONVKIT_ASAN
    __asan_poison_memory_region(from, bytes);
#endif
}
inline void permit([[maybe_unused]] const void* from, [[maybe_unused]] size_t bytes) {
#ifdef CONVKIT_ASAN
    __asan_unpoison_memory_region(from, bytes);
#endif
}

constexpr size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

// ---- device memory (emulator_memory.cpp) -------------------------------------------------------

struct Allocation {
    size_t bytes, slot_begin, slot_end;
    int64_t serial;
};

// One reserved piece of the address space; blocks of memory in it have guard zones around them. The
// host has no access but while a kernel or a copy runs.
class Memory {
 public:
    bool contains(const void* pointer);
    // Whether all of it is in one block of memory.
    bool holds_range(const void* from, size_t bytes);

    void* allocate(size_t bytes);
    bool free(void* memory);
    bool was_freed(const void* memory) { return freed_.count(offset(memory)) != 0; }
    void free_all();

    // Fails the device where a kernel wrote beside a block.
    void check_guards(const std::string& kernel);
    // Writes all guard zones anew.
    void lay_guards(uint64_t guard);

    // Between the two the host has access.
    void open();
    void close();

    // All that the blocks of memory hold, one after the other.
    void save(std::vector<unsigned char>& contents);
    void restore(const std::vector<unsigned char>& contents);
    // Where the contents are others: text; empty where they are not.
    std::string difference(const std::vector<unsigned char>& contents);

    size_t used() const { return used_; }
    const std::map<size_t, Allocation>& all() const { return all_; }  // by offset

 private:
    unsigned char* base();
    size_t offset(const void* pointer) {
        return static_cast<size_t>(static_cast<const unsigned char*>(pointer) - base());
    }
    void lay_guards_of(size_t at, const Allocation& allocation);

    unsigned char* base_ = nullptr;
    size_t bytes_ = 0, used_ = 0;
    size_t top_ = 0;  // what is beyond was never used
    int open_ = 0;
    int64_t serial_ = 0;
    uint64_t guard_ = kGarbage[0].guard;
    std::map<size_t, Allocation> all_;
    std::map<size_t, size_t> holes_;  // begin and end of free slots below the top
    std::set<size_t> freed_;
};
extern Memory& memory;

struct Access {
    Access() { memory.open(); }
    ~Access() { memory.close(); }
};

bool is_pinned(const void* pointer);

// For emulator_reset and emulator_leaks.
void reset_memory();
std::string leaks_of_memory();

// ---- kernels (emulator.cpp) --------------------------------------------------------------------

extern int64_t launched_kernels, run_kernels;

// ---- streams (emulator_streams.cpp) ------------------------------------------------------------

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
void run_everything();
// A call that would break a capture, of this thread or for all, ends it.
cudaError_t refuse_in_capture(const char* what);

// For emulator_recover, emulator_reset and emulator_leaks.
void drop_work();
void reset_streams();
std::string leaks_of_streams();

}  // namespace emulator
}  // namespace convkit
