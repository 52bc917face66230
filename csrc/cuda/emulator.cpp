// The emulator: threads of a block as fibers, device memory between guard zones, lazy streams.
//
// From the top: errors; the switch between fibers; blocks and their shared memory; device memory;
// kernels, in several orders; streams and graphs; CUDA's functions; what tests control.
// One lock guards all of it, and kernels run under it, so there is one running thread at a time.
#include "emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <thread>
#include <utility>
#include <vector>

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
constexpr bool kWatched = true;
#else
constexpr bool kWatched = false;
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace convkit {
namespace emulator {
namespace {

std::recursive_mutex& lock() {
    static auto& mutex = *new std::recursive_mutex;  // outlives what is destroyed at exit
    return mutex;
}

// ---- errors ------------------------------------------------------------------------------------

thread_local cudaError_t last_error = cudaSuccess;
cudaError_t lost = cudaSuccess;        // the error of a kernel, which stays
auto& lost_report = *new std::string;  // not destroyed at exit, as all here
cudaError_t reported = cudaSuccess;    // what the report is about
auto& report = *new std::string;

cudaError_t refuse(cudaError_t error, const std::string& text) {
    reported = error;
    report = text;
    return error;
}

void lose(cudaError_t error, const std::string& text) {
    if (lost != cudaSuccess) return;  // what follows from the first
    lost = error;
    lost_report = text;
}

std::string text_of(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text_of(const char* format, ...) {
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

std::string text_of(const dim3& v) { return text_of("(%u, %u, %u)", v.x, v.y, v.z); }
std::string text_of(const uint3& v) { return text_of(dim3(v.x, v.y, v.z)); }
std::string text_of(const Place& place) { return text_of("%s:%d", place.file, place.line); }

// ---- garbage -----------------------------------------------------------------------------------
// Memory that was not written yet, and zones between pieces of memory, are full of bytes that are
// signalling NaNs as doubles, and as floats signalling and quiet ones. Results that are others with
// other garbage depend on it.
struct Garbage {
    uint64_t unwritten, guard;
};
constexpr Garbage kGarbage[] = {{0x7ff4a5a57fa5a5a5, 0x7ff65a5a7fb65a5a},
                                {0xfff3c3c3ffb3c3c3, 0xfff71e1effb71e1e},
                                {0x0000000000000000, 0x4141414141414141}};

unsigned char pattern_byte(uint64_t pattern, size_t offset) {
    return static_cast<unsigned char>(pattern >> offset % 8 * 8);
}

void fill(unsigned char* base, size_t begin, size_t end, uint64_t pattern) {
    for (; begin < end && begin % 8 != 0; ++begin) base[begin] = pattern_byte(pattern, begin);
    for (; begin + 8 <= end; begin += 8) std::memcpy(base + begin, &pattern, 8);
    for (; begin < end; ++begin) base[begin] = pattern_byte(pattern, begin);
}

bool holds(const unsigned char* base, size_t begin, size_t end, uint64_t pattern) {
    for (; begin < end && begin % 8 != 0; ++begin)
        if (base[begin] != pattern_byte(pattern, begin)) return false;
    for (; begin + 8 <= end; begin += 8)
        if (std::memcmp(base + begin, &pattern, 8) != 0) return false;
    for (; begin < end; ++begin)
        if (base[begin] != pattern_byte(pattern, begin)) return false;
    return true;
}

void forbid([[maybe_unused]] const void* from, [[maybe_unused]] size_t bytes) {
#ifdef CONVKIT_ASAN
    __asan_poison_memory_region(from, bytes);
#endif
}

void permit([[maybe_unused]] const void* from, [[maybe_unused]] size_t bytes) {
#ifdef CONVKIT_ASAN
    __asan_unpoison_memory_region(from, bytes);
#endif
}

// Guard zones are read back only where AddressSanitizer does not watch them.
bool guard_holds(const unsigned char* base, size_t begin, size_t end, uint64_t guard) {
    return kWatched || holds(base, begin, end, guard);
}

constexpr size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

// ---- fibers ------------------------------------------------------------------------------------
// convkit_emulator_switch(&from, to) saves the registers that a call must keep on the stack, stores
// the stack's pointer in from, and goes on where `to` was stored: by a jump, since a processor's
// guess of where a return leads would be wrong.
extern "C" CONVKIT_HIDDEN void convkit_emulator_switch(void** from, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.globl convkit_emulator_switch
.hidden convkit_emulator_switch
.type convkit_emulator_switch, @function
convkit_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rax
    jmpq *%rax
.size convkit_emulator_switch, .-convkit_emulator_switch
)");
constexpr size_t kSavedWords = 8, kReturnWord = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl convkit_emulator_switch
.hidden convkit_emulator_switch
.type convkit_emulator_switch, @function
convkit_emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    br x30
.size convkit_emulator_switch, .-convkit_emulator_switch
)");
constexpr size_t kSavedWords = 20, kReturnWord = 11;
#else
#error "the emulator has no switch between fibers for this processor"
#endif

constexpr size_t kPage = 65536;  // a multiple of every page size in use
constexpr size_t kStackBytes = 4 * kPage;

struct Fiber {
    void* stack_pointer = nullptr;
    [[maybe_unused]] void* fake_stack = nullptr;  // AddressSanitizer's
    const void* bottom = nullptr;
    size_t bytes = 0;
};

Fiber host;  // who runs a block
auto& idle_fibers = *new std::vector<Fiber*>;

void enter_fiber() {
#ifdef CONVKIT_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &host.bottom, &host.bytes);
#endif
}

inline void go(Fiber& from, Fiber& to) {
#ifdef CONVKIT_ASAN
    __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.bytes);
#endif
    convkit_emulator_switch(&from.stack_pointer, to.stack_pointer);
#ifdef CONVKIT_ASAN
    // Fibers are entered by the host alone, whose stack is that of whoever waits for a stream.
    const void* bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(from.fake_stack, &bottom, &bytes);
    if (&from != &host) host.bottom = bottom, host.bytes = bytes;
#endif
}

[[noreturn]] void fiber_main();

Fiber* new_fiber() {
    static size_t count = 0;
    void* const memory = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kPage, PROT_NONE);  // a stack that overflows ends the process
    auto* const fiber = new Fiber;
    fiber->bottom = static_cast<char*>(memory) + kPage;
    fiber->bytes = kStackBytes;
    // Not all tops at the same place of a page: they would compete for the same cache lines.
    const size_t shift = count++ % 64 * 704;
    auto* const top =
        reinterpret_cast<void**>(static_cast<char*>(memory) + kPage + kStackBytes - shift) -
        kSavedWords;
    top[kReturnWord] = reinterpret_cast<void*>(&fiber_main);
    fiber->stack_pointer = top;
    return fiber;
}

// ---- a block -----------------------------------------------------------------------------------

enum class State : uint8_t { kNew, kReady, kRunning, kAtBarrier, kInWarp, kEnded };

struct Thread {
    State state;
    uint3 index;
    Fiber* fiber;
    // What it waits in.
    const char* what;
    Place place;
    unsigned mask;
    int source;
    uint64_t value;
    unsigned votes;
};

struct SharedArray {
    const char* name;
    Place place;
    size_t begin, end;  // in the block's shared memory
};

struct Launch {
    std::string name;
    dim3 grid, block;
    size_t shared_bytes;
    std::function<void()> body;
};

enum class Order { kForward, kReverse, kRandom };

struct Way {
    Order order;
    uint64_t seed;
    Garbage garbage;
};

constexpr size_t kMostThreads = 1024, kStaticShared = 48 * 1024;
constexpr size_t kZone = 64;  // at least so much guard around shared arrays
constexpr size_t kSharedSpace = 1 << 20;

// The block that runs, and its launch.
struct Block {
    const Launch* launch = nullptr;
    Way way = {};
    Thread threads[kMostThreads];
    size_t count = 0;    // threads
    size_t running = 0;  // those that have not ended
    bool stopping = false;
    Thread* current = nullptr;
    int votes = 0;                              // of the last barrier
    unsigned in_warp[kMostThreads / warpSize];  // the lanes of each warp that wait for others

    // Threads in the order in which they run, warp after warp; warp i has order[begins[i]] ...
    std::vector<uint16_t> order;
    std::vector<size_t> begins;
    size_t cursor = 0, warp_end = 0;  // places in the order

    alignas(256) unsigned char shared[kSharedSpace];
    size_t shared_used = 0;
    std::vector<SharedArray> arrays;  // the first is the one whose size the launch says
};

Block& block = *new Block;

struct Stop {};  // thrown through the threads of a block that fails

std::string name_of_thread() {
    std::string text = block.launch->name + ", block " + text_of(blockIdx);
    if (block.current) text += ", thread " + text_of(block.current->index);
    return text;
}

// Every thread ends: those that wait, by an exception.
void stop_block() {
    block.stopping = true;
    for (size_t i = 0; i < block.count; ++i) {
        Thread& thread = block.threads[i];
        if (thread.state == State::kNew) {
            thread.state = State::kEnded;
            --block.running;
        } else if (thread.state == State::kAtBarrier || thread.state == State::kInWarp) {
            thread.state = State::kReady;
        }
    }
}

[[noreturn]] void fail(cudaError_t error, const std::string& text) {
    if (!block.current) {
        std::fprintf(stderr, "convkit's emulator: device code outside a kernel: %s\n",
                     text.c_str());
        std::abort();
    }
    lose(error, name_of_thread() + ": " + text);
    stop_block();
    throw Stop();
}

inline void begin_thread(Thread& thread, Fiber* fiber) {
    thread.fiber = fiber;
    thread.state = State::kRunning;
    block.current = &thread;
    threadIdx = thread.index;
}

// Runs a new thread, and then the next ones for as long as they need no fiber of their own.
void run_new_threads() {
    Fiber* const fiber = block.current->fiber;
    for (;;) {
        try {
            block.launch->body();
        } catch (const Stop&) {
        } catch (const std::exception& error) {
            lose(cudaErrorLaunchFailure, name_of_thread() + ": exception: " + error.what());
            stop_block();
        }
        block.current->state = State::kEnded;
        --block.running;
        if (block.stopping || block.cursor + 1 >= block.warp_end) return;
        Thread& next = block.threads[block.order[block.cursor + 1]];
        if (next.state != State::kNew) return;
        ++block.cursor;
        begin_thread(next, fiber);
    }
}

void fiber_main() {
    enter_fiber();
    for (;;) {
        run_new_threads();
        Fiber& self = *block.current->fiber;
        idle_fibers.push_back(&self);
        go(self, host);
    }
}

// Lets the thread run until it waits or ends.
inline void resume(Thread& thread) {
    if (thread.state == State::kNew) {
        if (idle_fibers.empty()) idle_fibers.push_back(new_fiber());
        Fiber* const fiber = idle_fibers.back();
        idle_fibers.pop_back();
        begin_thread(thread, fiber);
    } else {
        begin_thread(thread, thread.fiber);
    }
    go(host, *block.current->fiber);
}

inline void wait_in(State state) {
    Thread& self = *block.current;
    self.state = state;
    go(*self.fiber, host);
    if (block.stopping) throw Stop();
}

bool same_place(const Thread& a, const Thread& b) {
    return a.place.line == b.place.line && a.what == b.what && a.place.file == b.place.file;
}

size_t warp_begin(const Thread& thread) {
    return static_cast<size_t>(&thread - block.threads) / warpSize * warpSize;
}

unsigned& lanes_in_warp(const Thread& thread) {
    return block.in_warp[static_cast<size_t>(&thread - block.threads) / warpSize];
}

// Whether all lanes of the calling thread's mask have come; it is one of them.
bool mask_is_complete(const Thread& self, int lane) {
    if (((lanes_in_warp(self) | 1u << lane) & self.mask) != self.mask) return false;
    const Thread* const lanes = block.threads + warp_begin(self);
    for (unsigned left = self.mask; left != 0; left &= left - 1) {
        const Thread& other = lanes[__builtin_ctz(left)];
        if (&other != &self && (other.mask != self.mask || !same_place(other, self))) return false;
    }
    return true;
}

// Gives each lane of the mask its value; they all may go on.
void exchange(Thread& self) {
    Thread* const lanes = block.threads + warp_begin(self);
    uint64_t values[warpSize];
    unsigned votes = 0;
    std::fill(values, values + warpSize, block.way.garbage.unwritten);  // of lanes outside the mask
    for (unsigned left = self.mask; left != 0; left &= left - 1) {
        const int i = __builtin_ctz(left);
        values[i] = lanes[i].value;
        if (lanes[i].value != 0) votes |= 1u << i;
    }
    for (unsigned left = self.mask; left != 0; left &= left - 1) {
        Thread& lane = lanes[__builtin_ctz(left)];
        lane.value = values[lane.source];
        lane.votes = votes;
        lane.state = State::kReady;
    }
    self.state = State::kRunning;
    lanes_in_warp(self) &= ~self.mask;
}

std::string where_is(const Thread& thread) {
    if (thread.state == State::kEnded) return "thread " + text_of(thread.index) + " has ended";
    std::string text = "thread " + text_of(thread.index) + " waits in " + thread.what;
    if (thread.state == State::kInWarp) text += text_of(" of mask 0x%08x", thread.mask);
    return text + " at " + text_of(thread.place);
}

// All threads wait or have ended, and nothing lets one go on.
std::string why_stuck() {
    for (size_t i = 0; i < block.count; ++i) {
        const Thread& thread = block.threads[i];
        if (thread.state != State::kInWarp) continue;
        const size_t first = warp_begin(thread);
        for (unsigned left = thread.mask; left != 0; left &= left - 1) {
            const int lane = __builtin_ctz(left);
            const size_t other = first + static_cast<size_t>(lane);
            if (other >= block.count)
                return where_is(thread) + text_of(", but the block has no lane %d there", lane);
            const Thread& missing = block.threads[other];
            if (missing.state != State::kInWarp || missing.mask != thread.mask ||
                !same_place(missing, thread))
                return where_is(thread) + ", but " + where_is(missing);
        }
    }
    size_t at = 0;
    while (block.threads[at].state != State::kAtBarrier) ++at;
    for (size_t i = 0; i < block.count; ++i)
        if (block.threads[i].state == State::kEnded ||
            !same_place(block.threads[i], block.threads[at]))
            return "divergent barrier: " + where_is(block.threads[at]) + ", but " +
                   where_is(block.threads[i]);
    return "no thread can go on";
}

bool release_barrier() {
    int votes = 0;
    for (size_t i = 0; i < block.count; ++i) {
        const Thread& thread = block.threads[i];
        if (thread.state != State::kAtBarrier || !same_place(thread, block.threads[0]))
            return false;
        votes += thread.value != 0;
    }
    for (size_t i = 0; i < block.count; ++i) block.threads[i].state = State::kReady;
    block.votes = votes;
    return true;
}

// ---- a block's shared memory -------------------------------------------------------------------

// Zones lie between arrays; zone i ends where array i begins, and one more follows the last.
template <class F>
void for_each_zone(const F& f) {
    size_t begin = 0;
    for (const SharedArray& array : block.arrays) {
        f(begin, array.begin);
        begin = array.end;
    }
    f(begin, block.shared_used);
}

void add_shared_array(const char* name, Place place, size_t bytes) {
    const size_t begin = round_up(block.shared_used, 16);  // the zone before is there already
    block.shared_used = round_up(begin + bytes, 16) + kZone;
    if (block.shared_used > kSharedSpace) fail(cudaErrorLaunchFailure, "too much shared memory");
    permit(block.shared, block.shared_used);
    block.arrays.push_back({name, place, begin, begin + bytes});
    fill(block.shared, begin, begin + bytes, block.way.garbage.unwritten);
    fill(block.shared, begin + bytes, block.shared_used, block.way.garbage.guard);
    for_each_zone([](size_t a, size_t b) { forbid(block.shared + a, b - a); });
}

void begin_shared_memory() {
    permit(block.shared, block.shared_used);
    fill(block.shared, 0, block.shared_used, block.way.garbage.guard);
    for (const SharedArray& array : block.arrays)
        fill(block.shared, array.begin, array.end, block.way.garbage.unwritten);
    for_each_zone([](size_t a, size_t b) { forbid(block.shared + a, b - a); });
}

void check_shared_memory() {
    size_t i = 0;
    for_each_zone([&](size_t begin, size_t end) {
        if (!guard_holds(block.shared, begin, end, block.way.garbage.guard)) {
            const bool before = i == 0;
            const SharedArray& array = block.arrays[before ? 0 : i - 1];
            lose(cudaErrorIllegalAddress,
                 name_of_thread() + ": shared memory was written " +
                     (before ? "before" : "behind") + " the " +
                     text_of("%zu bytes of ", array.end - array.begin) + array.name +
                     (array.place.line > 0 ? " (" + text_of(array.place) + ")" : ""));
        }
        ++i;
    });
}

// ---- orders ------------------------------------------------------------------------------------

uint64_t mixed(uint64_t v) {  // splitmix64
    v += 0x9e3779b97f4a7c15;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9;
    v = (v ^ v >> 27) * 0x94d049bb133111eb;
    return v ^ v >> 31;
}

// The i-th of `count` things in an order; random orders are steps of a fixed length around.
class Sequence {
 public:
    Sequence(const Way& way, uint64_t count, uint64_t salt) : count_(count) {
        if (way.order == Order::kForward || count == 0) return;
        if (way.order == Order::kReverse) {
            first_ = count - 1;
            step_ = count - 1;
            return;
        }
        first_ = mixed(way.seed ^ salt) % count;
        step_ = mixed(way.seed + salt) % count;
        while (greatest_divisor(step_, count) != 1) step_ = (step_ + 1) % count;
    }
    uint64_t operator[](uint64_t i) const {  // count < 2^63: no grid is larger
        return static_cast<uint64_t>((first_ + static_cast<unsigned __int128>(i) * step_) % count_);
    }

 private:
    static uint64_t greatest_divisor(uint64_t a, uint64_t b) {
        while (a != 0) std::swap(a, b %= a);
        return b;
    }

    uint64_t count_, first_ = 0, step_ = 1;
};

void order_threads() {
    const size_t warps = (block.count + warpSize - 1) / warpSize;
    const Sequence of_warps(block.way, warps, 1);
    block.order.clear();
    block.begins.clear();
    for (size_t i = 0; i < warps; ++i) {
        block.begins.push_back(block.order.size());
        const size_t first = of_warps[i] * warpSize;
        const size_t lanes = std::min<size_t>(warpSize, block.count - first);
        const Sequence of_lanes(block.way, lanes, 2 + first);
        for (size_t k = 0; k < lanes; ++k)
            block.order.push_back(static_cast<uint16_t>(first + of_lanes[k]));
    }
    block.begins.push_back(block.order.size());
}

// ---- running blocks ----------------------------------------------------------------------------

// Runs the threads of a warp that can; false if there was none.
bool run_warp(size_t i) {
    bool any = false;
    block.warp_end = block.begins[i + 1];
    for (block.cursor = block.begins[i]; block.cursor < block.warp_end; ++block.cursor) {
        Thread& thread = block.threads[block.order[block.cursor]];
        if (thread.state != State::kNew && thread.state != State::kReady) continue;
        resume(thread);
        any = true;
    }
    return any;
}

void run_block() {
    begin_shared_memory();
    for (size_t i = 0; i < block.count; ++i) block.threads[i].state = State::kNew;
    std::fill(std::begin(block.in_warp), std::end(block.in_warp), 0);
    block.running = block.count;
    block.stopping = false;
    for (;;) {
        for (size_t i = 0; i + 1 < block.begins.size(); ++i)
            while (run_warp(i)) {
            }
        block.current = nullptr;
        if (block.running == 0) break;
        if (block.stopping || release_barrier()) continue;
        lose(cudaErrorLaunchFailure, name_of_thread() + ": " + why_stuck());
        stop_block();
    }
    check_shared_memory();
}

// Runs all blocks of a launch in one way, up to the first failure.
void run_grid(const Launch& launch, const Way& way) {
    block.launch = &launch;
    block.way = way;
    block.count = static_cast<size_t>(launch.block.x) * launch.block.y * launch.block.z;
    for (size_t i = 0; i < block.count; ++i) {
        const auto linear = static_cast<unsigned>(i);
        block.threads[i].index = {linear % launch.block.x, linear / launch.block.x % launch.block.y,
                                  linear / launch.block.x / launch.block.y};
    }
    order_threads();
    permit(block.shared, block.shared_used);
    block.arrays.clear();
    block.shared_used = kZone;
    add_shared_array("dynamic shared memory", {"", 0}, launch.shared_bytes);
    blockDim = launch.block;
    gridDim = launch.grid;
    const uint64_t x = launch.grid.x, y = launch.grid.y, blocks = x * y * launch.grid.z;
    const Sequence sequence(way, blocks, 0);
    for (uint64_t i = 0; i < blocks && lost == cudaSuccess; ++i) {
        const uint64_t linear = sequence[i];
        blockIdx = {static_cast<unsigned>(linear % x), static_cast<unsigned>(linear / x % y),
                    static_cast<unsigned>(linear / x / y)};
        run_block();
    }
}

// ---- device memory -----------------------------------------------------------------------------
// One reserved piece of the address space; blocks of memory in it have guard zones around them. The
// host has no access but while a kernel or a copy runs.

constexpr size_t kAlignment = 256;
constexpr size_t kHugePage = 2 << 20;

struct Allocation {
    size_t bytes, slot_begin, slot_end;
    int64_t serial;
};

class Memory {
 public:
    unsigned char* base() {
        if (base_) return base_;
        for (bytes_ = size_t{1} << 36; bytes_ >= size_t{1} << 28; bytes_ /= 4) {
            void* memory = mmap(nullptr, bytes_ + kHugePage, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) continue;
            size_t space = bytes_ + kHugePage;
            std::align(kHugePage, bytes_, memory, space);
            madvise(memory, bytes_, MADV_HUGEPAGE);  // few pages change access quickly
            return base_ = static_cast<unsigned char*>(memory);
        }
        throw std::bad_alloc();
    }
    bool contains(const void* pointer) {
        const auto at = reinterpret_cast<uintptr_t>(pointer);
        const auto begin = reinterpret_cast<uintptr_t>(base());
        return at >= begin && at < begin + bytes_;
    }
    size_t offset(const void* pointer) {
        return static_cast<size_t>(static_cast<const unsigned char*>(pointer) - base());
    }

    void* allocate(size_t bytes);
    bool free(void* memory);
    // Whether all of it is in one block of memory.
    bool holds_range(const void* from, size_t bytes);
    bool was_freed(const void* memory) { return freed_.count(offset(memory)) != 0; }
    // Fails the device where a kernel wrote beside a block.
    void check_guards(const std::string& kernel);
    // Writes all guard zones anew.
    void lay_guards(uint64_t guard);

    void open();
    void close();

    size_t used() const { return used_; }
    const std::map<size_t, Allocation>& all() const { return all_; }

    // All that the blocks of memory hold, one after the other.
    void save(std::vector<unsigned char>& contents) {
        contents.resize(used_);
        unsigned char* to = contents.data();
        for (const auto& [at, allocation] : all_) {
            std::memcpy(to, base() + at, allocation.bytes);
            to += allocation.bytes;
        }
    }
    void restore(const std::vector<unsigned char>& contents) {
        const unsigned char* from = contents.data();
        for (const auto& [at, allocation] : all_) {
            if (std::memcmp(base() + at, from, allocation.bytes) != 0)
                std::memcpy(base() + at, from, allocation.bytes);
            from += allocation.bytes;
        }
    }
    // Where the contents are others: text; empty where they are not.
    std::string difference(const std::vector<unsigned char>& contents);

 private:
    void lay_guards_of(size_t at, const Allocation& allocation);

    unsigned char* base_ = nullptr;
    size_t bytes_ = 0, used_ = 0;
    size_t top_ = 0;  // what is beyond was never used
    int open_ = 0;
    int64_t serial_ = 0;
    uint64_t guard_ = kGarbage[0].guard;
    std::map<size_t, Allocation> all_;  // by offset
    std::map<size_t, size_t> holes_;    // begin and end of free slots below the top
    std::set<size_t> freed_;
};

Memory& memory = *new Memory;

struct Access {
    Access() { memory.open(); }
    ~Access() { memory.close(); }
};

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

// ---- kernels -----------------------------------------------------------------------------------

struct Settings {
    Order order = Order::kForward;
    uint64_t seed = 0;
    bool verify = false;
    int64_t fail_allocation = 0, fail_kernel = 0;  // counted down to 0: then one fails
    int64_t devices = 1, driver = 13000, runtime = 13000, major = 9, minor = 0;
    int64_t multiprocessors = 132, shared = 227 * 1024, memory = int64_t{16} << 30;
};

bool set_order(Settings& settings, const std::string& order) {
    const bool random = order.rfind("random:", 0) == 0;
    settings.verify = order == "verify";
    settings.order = random               ? Order::kRandom
                     : order == "reverse" ? Order::kReverse
                                          : Order::kForward;
    settings.seed = random ? std::strtoull(order.c_str() + 7, nullptr, 10) : 0;
    return random || settings.verify || order == "reverse" || order == "forward";
}

Settings settings_of_environment() {
    Settings settings;
    if (const char* const order = std::getenv("CONVKIT_EMULATOR_ORDER"))
        if (!set_order(settings, order))
            lose(cudaErrorInitializationError,
                 std::string("CONVKIT_EMULATOR_ORDER: there is no order ") + order);
    if (const char* const k = std::getenv("CONVKIT_EMULATOR_FAIL_ALLOCATION"))
        settings.fail_allocation = std::atoll(k);
    return settings;
}

Settings settings = settings_of_environment();
int64_t launched_kernels = 0, run_kernels = 0;

constexpr Way kWays[] = {{Order::kForward, 0, kGarbage[0]},
                         {Order::kReverse, 0, kGarbage[1]},
                         {Order::kRandom, 1, kGarbage[2]}};
constexpr const char* kWayNames[] = {"forward", "in reverse", "shuffled"};

// Runs the launch, and tells where device memory is not as expected then.
std::string difference_of_run(const Launch& launch, const Way& way,
                              const std::vector<unsigned char>& before,
                              const std::vector<unsigned char>& expected) {
    memory.restore(before);
    memory.lay_guards(way.garbage.guard);
    run_grid(launch, way);
    memory.check_guards(launch.name);
    return lost == cudaSuccess ? memory.difference(expected) : std::string();
}

void run_in_all_ways(const Launch& launch) {
    const Way& usual = kWays[0];
    static auto& before = *new std::vector<unsigned char>;
    static auto& expected = *new std::vector<unsigned char>;
    memory.save(before);
    run_grid(launch, usual);
    memory.check_guards(launch.name);
    memory.save(expected);
    for (size_t i = 1; i < std::size(kWays) && lost == cudaSuccess; ++i) {
        const Way& way = kWays[i];
        const std::string text = difference_of_run(launch, way, before, expected);
        if (text.empty()) continue;
        const Way same_order = {usual.order, usual.seed, way.garbage};
        const bool by_garbage = !difference_of_run(launch, same_order, before, expected).empty();
        lose(cudaErrorLaunchFailure,
             launch.name + ": the result depends on " +
                 (by_garbage ? "memory that is read before it is written, or beyond its end"
                             : "the order of threads and blocks") +
                 ": run " + kWayNames[i] + ", it is another than run " + kWayNames[0] + " in " +
                 text);
    }
    memory.lay_guards(usual.garbage.guard);
}

void run_kernel(const Launch& launch) {
    ++run_kernels;
    if (settings.fail_kernel > 0 && --settings.fail_kernel == 0) {
        lose(cudaErrorLaunchFailure, launch.name + ": a failure that a test asked for");
        return;
    }
    if (settings.verify) {
        run_in_all_ways(launch);
    } else {
        run_grid(launch, {settings.order, settings.seed, kGarbage[0]});
        memory.check_guards(launch.name);
    }
}

// ---- streams, events, graphs -------------------------------------------------------------------

using Work = std::function<void()>;

struct Stream;

// A stream's work that becomes a graph; other streams join by waiting for its events.
struct Capture {
    std::vector<Work> nodes;
    Stream* origin;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false, ended = false;
};

struct Stream {
    bool blocking = true;  // ordered with the null stream
    std::deque<Work> work;
    std::shared_ptr<Capture> capture;
    size_t captured = 0;    // nodes of the capture that came from here
    bool unjoined = false;  // the last of them is one that no other stream waits for
};

// What an event stands for since it was last recorded.
struct Mark {
    Stream* stream;
    bool done = false;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture;
    size_t captured = 0;
};

struct Event {
    bool timed;
    std::shared_ptr<Mark> mark;
};

using Nodes = std::shared_ptr<const std::vector<Work>>;

// Things behind CUDA's handles, which are never used twice.
template <class Handle, class T>
class Table {
 public:
    explicit Table(const char* what) : what_(what) {}
    Handle add(T value) {
        const auto handle = reinterpret_cast<Handle>(next_);
        next_ += 16;
        all_.emplace(handle, std::make_unique<T>(std::move(value)));
        return handle;
    }
    T* find(Handle handle) {
        const auto found = all_.find(handle);
        return found == all_.end() ? nullptr : found->second.get();
    }
    cudaError_t remove(Handle handle) { return all_.erase(handle) ? cudaSuccess : unknown(); }
    cudaError_t unknown() const {
        return refuse(cudaErrorInvalidResourceHandle, std::string("there is no such ") + what_);
    }
    std::map<Handle, std::unique_ptr<T>>& all() { return all_; }
    const char* what() const { return what_; }

 private:
    const char* what_;
    uintptr_t next_ = 0x1000;
    std::map<Handle, std::unique_ptr<T>> all_;
};

auto& streams = *new Table<cudaStream_t, Stream>("stream");
auto& events = *new Table<cudaEvent_t, Event>("event");
auto& graphs = *new Table<cudaGraph_t, Nodes>("graph");
auto& execs = *new Table<cudaGraphExec_t, Nodes>("executable graph");
Stream& null_stream = *new Stream;

Stream* find_stream(cudaStream_t handle) {
    if (reinterpret_cast<uintptr_t>(handle) <= 1) return &null_stream;  // 1: cudaStreamLegacy
    return streams.find(handle);
}

void run_one(Stream& stream) {
    const Work work = std::move(stream.work.front());
    stream.work.pop_front();
    const Access access;
    work();
}

void run_all(Stream& stream) {
    if (stream.work.empty()) return;
    const Access access;
    while (!stream.work.empty() && lost == cudaSuccess) run_one(stream);
}

void run_until(const Mark& mark) {
    while (!mark.done && lost == cudaSuccess) run_one(*mark.stream);
}

void run_everything() {
    run_all(null_stream);
    if (settings.order == Order::kReverse) {
        for (auto i = streams.all().rbegin(); i != streams.all().rend(); ++i) run_all(*i->second);
    } else {
        for (auto& [handle, stream] : streams.all()) run_all(*stream);
    }
}

void run_blocking_streams() {
    for (auto& [handle, stream] : streams.all())
        if (stream->blocking) run_all(*stream);
}

// A call that would break a capture, of this thread or for all, ends it.
cudaError_t refuse_in_capture(const char* what) {
    for (auto& [handle, stream] : streams.all()) {
        const std::shared_ptr<Capture>& capture = stream->capture;
        if (!capture || capture->mode == cudaStreamCaptureModeRelaxed) continue;
        if (capture->mode == cudaStreamCaptureModeThreadLocal &&
            capture->thread != std::this_thread::get_id())
            continue;
        capture->invalid = true;
        return refuse(cudaErrorStreamCaptureUnsupported,
                      std::string(what) + " while a stream is captured");
    }
    return cudaSuccess;
}

cudaError_t refuse_if_captured(Stream& stream, const char* what) {
    if (!stream.capture) return cudaSuccess;
    stream.capture->invalid = true;
    return refuse(cudaErrorStreamCaptureUnsupported, std::string(what) + " of a captured stream");
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
    Stream* const stream = find_stream(handle);
    if (!stream) return streams.unknown();
    if (stream->capture) {
        if (stream->capture->invalid)
            return refuse(cudaErrorStreamCaptureInvalidated, "the capture has failed already");
        stream->capture->nodes.push_back(std::move(work));
        ++stream->captured;
        stream->unjoined = stream->capture->origin != stream;
        return cudaSuccess;
    }
    // Earlier than need be, but in the order that the null stream asks for.
    if (stream == &null_stream) {
        for (auto& [other, one] : streams.all()) {
            if (!one->blocking || !one->capture) continue;
            one->capture->invalid = true;
            return refuse(cudaErrorStreamCaptureImplicit,
                          "the null stream is used while a blocking stream is captured");
        }
        run_blocking_streams();
    } else if (stream->blocking) {
        run_all(null_stream);
    }
    stream->work.push_back(std::move(work));
    return cudaSuccess;
}

// ---- copies ------------------------------------------------------------------------------------

auto& pinned = *new std::map<const unsigned char*, size_t>;

bool is_pinned(const void* pointer) {
    auto found = pinned.upper_bound(static_cast<const unsigned char*>(pointer));
    if (found == pinned.begin()) return false;
    --found;
    return static_cast<const unsigned char*>(pointer) < found->first + found->second;
}

cudaError_t check_device_range(const char* what, const void* pointer, size_t bytes) {
    if (!memory.contains(pointer))
        return refuse(cudaErrorInvalidValue,
                      text_of("%s: %p is host memory where device memory must be", what, pointer));
    if (memory.holds_range(pointer, bytes)) return cudaSuccess;
    return refuse(cudaErrorInvalidValue,
                  text_of("%s: the %zu bytes at %p are not within one block of device memory", what,
                          bytes, pointer));
}

// The device memory may be gone by the time that work runs.
void lose_unless_held(const char* what, const void* pointer, size_t bytes) {
    if (memory.contains(pointer) && !memory.holds_range(pointer, bytes))
        lose(cudaErrorIllegalAddress, std::string(what) + ": its device memory was freed");
}

struct CopyWork {
    void* to;
    const void* from;
    size_t bytes;
    std::shared_ptr<std::vector<unsigned char>> staged;  // what pageable memory held

    void operator()() const {
        lose_unless_held("cudaMemcpy", to, bytes);
        lose_unless_held("cudaMemcpy", from, bytes);
        if (lost == cudaSuccess) std::memmove(to, staged ? staged->data() : from, bytes);
    }
};

cudaError_t check_side(const char* what, bool device, const void* pointer, size_t bytes) {
    if (device) return check_device_range(what, pointer, bytes);
    if (!memory.contains(pointer)) return cudaSuccess;
    return refuse(cudaErrorInvalidValue,
                  text_of("%s: %p is device memory where host memory must be", what, pointer));
}

cudaError_t copy(const char* what, void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t handle, bool wait) {
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return refuse(cudaErrorInvalidMemcpyDirection, what);
    if (bytes == 0) return cudaSuccess;
    const bool guess = kind == cudaMemcpyDefault;
    const bool to_device = guess
                               ? memory.contains(to)
                               : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device =
        guess ? memory.contains(from)
              : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    cudaError_t error = check_side(what, to_device, to, bytes);
    if (error == cudaSuccess) error = check_side(what, from_device, from, bytes);
    if (error != cudaSuccess) return error;
    Stream* const stream = find_stream(handle);
    if (!stream) return streams.unknown();
    CopyWork work{to, from, bytes, nullptr};
    if (!from_device && !is_pinned(from) && !stream->capture) {
        const auto* const begin = static_cast<const unsigned char*>(from);
        work.staged = std::make_shared<std::vector<unsigned char>>(begin, begin + bytes);
    }
    error = enqueue(handle, std::move(work));
    if (error != cudaSuccess || stream->capture) return error;
    if (wait || (!to_device && !is_pinned(to))) run_all(*stream);
    return cudaSuccess;
}

cudaError_t set_memory(const char* what, void* to, int value, size_t bytes, cudaStream_t stream) {
    if (bytes == 0) return cudaSuccess;
    const cudaError_t error = check_device_range(what, to, bytes);
    if (error != cudaSuccess) return error;
    return enqueue(stream, [=] {
        lose_unless_held("cudaMemset", to, bytes);
        if (lost == cudaSuccess) std::memset(to, value, bytes);
    });
}

// ---- calls -------------------------------------------------------------------------------------

// What every function of the runtime does around its own work: an error that stays is its result,
// before or after; others are kept for cudaGetLastError.
template <class F>
cudaError_t call(const F& function) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    cudaError_t error = lost;
    if (lost == cudaSuccess) {
        try {
            error = function();
        } catch (const std::bad_alloc&) {
            error = refuse(cudaErrorMemoryAllocation, "no memory of the host is left");
        }
    }
    if (lost != cudaSuccess) error = refuse(lost, lost_report);
    if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
    return error;
}

cudaError_t check_launch(const std::string& name, const dim3& grid, const dim3& of,
                         size_t shared_bytes) {
    const uint64_t threads = static_cast<uint64_t>(of.x) * of.y * of.z;
    if (threads == 0 || of.x > kMostThreads || of.y > kMostThreads || of.z > 64 ||
        threads > kMostThreads)
        return refuse(cudaErrorInvalidConfiguration, name + ": a block of " + text_of(of) +
                                                         " threads; at most 1024, z at most 64");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535)
        return refuse(cudaErrorInvalidConfiguration,
                      name + ": a grid of " + text_of(grid) +
                          " blocks; at most 2147483647, y and z at most 65535");
    if (shared_bytes > static_cast<size_t>(settings.shared))
        return refuse(cudaErrorInvalidValue,
                      name + text_of(": %zu bytes of shared memory, of which a block has %lld",
                                     shared_bytes, static_cast<long long>(settings.shared)));
    return cudaSuccess;
}

