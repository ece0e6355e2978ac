// SPDX-License-Identifier: MIT
#include "lib/interrupts.hpp"

#include "lib/cpu.hpp"
#include "lib/runtime.hpp"

namespace payload {
namespace {

constexpr std::uint16_t kCode64 = 0x10;
constexpr std::uint64_t kStubSize = 16;

struct Gate {
    std::uint16_t offset_low, selector;
    std::uint8_t ist, type;
    std::uint16_t offset_middle;
    std::uint32_t offset_high, reserved;
};
static_assert(sizeof(Gate) == 16);

struct [[gnu::packed]] TablePointer {
    std::uint16_t limit;
    std::uint64_t base;
};

Gate idt[256];
Handler handlers[256];
std::uint64_t last_error_code;

}  // namespace

extern "C" {
/// Where to go on if the instruction of a try_... faults; 0: none is under way. One CPU at a time does this.
std::uint64_t payload_fixup;
int payload_fault;
}

extern "C" {
extern const char interrupt_stubs[];
}

extern "C" void interrupt_entry(Frame& frame) {
    if (frame.vector < 32 && payload_fixup != 0) {
        payload_fault = static_cast<int>(frame.vector);
        last_error_code = frame.error_code;
        frame.rip = payload_fixup;
        payload_fixup = 0;
    } else if (handlers[frame.vector] != nullptr) {
        handlers[frame.vector](frame);
    } else {
        print("FAILED: vector %lu, error code 0x%lx, rip 0x%lx, rsp 0x%lx, rflags 0x%lx, rax 0x%lx, rcx "
              "0x%lx, rdx 0x%lx\n",
              frame.vector, frame.error_code, frame.rip, frame.rsp, frame.rflags, frame.rax, frame.rcx,
              frame.rdx);
        finish(2);
    }
}

void set_handler(std::uint8_t vector, Handler handler) {
    handlers[vector] = handler;
}

void set_gate(std::uint8_t vector, const void* entry) {
    const auto address = reinterpret_cast<std::uint64_t>(entry);
    idt[vector] = {static_cast<std::uint16_t>(address),
                   kCode64,
                   0,
                   0x8e,
                   static_cast<std::uint16_t>(address >> 16),
                   static_cast<std::uint32_t>(address >> 32),
                   0};
}

void load_idt() {
    for (unsigned vector = 0; vector < 256; ++vector)
        if (idt[vector].selector == 0)
            set_gate(static_cast<std::uint8_t>(vector), interrupt_stubs + vector * kStubSize);
    const TablePointer pointer{sizeof idt - 1, reinterpret_cast<std::uint64_t>(idt)};
    asm volatile("lidt %0" : : "m"(pointer));
}

int fault() {
    return payload_fault;
}

std::uint64_t fault_error_code() {
    return last_error_code;
}

int try_rdmsr(std::uint32_t msr, std::uint64_t& value) {
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    TRY_INSTRUCTION("rdmsr", "+a"(low)COMMA "+d"(high), "c"(msr));
    value = std::uint64_t{high} << 32 | low;
    return fault();
}

int try_wrmsr(std::uint32_t msr, std::uint64_t value) {
    TRY_INSTRUCTION("wrmsr", EMPTY, "c"(msr), "a"(static_cast<std::uint32_t>(value)),
                    "d"(static_cast<std::uint32_t>(value >> 32)));
    return fault();
}

int try_hypercall(std::uint64_t& rax) {
    if (is_amd())
        TRY_INSTRUCTION("vmmcall", "+a"(rax), );
    else
        TRY_INSTRUCTION("vmcall", "+a"(rax), );
    return fault();
}

}  // namespace payload
