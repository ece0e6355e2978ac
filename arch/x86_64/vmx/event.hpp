// SPDX-License-Identifier: MIT
// Events in VT-x' encoding: what VM exits tell about one, and what VM entries inject.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "arch/x86_64/defs/vmx.hpp"
#include "vmm/core/vm_exit.hpp"

#include <cstdint>

namespace hv::vmx {

/// Decodes VM-exit interruption information or IDT-vectoring information [sdm3 25.9.2 Information for VM
/// Exits Due to Vectored Events]; none if it is not valid. `error_code` and `instruction_length` are used if
/// the kind of event has one.
constexpr Event event_of(std::uint32_t information, std::uint32_t error_code,
                         std::uint32_t instruction_length) {
    using Info = InterruptionInfo;
    if (!Info::Valid::test(information))
        return {};
    const auto vector = static_cast<std::uint8_t>(Info::Vector::get(information));
    const auto length = static_cast<std::uint8_t>(instruction_length);
    switch (static_cast<InterruptionType>(Info::Type::get(information))) {
    case InterruptionType::external_interrupt: return Event::interrupt(vector);
    case InterruptionType::nmi: return Event::non_maskable();
    case InterruptionType::software_interrupt:
        return {Event::Type::software_interrupt, vector, false, length, 0};
    case InterruptionType::privileged_software_exception:
    case InterruptionType::software_exception: return {Event::Type::exception, vector, false, length, 0};
    case InterruptionType::hardware_exception:
        return Info::HasErrorCode::test(information) ? Event::exception(vector, error_code)
                                                     : Event::exception(vector);
    }
    return {};
}

/// VM-entry interruption information [sdm3 25.8.3 VM-Entry Controls for Event Injection]. Real mode has no
/// error codes, and a VM entry that asked for one would fail [sdm3 27.2.1.3 VM-Entry Control Fields].
constexpr std::uint32_t entry_information(const Event& event, bool protected_mode) {
    using Info = InterruptionInfo;
    InterruptionType type{};
    switch (event.type) {
    case Event::Type::none: return 0;
    case Event::Type::external_interrupt: type = InterruptionType::external_interrupt; break;
    case Event::Type::nmi: type = InterruptionType::nmi; break;
    case Event::Type::software_interrupt: type = InterruptionType::software_interrupt; break;
    case Event::Type::exception:
        type = event.instruction_length == 0  ? InterruptionType::hardware_exception
               : event.vector == EXCEPTION_DB ? InterruptionType::privileged_software_exception
               : event.vector == EXCEPTION_BP || event.vector == EXCEPTION_OF
                   ? InterruptionType::software_exception
                   : InterruptionType::hardware_exception;
        break;
    }
    const bool error_code =
        type == InterruptionType::hardware_exception && event.has_error_code && protected_mode;
    return static_cast<std::uint32_t>(Info::Vector::make(event.vector) |
                                      Info::Type::make(static_cast<std::uint8_t>(type)) |
                                      Info::HasErrorCode::make(error_code) | Info::Valid::kMask);
}

}  // namespace hv::vmx