bool has_device(int device) { return device >= 0 && device < settings.devices; }

cudaError_t no_device(int device) {
    return refuse(cudaErrorInvalidDevice, text_of("there is no device %d", device));
}

thread_local int current_device = 0;

}  // namespace

// ---- device code -------------------------------------------------------------------------------

int block_barrier(const char* what, bool value, Place place) {
    if (!block.current) fail(cudaErrorUnknown, what);
    Thread& self = *block.current;
    self.what = what;
    self.place = place;
    self.value = value;
    wait_in(State::kAtBarrier);
    return block.votes;
}

int lane() { return static_cast<int>((block.current - block.threads) % warpSize); }

Exchanged warp_exchange(const char* what, unsigned mask, uint64_t value, int source, Place place) {
    if (!block.current) fail(cudaErrorUnknown, what);
    Thread& self = *block.current;
    if ((mask >> lane() & 1) == 0)
        fail(cudaErrorLaunchFailure,
             text_of("%s at %s: the mask 0x%08x does not hold the calling lane %d", what,
                     text_of(place).c_str(), mask, lane()));
    self.what = what;
    self.place = place;
    self.mask = mask;
    self.value = value;
    self.source = source;
    if (mask_is_complete(self, lane())) {
        exchange(self);
    } else {
        lanes_in_warp(self) |= 1u << lane();
        wait_in(State::kInWarp);
    }
    return {self.value, self.votes};
}

