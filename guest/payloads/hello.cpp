// SPDX-License-Identifier: MIT
// The smallest guest: says hello and ends well.
#include "lib/cpu.hpp"
#include "lib/runtime.hpp"

int payload_main() {
    const payload::CpuidResult vendor = payload::cpuid(0);
    const std::uint32_t letters[] = {vendor.ebx, vendor.edx, vendor.ecx, 0};
    payload::print("hello from a guest on %s\n", reinterpret_cast<const char*>(letters));
    return static_cast<int>(payload::argument("exit", 0));
}
