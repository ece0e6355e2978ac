// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/interrupts.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/panic.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"

#include <array>

extern "C" const char interrupt_stubs[];

namespace hv::cpu {
namespace {

/// [sdm3 6.14.1 64-Bit Mode IDT]
struct Gate {
    std::uint16_t offset_low;
    std::uint16_t selector;
    std::uint8_t ist;
    std::uint8_t type;
    std::uint16_t offset_middle;
    std::uint32_t offset_high;
    std::uint32_t reserved;
};
static_assert(sizeof(Gate) == 16);

constexpr std::size_t kStubSize = 16;
constexpr std::uint8_t kInterruptGate = 0x8e;  // present, DPL 0, type 14
constexpr std::uint8_t kNmi = 2;
constexpr std::uint8_t kDoubleFault = 8;
constexpr std::uint8_t kGeneralProtection = 13;
constexpr std::uint8_t kMachineCheck = 18;
constexpr std::uint64_t kExceptions = 32;

struct Handler {
    InterruptHandler function;
    void* context;
};

constinit std::array<Gate, 256> idt{};
constinit std::array<Handler, 256> handlers{};
using EndOfInterrupt = void (*)();
constinit EndOfInterrupt end_of_interrupt = [] {};
constinit log::RateLimit unexpected_limit;
/// Where try_wrmsr() goes on after #GP; 0: none is under way.
constinit std::uintptr_t resume_at = 0;

Ist stack_of(std::size_t vector) {
    switch (vector) {
    case kNmi: return Ist::nmi;
    case kDoubleFault: return Ist::double_fault;
    case kMachineCheck: return Ist::machine_check;
    default: return Ist::none;
    }
}

[[gnu::cold]] void handle_unexpected(std::uint64_t vector) {
    // A spurious interrupt has no in-service bit and gets no EOI [sdm3 11.9 Spurious Interrupt].
    if (vector == static_cast<std::uint8_t>(HostVector::spurious))
        return;
    if (unexpected_limit.admit())
        log::warning(log::Topic::cpu, "unexpected interrupt, vector 0x%llx",
                     static_cast<unsigned long long>(vector));
    end_of_interrupt();
}

}  // namespace

void build_idt() {
    for (std::size_t vector = 0; vector < idt.size(); ++vector) {
        const auto address = reinterpret_cast<std::uintptr_t>(interrupt_stubs) + vector * kStubSize;
        idt[vector] = {static_cast<std::uint16_t>(address),
                       kCodeSelector,
                       static_cast<std::uint8_t>(stack_of(vector)),
                       kInterruptGate,
                       static_cast<std::uint16_t>(address >> 16),
                       static_cast<std::uint32_t>(address >> 32),
                       0};
    }
}

void load_idt() {
    lidt({sizeof idt - 1, reinterpret_cast<std::uintptr_t>(idt.data())});
}

void set_interrupt_handler(std::uint8_t vector, InterruptHandler handler, void* context) {
    HV_ASSERT(vector >= kExceptions);
    handlers[vector] = {handler, context};
}

void set_end_of_interrupt(void (*function)()) {
    end_of_interrupt = function;
}

bool try_wrmsr(std::uint32_t index, std::uint64_t value) {
    // Until the label no instruction but the WRMSR can raise #GP.
    asm volatile("leaq 1f(%%rip), %%rax\n\tmovq %%rax, %[resume]\n\tmovl %[low], %%eax\n\twrmsr\n1:"
                 : [resume] "=m"(resume_at)
                 : "c"(index), [low] "r"(static_cast<std::uint32_t>(value)),
                   "d"(static_cast<std::uint32_t>(value >> 32))
                 : "rax", "memory");
    const bool done = resume_at != 0;  // the handler clears it
    resume_at = 0;
    return done;
}

extern "C" void exception_entry(InterruptFrame* frame) {
    if (frame->vector == kNmi) {
        handle_nmi();
        return;
    }
    if (frame->vector == kGeneralProtection && resume_at != 0) {
        frame->rip = resume_at;
        resume_at = 0;
        return;
    }
    panic_on_exception(*frame);
}

/// `vector` >= kExceptions.
extern "C" void interrupt_entry(std::uint64_t vector) {
    const Handler& handler = handlers.data()[vector];
    if (handler.function == nullptr) [[unlikely]] {
        handle_unexpected(vector);
        return;
    }
    handler.function(handler.context);
    end_of_interrupt();
}

}  // namespace hv::cpu
