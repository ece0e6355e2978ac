// SPDX-License-Identifier: MIT
// The kernel's side of vmm/base/machine.hpp.
#include "vmm/base/machine.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/cpu/tsc.hpp"
#include "arch/x86_64/irq/local_apic.hpp"

namespace hv::machine {

std::uint32_t cpu_index() {
    std::uint32_t index;
    asm("movl %%gs:%c1, %0" : "=r"(index) : "i"(offsetof(cpu::PerCpu, index)));
    return index;
}
void let_interrupts_in() {
    asm volatile("sti; nop; cli" ::: "memory");
    cpu::this_cpu().quiescent.fetch_add(1, std::memory_order_release);
}
void sleep_until_interrupt() {
    asm volatile("sti; hlt; cli" ::: "memory");
    cpu::this_cpu().quiescent.fetch_add(1, std::memory_order_release);
}
void set_running(const char* name) {
    cpu::this_cpu().running = name;
}

void synchronize() {
    const std::uint32_t me = cpu_index();
    for (std::uint32_t index = 0; index < cpu::cpu_count(); ++index) {
        if (index == me)
            continue;
        const cpu::PerCpu& other = cpu::cpu_at(index);
        const std::uint64_t before = other.quiescent.load(std::memory_order_acquire);
        kick_cpu(index);
        while (other.quiescent.load(std::memory_order_acquire) == before)
            pause();
    }
}
void pause() {
    asm volatile("pause" ::: "memory");
}
std::uint64_t tsc() {
    return cpu::rdtsc();
}
std::uint64_t tsc_hz() {
    return cpu::tsc_frequency();
}
std::uintptr_t direct_map_base() {
    return cpu::kDirectMap;
}

void kick_cpu(std::uint32_t index) {
    irq::send_ipi(cpu::cpu_at(index).apic_id, static_cast<std::uint8_t>(cpu::HostVector::kick));
}

}  // namespace hv::machine
