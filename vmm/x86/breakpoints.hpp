// SPDX-License-Identifier: MIT
// Data and I/O breakpoints on accesses that the VMM makes in the guest's stead: the processor, which watches
// its own alone, does not see them [sdm3 18.2 Debug Registers].
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/x86/event_queue.hpp"
#include "vmm/x86/page_walk.hpp"

#include <array>
#include <cstdint>

namespace hv::x86 {

class Breakpoints {
public:
    /// Whether there are any at all.
    static constexpr bool enabled(std::uint64_t dr7) { return (dr7 & DR7_ENABLES) != 0; }

    /// Begins an instruction. `state` holds the control and debug groups.
    void begin(const CpuState& state);
    void note_memory(std::uint64_t linear, unsigned size, Access access);
    void note_port(std::uint16_t port, unsigned size);
    /// The trap after the instruction, or an iteration of a repeated one, if it met a breakpoint.
    void raise(VcpuBackend& backend, EventQueue& events) const;

private:
    static constexpr unsigned kCount = 4;
    struct Breakpoint {
        std::uint64_t first, last;
        bool reads, writes, ports;
    };

    void note(std::uint64_t first, unsigned size, bool Breakpoint::*kind);

    std::array<Breakpoint, kCount> breakpoints_{};
    std::uint64_t hits_{0};  ///< DR6.B0 to B3
};

}  // namespace hv::x86