int source_lane(const char* what, Shuffle kind, int by, int width, Place place) {
    if (!block.current) fail(cudaErrorUnknown, what);
    if (width < 1 || width > warpSize || (width & (width - 1)) != 0)
        fail(cudaErrorLaunchFailure, text_of("%s at %s: width %d is not 1, 2, 4, 8, 16 or 32", what,
                                             text_of(place).c_str(), width));
    const int self = lane(), first = self & ~(width - 1), last = first + width - 1;
    switch (kind) {
        case Shuffle::kFrom:
            return first + (by & (width - 1));
        case Shuffle::kUp:
            return by < 0 || by > self - first ? self : self - by;
        case Shuffle::kDown:
            return by < 0 || by > last - self ? self : self + by;
        case Shuffle::kXor:
            break;
    }
    const int other = self ^ (by & (warpSize - 1));
    return other > last ? self : other;
}

void check_aligned(const void* pointer, size_t alignment) {
    if (reinterpret_cast<uintptr_t>(pointer) % alignment == 0) return;
    fail(cudaErrorMisalignedAddress,
         text_of("a vector of %zu bytes at %p, which is not a multiple of that", alignment,
                 pointer));
}

void* shared_array(size_t bytes, const char* name, Place place) {
    if (!block.current) fail(cudaErrorUnknown, name);
    size_t fixed = bytes;
    for (size_t i = 1; i < block.arrays.size(); ++i) {
        const SharedArray& array = block.arrays[i];
        const size_t size = array.end - array.begin;
        if (array.name == name && array.place.line == place.line && size == bytes)
            return block.shared + array.begin;
        fixed += size;
    }
    const size_t all = fixed + block.launch->shared_bytes;
    if (fixed > kStaticShared || all > static_cast<size_t>(settings.shared))
        fail(cudaErrorLaunchFailure,
             text_of("%zu bytes of static shared memory with %s at %s, %zu in all; at most %zu and "
                     "%lld",
                     fixed, name, text_of(place).c_str(), all, kStaticShared,
                     static_cast<long long>(settings.shared)));
    add_shared_array(name, place, bytes);
    return block.shared + block.arrays.back().begin;
}

