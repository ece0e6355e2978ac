// SPDX-License-Identifier: MIT
// BasicVcpu, fourth part: the local APIC as far as the processor has it [sdm3 30 APIC Virtualization and
// Virtual Interrupts].
#pragma once

#include "arch/x86_64/vmx/vcpu.hpp"
#include "vmm/base/assert.hpp"

#include <algorithm>

namespace hv::vmx {

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_mode(Mode mode, Gpa base) {
    apic_.base = base;
    apic_.secondary = mode == Mode::xapic    ? secondary::VIRTUALIZE_APIC_ACCESSES
                      : mode == Mode::x2apic ? secondary::VIRTUALIZE_X2APIC_MODE
                                             : 0;
    space_.apic_access().move(space_, *apic_slot_, mode == Mode::xapic ? base.raw : ApicAccess::kNowhere,
                              shared_.apic_access_page.hpa());
    // What is cached may have been translated with the other mode's page in place, or without.
    flush_guest_physical_ = flush_linear_ = true;
    apic_.changed = true;
    if (on_cpu_)
        write_apic_fields();
}

template <VmxMachine Machine>
ApicAcceleration::Status BasicVcpu<Machine>::status() const {
    if (!on_cpu_)
        return apic_.status;
    const std::uint16_t raw = machine_.read(GUEST_INTERRUPT_STATUS);
    return {static_cast<std::uint8_t>(InterruptStatus::Requesting::get(raw)),
            static_cast<std::uint8_t>(InterruptStatus::Servicing::get(raw))};
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_status(Status status) {
    apic_.status = status;
    if (on_cpu_)
        machine_.write(GUEST_INTERRUPT_STATUS, raw_status(status));
    else
        apic_.changed = true;
}

template <VmxMachine Machine>
void BasicVcpu<Machine>::set_eoi_exits(unsigned word, std::uint64_t vectors) {
    apic_.eoi_exits[word] = vectors;
    if (on_cpu_)
        machine_.write(kEoiExitBitmaps[word], vectors);
    else
        apic_.changed = true;
}

/// What was set while the vCPU was on no CPU, and so had no VMCS to write to.
template <VmxMachine Machine>
void BasicVcpu<Machine>::write_apic_fields() {
    machine_.write(SECONDARY_PROCESSOR_BASED_CONTROLS, shared_.controls.secondary | apic_.secondary);
    const bool x2apic = apic_.secondary == secondary::VIRTUALIZE_X2APIC_MODE;
    machine_.write(MSR_BITMAP, (x2apic ? shared_.x2apic_msr_bitmap : shared_.msr_bitmap).hpa().raw);
    for (unsigned word = 0; word < std::size(kEoiExitBitmaps); ++word)
        machine_.write(kEoiExitBitmaps[word], apic_.eoi_exits[word]);
    machine_.write(GUEST_INTERRUPT_STATUS, raw_status(apic_.status));
    apic_.changed = false;
}

/// An interrupt of the class of TPR's or below waits for TPR to be lowered [sdm3 30.1.2 TPR Virtualization].
/// VM entry wants a threshold that TPR is not already below.
template <VmxMachine Machine>
void BasicVcpu<Machine>::update_tpr_threshold() {
    const std::uint32_t tpr = (page().read(kTprIndex) >> 4) & 0xf;
    const int request = *apic_.highest_request;
    const std::uint32_t request_class = request < 0 ? 0 : static_cast<std::uint32_t>(request) >> 4;
    const std::uint32_t threshold = request_class <= tpr ? request_class : 0;
    if (threshold == apic_.tpr_threshold)
        return;
    apic_.tpr_threshold = threshold;
    machine_.write(TPR_THRESHOLD, threshold);
}

}  // namespace hv::vmx
