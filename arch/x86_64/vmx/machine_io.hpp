// SPDX-License-Identifier: MIT
// What the VT-x code asks of the machine, as policies: `Hardware` in the kernel (hardware.hpp), fakes in host
// tests. All that decides anything is written against these.
#pragma once

#include "arch/x86_64/defs/msr.hpp"
#include "arch/x86_64/defs/vmcs.hpp"
#include "arch/x86_64/defs/vmx.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/core/cpu_state.hpp"

#include <concepts>
#include <cstdint>

namespace hv::vmx {

/// The current VMCS. A field that does not exist is a bug of ours: the policy panics with the VM-instruction
/// error.
template <class T>
concept VmcsIo = requires(T& io, std::uint64_t value) {
    { io.read(GUEST_RIP) } -> std::same_as<std::uint64_t>;
    { io.read(EXIT_REASON) } -> std::same_as<std::uint32_t>;
    {io.write(GUEST_RIP, value)};
};

template <class T>
concept MsrIo = requires(T& io, std::uint64_t value) {
    { io.read_msr(Msr::IA32_EFER) } -> std::same_as<std::uint64_t>;
    {io.write_msr(Msr::IA32_EFER, value)};
};

/// What VM exits load, as it is on one CPU [sdm3 25.5 Host-State Area].
struct HostState {
    std::uint64_t cr0, cr3, cr4, efer, pat;
    std::uint16_t cs, tr;
    std::uint64_t fs_base, gs_base, tr_base, gdtr_base, idtr_base;
    std::uint64_t rip;  ///< where VM exits arrive: vmx_exit_point in entry.S
};

/// Debug registers that neither VM entry nor VM exit switches.
struct DebugRegisters {
    std::uint64_t dr[4];
    std::uint64_t dr6;
};

enum class EntryResult : std::uint32_t { exited, fail_invalid, fail_valid };

/// What is done when a CPU changes from one VM to another, and before each VM entry.
struct Mitigations {
    bool predictor_barrier;  ///< IBPB: the next VM does not run on branch targets that the last one trained
    bool flush_l1d;          ///< L1TF: the next VM finds nothing of the last one in the L1 data cache
    bool clear_buffers;      ///< MDS: no guest finds the host's data in the CPU's buffers; at each VM entry
};

template <class T>
concept VmxMachine = VmcsIo<T> && MsrIo<T> &&
    requires(T& m, Hpa vmcs, VcpuRegs& regs, std::uint64_t& host_rsp, DebugRegisters& debug,
             const Mitigations& mitigations) {
    typename T::Fpu;  ///< cpu::GuestFpu's interface
    { m.vmclear(vmcs) } -> std::same_as<Expected<void>>;
    { m.vmptrld(vmcs) } -> std::same_as<Expected<void>>;
    {m.invept(InveptType::single_context, std::uint64_t{})};
    {m.invvpid(InvvpidType::single_context, std::uint16_t{})};
    { m.enter(regs, bool{}, host_rsp) } -> std::same_as<EntryResult>;
    { m.host_state() } -> std::same_as<HostState>;
    {m.load_debug_registers(debug)};
    {m.save_debug_registers(debug)};
    { m.read_cr2() } -> std::same_as<std::uint64_t>;
    {m.write_cr2(std::uint64_t{})};
    {m.deliver_nmi()};            ///< runs the host's handler for the NMI that ended guest mode
    {m.deliver_machine_check()};  ///< likewise
    {m.separate_vms(mitigations)};
    {m.clear_cpu_buffers()};
};

}  // namespace hv::vmx
