// SPDX-License-Identifier: MIT
#include "vmm/x86/breakpoints.hpp"

namespace hv::x86 {
namespace {

// DR7.R/Wn [sdm3 18.2.4 Debug Control Register (DR7)]; instructions' breakpoints are the processor's.
enum class Condition : std::uint8_t { execution, writes, ports, accesses };

/// DR7.LENn: bytes less one.
constexpr std::uint64_t kExtent[] = {0, 1, 7, 3};

}  // namespace

void Breakpoints::begin(const CpuState& state) {
    hits_ = 0;
    for (unsigned i = 0; i < kCount; ++i) {
        Breakpoint& b = breakpoints_[i];
        const auto condition = static_cast<Condition>(state.dr7 >> (16 + 4 * i) & 3);
        const bool on = (state.dr7 >> (2 * i) & 3) != 0;
        const std::uint64_t extent = kExtent[state.dr7 >> (18 + 4 * i) & 3];
        b.first = state.dr[i] & ~extent;
        b.last = b.first + extent;
        b.reads = on && condition == Condition::accesses;
        b.writes = on && (condition == Condition::accesses || condition == Condition::writes);
        b.ports = on && condition == Condition::ports && (state.cr4 & CR4_DE) != 0;
    }
}

void Breakpoints::note(std::uint64_t first, unsigned size, bool Breakpoint::*kind) {
    for (unsigned i = 0; i < kCount; ++i) {
        const Breakpoint& b = breakpoints_[i];
        if (b.*kind && first <= b.last && b.first <= first + (size - 1))
            hits_ |= std::uint64_t{1} << i;
    }
}

void Breakpoints::note_memory(std::uint64_t linear, unsigned size, Access access) {
    note(linear, size, access == Access::write ? &Breakpoint::writes : &Breakpoint::reads);
}

void Breakpoints::note_port(std::uint16_t port, unsigned size) {
    note(port, size, &Breakpoint::ports);
}

void Breakpoints::raise(VcpuBackend& backend, EventQueue& events) const {
    if (hits_ == 0)
        return;
    CpuState state;
    backend.get_state(state, RegSet::debug);
    state.dr6 = (state.dr6 & ~DR6_B0_B3) | hits_;
    backend.set_state(state, RegSet::debug);
    events.raise(Event::exception(EXCEPTION_DB));
}

}  // namespace hv::x86
