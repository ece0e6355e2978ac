// SPDX-License-Identifier: MIT
#include "vmm/sched/tsc_clock.hpp"

#include <new>

namespace hv {

Expected<std::unique_ptr<TscClock>> TscClock::create(TimerHardware& hardware, std::uint32_t cpu_count) {
    std::unique_ptr<Cpu[]> cpus{new (std::nothrow) Cpu[cpu_count]};
    if (cpus == nullptr)
        return Unexpected{Error::no_memory};
    std::unique_ptr<TscClock> clock{new (std::nothrow) TscClock{hardware, std::move(cpus)}};
    if (clock == nullptr)
        return Unexpected{Error::no_memory};
    return clock;
}

void TscClock::arm(Timer& timer, std::uint64_t deadline) {
    // A later deadline leaves the hardware as it is, see program().
    if (Cpu& self = cpu(); !self.queue.postpone(timer, deadline))
        arm_anywhere(self, timer, deadline);
}

void TscClock::arm_anywhere(Cpu& self, Timer& timer, std::uint64_t deadline) {
    self.queue.arm(timer, deadline);
    if (!self.expiring)
        program(self);
}

void TscClock::expire() {
    Cpu& self = cpu();
    self.expiring = true;
    self.queue.expire(now());
    self.expiring = false;
    self.programmed = TimerQueue::kNever;  // it has gone off
    program(self);
}

/// A timer that was disarmed, or armed anew for later, leaves the hardware as it is: an early interrupt finds
/// nothing due and sets it anew.
void TscClock::program(Cpu& cpu) {
    const std::uint64_t earliest = cpu.queue.earliest();
    if (earliest >= cpu.programmed)
        return;
    cpu.programmed = earliest;
    hardware_.set_deadline(earliest);
}

}  // namespace hv
