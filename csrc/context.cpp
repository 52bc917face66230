#include "context.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "float_mode.h"
#include "threads.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace convkit {
namespace {

// Waking threads costs some microseconds, or one where they wait together (Team): what each must
// get at least, in nanoseconds.
constexpr double kWorthWaking = 10000, kWorthSharing = 3000;
// Pieces per thread: enough to even out a core that is slowed down by others.
constexpr int64_t kPiecesPerThread = 4;

std::atomic<int> thread_count{0};
thread_local bool inside_parallel_for = false;
bool forked = false;

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
    uint64_t mode = float_mode();  // the caller's holds for all
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr error;

    void run() {
        inside_parallel_for = true;
        const FloatMode as_caller(mode);
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

// Calls body(i) once on each of so many threads at the same time; i = 0 is the calling thread.
template <class Body>
void on_std_threads(int threads, const Body& body) {
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads; ++i) others.emplace_back([&body, i] { body(i); });
    } catch (const std::exception&) {
        // No more threads to be had: those that started, and this one, do all the work.
    }
    body(0);
    for (std::thread& t : others) t.join();
}

template <class Body>
void on_threads(int threads, const Body& body) {
#ifdef _OPENMP
    // GNU's OpenMP hangs in a forked child whose parent had started its threads, for whomever.
    if (!forked) {
#pragma omp parallel num_threads(threads)
        body(omp_get_thread_num());
        return;
    }
#endif
    on_std_threads(threads, body);
}

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Threads that stay together over many parallel_fors. The leader opens a piece of work and claims
// pieces like the others; when none is left it waits only for those that came, never for a thread
// that the operating system has not got round to yet. On a busy machine that is the difference
// between going on alone and standing still.
class Team {
 public:
    void serve() {
        uint64_t seen = 0;
        while (!done_) {
            if (generation_ == seen) {
                wait_for_work(seen);
                continue;
            }
            seen = generation_;
            ++visitors_;
            if (Work* work = open_) work->run();
            --visitors_;
        }
    }

    void lead(Work& work) {
        open_ = &work;
        ++generation_;
        wake();
        work.run();
        open_ = nullptr;
        for (int spins = 0; visitors_ > 0; ++spins) {
            spins < kSpins ? pause() : std::this_thread::yield();
        }
    }

    void dismiss() {
        done_ = true;
        wake();
    }

 private:
    static constexpr int kSpins = 2000;  // some tens of microseconds

    void wait_for_work(uint64_t seen) {
        for (int i = 0; i < kSpins; ++i) {
            if (generation_ != seen || done_) return;
            pause();
        }
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleepers_;
        work_or_end_.wait(lock, [&] { return generation_ != seen || done_; });
        --sleepers_;
    }

    void wake() {
        if (sleepers_ == 0) return;
        {
            std::lock_guard<std::mutex> lock(mutex_);
        }
        work_or_end_.notify_all();
    }

    // All sequentially consistent: a visitor that finds the work open is one that the leader sees,
    // and one that goes to sleep either sees the new generation or is seen asleep.
    std::atomic<Work*> open_{nullptr};
    std::atomic<uint64_t> generation_{0};
    std::atomic<int> visitors_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<bool> done_{false};
    std::mutex mutex_;
    std::condition_variable work_or_end_;
};

thread_local Team* team = nullptr;

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

int default_threads() {
    int threads = affinity_limit();
    if (const int limit = cgroup_limit()) threads = std::min(threads, limit);
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
        const int asked = std::atoi(text);
        if (asked > 0) threads = std::min(threads, asked);
    }
    return threads;
}

[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
    forked = true;
    inside_parallel_for = false;
    team = nullptr;
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
    const double worth = team ? kWorthSharing : kWorthWaking;
    const double wanted = static_cast<double>(count) * cost / worth;
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
    if (team) {
        team->lead(work);
    } else {
        on_threads(threads, [&](int) { work.run(); });
    }
    if (work.error) std::rethrow_exception(work.error);
}

void with_team(const Context& context, const std::function<void()>& body) {
    if (context.threads <= 1 || team || inside_parallel_for) return body();
    Team threads;
    std::exception_ptr error;
    on_threads(context.threads, [&](int i) {
        if (i > 0) return threads.serve();
        team = &threads;
        try {
            body();
        } catch (...) {
            error = std::current_exception();
        }
        team = nullptr;
        threads.dismiss();
    });
    if (error) std::rethrow_exception(error);
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
