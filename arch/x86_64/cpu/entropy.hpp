// SPDX-License-Identifier: MIT
// What the processor knows of randomness: its generator, if it has one, and always the time that things take.
#pragma once

#include <cstddef>
#include <span>

namespace hv::cpu {

/// Fills `out` with a seed for a generator: from RDSEED and RDRAND where there are, and always with jitter of
/// the TSC mixed in, which is all there is on a processor that has neither. Takes some 10 us for 64 bytes.
void gather_seed(std::span<std::byte> out);

}  // namespace hv::cpu
