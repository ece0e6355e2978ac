// SPDX-License-Identifier: MIT
#include "lib/local_apic.hpp"

#include "lib/cpu.hpp"

namespace payload::apic {
namespace {

constexpr std::uint64_t kEnable = 1 << 11;
constexpr std::uint64_t kExtended = 1 << 10;
constexpr std::uint32_t kAssert = 1 << 14;
constexpr std::uint32_t kInit = 5 << 8;
constexpr std::uint32_t kStartup = 6 << 8;
constexpr std::uint32_t kPending = 1 << 12;
constexpr std::uint32_t kDivideByOne = 0xb;

std::uint64_t tsc_ticks_per_1024_counts;

constexpr std::uint32_t msr_of(Register r) {
    return 0x800 + static_cast<std::uint32_t>(r) / 16;
}

void send(std::uint32_t apic_id, std::uint32_t low) {
    if (in_x2apic_mode()) {
        wrmsr(kIcrMsr, std::uint64_t{apic_id} << 32 | low);
        return;
    }
    write(Register::icr_high, apic_id << 24);
    write(Register::icr_low, low);
    while ((read(Register::icr_low) & kPending) != 0)
        cpu_pause();
}

}  // namespace

bool x2apic_offered() {
    return (cpuid(1).ecx >> 21 & 1) != 0;
}
bool tsc_deadline_offered() {
    return (cpuid(1).ecx >> 24 & 1) != 0;
}
bool in_x2apic_mode() {
    return (rdmsr(kApicBaseMsr) & kExtended) != 0;
}

void enable(bool x2apic) {
    wrmsr(kApicBaseMsr, rdmsr(kApicBaseMsr) | kEnable);
    if (x2apic)
        wrmsr(kApicBaseMsr, rdmsr(kApicBaseMsr) | kExtended);
    write(Register::spurious, 0x100 | kSpuriousVector);
}

std::uint32_t read(Register r) {
    return in_x2apic_mode() ? static_cast<std::uint32_t>(rdmsr(msr_of(r)))
                            : payload::read<std::uint32_t>(kXapic + static_cast<std::uint32_t>(r));
}

void write(Register r, std::uint32_t value) {
    if (in_x2apic_mode())
        wrmsr(msr_of(r), value);
    else
        payload::write(kXapic + static_cast<std::uint32_t>(r), value);
}

std::uint32_t id() {
    return in_x2apic_mode() ? read(Register::id) : read(Register::id) >> 24;
}

void send_ipi(std::uint32_t apic_id, std::uint8_t vector) {
    send(apic_id, kAssert | vector);
}

void send_logical_ipi(std::uint32_t destination, std::uint8_t vector) {
    constexpr std::uint32_t kLogical = 1 << 11;
    send(destination, kAssert | kLogical | vector);
}

void send_ipi_to_others(std::uint8_t vector) {
    constexpr std::uint32_t kAllButSelf = 3 << 18;
    send(0, kAssert | kAllButSelf | vector);
}

void send_ipi_to_all(std::uint8_t vector) {
    send(in_x2apic_mode() ? 0xffff'ffff : 0xff, kAssert | vector);
}

void send_self_ipi(std::uint8_t vector) {
    if (in_x2apic_mode())
        write(Register::self_ipi, vector);
    else
        send_ipi(id(), vector);
}

void send_init(std::uint32_t apic_id) {
    send(apic_id, kAssert | kInit);
}
void send_startup(std::uint32_t apic_id, std::uint8_t page) {
    send(apic_id, kAssert | kStartup | page);
}

void prepare_timer(std::uint8_t vector) {
    if (tsc_deadline_offered()) {
        write(Register::lvt_timer, kLvtTscDeadline | vector);
        asm volatile("mfence"
                     :
                     :
                     : "memory");  // an xAPIC's LVT write and the MSR write are not ordered by themselves
        return;
    }
    write(Register::divide, kDivideByOne);
    write(Register::lvt_timer, 1 << 16);  // masked
    write(Register::initial_count, 0xffff'ffff);
    const std::uint64_t start = rdtsc();
    while (0xffff'ffff - read(Register::current_count) < 1'000'000) {
    }
    tsc_ticks_per_1024_counts = (rdtsc() - start) * 1024 / (0xffff'ffff - read(Register::current_count));
    write(Register::initial_count, 0);
    write(Register::lvt_timer, vector);
}

void arm_timer(std::uint64_t deadline) {
    if (tsc_deadline_offered()) {
        wrmsr(kTscDeadlineMsr, deadline);
        return;
    }
    const std::uint64_t now = rdtsc();
    const std::uint64_t ticks = deadline > now ? deadline - now : 1;
    write(Register::initial_count, static_cast<std::uint32_t>(ticks * 1024 / tsc_ticks_per_1024_counts) | 1);
}

}  // namespace payload::apic
