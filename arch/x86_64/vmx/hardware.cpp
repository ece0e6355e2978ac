// SPDX-License-Identifier: MIT
#include "arch/x86_64/vmx/hardware.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"

namespace hv::vmx {
namespace {

/// Why an instruction failed, as far as the processor tells.
const char* reason_of(VmxStatus status) {
    if (status == VmxStatus::fail_invalid)
        return "no current VMCS, or not a VMX region";
    std::uint64_t error = 0;
    if (vmread(VM_INSTRUCTION_ERROR.encoding, error) != VmxStatus::succeeded)
        return "unknown error";
    return vm_instruction_error(static_cast<std::uint32_t>(error));
}

/// The base in a 16-byte TSS descriptor [sdm3 8.2.3 TSS Descriptor in 64-bit mode].
std::uint64_t tss_base(std::uint64_t gdt, std::uint16_t selector) {
    const auto* descriptor = reinterpret_cast<const std::uint64_t*>(gdt + (selector & ~7U));
    const std::uint64_t low = descriptor[0];
    return ((low >> 16) & 0xff'ffff) | (low >> 56) << 24 | descriptor[1] << 32;
}

constexpr std::uint64_t PRED_CMD_IBPB = 1;
constexpr std::uint64_t FLUSH_CMD_L1D = 1;

}  // namespace

void log_vmx_failure(const char* instruction, std::uint64_t operand, VmxStatus status) {
    log::error(log::Topic::vmx, "%s of %llx failed: %s", instruction,
               static_cast<unsigned long long>(operand), reason_of(status));
}

void panic_on_vmx_failure(const char* instruction, std::uint64_t operand, VmxStatus status) {
    panic("%s of %llx failed: %s", instruction, static_cast<unsigned long long>(operand), reason_of(status));
}

void panic_on_vmread(std::uint32_t field) {
    std::uint64_t value = 0;
    panic_on_vmx_failure("VMREAD", field, vmread(field, value));
}

void panic_on_vmwrite(std::uint32_t field, std::uint64_t value) {
    panic_on_vmx_failure("VMWRITE", field, vmwrite(field, value));
}

HostState Hardware::host_state() const {
    const cpu::TableRegister gdt = cpu::sgdt();
    HostState host{};
    host.cr0 = cpu::read_cr0();
    host.cr3 = cpu::read_cr3();
    host.cr4 = cpu::read_cr4();
    host.efer = read_msr(Msr::IA32_EFER);
    host.pat = read_msr(Msr::IA32_PAT);
    host.cs = read_cs();
    host.tr = cpu::str();
    host.fs_base = read_msr(Msr::IA32_FS_BASE);
    host.gs_base = read_msr(Msr::IA32_GS_BASE);
    host.tr_base = tss_base(gdt.base, host.tr);
    host.gdtr_base = gdt.base;
    host.idtr_base = cpu::sidt().base;
    host.rip = reinterpret_cast<std::uint64_t>(&vmx_exit_point);
    return host;
}

void Hardware::separate_vms(const Mitigations& mitigations) const {
    if (mitigations.predictor_barrier)
        write_msr(Msr::IA32_PRED_CMD, PRED_CMD_IBPB);
    if (mitigations.flush_l1d)
        write_msr(Msr::IA32_FLUSH_CMD, FLUSH_CMD_L1D);
}

}  // namespace hv::vmx
