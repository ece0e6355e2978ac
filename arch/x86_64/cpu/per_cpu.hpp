// SPDX-License-Identifier: MIT
// What each CPU has for itself, found through GS. Another CPU's copy is only read, or changed through the
// atomics below.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hv::cpu {

inline constexpr std::uint32_t kMaxCpus = 256;

/// Selectors of every CPU's GDT.
inline constexpr std::uint16_t kCodeSelector = 0x08;
inline constexpr std::uint16_t kDataSelector = 0x10;
inline constexpr std::uint16_t kTssSelector = 0x18;

/// [sdm3 8.7 Task Management in 64-bit Mode]
struct [[gnu::packed]] Tss {
    std::uint32_t reserved0;
    std::uint64_t rsp[3];
    std::uint64_t reserved1;
    std::uint64_t ist[7];
    std::uint64_t reserved2;
    std::uint16_t reserved3;
    std::uint16_t io_map_base;
};
static_assert(sizeof(Tss) == 104);

/// Interrupt stacks of their own, by IST number, for what may strike at any instruction.
enum class Ist : std::uint8_t { none, double_fault, nmi, machine_check };

struct PerCpu {
    PerCpu* self;  ///< at gs:0
    std::uint32_t index;
    std::uint32_t apic_id;
    std::uint64_t gdt[5];
    Tss tss;
    std::uintptr_t stack_top;
    /// How often this CPU has let interrupts in, and so holds nothing that it found before.
    std::atomic<std::uint64_t> quiescent;
    /// NMIs seen while the host ran; the panic path stops CPUs by NMI.
    std::atomic<std::uint32_t> nmis;
    const char* running;  ///< "vm/vcpu" for panic dumps, or nullptr
};

inline PerCpu& this_cpu() {
    PerCpu* self;
    asm("mov %%gs:0, %0" : "=r"(self));
    return *self;
}
/// `index` < cpu_count().
PerCpu& cpu_at(std::uint32_t index);
std::uint32_t cpu_count();

/// Makes machine::cpu_index() and panics work on the boot CPU before there is memory for anything else.
void load_early_per_cpu();
/// Makes a CPU's area: GDT, TSS, stacks. The boot CPU's comes first and gets index 0.
Expected<PerCpu*> create_per_cpu(std::uint32_t apic_id);
/// Forgets the CPU that create_per_cpu() made last, which never came up. Its area stays: it may come up late.
void drop_last_cpu();
/// Leaves this stack for good: calls `function(argument)` on the one that ends at `top`.
[[noreturn]] void continue_on_stack(std::uintptr_t top, void (*function)(void*), void* argument);
/// Makes `area` the executing CPU's and loads its GDT, TSS and the IDT.
void load_per_cpu(PerCpu& area);

}  // namespace hv::cpu
