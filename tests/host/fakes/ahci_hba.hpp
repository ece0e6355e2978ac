// SPDX-License-Identifier: MIT
// A SATA host bus adapter and the devices at its ports, as a test wants them: they are slow, reorder, fail,
// hang, go away, and note what must not be done to them. An access to a register takes the
// clock's time.
#pragma once

#include "drivers/block/ahci_defs.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/base/device_registers.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace hv::fake {

/// What is at the other end of a link.
struct SataDevice {
    struct Command {
        unsigned slot;
        block::ata::RegisterFis fis;
        [[nodiscard]] std::uint64_t lba() const;
        [[nodiscard]] std::uint32_t blocks() const;
        [[nodiscard]] bool queued() const;
    };

    bool present{false};
    std::uint32_t signature{block::ahci::SIG_ATA};
    std::string model{"Cairn Test Disk"}, serial{"SN 1"};
    std::uint32_t block_size{512};
    unsigned queue_depth{32};  ///< 0: no NCQ
    bool write_cache{true}, trim{true}, lba48{true}, flush{true}, flush_ext{true};
    std::uint16_t physical_sizes{0};  ///< word 106, but for what follows from block_size
    std::vector<std::byte> contents;

    std::uint64_t ready_after{0};        ///< ns from a COMRESET on, during which it is busy
    bool hold{false};                    ///< commands but queries do not end until finish()
    std::set<std::uint64_t> bad_blocks;  ///< what touches them fails
    std::uint8_t error{0x40};            ///< what it fails with: UNC
    bool has_log{true};
    bool lies_in_log{false};  ///< names a tag that it does not have
    bool busy_after_error{false};
    bool deaf{false};              ///< ends nothing at all
    unsigned fails_identify{0};    ///< so many times
    unsigned garbles_identity{0};  ///< likewise
    unsigned ignores_identify{0};  ///< likewise: no answer comes

    // What it saw:
    std::vector<block::ata::RegisterFis> seen;
    std::vector<Command> active;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> trimmed;
    bool mixed{false};  ///< queued and other commands at once
    unsigned comresets{0};
    std::optional<unsigned> failed_tag;  ///< aborts all but READ LOG EXT since

    [[nodiscard]] unsigned count(block::ata::Command command) const;
};

class AhciHba final : public DeviceRegisters {
public:
    static constexpr unsigned kPorts = 4;
    static constexpr std::uint64_t kAccessNs = 50'000;  ///< slow, so that tests of long waits are quick

    explicit AhciHba(StepClock& clock);
    /// A disk of `blocks` blocks, of random contents at its beginning.
    SataDevice& add_disk(unsigned port, std::size_t blocks, std::uint32_t block_size = 512);
    /// Ends what a device has in `slot`.
    void finish(unsigned port, unsigned slot);
    /// Ends all, the last first, until nothing is left.
    void finish_all(unsigned port);
    void unplug(unsigned port);
    /// The link goes down and comes up again by itself.
    void disturb_link(unsigned port);
    void raise(unsigned port, std::uint32_t causes) { ports_[port].is |= causes; }
    [[nodiscard]] bool interrupt();
    [[nodiscard]] std::uint32_t port_register(unsigned port, block::ahci::PortRegister which);

    [[nodiscard]] std::size_t size() const override {
        return block::ahci::kPortRegisters + kPorts * block::ahci::kPortStride;
    }
    [[nodiscard]] std::uint8_t read8(std::size_t offset) override;
    [[nodiscard]] std::uint16_t read16(std::size_t offset) override;
    [[nodiscard]] std::uint32_t read32(std::size_t offset) override;
    void write8(std::size_t offset, std::uint8_t value) override;
    void write16(std::size_t offset, std::uint16_t value) override;
    void write32(std::size_t offset, std::uint32_t value) override;

    std::array<SataDevice, kPorts> devices;
    std::uint32_t capabilities;
    std::uint64_t firmware_lets_go_after{0};  ///< ns; not 0: it owns the HBA
    bool firmware_busy{false};
    bool dead{false};  ///< reads as all ones
    bool reset_hangs{false};
    unsigned hba_resets{0};
    std::function<void()> before_reset;  ///< of the HBA: what other CPUs do until its register is written
    bool clears_ci_on_error{false};      ///< as QEMU does
    std::array<bool, kPorts> stuck{};    ///< PxCMD.CR stays until the HBA is reset
    bool stays_stuck{false};             ///< even then
    bool misused{false};                 ///< something was done that the specification forbids

    /// Firmware has spun up this port.
    void power_up(unsigned number) { ports_[number].cmd |= block::ahci::CMD_SUD; }

private:
    struct Port {
        std::uint64_t clb{}, fb{};
        std::uint32_t is{}, ie{}, cmd{}, tfd{0x7f}, sig{~0u}, ssts{}, sctl{}, serr{}, sact{}, ci{};
        bool halted{};  ///< by an error, until ST is 0
        std::optional<std::uint64_t> ready_at;
    };

    void update();
    std::uint32_t read_port(unsigned number, block::ahci::PortRegister which);
    void write_port(unsigned number, std::size_t offset, std::uint32_t value);
    void write_command(unsigned number, std::uint32_t value);
    void write_link_control(unsigned number, std::uint32_t value);
    void reset();
    void start_device(unsigned number);
    void take(unsigned number, std::uint32_t slots);
    void accept(unsigned number, unsigned slot);
    void execute(unsigned number, const SataDevice::Command& command);
    bool is_bad(const SataDevice& device, const SataDevice::Command& command);
    void fail(unsigned number, const SataDevice::Command& command);
    void move(unsigned number, unsigned slot, std::byte* data, std::size_t size, bool to_device);

    StepClock& clock_;
    std::uint32_t ghc_{0}, is_{0}, bohc_{0};
    std::optional<std::uint64_t> handoff_asked_;
    std::array<Port, kPorts> ports_;
};

}  // namespace hv::fake
