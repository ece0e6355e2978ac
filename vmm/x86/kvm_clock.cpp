// SPDX-License-Identifier: MIT
#include "vmm/x86/kvm_clock.hpp"

#include <atomic>
#include <cstddef>

namespace hv::x86 {
namespace {

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

/// Copies `value` but its first member, the version, into the guest between an odd and an even version, so
/// that a guest that reads meanwhile tries again.
template <class T>
Expected<void> publish(const GuestMemory& memory, Gpa gpa, const T& value) {
    if (!gpa.aligned(4))
        return Unexpected{Error::invalid_argument};
    std::byte* at = memory.at(gpa, sizeof(T));
    if (at == nullptr)
        return Unexpected{Error::out_of_range};
    const std::atomic_ref<std::uint32_t> version{*reinterpret_cast<std::uint32_t*>(at)};
    const std::uint32_t odd = version.load(std::memory_order_relaxed) | 1;
    version.store(odd, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    std::memcpy(at + sizeof(version.load()),
                reinterpret_cast<const std::byte*>(&value) + sizeof(std::uint32_t),
                sizeof(T) - sizeof(std::uint32_t));
    version.store(odd + 1, std::memory_order_release);
    return {};
}

}  // namespace

/// Brings the rate into (10^9, 2 * 10^9] by the shift, so that mul fills its 32 bits and the error is below
/// 2^-32.
PvclockScale PvclockScale::of(std::uint64_t hz) {
    std::int8_t shift = 0;
    std::uint64_t rate = hz;
    while (rate > 2 * kNanosecondsPerSecond) {
        rate >>= 1;
        --shift;
    }
    while (rate <= kNanosecondsPerSecond) {
        rate <<= 1;
        ++shift;
    }
    // mul = 10^9 * 2^32 / (hz * 2^shift), from the exact hz.
    unsigned __int128 numerator = static_cast<unsigned __int128>(kNanosecondsPerSecond) << 32;
    unsigned __int128 denominator = hz;
    if (shift >= 0)
        denominator <<= shift;
    else
        numerator <<= -shift;
    return {static_cast<std::uint32_t>((numerator + denominator / 2) / denominator), shift};
}

std::uint64_t KvmClock::nanoseconds(std::uint64_t tsc) const {
    const std::uint64_t ticks = tsc - base_;
    const std::uint64_t scaled = scale_.shift >= 0 ? ticks << scale_.shift : ticks >> -scale_.shift;
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(scaled) * scale_.mul) >> 32);
}

Expected<void> KvmClock::write_system_time(const GuestMemory& memory, Gpa gpa, std::int64_t tsc_skew) const {
    return publish(memory, gpa,
                   PvclockVcpuTimeInfo{.version = 0,
                                       .pad0 = 0,
                                       .tsc_timestamp = base_ + static_cast<std::uint64_t>(tsc_skew),
                                       .system_time = 0,
                                       .tsc_to_system_mul = scale_.mul,
                                       .tsc_shift = scale_.shift,
                                       .flags = PVCLOCK_TSC_STABLE_BIT,
                                       .pad = {}});
}

Expected<void> KvmClock::write_wall_clock(const GuestMemory& memory, Gpa gpa) const {
    return publish(memory, gpa,
                   PvclockWallClock{.version = 0,
                                    .sec = static_cast<std::uint32_t>(boot_time_ / kNanosecondsPerSecond),
                                    .nsec = static_cast<std::uint32_t>(boot_time_ % kNanosecondsPerSecond)});
}

}  // namespace hv::x86
