// Kernels: threads of a block as fibers, their barriers and exchanges, shared memory, and the
// orders in which all of it runs.
//
// From the top: a block and its threads; its shared memory; orders; running a launch in one way, or
// in all and comparing; what device code calls; launches.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "emulator_fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace convkit {
namespace emulator {

int64_t launched_kernels = 0, run_kernels = 0;

static std::string text_of(const uint3& v) { return text_of(dim3(v.x, v.y, v.z)); }
static std::string text_of(const Place& place) { return text_of("%s:%d", place.file, place.line); }

namespace {

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

struct Way {
    Order order;
    uint64_t seed;
    Garbage garbage;
};

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

// The thread that calls `what`.
inline Thread& caller(const char* what) {
    if (!block.current) fail(cudaErrorUnknown, what);
    return *block.current;
}

inline void begin_thread(Thread& thread, Fiber* fiber) {
    thread.fiber = fiber;
    thread.state = State::kRunning;
    block.current = &thread;
    threadIdx = thread.index;
}

auto& idle_fibers = *new std::vector<Fiber*>;

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

[[noreturn]] void fiber_main() {
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
        if (idle_fibers.empty()) idle_fibers.push_back(new_fiber(fiber_main));
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

// ---- kernels -----------------------------------------------------------------------------------

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

}  // namespace

// ---- device code -------------------------------------------------------------------------------

int block_barrier(const char* what, bool value, Place place) {
    Thread& self = caller(what);
    self.what = what;
    self.place = place;
    self.value = value;
    wait_in(State::kAtBarrier);
    return block.votes;
}

int lane() { return static_cast<int>((block.current - block.threads) % warpSize); }

Exchanged warp_exchange(const char* what, unsigned mask, uint64_t value, int source, Place place) {
    Thread& self = caller(what);
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
    caller(what);
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
    caller(name);
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
    caller("DYNAMIC_SHARED");
    return block.shared + block.arrays.front().begin;
}

// ---- launches ----------------------------------------------------------------------------------

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
