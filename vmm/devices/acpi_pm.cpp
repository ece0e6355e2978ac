// SPDX-License-Identifier: MIT
#include "vmm/devices/acpi_pm.hpp"

#include "vmm/base/bits.hpp"
#include "vmm/core/guest_map.hpp"

namespace hv {
namespace {

/// Offsets in the block.
constexpr std::uint64_t PM1_STS = guest_map::kPm1aEvent - guest_map::kPm1aEvent;
constexpr std::uint64_t PM1_EN = PM1_STS + 2;
constexpr std::uint64_t PM1_CNT = guest_map::kPm1aControl - guest_map::kPm1aEvent;
constexpr std::uint64_t PM_TMR = guest_map::kPmTimer - guest_map::kPm1aEvent;

/// PM1 status and enable [acpi 4.8.3.1 PM1 Event Grouping].
constexpr std::uint16_t TMR = 1U << 0;
constexpr std::uint16_t GBL = 1U << 5;
constexpr std::uint16_t PWRBTN = 1U << 8;
constexpr std::uint16_t RTC = 1U << 10;
constexpr std::uint16_t kStatusBits = 0x8731;
constexpr std::uint16_t kEnableBits = TMR | GBL | PWRBTN | 1U << 9 | RTC;

/// PM1 control [acpi 4.8.3.2 PM1 Control Grouping].
constexpr std::uint16_t SCI_EN = 1U << 0;
using SleepType = Bits<12, 10>;
constexpr std::uint16_t SLP_EN = 1U << 13;
constexpr std::uint16_t kControlBits = 0x1c02;  ///< SLP_TYP, BM_RLD

}  // namespace

AcpiPm::AcpiPm(Clock& clock, IrqLine& sci, PowerControl& power, TimerWidth width)
    : clock_{clock, kTimerHz},
      sci_{sci},
      power_{power},
      half_period_shift_{static_cast<unsigned>(width) - 1} {}

void AcpiPm::reset() {
    LockGuard guard{lock_};
    half_periods_ = clock_.now() >> half_period_shift_;
    status_ = enable_ = control_ = 0;
    update();
}

std::uint32_t AcpiPm::timer_value() const {
    return static_cast<std::uint32_t>(clock_.now() & (bit(half_period_shift_ + 1) - 1));
}

void AcpiPm::update() {
    const std::uint64_t half_periods = clock_.now() >> half_period_shift_;
    if (half_periods != half_periods_)
        status_ |= TMR;
    half_periods_ = half_periods;
    if ((enable_ & TMR) != 0 && (status_ & TMR) == 0)
        clock_.arm(*this, (half_periods + 1) << half_period_shift_);
    const bool level = (status_ & enable_) != 0;
    if (level != sci_level_) {
        sci_level_ = level;
        sci_.set(level);
    }
}

void AcpiPm::fire() {
    LockGuard guard{lock_};
    update();
}

void AcpiPm::press_power_button() {
    LockGuard guard{lock_};
    status_ |= PWRBTN;
    update();
}

std::uint64_t AcpiPm::read(std::uint64_t offset, unsigned size) {
    if (offset == PM_TMR && size == 4) [[likely]]  // clock sources read it often: no lock
        return timer_value();
    LockGuard guard{lock_};
    update();
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i)
        value |= std::uint64_t{read_byte(offset + i)} << (i * 8);
    return value;
}

std::uint8_t AcpiPm::read_byte(std::uint64_t offset) const {
    const auto byte_of = [](std::uint32_t value, std::uint64_t index) {
        return static_cast<std::uint8_t>(value >> (index * 8));
    };
    if (offset >= PM_TMR)
        return byte_of(timer_value(), offset - PM_TMR);
    if (offset >= PM1_CNT)
        return offset < PM1_CNT + 2 ? byte_of(control_ | SCI_EN, offset - PM1_CNT) : 0;
    return offset >= PM1_EN ? byte_of(enable_, offset - PM1_EN) : byte_of(status_, offset - PM1_STS);
}

void AcpiPm::write_event_byte(std::uint64_t offset, std::uint8_t value) {
    const unsigned shift = offset % 2 * 8;
    const auto bits = static_cast<std::uint16_t>(value << shift);
    if (offset < PM1_EN)
        status_ &= static_cast<std::uint16_t>(~(bits & kStatusBits));  // ones clear
    else
        enable_ = static_cast<std::uint16_t>(((enable_ & ~(0xff << shift)) | bits) & kEnableBits);
}

void AcpiPm::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    bool power_off = false;
    {
        LockGuard guard{lock_};
        update();
        for (unsigned i = 0; i < size; ++i) {
            const std::uint64_t at = offset + i;
            const auto byte = static_cast<std::uint8_t>(value >> (i * 8));
            if (at < PM1_CNT) {
                write_event_byte(at, byte);
            } else if (at < PM1_CNT + 2) {
                const unsigned shift = static_cast<unsigned>(at - PM1_CNT) * 8;
                const auto control =
                    static_cast<std::uint16_t>((control_ & ~(0xff << shift)) | byte << shift);
                control_ = control & kControlBits;
                power_off |= (control & SLP_EN) != 0 && SleepType::get(control) == guest_map::kSleepTypeS5;
            }
        }
        update();
    }
    if (power_off)
        power_.power_off();
}

}  // namespace hv
