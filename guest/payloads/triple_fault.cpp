// SPDX-License-Identifier: MIT
// An exception without an IDT: the processor gives up.
#include "lib/runtime.hpp"

#include <cstdint>

int payload_main() {
    payload::print("no IDT from here on\n");
    struct [[gnu::packed]] {
        std::uint16_t limit;
        std::uint64_t base;
    } const nothing{0, 0};
    asm volatile("lidt %0; ud2" : : "m"(nothing));
    return 1;
}
