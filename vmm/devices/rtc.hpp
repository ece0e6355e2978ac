// SPDX-License-Identifier: MIT
// The real-time clock with its CMOS RAM [mc146818]: calendar in BCD or binary, 12 or 24 hours, with a century
// byte; update, alarm and periodic interrupts. The time registers hold what was written to them until the
// next second changes them, as on the chip; they are brought up to date when somebody looks. A host timer
// runs only while an interrupt is enabled.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/devices/byte_registers.hpp"
#include "vmm/devices/clock_ratio.hpp"
#include "vmm/devices/late_ticks.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace hv {

/// What time it was at some host tick.
struct WallClock {
    std::int64_t seconds;  ///< since 1970-01-01 00:00 UTC
    std::uint64_t at;      ///< Clock::now() then
};

class Rtc final : public ByteRegisters<Rtc>, private Timer {
public:
    /// Index and data at guest_map::kRtc.
    static constexpr std::uint64_t kSize = 2;
    static constexpr unsigned kRamSize = 128;
    /// Where the century is: FADT's CENTURY.
    static constexpr std::uint8_t kCentury = 0x32;

    /// Both references outlive this. The guest sees UTC.
    Rtc(Clock& clock, IrqLine& irq, const WallClock& time);
    ~Rtc() { clock_.disarm(*this); }

    /// Who takes periodic interrupts; before the VM runs.
    void set_target(const TickTarget* target) { late_.set_target(target); }
    /// RESET: interrupts off; time and RAM stay.
    void reset();
    /// For firmware's share of the RAM: `index` is kFirstRam or above.
    static constexpr std::uint8_t kFirstRam = 0x0e;
    void set_ram(std::uint8_t index, std::uint8_t value);

    std::uint8_t read_byte(std::uint64_t offset);
    void write_byte(std::uint64_t offset, std::uint8_t value);

private:
    static constexpr std::uint64_t kCrystalHz = 32'768;

    void fire() override;

    // Under lock_:
    [[nodiscard]] bool counting() const;
    /// Brings time and flags up to date, and the interrupt with them.
    void update();
    void update_periodic(std::uint64_t now, std::uint64_t period);
    void advance(std::uint64_t seconds);
    void update_irq();
    void arm();
    std::uint8_t read_register(std::uint8_t index);
    void write_register(std::uint8_t index, std::uint8_t value);
    void write_control_a(std::uint8_t value);
    void write_control_b(std::uint8_t value);
    [[nodiscard]] std::uint64_t periodic_clocks() const;
    /// Registers' values in the format that register B chooses, and back.
    [[nodiscard]] unsigned decode(std::uint8_t value) const;
    [[nodiscard]] std::uint8_t encode(unsigned value) const;
    [[nodiscard]] unsigned decode_hour(std::uint8_t value) const;
    [[nodiscard]] std::uint8_t encode_hour(unsigned hour) const;
    /// What the time registers say; over 86,400 if the guest wrote nonsense.
    [[nodiscard]] std::uint32_t second_of_day() const;
    [[nodiscard]] std::int64_t seconds() const;
    void set_seconds(std::int64_t seconds);
    /// Seconds to the next alarm, 1 to 86,400; nothing: never.
    [[nodiscard]] std::optional<std::uint32_t> until_alarm() const;

    DeviceClock clock_;
    IrqLine& irq_;
    Spinlock lock_{Rank::board};
    std::array<std::uint8_t, kRamSize> ram_{};  ///< also the time and control registers
    std::uint8_t index_{0};
    bool irq_level_{false};
    std::uint64_t second_start_;  ///< crystal clock at which the current second began; may lie ahead
    LateTicks late_{kCrystalHz};
    std::uint64_t periods_{0};  ///< periodic interrupts' count at the last update
};

}  // namespace hv
