// SPDX-License-Identifier: MIT
// BasicVcpu, third part: coming to a CPU and leaving it, registers in and out.
#pragma once

#include "arch/x86_64/vmx/vcpu.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"
#include "vmm/core/guest_address_space.hpp"

#include <algorithm>
#include <new>

namespace hv::vmx {

template <VmxMachine Machine>
Expected<std::unique_ptr<VcpuBackend>> BasicVcpu<Machine>::create(Machine machine, Shared& shared,
                                                                  EptAddressSpace& space) {
    auto fpu = HV_TRY(Fpu::create());
    auto vmcs = HV_TRY(OwnedFrames::create(shared.frames, 0, std::byte{0}));
    store(vmcs.data(), static_cast<std::uint32_t>(VmxBasic::Revision::get(shared.controls.caps.basic)));
    OwnedFrames virtual_apic;
    if (shared.controls.has_tpr_shadow())
        virtual_apic = HV_TRY(OwnedFrames::create(shared.frames, 0, std::byte{0}));
    const std::uint16_t vpid = HV_TRY(shared.vpids.allocate());
    std::unique_ptr<BasicVcpu> vcpu{new (std::nothrow) BasicVcpu{
        std::move(machine), shared, space, std::move(vmcs), std::move(virtual_apic), vpid, std::move(fpu)}};
    if (vcpu == nullptr) {
        shared.vpids.release(vpid);
        return Unexpected{Error::no_memory};
    }
    if (shared.controls.delivers_interrupts())
        vcpu->apic_slot_ = HV_TRY(space.apic_access().join());
    // Of the state after RESET, what `regs` holds; the VMCS is written when the vCPU first comes to a CPU.
    vcpu->regs.rip = 0xfff0;
    vcpu->regs.rflags = RFLAGS_FIXED;
    return std::unique_ptr<VcpuBackend>{std::move(vcpu)};
}

template <VmxMachine Machine>
BasicVcpu<Machine>::~BasicVcpu() {
    HV_ASSERT(!on_cpu_);
    if (apic_slot_)
        space_.apic_access().leave(*apic_slot_);
    shared_.vpids.release(vpid_);
}

/// [sdm3 10.1.1 Processor State After Reset]
template <VmxMachine Machine>
void BasicVcpu<Machine>::write_reset_state() {
    constexpr std::uint16_t kCode = 0x9b, kData = 0x93, kLdt = 0x82, kTss = 0x8b;
    constexpr Segment kDataSegment{0, kData, 0xffff, 0};
    CpuState state{};
    state.cr0 = CR0_CD | CR0_NW | CR0_ET;
    std::fill(std::begin(state.segment), std::end(state.segment), kDataSegment);
    state.seg(SegmentName::cs) = {0xf000, kCode, 0xffff, 0xffff'0000};
    state.ldtr = {0, kLdt, 0xffff, 0};
    state.tr = {0, kTss, 0xffff, 0};
    state.gdtr = state.idtr = {0, 0xffff};
    state.dr6 = DR6_RESET;
    state.dr7 = DR7_RESET;
    state.pat = PAT_RESET;
    set_state(state, RegSet::all);
    machine_.write(GUEST_RSP, std::uint64_t{0});
    machine_.write(GUEST_RIP, std::uint64_t{0});
    machine_.write(GUEST_RFLAGS, RFLAGS_FIXED);
    written_ = {};
    written_.rflags = RFLAGS_FIXED;
}

/// kEntriesPerSecond in the unit of the preemption timer.
template <VmxMachine Machine>
std::uint32_t BasicVcpu<Machine>::preemption_ticks() const {
    const std::uint64_t ticks = (machine::tsc_hz() / kEntriesPerSecond) >>
                                VmxMisc::PreemptionTimerRate::get(shared_.controls.caps.misc);
    return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(ticks, 1, 0xffff'ffff));
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::enter_cpu() {
    HV_ASSERT(!on_cpu_);
    const std::uint32_t cpu = machine::cpu_index();
    CpuSlot& slot = shared_.cpus[cpu];
    if (!initialised_)
        machine_.vmclear(vmcs_.hpa()).value();  // our frame, our revision: it cannot fail
    machine_.vmptrld(vmcs_.hpa()).value();      // likewise
    on_cpu_ = true;
    if (!initialised_) {
        write_controls(machine_, shared_.controls,
                       {shared_.msr_bitmap.hpa(), shared_.io_bitmaps.hpa(), space_.root(), vpid_,
                        preemption_ticks(), virtual_apic_.hpa(), shared_.apic_access_page.hpa()});
        apic_.changed = shared_.controls.delivers_interrupts();
        primary_controls_ = shared_.controls.primary;
        write_reset_state();
        initialised_ = true;
    }
    if (apic_.changed) [[unlikely]]
        write_apic_fields();
    const bool arrived = cpu != last_cpu_;
    if (arrived) {
        // This CPU may hold translations of our VPID and EPT root from another time, or another owner.
        write_host_state(machine_, machine_.host_state());
        flush_guest_physical_ = flush_linear_ = true;
        last_cpu_ = cpu;
    }
    if (arrived || slot.last_eptp != space_.root())
        machine_.separate_vms(shared_.mitigations);
    slot.last_eptp = space_.root();

    fpu_.load();
    load_syscall_msrs(syscall_);
    if (shared_.controls.has_rdtscp())
        machine_.write_msr(Msr::IA32_TSC_AUX, tsc_aux_);
    machine_.load_debug_registers(debug_);
    machine_.write_cr2(cr2_);
}

/// VMCLEAR brings the VMCS to memory, so that any CPU can take it next [sdm3 25.11.1 Software Use of
/// Virtual-Machine Control Structures].
template <VmxMachine Machine>
void BasicVcpu<Machine>::leave_cpu() {
    HV_ASSERT(on_cpu_);
    fpu_.save();
    syscall_ = syscall_msrs();
    machine_.save_debug_registers(debug_);
    cr2_ = machine_.read_cr2();
    if (shared_.controls.delivers_interrupts())
        apic_.status = status();
    machine_.vmclear(vmcs_.hpa()).value();  // it is current: it cannot fail
    launched_ = false;
    on_cpu_ = false;
}

template <VmxMachine Machine>
typename BasicVcpu<Machine>::SyscallMsrs BasicVcpu<Machine>::syscall_msrs() const {
    return {machine_.read_msr(Msr::IA32_STAR), machine_.read_msr(Msr::IA32_LSTAR),
            machine_.read_msr(Msr::IA32_CSTAR), machine_.read_msr(Msr::IA32_FMASK),
            machine_.read_msr(Msr::IA32_KERNEL_GS_BASE)};
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::load_syscall_msrs(const SyscallMsrs& msrs) {
    machine_.write_msr(Msr::IA32_STAR, msrs.star);
    machine_.write_msr(Msr::IA32_LSTAR, msrs.lstar);
    machine_.write_msr(Msr::IA32_CSTAR, msrs.cstar);
    machine_.write_msr(Msr::IA32_FMASK, msrs.sfmask);
    machine_.write_msr(Msr::IA32_KERNEL_GS_BASE, msrs.kernel_gs_base);
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_tsc_offset(std::int64_t offset) {
    machine_.write(TSC_OFFSET, static_cast<std::uint64_t>(offset));
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_tsc_aux(std::uint64_t value) {
    tsc_aux_ = value;
    if (on_cpu_ && shared_.controls.has_rdtscp())
        machine_.write_msr(Msr::IA32_TSC_AUX, value);
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::get_state(CpuState& out, RegSet which) const {
    HV_ASSERT(on_cpu_);
    if (includes(which, RegSet::control)) {
        read_control(machine_, out);
        out.cr2 = machine_.read_cr2();
    }
    if (includes(which, RegSet::segments)) {
        for (unsigned i = 0; i < 6; ++i)
            out.segment[i] = read_segment(machine_, i);
        out.ldtr = read_segment(machine_, kLdtr);
        out.tr = read_segment(machine_, kTr);
    }
    if (includes(which, RegSet::tables))
        read_tables(machine_, out);
    if (includes(which, RegSet::debug)) {
        DebugRegisters debug{};
        machine_.save_debug_registers(debug);
        std::copy(std::begin(debug.dr), std::end(debug.dr), out.dr);
        out.dr6 = debug.dr6;
        out.dr7 = machine_.read(GUEST_DR7);
    }
    if (includes(which, RegSet::msrs)) {
        read_switched_msrs(machine_, out);
        const SyscallMsrs msrs = syscall_msrs();
        out.star = msrs.star;
        out.lstar = msrs.lstar;
        out.cstar = msrs.cstar;
        out.sfmask = msrs.sfmask;
        out.kernel_gs_base = msrs.kernel_gs_base;
    }
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_state(const CpuState& in, RegSet which) {
    HV_ASSERT(on_cpu_);
    if (which == RegSet::all) {
        // A new start (RESET, INIT): nothing of what was blocked, pending or on its way stays.
        write_hidden_guest_state(machine_);
        machine_.write(VM_ENTRY_INTERRUPTION_INFORMATION, 0U);
        injected_ = false;
    }
    if (includes(which, RegSet::control))
        set_control(in);
    if (includes(which, RegSet::segments)) {
        for (unsigned i = 0; i < 6; ++i)
            write_segment(machine_, i, in.segment[i]);
        write_segment(machine_, kLdtr, in.ldtr);
        write_segment(machine_, kTr, in.tr);
    }
    if (includes(which, RegSet::tables))
        write_tables(machine_, in);
    if (includes(which, RegSet::debug)) {
        // The upper halves are reserved, and in DR7 bits 15, 14, 12, 11 as well [sdm3 18.2 Debug Registers].
        constexpr std::uint64_t kDr7Writable = 0xffff'27ff;
        debug_ = {{in.dr[0], in.dr[1], in.dr[2], in.dr[3]}, in.dr6 & 0xffff'ffff};
        machine_.load_debug_registers(debug_);
        machine_.write(GUEST_DR7, (in.dr7 & kDr7Writable) | DR7_RESET);
    }
    if (includes(which, RegSet::msrs)) {
        write_switched_msrs(machine_, in);
        syscall_ = {in.star, in.lstar, in.cstar, in.sfmask, in.kernel_gs_base};
        load_syscall_msrs(syscall_);
    }
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_control(const CpuState& in) {
    CpuState old;
    read_control(machine_, old);
    write_control(machine_, in, shared_.controls);
    cr2_ = in.cr2;
    machine_.write_cr2(in.cr2);
    if (old.cr0 == in.cr0 && old.cr3 == in.cr3 && old.cr4 == in.cr4 && old.efer == in.efer)
        return;
    flush_linear_ = true;
    if (uses_pdptes(in.cr0, in.cr4, with_lma(in.efer, in.cr0)))
        load_pdptes(in.cr3);
}

/// With EPT, VM entry takes the PDPTEs from the VMCS and not from memory [sdm3 27.3.2.4 Loading
/// Page-Directory-Pointer-Table Entries]. MOV to CR, as the guest executes it, loads them by itself. Where
/// the guest's table is not in RAM, or an entry has reserved bits set, the entry counts as not present.
template <VmxMachine Machine>
void BasicVcpu<Machine>::load_pdptes(std::uint64_t cr3) {
    constexpr std::uint64_t kPresent = 1;
    constexpr std::uint64_t kReserved =
        0xfff0'0000'0000'01e6;  // [sdm3 4.4.1 PDPTE Registers], a PDPTE of PAE paging
    constexpr Vmcs64 kFields[] = {GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3};
    const Gpa table{cr3 & 0xffff'ffe0};
    const std::optional<Hpa> memory = space_.translate(table);
    for (unsigned i = 0; i < 4; ++i) {
        const std::uint64_t entry = memory ? load<std::uint64_t>(machine::hva(*memory + i * 8)) : 0;
        machine_.write(kFields[i], (entry & kPresent) != 0 && (entry & kReserved) == 0 ? entry : 0);
    }
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::log_state() const {
    const auto u = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    const auto line = [&](const char* name, unsigned index) {
        const Segment segment = read_segment(machine_, index);
        log::error(log::Topic::vmx, "%s %04x base %llx limit %x attributes %x", name, segment.selector,
                   u(segment.base), segment.limit, segment.attributes);
    };
    const auto& m = machine_;
    log::error(log::Topic::vmx, "exit reason %x qualification %llx gpa %llx idt-vectoring %x error %x",
               m.read(EXIT_REASON), u(m.read(EXIT_QUALIFICATION)), u(m.read(GUEST_PHYSICAL_ADDRESS)),
               m.read(IDT_VECTORING_INFORMATION), m.read(IDT_VECTORING_ERROR_CODE));
    log::error(log::Topic::vmx,
               "rip %llx rsp %llx rflags %llx interruptibility %x activity %x pending debug %llx",
               u(m.read(GUEST_RIP)), u(m.read(GUEST_RSP)), u(m.read(GUEST_RFLAGS)), interruptibility(),
               m.read(GUEST_ACTIVITY_STATE), u(m.read(GUEST_PENDING_DEBUG_EXCEPTIONS)));
    log::error(log::Topic::vmx, "cr0 %llx (guest sees %llx) cr3 %llx cr4 %llx (guest sees %llx) efer %llx",
               u(m.read(GUEST_CR0)),
               u(guest_view(m.read(GUEST_CR0), m.read(CR0_READ_SHADOW), CR0_GUEST_OWNED)),
               u(m.read(GUEST_CR3)), u(m.read(GUEST_CR4)),
               u(guest_view(m.read(GUEST_CR4), m.read(CR4_READ_SHADOW), CR4_GUEST_OWNED)),
               u(m.read(GUEST_IA32_EFER)));
    constexpr const char* kNames[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned i = 0; i < std::size(kNames); ++i)
        line(kNames[i], i);
    log::error(log::Topic::vmx, "gdtr %llx/%x idtr %llx/%x", u(m.read(GUEST_GDTR_BASE)),
               m.read(GUEST_GDTR_LIMIT), u(m.read(GUEST_IDTR_BASE)), m.read(GUEST_IDTR_LIMIT));
    log::error(log::Topic::vmx, "controls: pin %x primary %x secondary %x exit %x entry %x injection %x",
               m.read(PIN_BASED_CONTROLS), m.read(PRIMARY_PROCESSOR_BASED_CONTROLS),
               m.read(SECONDARY_PROCESSOR_BASED_CONTROLS), m.read(VM_EXIT_CONTROLS),
               m.read(VM_ENTRY_CONTROLS), m.read(VM_ENTRY_INTERRUPTION_INFORMATION));
}

}  // namespace hv::vmx
