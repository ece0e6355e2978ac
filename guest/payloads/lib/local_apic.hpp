// SPDX-License-Identifier: MIT
// The local APIC in xAPIC and in x2APIC mode. [sdm3 11 Advanced Programmable Interrupt Controller]
#pragma once

#include <cstdint>

namespace payload::apic {

/// Offsets of the xAPIC's page; the x2APIC's MSR is 0x800 + offset / 16.
enum class Register : std::uint32_t {
    id = 0x20,
    version = 0x30,
    tpr = 0x80,
    eoi = 0xb0,
    spurious = 0xf0,
    icr_low = 0x300,
    icr_high = 0x310,
    lvt_timer = 0x320,
    initial_count = 0x380,
    current_count = 0x390,
    divide = 0x3e0,
    self_ipi = 0x3f0
};

inline constexpr std::uint32_t kIcrMsr = 0x830;
inline constexpr std::uint64_t kXapic = 0xfee0'0000;
inline constexpr std::uint32_t kApicBaseMsr = 0x1b;
inline constexpr std::uint32_t kTscDeadlineMsr = 0x6e0;
inline constexpr std::uint32_t kLvtTscDeadline = 2 << 17;
inline constexpr std::uint8_t kSpuriousVector = 0xff;

bool x2apic_offered();
bool tsc_deadline_offered();
bool in_x2apic_mode();

/// For each CPU, first: the mode it shall be in, and spurious vector. A CPU in x2APIC mode does not go back.
void enable(bool x2apic);

std::uint32_t read(Register r);
void write(Register r, std::uint32_t value);
std::uint32_t id();
inline void end_of_interrupt() {
    write(Register::eoi, 0);
}

void send_ipi(std::uint32_t apic_id, std::uint8_t vector);
/// To the processors whose logical ID `destination` names.
void send_logical_ipi(std::uint32_t destination, std::uint8_t vector);
/// By the shorthand for all but this one.
void send_ipi_to_others(std::uint8_t vector);
/// By the physical destination that names all, this one too.
void send_ipi_to_all(std::uint8_t vector);
void send_self_ipi(std::uint8_t vector);
void send_init(std::uint32_t apic_id);
/// `page`: physical address below 1 MiB / 4096.
void send_startup(std::uint32_t apic_id, std::uint8_t page);

/// One interrupt at TSC `deadline`: by TSC-deadline where offered, else by a one-shot count. For each CPU,
/// first prepare.
void prepare_timer(std::uint8_t vector);
void arm_timer(std::uint64_t deadline);

}  // namespace payload::apic
