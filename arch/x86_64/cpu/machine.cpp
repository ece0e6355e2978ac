// SPDX-License-Identifier: MIT
// The kernel's side of vmm/base/machine.hpp.
#include "vmm/base/machine.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/cpu/tsc.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "arch/x86_64/cpu/host_memory.hpp"

namespace hv::machine {

namespace {
constexpr std::uint64_t kRflagsIf = 1U << 9;
}

std::uint32_t cpu_index() {
    std::uint32_t index;
    asm("movl %%gs:%c1, %0" : "=r"(index) : "i"(offsetof(cpu::PerCpu, index)));
    return index;
}
bool disable_interrupts() {
    const bool enabled = (cpu::rflags() & kRflagsIf) != 0;
    cpu::cli();
    return enabled;
}
void restore_interrupts(bool enabled) {
    if (enabled)
        cpu::sti();
}
void let_interrupts_in() { asm volatile("sti; nop; cli" ::: "memory"); }
void sleep_until_interrupt() { asm volatile("sti; hlt; cli" ::: "memory"); }
void pause() { asm volatile("pause" ::: "memory"); }
std::uint64_t tsc() { return cpu::rdtsc(); }
std::uint64_t tsc_hz() { return cpu::tsc_frequency(); }
std::uintptr_t direct_map_base() { return cpu::kDirectMap; }

void kick_cpu(std::uint32_t index) {
    cpu::PerCpu& target = cpu::cpu_at(index);
    target.attention.store(true, std::memory_order_release);
    if (&target != &cpu::this_cpu())
        irq::send_ipi(target.apic_id, static_cast<std::uint8_t>(cpu::HostVector::kick));
}

}  // namespace hv::machine
