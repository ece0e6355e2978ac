// SPDX-License-Identifier: MIT
// KVM's paravirtual clock: a page per vCPU from which a guest computes nanoseconds since boot out of its TSC,
// and the wall clock at boot. One object for each VM: all its vCPUs scale the same way, so their clocks
// agree.
#pragma once

#include "vmm/mm/guest_memory.hpp"

#include <cstdint>

namespace hv::x86 {

/// struct pvclock_vcpu_time_info [Linux, arch/x86/include/asm/pvclock-abi.h]
struct PvclockVcpuTimeInfo {
    std::uint32_t version;  ///< odd: being changed
    std::uint32_t pad0;
    std::uint64_t tsc_timestamp;
    std::uint64_t system_time;  ///< nanoseconds at tsc_timestamp
    std::uint32_t tsc_to_system_mul;
    std::int8_t tsc_shift;
    std::uint8_t flags;
    std::uint8_t pad[2];
};
static_assert(sizeof(PvclockVcpuTimeInfo) == 32);

/// struct pvclock_wall_clock
struct PvclockWallClock {
    std::uint32_t version;
    std::uint32_t sec;
    std::uint32_t nsec;
};
static_assert(sizeof(PvclockWallClock) == 12);

inline constexpr std::uint8_t PVCLOCK_TSC_STABLE_BIT = 1U << 0;

/// nanoseconds = ((ticks << shift, or >> -shift) * mul) >> 32
struct PvclockScale {
    std::uint32_t mul;
    std::int8_t shift;
    /// hz != 0.
    static PvclockScale of(std::uint64_t hz);
};

/// Immutable once built.
class KvmClock {
public:
    /// `base` is the guest TSC that counts as time zero, `boot_time` the nanoseconds since 1970 at that
    /// moment.
    KvmClock(std::uint64_t tsc_hz, std::uint64_t base, std::uint64_t boot_time)
        : scale_{PvclockScale::of(tsc_hz)}, base_{base}, boot_time_{boot_time} {}

    /// Writes a vCPU's time page by the version protocol. `tsc_skew` is what the vCPU's TSC runs ahead of the
    /// VM's. Error::out_of_range: no RAM there; Error::invalid_argument: not aligned to 4 bytes.
    Expected<void> write_system_time(const GuestMemory& memory, Gpa gpa, std::int64_t tsc_skew) const;
    Expected<void> write_wall_clock(const GuestMemory& memory, Gpa gpa) const;
    /// What a guest computes from its page at guest TSC `tsc`, without skew.
    [[nodiscard]] std::uint64_t nanoseconds(std::uint64_t tsc) const;

private:
    PvclockScale scale_;
    std::uint64_t base_;
    std::uint64_t boot_time_;
};

}  // namespace hv::x86
