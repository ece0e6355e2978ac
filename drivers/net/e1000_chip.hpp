// SPDX-License-Identifier: MIT
// The controller itself, apart from its rings: how it is stopped, reset and set up, its address and its link.
#pragma once

#include "drivers/net/net_device.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace hv::netdrv {

/// Which of the families a controller is of.
enum class E1000Kind : std::uint8_t {
    i8254x,  ///< 82540EM, PCI identifier 8086:100e
    i82574,  ///< 82574L, 8086:10d3
};

class E1000Chip {
public:
    E1000Chip(DeviceRegisters& registers, E1000Kind kind) : registers_{registers}, kind_{kind} {}

    [[nodiscard]] std::uint32_t read(std::size_t offset) { return registers_.read32(offset); }
    void write(std::size_t offset, std::uint32_t value) { registers_.write32(offset, value); }
    void write64(std::size_t offset, std::uint64_t value) { registers_.write64(offset, value); }
    [[nodiscard]] E1000Kind kind() const { return kind_; }

    /// It has been unplugged, or answers no more: a device that is there never has all bits of STATUS set.
    [[nodiscard]] bool gone();

    /// It raises no interrupt any more and begins no new frame.
    void stop();
    /// After stop(): no DMA is under way any more. At once on 8254x, which cannot tell.
    [[nodiscard]] bool quiet();
    /// Not to be accessed for kResetTime after this.
    void begin_reset();
    [[nodiscard]] bool reset_done();
    static constexpr std::uint64_t kResetTimeNs = 1'000'000;

    /// All of the above in a row, at boot. Error::timed_out.
    Expected<void> reset(const Clock& clock);
    /// The address that its EEPROM holds, or else its receive address register. `name`: in the log.
    /// Error::corrupted.
    Expected<MacAddress> mac(const Clock& clock, std::string_view name);

    /// Everything but rings, after a reset. Interrupts stay masked, receiver and transmitter off.
    void configure(bool check_sums);
    /// Sets how many interrupts there are at most, 60 or more. A reset forgets it.
    void limit_interrupts(std::uint32_t per_second);
    void enable_transmitter();
    /// With its interrupts.
    void enable_receiver();

    struct Link {
        bool up;
        bool full_duplex;
        unsigned megabits;
    };
    [[nodiscard]] Link link();

private:
    std::optional<std::uint16_t> eeprom_word(const Clock& clock, unsigned index);
    std::optional<MacAddress> mac_of_eeprom(const Clock& clock, std::string_view name);
    MacAddress mac_of_register();

    DeviceRegisters& registers_;
    const E1000Kind kind_;
};

}  // namespace hv::netdrv
