#include "context.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "threads.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace convkit {
namespace {

// Waking a thread costs some microseconds: each further thread must get at least this much work.
constexpr double kNanosecondsPerThread = 20000;
// Pieces per thread: enough to even out a core that is slowed down by others.
constexpr int64_t kPiecesPerThread = 4;

std::atomic<int> thread_count{0};
thread_local bool inside_parallel_for = false;
bool forked_after_openmp = false;
std::atomic<bool> openmp_started{false};

struct Scratch {
    void* data[kScratchSlots] = {};
    size_t bytes[kScratchSlots] = {};

    ~Scratch() {
        for (void* p : data) std::free(p);
    }
};
thread_local Scratch thread_scratch;

// One parallel_for in flight: threads claim pieces until none is left.
struct Work {
    RangeBody body;
    void* data;
    int64_t count, piece;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr error;

    void run() {
        inside_parallel_for = true;
        try {
            for (int64_t begin; (begin = next.fetch_add(piece)) < count;)
                body(data, begin, std::min(begin + piece, count));
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex);
            if (!error) error = std::current_exception();
            next = count;
        }
        inside_parallel_for = false;
    }
};

void run_on_std_threads(Work& work, int threads) {
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads; ++i) others.emplace_back([&work] { work.run(); });
    } catch (const std::system_error&) {
        // No more threads to be had: those that started, and this one, do all the work.
    }
    work.run();
    for (std::thread& t : others) t.join();
}

void run_on_threads(Work& work, int threads) {
#ifdef _OPENMP
    // GNU's OpenMP hangs in a forked child whose parent had started its threads.
    if (!forked_after_openmp) {
        openmp_started = true;
#pragma omp parallel num_threads(threads)
        work.run();
        return;
    }
#endif
    run_on_std_threads(work, threads);
}

// The share of processors that a Linux control group allows, rounded up; 0: no limit known.
int cgroup_limit() {
    std::ifstream v2("/sys/fs/cgroup/cpu.max");
    std::string quota_text;
    double quota = 0, period = 0;
    if (v2 >> quota_text >> period) {
        if (quota_text == "max") return 0;
        quota = std::atof(quota_text.c_str());
    } else {
        std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        std::ifstream p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
        if (!(q >> quota) || !(p >> period)) return 0;
    }
    if (quota <= 0 || period <= 0) return 0;
    return std::max(1, static_cast<int>((quota + period - 1) / period));
}

int affinity_limit() {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
    if (openmp_started) forked_after_openmp = true;
    inside_parallel_for = false;
});

}  // namespace

void* scratch(ScratchSlot slot, size_t bytes) {
    Scratch& s = thread_scratch;
    if (s.bytes[slot] < bytes) {
        std::free(s.data[slot]);
        s.data[slot] = nullptr;
        s.bytes[slot] = 0;
        const size_t rounded = (bytes + 63) / 64 * 64;
        if (rounded < bytes || posix_memalign(&s.data[slot], 64, rounded) != 0) {
            s.data[slot] = nullptr;
            throw std::bad_alloc();
        }
        s.bytes[slot] = rounded;
    }
    return s.data[slot];
}

void parallel_for(const Context& context, int64_t count, double cost, RangeBody body, void* data) {
    if (count <= 0) return;
    const double wanted = static_cast<double>(count) * cost / kNanosecondsPerThread;
    const int64_t useful =
        wanted < context.threads ? static_cast<int64_t>(wanted) : context.threads;
    const int threads = static_cast<int>(std::min(useful, count));
    if (threads <= 1 || inside_parallel_for) {
        body(data, 0, count);
        return;
    }
    Work work;
    work.body = body;
    work.data = data;
    work.count = count;
    work.piece = std::max<int64_t>(1, count / (threads * kPiecesPerThread));
    run_on_threads(work, threads);
    if (work.error) std::rethrow_exception(work.error);
}

int default_threads() {
    int threads = affinity_limit();
    if (const int limit = cgroup_limit()) threads = std::min(threads, limit);
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
        const int asked = std::atoi(text);
        if (asked > 0) threads = std::min(threads, asked);
    }
    return threads;
}

int num_threads() {
    const int set = thread_count.load(std::memory_order_relaxed);
    if (set > 0) return set;
    thread_count = default_threads();
    return thread_count;
}

void set_num_threads(int threads) { thread_count = threads; }

const char* thread_runtime() {
#if defined(_OPENMP) && defined(__clang__)
    return "LLVM OpenMP (libomp)";
#elif defined(_OPENMP)
    return "GNU OpenMP (libgomp)";
#else
    return "std::thread";
#endif
}

}  // namespace convkit
