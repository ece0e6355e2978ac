// SPDX-License-Identifier: MIT
#include "drivers/block/ahci_port_io.hpp"

#include "vmm/base/text.hpp"

namespace hv::block {

using ahci::PortRegister;

Expected<AhciPortIo> AhciPortIo::create(AhciHba& hba, unsigned number, DmaPool& pool) {
    DmaBuffer page = HV_TRY(pool.allocate(sizeof(ahci::PortPage)));
    DmaBuffer tables = HV_TRY(pool.allocate(hba.slots() * sizeof(ahci::CommandTable)));
    return AhciPortIo{hba, number, std::move(page), std::move(tables)};
}

void AhciPortIo::clear_errors() {
    // PxSERR first: PCS and PRCS in PxIS are but a view of it.
    write(PortRegister::PxSERR, ~0u);
    write(PortRegister::PxIS, ~0u);
}

bool AhciPortIo::stop() {
    constexpr unsigned kStopTime = 500;  // milliseconds [ahci 10.1.2 System Software Specific Initialization]
    clear_command_bits(ahci::CMD_ST);
    if (!hba_->wait(kStopTime, [&] { return !command_bits(ahci::CMD_CR); }))
        return false;
    clear_command_bits(ahci::CMD_FRE);
    return hba_->wait(kStopTime, [&] { return !command_bits(ahci::CMD_FR); });
}

void AhciPortIo::attach() {
    const auto set_address = [&](PortRegister which, Hpa address) {
        hba_->registers().write32(offset(which), static_cast<std::uint32_t>(address.raw));
        if (hba_->is_64bit())
            hba_->registers().write32(offset(which) + 4, static_cast<std::uint32_t>(address.raw >> 32));
    };
    if (!command_bits(ahci::CMD_FRE)) {
        set_address(PortRegister::PxCLB, page_.address());
        set_address(PortRegister::PxFB, page_.address() + offsetof(ahci::PortPage, received));
    }
    set_command_bits(ahci::CMD_FRE | ahci::CMD_SUD | ahci::CMD_POD | ahci::CMD_ICC_ACTIVE);
}

void AhciPortIo::prepare(unsigned slot, const ata::RegisterFis& fis, Direction direction,
                         std::span<const DmaRun> runs) {
    HV_ASSERT(slot < hba_->slots() && runs.size() <= ahci::kPrdtEntries);
    ahci::CommandTable& to = table(slot);
    to.cfis = fis;
    for (std::size_t i = 0; i < runs.size(); ++i)
        to.prdt[i] = {runs[i].address.raw, 0, runs[i].size - 1};
    const std::uint16_t write = direction == Direction::to_device ? ahci::kHeaderWrite : std::uint16_t{0};
    page_.at<ahci::PortPage>()->list[slot] = {
        static_cast<std::uint16_t>(ahci::kHeaderFisWords | write),
        static_cast<std::uint16_t>(runs.size()),
        0,
        tables_.address().raw + slot * sizeof(ahci::CommandTable),
        {},
    };
}

void AhciPortIo::prepare_own(unsigned slot, const ata::RegisterFis& fis, Direction direction) {
    const DmaRun run{tables_.address() + slot * sizeof(ahci::CommandTable) +
                         offsetof(ahci::CommandTable, data),
                     ata::kDataBlock};
    prepare(slot, fis, direction, {&run, 1});
}

std::span<std::byte, ata::kDataBlock> AhciPortIo::own_data(unsigned slot) const {
    return table(slot).data;
}

AhciPortIo::Progress AhciPortIo::progress(unsigned slot) {
    // Errors first: some HBAs take a failed command off PxCI.
    if ((read(PortRegister::PxIS) & ahci::kErrors) != 0)
        return Progress::failed;
    return (read(PortRegister::PxCI) >> slot & 1) != 0 ? Progress::pending : Progress::ok;
}

void AhciPortIo::warn(std::string_view what) const {
    log::warning(log::Topic::block, "%.*s port %u: %.*s", width(hba_->name()), hba_->name().data(), number_,
                 width(what), what.data());
}

void AhciPortIo::note(std::string_view what) const {
    log::info(log::Topic::block, "%.*s port %u: %.*s", width(hba_->name()), hba_->name().data(), number_,
              width(what), what.data());
}

}  // namespace hv::block
