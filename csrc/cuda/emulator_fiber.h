// Fibers: stacks of their own for the threads of a block, between which one thread of the host
// switches. Included by emulator.cpp alone.
#pragma once

#include <sys/mman.h>

#include "emulator_state.h"

namespace convkit {
namespace emulator {

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

inline Fiber host;  // who runs a block

inline void enter_fiber() {
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

// One that begins in `main`, which never returns.
inline Fiber* new_fiber(void (*main)()) {
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
    top[kReturnWord] = reinterpret_cast<void*>(main);
    fiber->stack_pointer = top;
    return fiber;
}

}  // namespace emulator
}  // namespace convkit
