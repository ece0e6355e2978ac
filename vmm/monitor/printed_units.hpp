// SPDX-License-Identifier: MIT
// Sizes and times as a person reads them.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/text.hpp"

#include <cstdint>

namespace hv {

using PrintedUnit = TextBuffer<32>;

/// "512 B", "64 KiB", "1.5 GiB": in the largest unit that leaves at least 1, cut to tenths.
inline PrintedUnit printed_size(std::uint64_t bytes) {
    PrintedUnit out;
    if (bytes < kKiB) {
        out.append("%llu B", static_cast<unsigned long long>(bytes));
        return out;
    }
    const char* const names[] = {"KiB", "MiB", "GiB", "TiB"};
    std::uint64_t unit = kKiB;
    unsigned name = 0;
    for (; name < 3 && bytes / kKiB >= unit; ++name)
        unit *= kKiB;
    const std::uint64_t tenths = bytes % unit / (unit / 64) * 10 / 64;
    if (tenths == 0)
        out.append("%llu %s", static_cast<unsigned long long>(bytes / unit), names[name]);
    else
        out.append("%llu.%llu %s", static_cast<unsigned long long>(bytes / unit),
                   static_cast<unsigned long long>(tenths), names[name]);
    return out;
}

/// "12.345 s", and from an hour on "3 h 25 min 45 s".
inline PrintedUnit printed_time(std::uint64_t nanoseconds) {
    PrintedUnit out;
    const std::uint64_t milliseconds = nanoseconds / 1'000'000;
    const std::uint64_t seconds = milliseconds / 1000;
    if (seconds < 3600)
        out.append("%llu.%03llu s", static_cast<unsigned long long>(seconds),
                   static_cast<unsigned long long>(milliseconds % 1000));
    else
        out.append("%llu h %llu min %llu s", static_cast<unsigned long long>(seconds / 3600),
                   static_cast<unsigned long long>(seconds / 60 % 60),
                   static_cast<unsigned long long>(seconds % 60));
    return out;
}

/// "12.3 us", and from 10 ms on "12.3 ms".
inline PrintedUnit printed_delay(std::uint64_t nanoseconds) {
    PrintedUnit out;
    const bool long_one = nanoseconds >= 10'000'000;
    const std::uint64_t tenths = nanoseconds / (long_one ? 100'000 : 100);
    out.append("%llu.%llu %s", static_cast<unsigned long long>(tenths / 10),
               static_cast<unsigned long long>(tenths % 10), long_one ? "ms" : "us");
    return out;
}

}  // namespace hv
