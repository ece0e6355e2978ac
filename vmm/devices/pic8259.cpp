// SPDX-License-Identifier: MIT
#include "vmm/devices/pic8259.hpp"

#include "vmm/base/assert.hpp"

namespace hv {
namespace {

constexpr unsigned kCascade = 2;

}  // namespace

Pic8259::Pic8259(IrqLine& intr)
    : intr_{intr}, ports_{Ports{*this, chips_[0]}, Ports{*this, chips_[1]}}, elcr_{*this} {
    for (unsigned irq = 0; irq < kLines; ++irq)
        lines_[irq].attach(*this, static_cast<std::uint8_t>(irq));
}

IrqLine& Pic8259::line(unsigned irq) {
    HV_ASSERT(irq < kLines && irq != kCascade);
    return lines_[irq];
}

void Pic8259::reset(std::uint16_t level_irqs) {
    LockGuard guard{lock_};
    for (unsigned chip = 0; chip < 2; ++chip) {
        chips_[chip].reset();
        chips_[chip].set_elcr(static_cast<std::uint8_t>(level_irqs >> (chip * 8)));
    }
    update();
}

void Pic8259::set_line(unsigned irq, bool asserted) {
    LockGuard guard{lock_};
    chips_[irq / 8].set_line(irq % 8, asserted);
    update();
}

void Pic8259::update() {
    chips_[0].set_cascade(kCascade, chips_[1].pending() >= 0);
    const bool level = chips_[0].pending() >= 0;
    if (level == intr_level_)
        return;
    intr_level_ = level;
    intr_.set(level);
}

std::uint8_t Pic8259::acknowledge() {
    LockGuard guard{lock_};
    // INTR falls with the acknowledge even if more is pending: who takes edges sees the next one.
    if (intr_level_) {
        intr_level_ = false;
        intr_.set(false);
    }
    const bool from_slave = chips_[0].pending() == kCascade;
    std::uint8_t vector = chips_[0].acknowledge().vector;
    if (from_slave)
        vector = chips_[1].acknowledge().vector;
    update();
    return vector;
}

std::uint8_t Pic8259::Ports::read_byte(std::uint64_t offset) {
    LockGuard guard{pic_.lock_};
    const bool polled = chip_.poll_requested();
    const std::uint8_t value = offset == 0 ? chip_.read_command() : chip_.read_data();
    if (polled)  // that was an acknowledge
        pic_.update();
    return value;
}

void Pic8259::Ports::write_byte(std::uint64_t offset, std::uint8_t value) {
    LockGuard guard{pic_.lock_};
    if (offset == 0)
        chip_.write_command(value);
    else
        chip_.write_data(value);
    pic_.update();
}

std::uint8_t Pic8259::Elcr::read_byte(std::uint64_t offset) {
    LockGuard guard{pic_.lock_};
    return pic_.chips_[offset].elcr();
}

void Pic8259::Elcr::write_byte(std::uint64_t offset, std::uint8_t value) {
    LockGuard guard{pic_.lock_};
    pic_.chips_[offset].set_elcr(value);
    pic_.update();
}

}  // namespace hv
