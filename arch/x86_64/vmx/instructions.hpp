// SPDX-License-Identifier: MIT
// The VMX instructions and the way into a guest [sdm3 31.3 VMX Instructions]. Each reports success by CF and
// ZF, and the flags are tested each time [sdm3 31.2 Conventions].
#pragma once

#include "arch/x86_64/defs/vmx.hpp"
#include "arch/x86_64/vmx/machine_io.hpp"
#include "vmm/base/address.hpp"
#include "vmm/core/cpu_state.hpp"

#include <cstddef>
#include <cstdint>

namespace hv::vmx {

enum class VmxStatus : std::uint8_t {
    succeeded,
    fail_invalid,  ///< CF: there is no current VMCS, or the operand is no VMX region
    fail_valid,    ///< ZF: VM_INSTRUCTION_ERROR tells why
};

constexpr VmxStatus status_of(bool carry, bool zero) {
    return carry ? VmxStatus::fail_invalid : zero ? VmxStatus::fail_valid : VmxStatus::succeeded;
}

inline VmxStatus vmxon(Hpa region) {
    bool carry, zero;
    asm volatile("vmxon %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(region) : "memory");
    return status_of(carry, zero);
}
inline VmxStatus vmclear(Hpa vmcs) {
    bool carry, zero;
    asm volatile("vmclear %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(vmcs) : "memory");
    return status_of(carry, zero);
}
inline VmxStatus vmptrld(Hpa vmcs) {
    bool carry, zero;
    asm volatile("vmptrld %2" : "=@ccc"(carry), "=@ccz"(zero) : "m"(vmcs) : "memory");
    return status_of(carry, zero);
}
inline VmxStatus vmread(std::uint32_t field, std::uint64_t& value) {
    bool carry, zero;
    asm volatile("vmread %3, %0" : "=r"(value), "=@ccc"(carry), "=@ccz"(zero) : "r"(std::uint64_t{field}));
    return status_of(carry, zero);
}
inline VmxStatus vmwrite(std::uint32_t field, std::uint64_t value) {
    bool carry, zero;
    asm volatile("vmwrite %2, %3"
                 : "=@ccc"(carry), "=@ccz"(zero)
                 : "r"(value), "r"(std::uint64_t{field})
                 : "memory");
    return status_of(carry, zero);
}
/// The same for the exit path: one conditional jump tells success. False: the other form tells why.
inline bool vmread_succeeds(std::uint32_t field, std::uint64_t& value) {
    bool failed;
    asm volatile("vmread %2, %1" : "=@ccbe"(failed), "=r"(value) : "r"(std::uint64_t{field}));
    return !failed;
}
inline bool vmwrite_succeeds(std::uint32_t field, std::uint64_t value) {
    bool failed;
    asm volatile("vmwrite %1, %2" : "=@ccbe"(failed) : "r"(value), "r"(std::uint64_t{field}) : "memory");
    return !failed;
}
inline VmxStatus invept(InveptType type, const InveptDescriptor& descriptor) {
    bool carry, zero;
    asm volatile("invept %3, %2" : "=@ccc"(carry), "=@ccz"(zero) : "r"(type), "m"(descriptor) : "memory");
    return status_of(carry, zero);
}
inline VmxStatus invvpid(InvvpidType type, const InvvpidDescriptor& descriptor) {
    bool carry, zero;
    asm volatile("invvpid %3, %2" : "=@ccc"(carry), "=@ccz"(zero) : "r"(type), "m"(descriptor) : "memory");
    return status_of(carry, zero);
}

/// Runs the host's NMI handler, whose IRET unblocks NMIs.
inline void int_nmi() {
    asm volatile("int $2" ::: "memory");
}
inline void int_machine_check() {
    asm volatile("int $18" ::: "memory");
}
/// Clears the CPU's buffers where the microcode has MD_CLEAR; the operand is any selector that can be written
/// to.
inline void verw() {
    std::uint16_t selector;
    asm volatile("mov %%ds, %0\n\tverw %0" : "=&m"(selector)::"cc", "memory");
}
inline std::uint16_t read_cs() {
    std::uint16_t selector;
    asm volatile("mov %%cs, %0" : "=r"(selector));
    return selector;
}

/// entry.S: VMLAUNCH or VMRESUME of the current VMCS with the GPRs of `regs` (RSP, RIP and RFLAGS are the
/// VMCS'), until the next VM exit. Interrupts are masked before and after. `host_rsp` is what HOST_RSP holds.
extern "C" EntryResult vmx_enter(VcpuRegs* regs, bool launched, std::uint64_t* host_rsp);
/// Where VM exits arrive: HOST_RIP.
extern "C" void vmx_exit_point();

// What entry.S relies on.
static_assert(offsetof(VcpuRegs, gpr) == 0 && RCX == 1 && RDX == 2 && RBX == 3 && RSP == 4 && RBP == 5 &&
              RSI == 6 && RDI == 7);
static_assert(HOST_RSP.encoding == 0x6c14);
static_assert(static_cast<int>(EntryResult::fail_invalid) == 1 &&
              static_cast<int>(EntryResult::fail_valid) == 2);

}  // namespace hv::vmx
