// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/per_cpu.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/bits.hpp"

#include <array>
#include <new>

namespace hv::cpu {
namespace {

constexpr std::uint64_t kStackSize = 32 * kKiB;
constexpr std::uint64_t kIstStackSize = 8 * kKiB;
constexpr std::uint32_t kMsrGsBase = 0xc000'0101;
constexpr std::uint32_t kMsrFsBase = 0xc000'0100;

constinit PerCpu boot_cpu{};
constinit std::array<PerCpu*, kMaxCpus> cpus{};
constinit std::uint32_t count = 0;

void fill_gdt(PerCpu& area) {
    const auto base = reinterpret_cast<std::uintptr_t>(&area.tss);
    area.gdt[0] = 0;
    area.gdt[kCodeSelector / 8] = 0x00af'9b00'0000'ffff;  // 64-bit code, DPL 0, accessed
    area.gdt[kDataSelector / 8] = 0x00cf'9300'0000'ffff;  // data, DPL 0, accessed
    // 64-bit TSS, available [sdm3 8.2.3 TSS Descriptor in 64-bit Mode]
    area.gdt[kTssSelector / 8] =
        (sizeof(Tss) - 1) | (base & 0xff'ffff) << 16 | 0x89ULL << 40 | (base >> 24 & 0xff) << 56;
    area.gdt[kTssSelector / 8 + 1] = base >> 32;
    area.tss.io_map_base = sizeof(Tss);
}

}  // namespace

PerCpu& cpu_at(std::uint32_t index) {
    HV_ASSERT(index < count);
    return *cpus[index];
}
std::uint32_t cpu_count() {
    return count;
}

void load_early_per_cpu() {
    boot_cpu.self = &boot_cpu;
    wrmsr(kMsrGsBase, reinterpret_cast<std::uintptr_t>(&boot_cpu));
}

Expected<PerCpu*> create_per_cpu(std::uint32_t apic_id) {
    if (count == kMaxCpus)
        return Unexpected{Error::out_of_range};
    PerCpu* area = count == 0 ? &boot_cpu : new (std::nothrow) PerCpu{};
    if (area == nullptr)
        return Unexpected{Error::no_memory};
    area->self = area;
    area->index = count;
    area->apic_id = apic_id;
    for (const Ist ist : {Ist::double_fault, Ist::nmi, Ist::machine_check})
        area->tss.ist[static_cast<unsigned>(ist) - 1] = HV_TRY(map_stack(kIstStackSize));
    area->stack_top = HV_TRY(map_stack(kStackSize));
    fill_gdt(*area);
    cpus[count++] = area;
    return area;
}

void drop_last_cpu() {
    --count;
}

void continue_on_stack(std::uintptr_t top, void (*function)(void*), void* argument) {
    // A null return address ends the frame chain, and gives the callee the alignment that a call would.
    asm volatile("mov %0, %%rsp\n"
                 "xor %%ebp, %%ebp\n"
                 "push %%rbp\n"
                 "jmp *%1" ::"r"(top),
                 "r"(function), "D"(argument)
                 : "memory");
    __builtin_unreachable();
}

void load_per_cpu(PerCpu& area) {
    lgdt({sizeof area.gdt - 1, reinterpret_cast<std::uintptr_t>(area.gdt)});
    asm volatile("pushq %0\n"
                 "leaq 1f(%%rip), %%rax\n"
                 "pushq %%rax\n"
                 "lretq\n"
                 "1:\n"
                 "movw %w1, %%ds\n"
                 "movw %w1, %%es\n"
                 "movw %w1, %%ss\n"
                 "movw %w2, %%fs\n"
                 "movw %w2, %%gs\n" ::"i"(kCodeSelector),
                 "r"(kDataSelector), "r"(0)
                 : "rax", "memory");
    wrmsr(kMsrFsBase, 0);
    wrmsr(kMsrGsBase, reinterpret_cast<std::uintptr_t>(&area));
    load_idt();
    ltr(kTssSelector);
}

}  // namespace hv::cpu
