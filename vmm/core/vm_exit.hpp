// SPDX-License-Identifier: MIT
// Why the guest stopped, normalised by the backend so that nobody above it asks which processor is running.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/core/cpu_state.hpp"

#include <cstdint>

namespace hv {

/// Something that is delivered through the guest's IDT.
struct Event {
    enum class Type : std::uint8_t { none, external_interrupt, nmi, exception, software_interrupt };
    Type type{Type::none};
    std::uint8_t vector{};
    bool has_error_code{};
    std::uint8_t
        instruction_length{};  ///< software interrupts and INT3/INTO: RIP is advanced by it on delivery
    std::uint32_t error_code{};

    static constexpr Event interrupt(std::uint8_t vector) {
        return {Type::external_interrupt, vector, false, 0, 0};
    }
    static constexpr Event non_maskable() { return {Type::nmi, 2, false, 0, 0}; }
    static constexpr Event exception(std::uint8_t vector) { return {Type::exception, vector, false, 0, 0}; }
    static constexpr Event exception(std::uint8_t vector, std::uint32_t error_code) {
        return {Type::exception, vector, true, 0, error_code};
    }
    [[nodiscard]] constexpr bool pending() const { return type != Type::none; }
};

/// The vendor's own codes, for the log only.
struct RawExit {
    std::uint64_t code;   ///< basic exit reason, EXITCODE
    std::uint64_t info1;  ///< exit qualification, EXITINFO1
    std::uint64_t info2;  ///< guest-physical address, EXITINFO2
};

/// Packed as AMD-V reports it, so that a frequent exit needs no unpacking [apm2 15.10.2 IN and OUT Behavior].
class IoExit {
public:
    constexpr explicit IoExit(std::uint32_t exit_info1) : raw_{exit_info1} {}
    constexpr IoExit(std::uint16_t port, std::uint8_t size, bool in, bool string, bool rep)
        : raw_{static_cast<std::uint32_t>(Port::make(port) | Size::make(size) | In::make(in) |
                                          String::make(string) | Rep::make(rep))} {}
    [[nodiscard]] constexpr std::uint16_t port() const { return static_cast<std::uint16_t>(Port::get(raw_)); }
    /// 1, 2 or 4 bytes.
    [[nodiscard]] constexpr std::uint8_t size() const { return static_cast<std::uint8_t>(Size::get(raw_)); }
    [[nodiscard]] constexpr bool in() const { return In::test(raw_); }
    /// INS, OUTS: operands come from the decoder.
    [[nodiscard]] constexpr bool string() const { return String::test(raw_); }
    [[nodiscard]] constexpr bool rep() const { return Rep::test(raw_); }

private:
    using In = Bits<0>;
    using String = Bits<2>;
    using Rep = Bits<3>;
    using Size = Bits<6, 4>;  ///< one of three bits set
    using Port = Bits<31, 16>;

    std::uint32_t raw_;
};

struct NestedFault {
    Gpa gpa;
    bool read, write, execute;  ///< the access that faulted
    bool present;               ///< the nested translation exists, its rights did not suffice
    bool during_walk;           ///< the access was made by the guest's page walk, not by the instruction
};

struct CrExit {
    std::uint8_t cr;   ///< 0, 3, 4 or 8
    bool write;        ///< MOV to CR
    bool decoded;      ///< `gpr` is valid; else the instruction has to be decoded
    std::uint8_t gpr;  ///< Gpr
};

/// The processor has checked the gate, the privilege and the new TSS' descriptor, and has changed nothing.
struct TaskSwitch {
    enum class Cause : std::uint8_t { call, iret, jump, gate };  ///< gate: a task gate in the IDT
    Cause cause;
    bool instruction;  ///< completed by the switch: the old task goes on behind it. INT n too
    bool external;     ///< an event that the program did not cause by INT n, INT3 or INTO: EXT of error codes
    bool resume_flag;  ///< RF in the flags that the old task keeps
    bool has_error_code;     ///< for the new task's stack
    std::uint16_t selector;  ///< of the new TSS
    std::uint32_t error_code;
};

/// Of apic_write and apic_eoi.
struct ApicExit {
    std::uint16_t offset;  ///< in the register page
    std::uint8_t vector;
};

struct VmExit {
    enum class Reason : std::uint8_t {
        host_interrupt,    ///< a physical interrupt or NMI: nothing to do for the guest
        interrupt_window,  ///< what request_window() asked for
        nmi_window,
        cpuid,
        rdmsr,  ///< index in RCX
        wrmsr,
        apic_write,  ///< the guest wrote a register of the page that ApicAcceleration has, and is past it
        apic_eoi,    ///< it ended an interrupt there of which an exit was asked for, likewise
        io,
        nested_fault,
        vmcall,  ///< VMCALL or VMMCALL
        hlt,
        pause,  ///< pause-loop exit
        cr_access,
        dr_access,
        xsetbv,
        invd,  ///< INVD or WBINVD: to be skipped
        invlpg,
        task_switch,
        exception,  ///< an intercepted exception, in `exception`
        int1,       ///< INT1, where it is an exit of its own
        undefined,  ///< an instruction that this guest's processor lacks (VMX, SVM, MONITOR...): #UD
        shutdown,   ///< triple fault
        init_signal,
        invalid_state,  ///< VM entry refused the guest state
        unhandled,
    };
    static constexpr unsigned kReasons = static_cast<unsigned>(Reason::unhandled) + 1;

    constexpr VmExit() : fault{} {}

    Reason reason{};
    /// Bytes to skip to complete the instruction; 0: the processor did not tell, ask the decoder.
    std::uint8_t instruction_length{};
    /// An event whose delivery the exit interrupted: it has to be injected again unless the exit is fatal.
    Event interrupted{};
    std::uint32_t dr7{};  ///< of io and nested_fault: the guest's DR7
    RawExit raw{};
    union {
        IoExit io;
        NestedFault fault;
        CrExit cr;
        TaskSwitch task;
        Event exception;
        ApicExit apic;
    };
};

const char* to_string(VmExit::Reason reason);

}  // namespace hv
