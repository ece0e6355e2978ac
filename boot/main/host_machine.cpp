// SPDX-License-Identifier: MIT
#include "boot/main/host_machine.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/cpu/tsc.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/devices/calendar.hpp"

namespace hv::boot {
namespace {

using log::Topic;

class FirmwareMemory final : public acpi::TableMemory {
public:
    std::span<const std::byte> bytes(Hpa start, std::uint64_t length) override {
        if (!cpu::map_firmware(start, length))
            return {};
        return {machine::hva(start), length};
    }
};

/// CMOS registers [mc146818]. A read while the clock updates itself is repeated.
class CmosClock {
public:
    struct Time {
        unsigned second, minute, hour, day, month, year;
        bool operator==(const Time&) const = default;
    };
    Time read() const {
        Time time = read_once();
        for (unsigned tries = 0; tries < 100; ++tries) {
            const Time again = read_once();
            if (again == time)
                break;
            time = again;
        }
        return time;
    }

private:
    static std::uint8_t at(std::uint8_t index) {
        cpu::out8(0x70, index);
        return cpu::in8(0x71);
    }
    static Time read_once() {
        for (unsigned tries = 0; tries < 10'000 && (at(0x0a) & 0x80) != 0; ++tries) {
        }
        const std::uint8_t mode = at(0x0b);
        const auto value = [&](std::uint8_t index, std::uint8_t mask = 0xff) {
            const unsigned raw = at(index) & mask;
            return (mode & 0x04) != 0 ? raw : (raw >> 4) * 10 + (raw & 0xf);
        };
        Time time{value(0), value(2), value(4, 0x7f), value(7), value(8), value(9)};
        if ((mode & 0x02) == 0)
            time.hour = time.hour % 12 + ((at(4) & 0x80) != 0 ? 12 : 0);
        return time;
    }
};

}  // namespace

void HostMachine::discover(const BootInfo& info) {
    FirmwareMemory memory;
    auto rsdp = info.rsdp();
    if (rsdp.empty())
        rsdp = acpi::find_rsdp(memory);
    auto tables = acpi::read_tables(rsdp, memory);
    if (tables)
        acpi_ = std::move(*tables);
    else
        log::warning(Topic::acpi, "no usable ACPI tables (%s): one CPU, no power-off",
                     to_string(tables.error()));
}

void HostMachine::start_boot_cpu() {
    irq::silence_legacy_pics();
    if (!irq::init_local_apic(acpi_.local_apic))
        panic("no memory to map the local APIC");
    irq::enable_local_apic();
    cpu::this_cpu().apic_id = irq::local_apic_id();
    cpu::set_end_of_interrupt(irq::end_of_interrupt);
    cpu::calibrate_tsc(acpi_.pm_timer);
    irq::calibrate_timer();
    for (const acpi::IoApic& io_apic : acpi_.io_apics) {
        if (const auto added = irq::add_io_apic(io_apic.address, io_apic.first_gsi); !added)
            log::warning(Topic::acpi, "I/O APIC %u left out: %s", io_apic.id, to_string(added.error()));
    }
    log::info(Topic::acpi, "%zu CPUs, %zu I/O APICs%s%s", acpi_.cpus.size(), acpi_.io_apics.size(),
              acpi_.ecam ? ", ECAM" : "", acpi_.hpet ? ", HPET" : "");
}

Expected<void> HostMachine::route_isa(std::uint8_t isa_irq, std::uint8_t vector) {
    std::uint32_t gsi = isa_irq;
    auto polarity = irq::Polarity::active_high;
    auto trigger = irq::Trigger::edge;
    for (const acpi::IsaOverride& entry : acpi_.overrides) {
        if (entry.irq != isa_irq)
            continue;
        gsi = entry.gsi;
        polarity = entry.active_low ? irq::Polarity::active_low : irq::Polarity::active_high;
        trigger = entry.level ? irq::Trigger::level : irq::Trigger::edge;
    }
    return irq::route_gsi(gsi, vector, cpu::this_cpu().apic_id, polarity, trigger);
}

WallClock HostMachine::read_wall_clock() const {
    const CmosClock::Time time = CmosClock{}.read();
    const std::uint64_t now = machine::tsc();
    const std::int64_t days =
        days_of({static_cast<std::int32_t>(2000 + time.year % 100), time.month, time.day});
    return {days * 86'400 + time.hour * 3'600 + time.minute * 60 + time.second, now};
}

/// Firmware that starts in legacy mode ignores the sleep request until SCI_EN is set [acpi 4.8.2.5
/// Legacy/ACPI Select and the SCI Interrupt].
void HostMachine::enter_acpi_mode() const {
    constexpr std::uint16_t kSciEnabled = 1;
    if (acpi_.smi_command == 0 || acpi_.acpi_enable == 0 ||
        (cpu::in16(acpi_.pm1a_control) & kSciEnabled) != 0)
        return;
    cpu::out8(acpi_.smi_command, acpi_.acpi_enable);
    for (unsigned waited = 0; waited < 3000 && (cpu::in16(acpi_.pm1a_control) & kSciEnabled) == 0; ++waited)
        cpu::delay_microseconds(1000);
}

void HostMachine::power_off() const {
    if (!acpi_.s5 || acpi_.pm1a_control == 0)
        return;
    enter_acpi_mode();
    // [acpi 4.8.3.2.1 PM1 Control Registers] SLP_TYP 12:10, SLP_EN 13; the other bits stay.
    const auto sleep = [](std::uint16_t port, std::uint8_t type) {
        const std::uint32_t kept = cpu::in16(port) & 0xc3ffU;
        cpu::out16(port, static_cast<std::uint16_t>(kept | std::uint32_t{type} << 10 | 1U << 13));
    };
    sleep(acpi_.pm1a_control, acpi_.s5->a);
    if (acpi_.pm1b_control != 0)
        sleep(acpi_.pm1b_control, acpi_.s5->b);
    cpu::delay_microseconds(1'000'000);
}

void HostMachine::reboot() const {
    if (acpi_.reset_register && acpi_.reset_register->space == acpi::Register::Space::port)
        cpu::out8(static_cast<std::uint16_t>(acpi_.reset_register->address), acpi_.reset_value);
    cpu::delay_microseconds(100'000);
    cpu::out8(0xcf9, 0x06);
    cpu::delay_microseconds(100'000);
    cpu::out8(0x64, 0xfe);
    cpu::delay_microseconds(100'000);
    // A triple fault is the last resort.
    cpu::lidt({0, 0});
    asm volatile("int3");
    __builtin_unreachable();
}

}  // namespace hv::boot
