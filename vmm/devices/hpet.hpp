// SPDX-License-Identifier: MIT
// The high-precision event timer [hpet1.0a]: a 64-bit counter at 25 MHz and three comparators, each one-shot
// or periodic, edge or level, in 32 or 64 bits; legacy replacement; no FSB delivery.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/core/io_device.hpp"
#include "vmm/devices/clock_ratio.hpp"
#include "vmm/devices/late_ticks.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace hv {

class IrqSelector;

class Hpet final : public IoDevice, private Timer {
public:
    /// Size of the register block at guest_map::kHpet.
    static constexpr std::uint64_t kSize = 0x400;
    static constexpr std::uint64_t kHz = 25'000'000;
    static constexpr unsigned kComparators = 3;
    /// The GSIs that comparators can be routed to.
    static constexpr unsigned kFirstGsi = 20;
    static constexpr unsigned kGsis = 4;
    /// Its hardware ID, for the ACPI table.
    static constexpr std::uint32_t kHardwareId = 0x8086'a201;

    struct Wiring {
        IrqSelector&
            irq0;  ///< in legacy replacement input 1 of these is selected, comparators 0 and 1 drive them
        IrqSelector& irq8;
        std::array<IrqLine*, kGsis> gsis;  ///< from kFirstGsi
    };

    /// What `wiring` names and the clock outlive this.
    Hpet(Clock& clock, const Wiring& wiring);
    ~Hpet() { clock_.disarm(*this); }

    /// Who takes periodic interrupts; before the VM runs.
    void set_target(const TickTarget* target) { target_ = target; }
    void reset();

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

private:
    struct Comparator {
        std::uint64_t config{0};
        std::uint64_t value{~std::uint64_t{0}};  ///< what the counter is compared with
        std::uint64_t period{0};                 ///< of periodic mode
        std::optional<std::uint64_t> match;      ///< device clock of the next match
        IrqLine* driven{nullptr};                ///< line that is held asserted (level)
        LateTicks late{kHz};                     ///< edges of periodic mode
        bool high_half_sets_value{false};        ///< a 64-bit value is being written by halves, with VAL_SET
    };

    void fire() override;

    // Under lock_:
    [[nodiscard]] bool enabled() const;
    [[nodiscard]] bool legacy() const;
    [[nodiscard]] std::uint64_t counter(std::uint64_t now) const {
        return enabled() ? now - origin_ : halted_;
    }
    [[nodiscard]] std::uint64_t read_register(std::uint64_t offset, std::uint64_t now) const;
    void write_register(std::uint64_t offset, std::uint64_t mask, std::uint64_t value, std::uint64_t now);
    void write_config(std::uint64_t value, std::uint64_t now);
    void write_comparator_config(Comparator& comparator, std::uint64_t value, std::uint64_t now);
    void write_comparator(Comparator& comparator, std::uint64_t mask, std::uint64_t value, std::uint64_t now);
    /// Accounts for matches up to `now`.
    void advance(std::uint64_t now);
    /// Raises what is owed and due.
    void pay(std::uint64_t now);
    /// Computes when `comparator` matches next.
    void place(Comparator& comparator, std::uint64_t now) const;
    /// When the first comparator matches that interrupts; the highest value: never.
    [[nodiscard]] std::uint64_t first_match() const;
    void arm();
    [[nodiscard]] IrqLine* line_of(unsigned index) const;
    void raise(unsigned index);
    void update_level(unsigned index);

    DeviceClock clock_;
    Wiring wiring_;
    const TickTarget* target_{nullptr};
    Spinlock lock_{Rank::board};
    std::array<Comparator, kComparators> comparators_;
    std::uint64_t config_{0};
    std::uint64_t status_{0};
    std::uint64_t origin_{0};  ///< device clock at which the counter was 0, while it runs
    std::uint64_t halted_{0};  ///< the counter while it does not
};

}  // namespace hv
