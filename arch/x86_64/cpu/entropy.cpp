// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/entropy.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/defs/cpuid.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hv::cpu {
namespace {

/// RDSEED may find the generator empty for longer than RDRAND does [sdm1 7.3.17.1 RDRAND, 7.3.17.2 RDSEED].
constexpr unsigned kAttempts = 32;

using Instruction = bool (*)(std::uint64_t& value);

std::uint64_t try_often(Instruction instruction) {
    for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
        std::uint64_t value;
        if (instruction(value))
            return value;
    }
    return 0;
}

bool has_rdrand() {
    return (cpuid(1).ecx & hv::cpuid::leaf1_ecx::RDRAND) != 0;
}
bool has_rdseed() {
    return cpuid(0).eax >= 7 && (cpuid(7).ebx & hv::cpuid::leaf7_ebx::RDSEED) != 0;
}

/// How long an instruction takes that drains the pipeline, or leaves for a hypervisor below, again and again.
/// `jitter` carries what was seen before.
void add_jitter(std::uint64_t& jitter) {
    constexpr unsigned kSamples = 32;
    constexpr std::uint64_t kOddMultiplier = 0x9e37'79b9'7f4a'7c15;
    for (unsigned i = 0; i < kSamples; ++i) {
        static_cast<void>(cpuid(0));
        jitter = std::rotl((jitter ^ rdtsc()) * kOddMultiplier, 29);
    }
}

}  // namespace

void gather_seed(std::span<std::byte> out) {
    const bool rdseed_works = has_rdseed();
    const bool rdrand_works = has_rdrand();
    std::uint64_t jitter = 0;
    while (!out.empty()) {
        add_jitter(jitter);
        std::uint64_t word = jitter;
        if (rdseed_works)
            word ^= try_often(rdseed);
        if (rdrand_works)
            word ^= try_often(rdrand);
        const std::size_t size = std::min(out.size(), sizeof word);
        std::memcpy(out.data(), &word, size);
        out = out.subspan(size);
    }
}

}  // namespace hv::cpu
