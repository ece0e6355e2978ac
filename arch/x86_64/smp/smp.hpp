// SPDX-License-Identifier: MIT
// Starting the other processors.
#pragma once

#include "vmm/base/address.hpp"

#include <cstdint>
#include <span>

namespace hv::smp {

/// Starts each CPU of `apic_ids` but the executing one, one after the other; each runs `main()` on its own
/// stack, with its per-CPU area loaded, and never returns from it. One that does not answer is left out with
/// a log line. `page` is a free frame below 1 MiB.
void start_cpus(std::span<const std::uint32_t> apic_ids, Hpa page, void (*main)());

}  // namespace hv::smp
