// SPDX-License-Identifier: MIT
#include "vmm/core/cpu_loop.hpp"

#include "vmm/base/machine.hpp"
#include "vmm/core/vcpu.hpp"

namespace hv {

void CpuLoop::run() {
    for (;;)
        turn();
}

bool CpuLoop::nap() const {
    if (!scheduler_.alone(cpu_) || wants_cpu())
        return false;
    scheduler_.sleeps(cpu_, clock_.now());
    machine::sleep_until_interrupt();
    scheduler_.slept(cpu_, clock_.now());
    return true;
}

void CpuLoop::turn() {
    machine::let_interrupts_in();
    if (jobs_ != nullptr && jobs_->pending())
        jobs_->service();
    auto* vcpu = static_cast<Vcpu*>(scheduler_.pick_next(cpu_));
    slice_over_ = false;
    if (const std::uint64_t deadline = scheduler_.deadline(cpu_); deadline != Scheduler::kNever)
        clock_.arm(slice_end_, deadline);
    else
        clock_.disarm(slice_end_);
    if (vcpu == nullptr) {
        // Interrupts are masked: what comes after this look ends the sleep at once.
        if (!wants_cpu())
            machine::sleep_until_interrupt();
        return;
    }
    running_.store(vcpu, std::memory_order_relaxed);
    machine::set_running(vcpu->name());
    const Vcpu::Outcome outcome = vcpu->run(*this);
    machine::set_running(nullptr);
    running_.store(nullptr, std::memory_order_relaxed);
    switch (outcome) {
    case Vcpu::Outcome::preempted: break;
    case Vcpu::Outcome::yielded: scheduler_.yield(*vcpu); break;
    case Vcpu::Outcome::halted:
    case Vcpu::Outcome::waiting:
    case Vcpu::Outcome::still_parked:
        scheduler_.block(*vcpu, [&] { return !vcpu->has_work(outcome); });
        break;
    case Vcpu::Outcome::parked:
        scheduler_.block(*vcpu, [] { return true; });
        vcpu->parked();
        break;
    }
}

}  // namespace hv
