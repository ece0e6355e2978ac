// SPDX-License-Identifier: MIT
#include "arch/x86_64/irq/local_apic.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>

namespace hv::irq {
namespace {

/// Register numbers: MMIO offset / 16, x2APIC MSR - 0x800 [sdm3 11.12.1.2 x2APIC Register Address Space].
enum class Register : std::uint32_t {
    id = 0x02,
    eoi = 0x0b,
    spurious = 0x0f,
    error_status = 0x28,
    command = 0x30,       // ICR, low half of it by MMIO
    command_high = 0x31,  // MMIO alone
    lvt_timer = 0x32,
    lvt_lint0 = 0x35,
    lvt_lint1 = 0x36,
    lvt_error = 0x37,
    timer_initial = 0x38,
    timer_current = 0x39,
    timer_divide = 0x3e,
};

constexpr std::uint32_t kMsrApicBase = 0x1b;
constexpr std::uint32_t kMsrX2apic = 0x800;
constexpr std::uint32_t kMsrTscDeadline = 0x6e0;
constexpr std::uint64_t kApicBaseEnable = bit(11);
constexpr std::uint64_t kApicBaseX2apic = bit(10);
constexpr std::uint32_t kMasked = 1U << 16;
constexpr std::uint32_t kModeTscDeadline = 2U << 17;
constexpr std::uint32_t kDivideBy1 = 0xb;
constexpr std::uint32_t kSpuriousEnable = 1U << 8;
constexpr std::uint32_t kPending = 1U << 12;
constexpr std::uint32_t kAssert = 1U << 14;
constexpr std::uint32_t kAllButSelf = 3U << 18;
enum Delivery : std::uint32_t { kFixed = 0U << 8, kNmi = 4U << 8, kInit = 5U << 8, kStartup = 6U << 8 };

struct LocalApics {
    volatile std::uint32_t* mmio;
    bool x2apic;
    bool tsc_deadline;
    std::uint64_t timer_hz;
    std::uint64_t timer_per_tsc;  ///< timer ticks in a TSC tick, 32.32 fixed-point, rounded up
};
constinit LocalApics apic{};

std::uint32_t read(Register reg) {
    if (apic.x2apic)
        return static_cast<std::uint32_t>(cpu::rdmsr(kMsrX2apic + static_cast<std::uint32_t>(reg)));
    return apic.mmio[static_cast<std::uint32_t>(reg) * 4];
}

void write(Register reg, std::uint32_t value) {
    if (apic.x2apic)
        cpu::wrmsr(kMsrX2apic + static_cast<std::uint32_t>(reg), value);
    else
        apic.mmio[static_cast<std::uint32_t>(reg) * 4] = value;
}

void send(std::uint32_t destination, std::uint32_t command) {
    if (apic.x2apic) {
        // WRMSR to the ICR is not serializing: stores before it must be visible to the target [sdm3 11.12.3].
        asm volatile("mfence; lfence" ::: "memory");
        cpu::wrmsr(kMsrX2apic + static_cast<std::uint32_t>(Register::command),
                   std::uint64_t{destination} << 32 | command);
        return;
    }
    while ((read(Register::command) & kPending) != 0)
        machine::pause();
    write(Register::command_high, destination << 24);
    write(Register::command, command);
}

void connect_timer() {
    write(Register::lvt_timer,
          (apic.tsc_deadline ? kModeTscDeadline : 0) | static_cast<std::uint32_t>(cpu::HostVector::timer));
    // The mode change must be seen before a deadline [sdm3 11.5.4.1 TSC-Deadline Mode].
    asm volatile("mfence" ::: "memory");
}

}  // namespace

Expected<void> init_local_apic(Hpa registers) {
    const auto features = cpu::cpuid(1);
    apic.x2apic = (features.ecx & (1U << 21)) != 0;
    apic.tsc_deadline = (features.ecx & (1U << 24)) != 0;
    if (!apic.x2apic)
        apic.mmio = HV_TRY(cpu::map_device<volatile std::uint32_t>(registers, kPageSize));
    return {};
}

void enable_local_apic() {
    std::uint64_t base = cpu::rdmsr(kMsrApicBase) | kApicBaseEnable;
    cpu::wrmsr(kMsrApicBase, base);
    if (apic.x2apic)
        cpu::wrmsr(kMsrApicBase, base | kApicBaseX2apic);
    write(Register::spurious, kSpuriousEnable | static_cast<std::uint32_t>(cpu::HostVector::spurious));
    for (const Register lvt : {Register::lvt_lint0, Register::lvt_lint1, Register::lvt_error})
        write(lvt, kMasked);
    write(Register::timer_divide, kDivideBy1);
    connect_timer();
    stop_timer();
}

std::uint32_t local_apic_id() {
    return apic.x2apic ? read(Register::id) : read(Register::id) >> 24;
}
void end_of_interrupt() {
    write(Register::eoi, 0);
}

void send_ipi(std::uint32_t apic_id, std::uint8_t vector) {
    send(apic_id, kFixed | kAssert | vector);
}
void send_init(std::uint32_t apic_id) {
    send(apic_id, kInit | kAssert);
}
void send_startup(std::uint32_t apic_id, Hpa page) {
    send(apic_id, kStartup | kAssert | static_cast<std::uint32_t>(page.raw >> kPageShift));
}
void send_nmi_to_others() {
    if (apic.x2apic || apic.mmio != nullptr)
        send(0, kNmi | kAssert | kAllButSelf);
}

void calibrate_timer() {
    if (apic.tsc_deadline) {
        log::info(log::Topic::cpu, "local APIC: %s, TSC-deadline timer", apic.x2apic ? "x2APIC" : "xAPIC");
        return;
    }
    // A two-hundredth of a second against the TSC, which was itself measured against a clock of known
    // frequency.
    write(Register::lvt_timer, kMasked);
    const std::uint64_t start = machine::tsc();
    write(Register::timer_initial, 0xffff'ffff);
    while (machine::tsc() - start < machine::tsc_hz() / 200)
        machine::pause();
    const std::uint64_t counted = 0xffff'ffff - read(Register::timer_current);
    const std::uint64_t ticks = machine::tsc() - start;
    stop_timer();
    connect_timer();
    apic.timer_hz =
        static_cast<std::uint64_t>(static_cast<unsigned __int128>(counted) * machine::tsc_hz() / ticks);
    apic.timer_per_tsc = (counted << 32) / ticks + 1;
    log::info(log::Topic::cpu, "local APIC: %s, one-shot timer at %llu kHz", apic.x2apic ? "x2APIC" : "xAPIC",
              static_cast<unsigned long long>(apic.timer_hz / 1000));
}

void arm_timer(std::uint64_t deadline) {
    if (apic.tsc_deadline) {
        cpu::wrmsr(kMsrTscDeadline, std::max<std::uint64_t>(deadline, 1));
        return;
    }
    const std::uint64_t now = machine::tsc();
    const std::uint64_t ticks = deadline > now ? deadline - now : 0;
    // Never early, and late by less than a tick of the timer for each 2^32 of the TSC.
    const auto count = static_cast<unsigned __int128>(ticks) * apic.timer_per_tsc >> 32;
    write(Register::timer_initial,
          static_cast<std::uint32_t>(std::min<unsigned __int128>(count, 0xffff'fffe) + 1));
}

void stop_timer() {
    if (apic.tsc_deadline)
        cpu::wrmsr(kMsrTscDeadline, 0);
    else
        write(Register::timer_initial, 0);
}

}  // namespace hv::irq
