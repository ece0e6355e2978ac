// SPDX-License-Identifier: MIT
#include "vmm/core/vm.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/machine.hpp"

namespace hv {

const char* to_string(VmStop reason) {
    switch (reason) {
    case VmStop::none: return "none";
    case VmStop::power_off: return "powered off";
    case VmStop::reset: return "reset";
    case VmStop::exit_code: return "debug exit";
    case VmStop::crashed: return "crashed";
    case VmStop::by_host: return "stopped by the host";
    }
    return "?";
}

Vm::~Vm() {
    HV_ASSERT(stopped());
    // No timer of a device may fire any more, and none be under way on another CPU, before the first of them
    // goes away.
    quiesce();
    // What one of them woke late is on its way to park once more; and who blocks it may be about to look at
    // it.
    for (const auto& vcpu : vcpus_) {
        while (!services_.scheduler.retire(*vcpu))
            machine::pause();
    }
    machine::synchronize();
}

bool Vm::settle() {
    bool settled = true;
    for (const auto& disk : disks_)
        settled = disk->settle() && settled;
    return settled;
}

void Vm::quiesce() {
    for (const auto& nic : nics_)
        nic->reset();
    for (const auto& disk : disks_)
        disk->reset();
    devices_.reset();
    if (board_ != nullptr)
        board_->reset();
    for (const auto& vcpu : vcpus_)
        vcpu->quiesce();
    if (spare_)
        spare_->stop();
    machine::synchronize();
}

void Vm::start() {
    HV_ASSERT(stopped());
    stop_reason_.store(VmStop::none, std::memory_order_relaxed);
    exit_code_ = 0;
    running_vcpus_.store(static_cast<std::uint32_t>(vcpus_.size()), std::memory_order_relaxed);
    stop_epoch_.fetch_add(1, std::memory_order_release);
    for (const auto& vcpu : vcpus_)
        services_.scheduler.wake(*vcpu);
}

void Vm::request_stop(VmStop reason, std::uint32_t code) {
    auto none = VmStop::none;
    if (!stop_reason_.compare_exchange_strong(none, reason))
        return;
    exit_code_ = code;
    stop_epoch_.fetch_or(1, std::memory_order_seq_cst);
    for (const auto& vcpu : vcpus_)
        vcpu->poke();
}

void Vm::service() {
    if (spare_ && spare_->service())
        devices_.balloon()->resume();
}

void Vm::memory_leaves() {
    for (const auto& vcpu : vcpus_)
        vcpu->memory_leaves();
}

void Vm::vcpu_parked() {
    if (running_vcpus_.fetch_sub(1, std::memory_order_acq_rel) == 1)
        services_.call(services_.context);
}

}  // namespace hv
