// SPDX-License-Identifier: MIT
// The few machine primitives that neutral code needs. The kernel links arch/x86_64/cpu/machine.cpp, host
// tests link tests/host/fakes/machine.cpp (thread-local CPUs, a manual clock, an arena for physical memory).
#pragma once

#include "vmm/base/address.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::machine {

/// Index of the executing CPU, 0-based, dense; 0 is the CPU that booted.
std::uint32_t cpu_index();
/// Runs the handlers of the interrupts that are pending. But for here and in sleep_until_interrupt(), the
/// host runs with interrupts masked from its first instruction on.
void let_interrupts_in();
/// The same, but sleeps first if none is pending.
void sleep_until_interrupt();
/// Spin-wait hint.
void pause();
/// The host's time-stamp counter.
std::uint64_t tsc();
/// Ticks of tsc() per second; constant after boot.
std::uint64_t tsc_hz();
/// Where host physical memory is mapped: hva == direct_map_base() + hpa.
std::uintptr_t direct_map_base();
/// What panics say the executing CPU was running; nullptr: no vCPU. The text outlives the next call.
void set_running(const char* name);
/// Waits until every other CPU has left the interrupt handlers and vCPU exits that it may be in now. Boot CPU
/// only, no lock held.
void synchronize();
/// Makes `cpu` leave guest mode or its idle sleep and look at its work. The executing CPU does so at its next
/// VM entry or let_interrupts_in().
void kick_cpu(std::uint32_t cpu);

/// The bytes at `address`, which must be RAM (device registers are mapped apart, see paging::map_device).
template <class T = std::byte>
T* hva(Hpa address) {
    return reinterpret_cast<T*>(direct_map_base() + address.raw);
}
/// The inverse of hva() for pointers into the direct map.
inline Hpa hpa(const void* pointer) {
    return Hpa{reinterpret_cast<std::uintptr_t>(pointer) - direct_map_base()};
}

}  // namespace hv::machine
