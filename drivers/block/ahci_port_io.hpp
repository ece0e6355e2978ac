// SPDX-License-Identifier: MIT
// One port of an HBA as registers and memory: its command list with a table for each slot, and what starts
// and ends commands. Who may send what, and when, is for AhciPort and AhciReset to know.
#pragma once

#include "drivers/block/ahci_hba.hpp"
#include "drivers/block/command_cutter.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/log.hpp"
#include "vmm/mm/dma.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace hv::block {

class AhciPortIo {
public:
    enum class Direction : std::uint8_t { from_device, to_device };

    /// `hba` outlives this. Error::no_memory.
    static Expected<AhciPortIo> create(AhciHba& hba, unsigned number, DmaPool& pool);

    [[nodiscard]] AhciHba& hba() { return *hba_; }
    [[nodiscard]] unsigned number() const { return number_; }

    [[nodiscard]] std::uint32_t read(ahci::PortRegister which) {
        return hba_->registers().read32(offset(which));
    }
    void write(ahci::PortRegister which, std::uint32_t value) {
        hba_->registers().write32(offset(which), value);
    }
    void set_command_bits(std::uint32_t bits) {
        write(ahci::PortRegister::PxCMD, read(ahci::PortRegister::PxCMD) | bits);
    }
    void clear_command_bits(std::uint32_t bits) {
        write(ahci::PortRegister::PxCMD, read(ahci::PortRegister::PxCMD) & ~bits);
    }
    [[nodiscard]] bool command_bits(std::uint32_t bits) {
        return (read(ahci::PortRegister::PxCMD) & bits) != 0;
    }
    [[nodiscard]] std::uint32_t detection() {
        return static_cast<std::uint32_t>(ahci::SSTS_DET::get(read(ahci::PortRegister::PxSSTS)));
    }
    /// The link may look for a device: it is spun up, and not switched off [ahci 3.3.11 Offset 2Ch: PxSCTL].
    [[nodiscard]] bool is_powered() {
        return (read(ahci::PortRegister::PxCMD) & ahci::CMD_SUD) != 0 &&
               ahci::SCTL_DET::get(read(ahci::PortRegister::PxSCTL)) == 0;
    }
    [[nodiscard]] std::uint8_t status() {
        return static_cast<std::uint8_t>(ahci::TFD_STS::get(read(ahci::PortRegister::PxTFD)));
    }
    [[nodiscard]] bool is_idle() { return (status() & (ata::BSY | ata::DRQ)) == 0; }
    /// Forgets errors and causes of interrupts.
    void clear_errors();
    /// At boot and at the end, where waiting does no harm: the port touches no memory any more. False: it
    /// does not stop.
    bool stop();
    /// Gives the port its memory, unless it has it, and lets it receive frames and power its device. It is
    /// stopped.
    void attach();

    /// Puts a command into `slot`, which is not in use.
    void prepare(unsigned slot, const ata::RegisterFis& fis, Direction direction,
                 std::span<const DmaRun> runs);
    /// The same, for a command whose data is the slot's own.
    void prepare_own(unsigned slot, const ata::RegisterFis& fis, Direction direction);
    [[nodiscard]] std::span<std::byte, ata::kDataBlock> own_data(unsigned slot) const;
    void send(std::uint32_t slots) { write(ahci::PortRegister::PxCI, slots); }

    /// For a command that was sent to a port that had nothing else to do and showed no error.
    enum class Progress : std::uint8_t { pending, ok, failed };
    [[nodiscard]] Progress progress(unsigned slot);

    void warn(std::string_view what) const;
    void note(std::string_view what) const;

private:
    AhciPortIo(AhciHba& hba, unsigned number, DmaBuffer page, DmaBuffer tables)
        : hba_{&hba}, number_{number}, page_{std::move(page)}, tables_{std::move(tables)} {}
    [[nodiscard]] std::size_t offset(ahci::PortRegister which) const {
        return ahci::kPortRegisters + number_ * ahci::kPortStride + static_cast<std::size_t>(which);
    }
    [[nodiscard]] ahci::CommandTable& table(unsigned slot) const {
        return *tables_.at<ahci::CommandTable>(slot * sizeof(ahci::CommandTable));
    }

    AhciHba* hba_;
    unsigned number_;
    DmaBuffer page_;    ///< ahci::PortPage
    DmaBuffer tables_;  ///< an ahci::CommandTable for each slot of the HBA
};

}  // namespace hv::block