void* dynamic_shared_memory() {
    if (!block.current) fail(cudaErrorUnknown, "DYNAMIC_SHARED");
    return block.shared + block.arrays.front().begin;
}

// ---- launches ----------------------------------------------------------------------------------

bool is_host_memory(const void* pointer) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return !memory.contains(pointer) && !is_pinned(pointer);
}

void refuse_argument(const char* name, int index) {
    call([&] {
        return refuse(cudaErrorInvalidValue,
                      text_of("%s: argument %d is a pointer to host memory", name, index));
    });
}

void launch(cudaStream_t stream, const char* name, dim3 grid, dim3 of, size_t shared_bytes,
            std::function<void()> body) {
    call([&] {
        const cudaError_t error = check_launch(name, grid, of, shared_bytes);
        if (error != cudaSuccess) return error;
        ++launched_kernels;
        auto launch =
            std::make_shared<Launch>(Launch{name, grid, of, shared_bytes, std::move(body)});
        return enqueue(stream, [launch] { run_kernel(*launch); });
    });
}

}  // namespace emulator
}  // namespace convkit

// ---- CUDA's functions --------------------------------------------------------------------------

using namespace convkit::emulator;

const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define CONVKIT_ERROR(name, number, text) \
    case name:                            \
        return #name;
        CONVKIT_CUDA_ERRORS(CONVKIT_ERROR)
