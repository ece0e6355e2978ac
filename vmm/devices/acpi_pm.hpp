// SPDX-License-Identifier: MIT
// ACPI fixed hardware [acpi 4.8 ACPI Register Model]: PM1a event and control blocks, power button, PM
// timer. There is no SMI command port: ACPI mode is always on.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/clock_ratio.hpp"
#include "vmm/devices/power_control.hpp"

#include <cstdint>

namespace hv {

class AcpiPm final : public IoDevice, private Timer {
public:
    /// The block at guest_map::kPm1aEvent: event, control and timer.
    static constexpr std::uint64_t kSize = 12;
    static constexpr std::uint64_t kTimerHz = 3'579'545;

    /// FADT's TMR_VAL_EXT.
    enum class TimerWidth : std::uint8_t { bits24 = 24, bits32 = 32 };

    /// All outlive this.
    AcpiPm(Clock& clock, IrqLine& sci, PowerControl& power, TimerWidth width = TimerWidth::bits32);
    ~AcpiPm() { clock_.disarm(*this); }

    /// Any CPU.
    void press_power_button();
    void reset();

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

private:
    void fire() override;

    // Under lock_:
    [[nodiscard]] std::uint32_t timer_value() const;
    [[nodiscard]] std::uint8_t read_byte(std::uint64_t offset) const;
    void write_event_byte(std::uint64_t offset, std::uint8_t value);
    /// Notes carries of the timer's highest bit since the last call, and sees to the SCI.
    void update();

    DeviceClock clock_;
    IrqLine& sci_;
    PowerControl& power_;
    unsigned half_period_shift_;  ///< log2 of the clocks between changes of the timer's highest bit
    Spinlock lock_{Rank::board};
    std::uint64_t half_periods_{0};  ///< accounted for in status_
    std::uint16_t status_{0};
    std::uint16_t enable_{0};
    std::uint16_t control_{0};
    bool sci_level_{false};
};

}  // namespace hv
