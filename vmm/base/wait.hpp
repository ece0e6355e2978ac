// SPDX-License-Identifier: MIT
// Waiting for a device, which only who boots the host or powers it off may do.
#pragma once

#include "vmm/base/machine.hpp"
#include "vmm/base/timer.hpp"

#include <cstdint>

namespace hv {

/// Asks `done()`, once at least, until it is so. False: it was not, for `nanoseconds`.
template <class Done>
bool wait_until(const Clock& clock, std::uint64_t nanoseconds, Done&& done) {
    const std::uint64_t deadline = clock.now() + clock.from_nanoseconds(nanoseconds);
    while (!done()) {
        if (clock.now() >= deadline)
            return false;
        machine::pause();
    }
    return true;
}

}  // namespace hv
