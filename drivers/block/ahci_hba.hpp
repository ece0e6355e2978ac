// SPDX-License-Identifier: MIT
// A host bus adapter's own registers, which its ports share. A port that cannot be stopped otherwise has the
// whole HBA reset; the others see by reset_count() that their commands are lost. If that does not help
// either, all of the HBA is given up.
#pragma once

#include "drivers/block/ahci_defs.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/wait.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv::block {

class AhciHba {
public:
    /// The HBA answers by AHCI: GHC.AE is set. All outlive this.
    AhciHba(DeviceRegisters& registers, Clock& clock, std::string_view name)
        : registers_{registers}, clock_{clock}, name_{name}, capabilities_{read(ahci::HbaRegister::CAP)} {}

    [[nodiscard]] DeviceRegisters& registers() { return registers_; }
    [[nodiscard]] Clock& clock() { return clock_; }
    [[nodiscard]] std::string_view name() const { return name_; }

    [[nodiscard]] std::uint32_t read(ahci::HbaRegister which) {
        return registers_.read32(static_cast<std::size_t>(which));
    }
    void write(ahci::HbaRegister which, std::uint32_t value) {
        registers_.write32(static_cast<std::size_t>(which), value);
    }

    [[nodiscard]] unsigned slots() const {
        return static_cast<unsigned>(ahci::CAP_NCS::get(capabilities_)) + 1;
    }
    [[nodiscard]] bool has_ncq() const { return ahci::CAP_SNCQ::test(capabilities_); }
    [[nodiscard]] bool is_64bit() const { return ahci::CAP_S64A::test(capabilities_); }
    [[nodiscard]] bool can_clear_busy() const { return ahci::CAP_SCLO::test(capabilities_); }

    /// No port touches memory any more once reset_under_way() is false [ahci 10.4.3 HBA Reset].
    void begin_reset() {
        resets_.fetch_add(1);
        write(ahci::HbaRegister::GHC, ahci::GHC_AE | ahci::GHC_HR);
        resets_.fetch_add(1);
    }
    [[nodiscard]] bool reset_under_way() { return (read(ahci::HbaRegister::GHC) & ahci::GHC_HR) != 0; }
    /// A reset turns AHCI and interrupts off.
    void enable() { write(ahci::HbaRegister::GHC, ahci::GHC_AE | ahci::GHC_IE); }
    /// Changes before a reset begins to take effect, and after, for whoever has looked in between.
    [[nodiscard]] std::uint32_t reset_count() const { return resets_.load(); }

    /// A port cannot be shown to have stopped. What cuts it off from memory cuts off all ports.
    void give_up() {
        given_up_ = true;
        resets_.fetch_add(1);
    }
    [[nodiscard]] bool given_up() const { return given_up_.load(); }

    [[nodiscard]] std::uint64_t after(std::uint64_t milliseconds) const {
        return clock_.now() + clock_.from_nanoseconds(milliseconds * 1'000'000);
    }
    /// Between two looks at what takes long: the time of an access to a register, about a microsecond.
    void rest() { static_cast<void>(read(ahci::HbaRegister::GHC)); }
    /// While the host boots or powers off only. `done` asks the device.
    template <class Done>
    bool wait(std::uint64_t milliseconds, Done&& done) {
        return wait_until(clock_, milliseconds * 1'000'000, done);
    }

private:
    DeviceRegisters& registers_;
    Clock& clock_;
    const std::string_view name_;
    const std::uint32_t capabilities_;
    std::atomic<std::uint32_t> resets_{0};
    std::atomic<bool> given_up_{false};
};

}  // namespace hv::block