#undef CONVKIT_ERROR
    }
    return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    static auto& kept = *new std::set<std::string>;  // callers keep the pointer
    if (error == reported && !report.empty()) return kept.insert(report).first->c_str();
    switch (error) {
#define CONVKIT_ERROR(name, number, text) \
    case name:                            \
        return text;
        CONVKIT_CUDA_ERRORS(CONVKIT_ERROR)
#undef CONVKIT_ERROR
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError() {
    const cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    if (lost != cudaSuccess) return refuse(lost, lost_report);
    return last_error;
}

// ---- memory

cudaError_t cudaMalloc(void** result, size_t bytes) {
    return call([&]() -> cudaError_t {
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
    return call([&]() -> cudaError_t {
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
    return call([&]() -> cudaError_t {
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
    return call([&]() -> cudaError_t {
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

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    return call([&]() -> cudaError_t {
        const cudaError_t error = refuse_in_capture("cudaMemcpy");
        if (error != cudaSuccess) return error;
        return copy("cudaMemcpy", to, from, bytes, kind, nullptr, true);
    });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return call([&] { return copy("cudaMemcpyAsync", to, from, bytes, kind, stream, false); });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
    return call([&] { return set_memory("cudaMemset", to, value, bytes, nullptr); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    return call([&] { return set_memory("cudaMemsetAsync", to, value, bytes, stream); });
}

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* result, unsigned flags) {
    return call([&] {
        Stream stream;
        stream.blocking = flags != cudaStreamNonBlocking;
        *result = streams.add(std::move(stream));
        return cudaSuccess;
    });
}

cudaError_t cudaStreamCreate(cudaStream_t* result) {
    return cudaStreamCreateWithFlags(result, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    return call([&]() -> cudaError_t {
        Stream* const stream = streams.find(handle);
        if (!stream) return streams.unknown();
        const cudaError_t error = refuse_if_captured(*stream, "the end");
        if (error != cudaSuccess) return error;
        run_all(*stream);
        return streams.remove(handle);
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    return call([&]() -> cudaError_t {
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        const cudaError_t error = refuse_if_captured(*stream, "cudaStreamSynchronize");
        if (error == cudaSuccess) run_all(*stream);
        return error;
    });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    return call([&]() -> cudaError_t {
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        const cudaError_t error = refuse_if_captured(*stream, "cudaStreamQuery");
        if (error != cudaSuccess) return error;
        if (stream->work.empty()) return cudaSuccess;
        run_one(*stream);
        return cudaErrorNotReady;
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    return call([&]() -> cudaError_t {
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        Event* const found = events.find(event);
        if (!found) return events.unknown();
        const std::shared_ptr<Mark> mark = found->mark;
        if (!mark) return cudaSuccess;  // never recorded: nothing to wait for
        if (mark->capture && mark->capture->ended)
            return refuse(cudaErrorCapturedEvent, "cudaStreamWaitEvent");
        if (mark->capture) {
            if (stream->capture && stream->capture != mark->capture) {
                stream->capture->invalid = mark->capture->invalid = true;
                return refuse(cudaErrorStreamCaptureMerge, "cudaStreamWaitEvent");
            }
            stream->capture = mark->capture;
            if (mark->stream != stream) {
                stream->unjoined = mark->capture->origin != stream;
                if (mark->captured == mark->stream->captured) mark->stream->unjoined = false;
            }
            return cudaSuccess;
        }
        if (stream->capture) {
            stream->capture->invalid = true;
            return refuse(cudaErrorStreamCaptureUnsupported,
                          "cudaStreamWaitEvent: the event is not of the capture");
        }
        return enqueue(handle, [mark] { run_until(*mark); });
    });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    return call([&]() -> cudaError_t {
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        if (stream == &null_stream)
            return refuse(cudaErrorStreamCaptureUnsupported, "the null stream cannot be captured");
        if (stream->capture) {
            stream->capture->invalid = true;
            return refuse(cudaErrorStreamCaptureUnsupported, "the stream is captured already");
        }
        stream->capture = std::make_shared<Capture>();
        stream->capture->origin = stream;
        stream->capture->mode = mode;
        stream->capture->thread = std::this_thread::get_id();
        return cudaSuccess;
    });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    return call([&]() -> cudaError_t {
        *graph = nullptr;
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        const std::shared_ptr<Capture> capture = stream->capture;
        if (!capture || capture->origin != stream)
            return refuse(cudaErrorStreamCaptureUnmatched, "no capture began in this stream");
        if (capture->mode != cudaStreamCaptureModeRelaxed &&
            capture->thread != std::this_thread::get_id()) {
            capture->invalid = true;
            return refuse(cudaErrorStreamCaptureWrongThread, "cudaStreamEndCapture");
        }
        capture->ended = true;
        bool unjoined = false;
        for (auto& [other, one] : streams.all()) {
            if (one->capture != capture) continue;
            unjoined = unjoined || one->unjoined;
            one->capture = nullptr;
            one->captured = 0;
            one->unjoined = false;
        }
        if (capture->invalid)
            return refuse(cudaErrorStreamCaptureInvalidated, "the capture had failed");
        if (unjoined)
            return refuse(cudaErrorStreamCaptureUnjoined,
                          "the stream does not wait for all work that was captured in others");
        *graph = graphs.add(std::make_shared<const std::vector<Work>>(std::move(capture->nodes)));
        return cudaSuccess;
    });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    return call([&]() -> cudaError_t {
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        *status = !stream->capture           ? cudaStreamCaptureStatusNone
                  : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                             : cudaStreamCaptureStatusActive;
        return cudaSuccess;
    });
}

// ---- graphs

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, CUgraphNode_st** nodes, size_t* count) {
    return call([&]() -> cudaError_t {
        const Nodes* const found = graphs.find(graph);
        if (!found) return graphs.unknown();
        if (nodes) return refuse(cudaErrorNotSupported, "cudaGraphGetNodes: only their number");
        *count = (*found)->size();
        return cudaSuccess;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    return call([&]() -> cudaError_t {
        const Nodes* const found = graphs.find(graph);
        if (!found) return graphs.unknown();
        *exec = execs.add(*found);
        return cudaSuccess;
    });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    return call([&]() -> cudaError_t {
        const Nodes* const found = execs.find(exec);
        if (!found) return execs.unknown();
        return enqueue(stream, [nodes = *found] {
            for (const Work& node : *nodes)
                if (lost == cudaSuccess) node();
        });
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return call([&] { return execs.remove(exec); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return call([&] { return graphs.remove(graph); });
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    return call([&] {
        *event = events.add({(flags & cudaEventDisableTiming) == 0, nullptr});
        return cudaSuccess;
    });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    return call([&]() -> cudaError_t {
        Event* const found = events.find(event);
        if (!found) return events.unknown();
        Stream* const stream = find_stream(handle);
        if (!stream) return streams.unknown();
        const auto mark = std::make_shared<Mark>();
        mark->stream = stream;
        mark->capture = stream->capture;
        mark->captured = stream->captured;
        found->mark = mark;
        if (stream->capture) return cudaSuccess;
        return enqueue(handle, [mark] {
            mark->done = true;
            mark->time = std::chrono::steady_clock::now();
        });
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return call([&]() -> cudaError_t {
        Event* const found = events.find(event);
        if (!found) return events.unknown();
        if (!found->mark) return cudaSuccess;
        if (found->mark->capture) return refuse(cudaErrorCapturedEvent, "cudaEventSynchronize");
        run_until(*found->mark);
        return cudaSuccess;
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    return call([&]() -> cudaError_t {
        Event* const found = events.find(event);
        if (!found) return events.unknown();
        if (!found->mark || found->mark->done) return cudaSuccess;
        if (found->mark->capture) return refuse(cudaErrorCapturedEvent, "cudaEventQuery");
        run_one(*found->mark->stream);
        return cudaErrorNotReady;
    });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    return call([&]() -> cudaError_t {
        const Event *const from = events.find(start), *const to = events.find(end);
        if (!from || !to) return events.unknown();
        if (!from->timed || !to->timed || !from->mark || !to->mark)
            return refuse(cudaErrorInvalidResourceHandle,
                          "cudaEventElapsedTime: an event without a time");
        if (!from->mark->done || !to->mark->done) return cudaErrorNotReady;
        const std::chrono::duration<float, std::milli> passed = to->mark->time - from->mark->time;
        *milliseconds = passed.count();
        return cudaSuccess;
    });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return call([&] { return events.remove(event); });
}

// ---- the device

cudaError_t cudaDeviceSynchronize() {
    return call([&]() -> cudaError_t {
        const cudaError_t error = refuse_in_capture("cudaDeviceSynchronize");
        if (error == cudaSuccess) run_everything();
        return error;
    });
}

cudaError_t cudaGetDeviceCount(int* count) {
    return call([&]() -> cudaError_t {
        *count = 0;
        if (settings.driver < settings.runtime / 1000 * 1000)
            return refuse(cudaErrorInsufficientDriver,
                          "CUDA driver version is insufficient for CUDA runtime version");
        if (settings.devices == 0)
            return refuse(cudaErrorNoDevice, "no CUDA-capable device is detected");
        *count = static_cast<int>(settings.devices);
        return cudaSuccess;
    });
}

cudaError_t cudaSetDevice(int device) {
    return call([&]() -> cudaError_t {
        if (!has_device(device)) return no_device(device);
        current_device = device;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDevice(int* device) {
    return call([&] {
        *device = current_device;
        return cudaSuccess;
    });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    return call([&]() -> cudaError_t {
        if (!has_device(device)) return no_device(device);
        *properties = {};
        std::snprintf(properties->name, sizeof properties->name, "emulated");
        properties->totalGlobalMem = static_cast<size_t>(settings.memory);
        properties->sharedMemPerBlock = kStaticShared;
        properties->sharedMemPerBlockOptin = static_cast<size_t>(settings.shared);
        properties->major = static_cast<int>(settings.major);
        properties->minor = static_cast<int>(settings.minor);
        properties->multiProcessorCount = static_cast<int>(settings.multiprocessors);
        properties->warpSize = warpSize;
        properties->maxThreadsPerBlock = kMostThreads;
        properties->l2CacheSize = 50 << 20;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceProperties(&properties, device);
    if (error != cudaSuccess) return error;
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock:
            *value = properties.maxThreadsPerBlock;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlock:
            *value = static_cast<int>(properties.sharedMemPerBlock);
            break;
        case cudaDevAttrWarpSize:
            *value = properties.warpSize;
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = properties.multiProcessorCount;
            break;
        case cudaDevAttrL2CacheSize:
            *value = properties.l2CacheSize;
            break;
        case cudaDevAttrMaxThreadsPerMultiProcessor:
            *value = 2048;
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = properties.major;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = properties.minor;
            break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = static_cast<int>(properties.sharedMemPerBlockOptin) + 1024;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = static_cast<int>(properties.sharedMemPerBlockOptin);
            break;
    }
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    return call([&] {
        *version = static_cast<int>(settings.driver);
        return cudaSuccess;
    });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
    return call([&] {
        *version = static_cast<int>(settings.runtime);
        return cudaSuccess;
    });
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
    return call([&]() -> cudaError_t {
        if (value >= 0 && value <= settings.shared) return cudaSuccess;
        return refuse(cudaErrorInvalidValue,
                      text_of("%d bytes of shared memory, of which a block has %lld", value,
                              static_cast<long long>(settings.shared)));
    });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    return call([&]() -> cudaError_t {
        const auto version = static_cast<int>(settings.major * 10 + settings.minor);
        if (version * 10 < __CUDA_ARCH_LIST__)
            return refuse(cudaErrorNoKernelImageForDevice,
                          "no kernel image is available for execution on the device");
        *attributes = {version, kMostThreads};
        return cudaSuccess;
    });
}

// ---- for tests ---------------------------------------------------------------------------------

int emulator_set_order(const char* order) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return set_order(settings, order) ? 0 : -1;
}

void emulator_fail_allocation(int64_t k) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    settings.fail_allocation = k;
}

void emulator_fail_kernel(int64_t k) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    settings.fail_kernel = k;
}

int emulator_set(const char* property, int64_t value) {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    const std::map<std::string, int64_t*> all = {
        {"devices", &settings.devices}, {"driver", &settings.driver},
        {"runtime", &settings.runtime}, {"major", &settings.major},
        {"minor", &settings.minor},     {"multiprocessors", &settings.multiprocessors},
        {"shared", &settings.shared},   {"memory", &settings.memory},
    };
    const auto found = all.find(property);
    if (found == all.end()) return -1;
    *found->second = value;
    return 0;
}

void emulator_recover() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    lost = last_error = reported = cudaSuccess;
    report.clear();
    memory.lay_guards(kGarbage[0].guard);
    null_stream.work.clear();
    for (auto& [handle, stream] : streams.all()) {
        stream->work.clear();
        stream->capture = nullptr;
        stream->captured = 0;
        stream->unjoined = false;
    }
    for (auto& [handle, event] : events.all()) event->mark = nullptr;
}

void emulator_reset() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    emulator_recover();
    events.all().clear();
    execs.all().clear();
    graphs.all().clear();
    streams.all().clear();
    while (!memory.all().empty()) memory.free(memory.base() + memory.all().begin()->first);
    for (const auto& [pointer, bytes] : pinned) std::free(const_cast<unsigned char*>(pointer));
    pinned.clear();
    settings = settings_of_environment();
    launched_kernels = run_kernels = 0;
}

int64_t emulator_allocated_bytes() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return static_cast<int64_t>(memory.used());
}

int64_t emulator_launched_kernels() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return launched_kernels;
}

int64_t emulator_run_kernels() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    return run_kernels;
}

const char* emulator_leaks() {
    const std::lock_guard<std::recursive_mutex> guard(lock());
    static auto& text = *new std::string;
    text.clear();
    for (const auto& [at, allocation] : memory.all())
        text += text_of("%zu bytes of device memory, allocation %lld\n", allocation.bytes,
                        static_cast<long long>(allocation.serial));
    for (const auto& [pointer, bytes] : pinned) text += text_of("%zu pinned bytes\n", bytes);
    const auto count = [](size_t number, const char* what) {
        if (number > 0) text += text_of("%zu of: %s\n", number, what);
    };
    count(streams.all().size(), streams.what());
    count(events.all().size(), events.what());
    count(graphs.all().size(), graphs.what());
    count(execs.all().size(), execs.what());
    return text.c_str();
}
