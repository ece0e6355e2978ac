// SPDX-License-Identifier: MIT
// Virtual-processor identifiers: one for each vCPU, the same on all CPUs [sdm3 29.1 Virtual Processor
// Identifiers (VPIDs)]. A new owner flushes on each CPU that it comes to (VmxVcpu does), so a VPID can be
// used again at once.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace hv::vmx {

class VpidPool {
public:
    /// Never 0, which is the host's. Error::busy: all 65535 are in use.
    Expected<std::uint16_t> allocate() {
        return words_.with([](Words& words) -> Expected<std::uint16_t> {
            for (std::size_t i = 0; i < words.size(); ++i) {
                const unsigned free = static_cast<unsigned>(std::countr_one(words[i]));
                if (free == 64)
                    continue;
                words[i] |= std::uint64_t{1} << free;
                return static_cast<std::uint16_t>(i * 64 + free);
            }
            return Unexpected{Error::busy};
        });
    }
    void release(std::uint16_t vpid) {
        words_.with([&](Words& words) { words[vpid / 64] &= ~(std::uint64_t{1} << (vpid % 64)); });
    }

private:
    using Words = std::array<std::uint64_t, 65536 / 64>;
    Guarded<Words, Rank::leaf> words_{Words{1}};
};

}  // namespace hv::vmx
