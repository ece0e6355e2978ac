// SPDX-License-Identifier: MIT
// KVM's paravirtual clock. [Linux, Documentation/virt/kvm/x86/msr.rst]
#pragma once

#include <cstdint>

namespace payload::kvm_clock {

/// struct pvclock_vcpu_time_info
struct Page {
    std::uint32_t version, pad0;
    std::uint64_t tsc_timestamp, system_time;
    std::uint32_t mul;
    std::int8_t shift;
    std::uint8_t flags, pad[2];
};

/// How ticks of the TSC become nanoseconds.
struct Scale {
    std::uint64_t tsc_timestamp, system_time;
    std::uint32_t mul;
    std::int8_t shift;

    [[nodiscard]] std::uint64_t nanoseconds(std::uint64_t tsc) const;
    /// The first tick at which nanoseconds() is `ns` or more, or one beside it.
    [[nodiscard]] std::uint64_t ticks(std::uint64_t ns) const;
};

/// Ends the payload where the clock is not offered.
void require();
/// For each CPU: has the clock's page kept for it from now on.
void enable(volatile Page& page);
/// What the page says, by its version protocol.
Scale read(const volatile Page& page);
/// enable() and read() for the first CPU.
Scale start();
/// Nanoseconds since 1970 when the clock was 0.
std::uint64_t wall_at_zero();

}  // namespace payload::kvm_clock
