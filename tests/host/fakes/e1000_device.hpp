// SPDX-License-Identifier: MIT
// An 82540EM or 82574L behind its registers, with the arena as memory: moves frames through its rings, sums
// and cuts them as its manuals say, and fails in the ways that tests ask for. What a driver must not do is
// kept in `violations`.
#pragma once

#include "drivers/net/e1000_chip.hpp"
#include "drivers/net/e1000_defs.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/base/device_registers.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace hv::fake {

/// A StepClock that moves by itself a little each time it is read, for loops that wait.
class BusyClock final : public Clock {
public:
    explicit BusyClock(StepClock& clock) : clock_{clock} {}
    [[nodiscard]] std::uint64_t now() const override {
        clock_.skip(1000);
        return clock_.now();
    }
    [[nodiscard]] std::uint64_t hz() const override { return clock_.hz(); }
    void arm(Timer& timer, std::uint64_t deadline) override { clock_.arm(timer, deadline); }
    void disarm(Timer& timer) override { clock_.disarm(timer); }

private:
    StepClock& clock_;
};

class E1000Device final : public DeviceRegisters {
public:
    using Bytes = std::vector<std::uint8_t>;
    using Kind = netdrv::E1000Kind;

    E1000Device(Kind kind, Clock& clock);

    [[nodiscard]] std::size_t size() const override { return registers_size; }
    [[nodiscard]] std::uint8_t read8(std::size_t offset) override;
    [[nodiscard]] std::uint16_t read16(std::size_t offset) override;
    [[nodiscard]] std::uint32_t read32(std::size_t offset) override;
    void write8(std::size_t offset, std::uint8_t value) override;
    void write16(std::size_t offset, std::uint16_t value) override;
    void write32(std::size_t offset, std::uint32_t value) override;

    /// A frame from the wire. False: no buffer for it, or the receiver is off.
    bool receive(const Bytes& frame);
    void set_link(bool up);
    /// Ends `hung`.
    void go_on() {
        hung = false;
        send_all();
    }
    [[nodiscard]] bool interrupt() const { return !vanished && (icr_ & ims_) != 0; }
    /// As the manuals say that the address and the checksum are stored.
    void set_eeprom_mac(const MacAddress& mac);
    [[nodiscard]] std::uint32_t peek(std::size_t offset) const;
    void poke(std::size_t offset, std::uint32_t value) { registers_[offset] = value; }

    std::vector<Bytes> sent;  ///< on the wire, without FCS
    unsigned checksums{0};    ///< that it was asked for
    std::vector<std::string> violations;
    std::map<std::size_t, unsigned> writes;  ///< how often each register was written
    unsigned resets{0};
    std::array<std::uint16_t, netdrv::e1000::kEepromWords> eeprom{};

    // How it fails.
    std::size_t registers_size{netdrv::e1000::kRegistersSize};
    bool eeprom_there{true};
    bool vanished{false};
    bool hung{false};  ///< sends nothing; a reset helps if it may
    bool reset_cures{true};
    bool reset_sticks{false};
    bool master_sticks{false};  ///< its requests never end
    bool keeps_fcs{false};      ///< though told to strip it
    // What the next frames are reported as.
    std::optional<std::uint16_t> report_length;
    std::uint64_t report_set{0};    ///< in a descriptor's `result`
    std::uint64_t report_clear{0};  ///< and not there

private:
    using Descriptor = netdrv::e1000::TransmitDescriptor;
    void violate(const std::string& what) { violations.push_back(what); }
    void reset();
    void raise(std::uint32_t causes) { icr_ |= causes; }
    [[nodiscard]] std::uint32_t eeprom_answer() const;
    [[nodiscard]] std::byte* memory(std::uint64_t address, std::size_t size);
    void send_all();
    void process(Descriptor& descriptor);
    void finish_frame();
    void sum_frame(Bytes& frame);
    void cut_frame();
    [[nodiscard]] std::uint64_t checksum_report(const Bytes& frame) const;

    const Kind kind_;
    Clock& clock_;
    std::map<std::size_t, std::uint32_t> registers_;
    std::uint32_t icr_{0};
    std::uint32_t ims_{0};
    bool link_{true};
    std::uint64_t reset_until_{0};
    bool in_endless_reset_{false};
    Descriptor context_{};
    bool has_context_{false};
    Bytes data_;              ///< of the frame at hand
    std::uint64_t flags_{0};  ///< of its first data descriptor
    std::size_t first_size_{0};
};

}  // namespace hv::fake
