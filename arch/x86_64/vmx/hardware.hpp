// SPDX-License-Identifier: MIT
// The machine policy of the kernel: VmxMachine by this CPU's own instructions. It has no state.
#pragma once

#include "arch/x86_64/cpu/guest_fpu.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/vmx/instructions.hpp"
#include "arch/x86_64/vmx/machine_io.hpp"

#include <concepts>
#include <cstdint>

namespace hv::vmx {

/// Reports why a VMX instruction failed. `operand`: the VMCS, field or type it was given.
void log_vmx_failure(const char* instruction, std::uint64_t operand, VmxStatus status);
/// Likewise, where going on would be wrong.
[[noreturn]] void panic_on_vmx_failure(const char* instruction, std::uint64_t operand, VmxStatus status);

/// The instruction is executed again, for its reason.
[[noreturn, gnu::cold]] void panic_on_vmread(std::uint32_t field);
[[noreturn, gnu::cold]] void panic_on_vmwrite(std::uint32_t field, std::uint64_t value);

class Hardware {
public:
    using Fpu = cpu::GuestFpu;

    template <class Field>
    [[nodiscard]] typename Field::Value read(Field field) const {
        std::uint64_t value;
        if (!vmread_succeeds(field.encoding, value)) [[unlikely]]
            panic_on_vmread(field.encoding);
        return static_cast<typename Field::Value>(value);
    }
    template <class T>
    void write(VmcsField<T> field, std::type_identity_t<T> value) const {
        if (!vmwrite_succeeds(field.encoding, value)) [[unlikely]]
            panic_on_vmwrite(field.encoding, value);
    }
    [[nodiscard]] std::uint64_t read_msr(Msr msr) const {
        return cpu::rdmsr(static_cast<std::uint32_t>(msr));
    }
    void write_msr(Msr msr, std::uint64_t value) const { cpu::wrmsr(static_cast<std::uint32_t>(msr), value); }

    [[nodiscard]] Expected<void> vmclear(Hpa vmcs) const {
        return checked("VMCLEAR", vmcs, vmx::vmclear(vmcs));
    }
    [[nodiscard]] Expected<void> vmptrld(Hpa vmcs) const {
        return checked("VMPTRLD", vmcs, vmx::vmptrld(vmcs));
    }
    [[nodiscard]] Expected<void> vmxon(Hpa region) const {
        return checked("VMXON", region, vmx::vmxon(region));
    }
    void invept(InveptType type, std::uint64_t eptp) const {
        if (const VmxStatus status = vmx::invept(type, {eptp, 0}); status != VmxStatus::succeeded)
            [[unlikely]]
            panic_on_vmx_failure("INVEPT", eptp, status);
    }
    void invvpid(InvvpidType type, std::uint16_t vpid) const {
        if (const VmxStatus status = vmx::invvpid(type, {vpid, 0}); status != VmxStatus::succeeded)
            [[unlikely]]
            panic_on_vmx_failure("INVVPID", vpid, status);
    }
    EntryResult enter(VcpuRegs& regs, bool launched, std::uint64_t& host_rsp) const {
        return vmx_enter(&regs, launched, &host_rsp);
    }

    [[nodiscard]] HostState host_state() const;
    void load_debug_registers(const DebugRegisters& debug) const {
        cpu::write_dr0(debug.dr[0]);
        cpu::write_dr1(debug.dr[1]);
        cpu::write_dr2(debug.dr[2]);
        cpu::write_dr3(debug.dr[3]);
        cpu::write_dr6(debug.dr6);
    }
    void save_debug_registers(DebugRegisters& debug) const {
        debug = {{cpu::read_dr0(), cpu::read_dr1(), cpu::read_dr2(), cpu::read_dr3()}, cpu::read_dr6()};
    }
    [[nodiscard]] std::uint64_t read_cr2() const { return cpu::read_cr2(); }
    void write_cr2(std::uint64_t value) const { cpu::write_cr2(value); }
    void deliver_nmi() const { int_nmi(); }
    void deliver_machine_check() const { int_machine_check(); }
    void separate_vms(const Mitigations& mitigations) const;
    void clear_cpu_buffers() const { verw(); }

private:
    static Expected<void> checked(const char* instruction, Hpa operand, VmxStatus status) {
        if (status == VmxStatus::succeeded) [[likely]]
            return {};
        log_vmx_failure(instruction, operand.raw, status);
        return Unexpected{Error::invalid_argument};
    }
};

static_assert(VmxMachine<Hardware> && VmxMachine<const Hardware>);

}  // namespace hv::vmx
