// SPDX-License-Identifier: MIT
// Those of KVM's hypercalls that do something. Like KVM, which does not insist on its CPUID bits either, they
// are there without being offered: Linux has faster ways than these.
#pragma once

#include "vmm/core/interrupt.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/x86/guest_cpu.hpp"

#include <cstdint>

namespace hv::x86 {

enum class HypercallResult : std::int64_t { not_permitted = -1, invalid = -22, unknown = -1000 };

/// Numbers, in EAX.
inline constexpr std::uint32_t kSendIpi = 10;

/// What RAX gets: of a call that is none, or not for this privilege level, a HypercallResult.
/// [kvm x86/hypercalls.rst, KVM_HC_SEND_IPI]: a bitmap of APIC IDs in RBX and RCX, that of its bit 0 in RDX,
/// an ICR in RSI. The result is how many of them there are.
std::int64_t hypercall(const GuestCpu& cpu, const VcpuBackend& backend, InterruptBus& bus);

}  // namespace hv::x86
