// SPDX-License-Identifier: MIT
#include "arch/x86_64/svm/exit_decode.hpp"

#include "arch/x86_64/defs/cr.hpp"

namespace hv::svm {
namespace {

using Reason = VmExit::Reason;

enum class EventType : std::uint8_t { intr = 0, nmi = 2, exception = 3, software = 4 };

constexpr std::uint8_t kFirstCr0 = 0x00;
constexpr std::uint8_t kLastCrWrite = 0x1f;
void decode_cr(std::uint8_t code, const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit) {
    using MovCr = Bits<63>;
    using Register = Bits<3, 0>;
    exit.reason = Reason::cr_access;
    const std::uint64_t info = vmcb.control.exit_info1;
    // CLTS, LMSW and SMSW come here as well, without the MOV bit.
    const bool decoded = assists.decode && MovCr::test(info);
    exit.cr = {static_cast<std::uint8_t>(code & 0xf), code >= 0x10, decoded,
               static_cast<std::uint8_t>(Register::get(info))};
}

/// INT n, INT3 or INTO, rather than an event that came by itself.
bool is_software(std::uint64_t exit_int_info) {
    const std::uint64_t vector = EventInjection::Vector::get(exit_int_info);
    switch (static_cast<EventType>(EventInjection::Type::get(exit_int_info))) {
    case EventType::software: return true;
    case EventType::exception: return vector == EXCEPTION_BP || vector == EXCEPTION_OF;
    default: return false;
    }
}

void decode_task_switch(const Vmcb& vmcb, VmExit& exit) {
    using Cause = TaskSwitch::Cause;
    const std::uint64_t info = vmcb.control.exit_info2;
    const bool gate = EventInjection::Valid::test(vmcb.control.exit_int_info);
    const bool software = gate && is_software(vmcb.control.exit_int_info);
    const bool has_error_code = TaskSwitchInfo::HasErrorCode::test(info);
    exit.reason = Reason::task_switch;
    exit.task = {
        .cause = TaskSwitchInfo::Iret::test(info)   ? Cause::iret
                 : TaskSwitchInfo::Jump::test(info) ? Cause::jump
                 : gate                             ? Cause::gate
                                                    : Cause::call,
        .instruction = !gate || software,
        .external = gate && !software,
        .resume_flag = TaskSwitchInfo::ResumeFlag::test(info),
        .has_error_code = has_error_code,
        .selector = static_cast<std::uint16_t>(vmcb.control.exit_info1),
        .error_code = has_error_code ? static_cast<std::uint32_t>(TaskSwitchInfo::ErrorCode::get(info)) : 0,
    };
}

Reason reason_of(ExitCode code) {
    switch (code) {
    case ExitCode::nmi:
    case ExitCode::smi: return Reason::host_interrupt;
    case ExitCode::vintr: return Reason::interrupt_window;
    case ExitCode::init: return Reason::init_signal;
    case ExitCode::pause: return Reason::pause;
    case ExitCode::invd:
    case ExitCode::wbinvd: return Reason::invd;
    case ExitCode::invlpg: return Reason::invlpg;
    case ExitCode::icebp: return Reason::int1;
    case ExitCode::shutdown: return Reason::shutdown;
    case ExitCode::xsetbv: return Reason::xsetbv;
    case ExitCode::vmrun:
    case ExitCode::vmload:
    case ExitCode::vmsave:
    case ExitCode::stgi:
    case ExitCode::clgi:
    case ExitCode::skinit:
    case ExitCode::invlpga:
    case ExitCode::monitor:
    case ExitCode::mwait:
    case ExitCode::mwait_armed:
    case ExitCode::rdpru:
    case ExitCode::rsm: return Reason::undefined;
    default: return Reason::unhandled;
    }
}

}  // namespace

void decode_exit(const Vmcb& vmcb, const ExitAssists& assists, VmExit& exit) {
    const VmcbControl& control = vmcb.control;
    const bool frequent = decode_frequent_exit(vmcb, assists, exit);
    if (EventInjection::Valid::test(control.exit_int_info))
        exit.interrupted = decode_event(control.exit_int_info);
    if (frequent)
        return;
    const auto code = static_cast<ExitCode>(control.exit_code);
    if (control.exit_code <= kLastCrWrite) {
        static_assert(kFirstCr0 == static_cast<std::uint64_t>(ExitCode::read_cr0));
        decode_cr(static_cast<std::uint8_t>(control.exit_code), vmcb, assists, exit);
    } else if (code >= ExitCode::read_dr0 && code <= ExitCode::write_dr15) {
        exit.reason = Reason::dr_access;
    } else if (code >= ExitCode::exception0 && code <= ExitCode::exception31) {
        const auto vector =
            static_cast<std::uint8_t>(control.exit_code - static_cast<std::uint64_t>(ExitCode::exception0));
        exit.reason = Reason::exception;
        exit.exception = exception_has_error_code(vector)
                             ? Event::exception(vector, static_cast<std::uint32_t>(control.exit_info1))
                             : Event::exception(vector);
    } else if (code == ExitCode::task_switch) {
        decode_task_switch(vmcb, exit);
    } else if (code == ExitCode::rdpmc) {
        // There is no PMU: RDPMC is refused as for a counter that does not exist.
        exit.reason = Reason::exception;
        exit.exception = Event::exception(EXCEPTION_GP, 0);
    } else if (static_cast<std::uint32_t>(control.exit_code) == 0xffff'ffff) {
        // VMEXIT_INVALID is -1; some implementations write 32 bits of it only.
        exit.reason = Reason::invalid_state;
    } else {
        exit.reason = reason_of(code);
    }
}

std::uint64_t encode_event(const Event& event) {
    EventType type{};
    switch (event.type) {
    case Event::Type::none: return 0;
    case Event::Type::external_interrupt: type = EventType::intr; break;
    case Event::Type::nmi: type = EventType::nmi; break;
    case Event::Type::exception: type = EventType::exception; break;
    case Event::Type::software_interrupt: type = EventType::software; break;
    }
    return EventInjection::Vector::make(event.vector) |
           EventInjection::Type::make(static_cast<std::uint64_t>(type)) | EventInjection::Valid::kMask |
           EventInjection::HasErrorCode::make(event.has_error_code) |
           (event.has_error_code ? EventInjection::ErrorCode::make(event.error_code) : 0);
}

Event decode_event(std::uint64_t info) {
    const auto vector = static_cast<std::uint8_t>(EventInjection::Vector::get(info));
    switch (static_cast<EventType>(EventInjection::Type::get(info))) {
    case EventType::intr: return Event::interrupt(vector);
    case EventType::nmi: return Event::non_maskable();
    case EventType::exception:
        if (vector == EXCEPTION_BP || vector == EXCEPTION_OF)
            return {};
        return EventInjection::HasErrorCode::test(info)
                   ? Event::exception(vector,
                                      static_cast<std::uint32_t>(EventInjection::ErrorCode::get(info)))
                   : Event::exception(vector);
    case EventType::software: return {};
    }
    return {};
}

}  // namespace hv::svm
