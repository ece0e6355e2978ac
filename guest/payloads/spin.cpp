// SPDX-License-Identifier: MIT
// Never gives the CPU away: counts for a number of TSC ticks and says how far it came. ticks=N on the command
// line.
#include "lib/cpu.hpp"
#include "lib/runtime.hpp"

int payload_main() {
    const std::uint64_t ticks = payload::argument("ticks", 1'000'000'000);
    payload::print("spinning\n");
    std::uint64_t turns = 0;
    for (const std::uint64_t start = payload::rdtsc(); payload::rdtsc() - start < ticks;)
        ++turns;
    payload::print("spin: %lu turns\n", turns);
    return 0;
}
