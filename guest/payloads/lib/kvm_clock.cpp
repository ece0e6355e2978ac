// SPDX-License-Identifier: MIT
#include "lib/kvm_clock.hpp"

#include "lib/cpu.hpp"
#include "lib/runtime.hpp"

namespace payload::kvm_clock {
namespace {

constexpr std::uint32_t kFeatures = 0x4000'0001;
constexpr std::uint32_t kNewClock = 1 << 3;  // KVM_FEATURE_CLOCKSOURCE2
constexpr std::uint32_t kWallClockMsr = 0x4b56'4d00;
constexpr std::uint32_t kSystemTimeMsr = 0x4b56'4d01;

struct WallClock {
    std::uint32_t version, seconds, nanoseconds;
};

}  // namespace

std::uint64_t Scale::nanoseconds(std::uint64_t tsc) const {
    const std::uint64_t delta = tsc - tsc_timestamp;
    const std::uint64_t shifted = shift >= 0 ? delta << shift : delta >> -shift;
    return system_time + static_cast<std::uint64_t>(static_cast<unsigned __int128>(shifted) * mul >> 32);
}

std::uint64_t Scale::ticks(std::uint64_t ns) const {
    // A bisection: no 128-bit division without a library.
    std::uint64_t low = tsc_timestamp;
    for (std::uint64_t step = std::uint64_t{1} << 50; step != 0; step >>= 1) {
        if (nanoseconds(low + step) <= ns)
            low += step;
    }
    return low;
}

void require() {
    if (cpuid(0x4000'0000).eax < kFeatures || (cpuid(kFeatures).eax & kNewClock) == 0)
        fail("kvmclock is not offered");
}

void enable(volatile Page& page) {
    wrmsr(kSystemTimeMsr, reinterpret_cast<std::uintptr_t>(&page) | 1);
}

Scale read(const volatile Page& page) {
    for (;;) {
        const std::uint32_t version = page.version;
        asm volatile("lfence" : : : "memory");
        const Scale scale{page.tsc_timestamp, page.system_time, page.mul, page.shift};
        asm volatile("lfence" : : : "memory");
        if (version % 2 == 0 && version != 0 && page.version == version)
            return scale;
    }
}

Scale start() {
    alignas(64) static volatile Page page;
    require();
    enable(page);
    return read(page);
}

std::uint64_t wall_at_zero() {
    alignas(64) static volatile WallClock wall;
    wrmsr(kWallClockMsr, reinterpret_cast<std::uintptr_t>(&wall));
    return std::uint64_t{wall.seconds} * 1'000'000'000 + wall.nanoseconds;
}

}  // namespace payload::kvm_clock
