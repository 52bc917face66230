// Whether the calling thread's arithmetic takes subnormal numbers for zero. A network whose
// gradients fade away would otherwise slow down a hundredfold, where they are about to be zero
// anyway.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace convkit {

inline uint64_t float_mode() {
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

inline void set_float_mode([[maybe_unused]] uint64_t mode) {
#if defined(__x86_64__)
    _mm_setcsr(static_cast<unsigned>(mode));
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" : : "r"(mode));
#endif
}

// Another mode for as long as this lives; the thread's own comes back afterwards.
class FloatMode {
 public:
    explicit FloatMode(uint64_t mode) : before_(float_mode()) { set_float_mode(mode); }
    ~FloatMode() { set_float_mode(before_); }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

    uint64_t before() const { return before_; }

    static uint64_t flushing() {
#if defined(__x86_64__)
        return _mm_getcsr() | 0x8040;  // flush to zero, and read subnormal numbers as zero
#elif defined(__aarch64__)
        return float_mode() | uint64_t{1} << 24;
#else
        return 0;
#endif
    }

 private:
    uint64_t before_;
};

}  // namespace convkit
