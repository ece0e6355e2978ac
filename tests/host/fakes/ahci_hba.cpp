// SPDX-License-Identifier: MIT
#include "fakes/ahci_hba.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>
#include <cstring>
#include <random>

namespace hv::fake {

using namespace block;
using namespace block::ahci;
using ata::Command;

namespace {

std::array<std::byte, ata::kDataBlock> identity_of(const SataDevice& device) {
    std::array<std::uint16_t, 256> words{};
    const auto text = [&](std::size_t at, std::size_t count, std::string value) {
        value.resize(count * 2, ' ');
        for (std::size_t i = 0; i < count; ++i)
            words[at + i] =
                static_cast<std::uint16_t>(std::uint8_t(value[2 * i]) << 8 | std::uint8_t(value[2 * i + 1]));
    };
    text(10, 10, device.serial);
    text(27, 20, device.model);
    const std::uint64_t blocks = device.contents.size() / device.block_size;
    for (unsigned i = 0; i < 4; ++i)
        words[100 + i] = static_cast<std::uint16_t>(blocks >> 16 * i);
    words[75] = static_cast<std::uint16_t>(device.queue_depth - 1) & 0x1f;
    words[76] = device.queue_depth > 0 ? 0x100 : 0;
    words[83] = static_cast<std::uint16_t>(0x4000 | (device.lba48 ? 1u << 10 : 0) |
                                           (device.flush ? 1u << 12 : 0) | (device.flush_ext ? 1u << 13 : 0));
    words[85] = device.write_cache ? 0x20 : 0;
    words[87] = 0x4000;
    words[106] = device.physical_sizes;
    if (device.block_size != 512) {
        words[106] |= 0x5000;
        words[117] = static_cast<std::uint16_t>(device.block_size / 2);
    }
    words[169] = device.trim ? 1 : 0;
    words[255] = 0xa5;
    std::array<std::byte, ata::kDataBlock> bytes;
    std::memcpy(bytes.data(), words.data(), bytes.size());
    unsigned sum = 0;
    for (const std::byte b : bytes)
        sum += std::to_integer<unsigned>(b);
    bytes[511] = std::byte(-sum & 0xff);
    return bytes;
}

std::array<std::byte, ata::kDataBlock> error_log_of(const SataDevice& device) {
    std::array<std::byte, ata::kDataBlock> bytes{};
    const unsigned tag = device.failed_tag.value_or(ata::NQ);
    bytes[0] = std::byte((device.lies_in_log ? tag ^ 0x10 : tag) & 0xff);
    bytes[2] = std::byte{0x41};
    bytes[3] = std::byte{device.error};
    unsigned sum = 0;
    for (const std::byte b : bytes)
        sum += std::to_integer<unsigned>(b);
    bytes[511] = std::byte(-sum & 0xff);
    return bytes;
}

}  // namespace

std::uint64_t SataDevice::Command::lba() const {
    const auto at = [](std::uint8_t byte, unsigned shift) { return std::uint64_t{byte} << shift; };
    return at(fis.lba0, 0) | at(fis.lba1, 8) | at(fis.lba2, 16) | at(fis.lba3, 24) | at(fis.lba4, 32) |
           at(fis.lba5, 40);
}

bool SataDevice::Command::queued() const {
    return fis.command == ata::Command::READ_FPDMA_QUEUED || fis.command == ata::Command::WRITE_FPDMA_QUEUED;
}

std::uint32_t SataDevice::Command::blocks() const {
    const std::uint32_t count = queued() ? fis.features_low | std::uint32_t{fis.features_high} << 8
                                         : fis.count_low | std::uint32_t{fis.count_high} << 8;
    return count == 0 ? 65536 : count;
}

unsigned SataDevice::count(ata::Command command) const {
    return static_cast<unsigned>(
        std::ranges::count(seen, command, [](const ata::RegisterFis& fis) { return fis.command; }));
}

AhciHba::AhciHba(StepClock& clock)
    : capabilities{static_cast<std::uint32_t>(CAP_NCS::make(31) | CAP_SCLO::kMask | CAP_SNCQ::kMask |
                                              CAP_S64A::kMask)},
      clock_{clock} {
    ports_[0].cmd = ports_[1].cmd = CMD_ST | CMD_CR | CMD_FRE | CMD_FR;  // as firmware left them
}

SataDevice& AhciHba::add_disk(unsigned port, std::size_t blocks, std::uint32_t block_size) {
    SataDevice& device = devices[port];
    device.present = true;
    device.block_size = block_size;
    device.contents.resize(blocks * block_size);
    std::mt19937 random{port};
    for (std::byte& byte : std::span{device.contents}.first(std::min<std::size_t>(blocks, 8192) * 512))
        byte = std::byte(random() & 0xff);
    return device;
}

// --- registers
// --------------------------------------------------------------------------------------------------------

std::uint8_t AhciHba::read8(std::size_t) {
    misused = true;
    return 0;
}
std::uint16_t AhciHba::read16(std::size_t) {
    misused = true;
    return 0;
}
void AhciHba::write8(std::size_t, std::uint8_t) {
    misused = true;
}
void AhciHba::write16(std::size_t, std::uint16_t) {
    misused = true;
}

std::uint32_t AhciHba::read32(std::size_t offset) {
    clock_.skip(kAccessNs);
    update();
    if (dead)
        return ~0u;
    if (offset >= kPortRegisters)
        return read_port(static_cast<unsigned>((offset - kPortRegisters) / kPortStride),
                         static_cast<PortRegister>((offset - kPortRegisters) % kPortStride));
    const auto which = static_cast<HbaRegister>(offset);
    misused = misused || (which != HbaRegister::GHC && (ghc_ & GHC_AE) == 0);
    switch (which) {
    case HbaRegister::CAP: return capabilities;
    case HbaRegister::GHC: return ghc_;
    case HbaRegister::IS: return is_;
    case HbaRegister::PI: return (1u << kPorts) - 1;
    case HbaRegister::CAP2: return firmware_lets_go_after != 0 ? CAP2_BOH : 0;
    case HbaRegister::BOHC: return bohc_;
    }
    return 0;
}

void AhciHba::write32(std::size_t offset, std::uint32_t value) {
    clock_.skip(kAccessNs);
    update();
    if (dead)
        return;
    if (offset >= kPortRegisters)
        return write_port(static_cast<unsigned>((offset - kPortRegisters) / kPortStride),
                          (offset - kPortRegisters) % kPortStride, value);
    switch (static_cast<HbaRegister>(offset)) {
    case HbaRegister::GHC:
        if ((value & GHC_HR) != 0 && before_reset)
            before_reset();
        ghc_ = value;
        if ((value & GHC_HR) != 0)
            reset();
        break;
    case HbaRegister::IS: is_ &= ~value; break;
    case HbaRegister::BOHC:
        if ((value & BOHC_OOS) != 0 && !handoff_asked_)
            handoff_asked_ = clock_.now();
        bohc_ |= value & BOHC_OOS;
        break;
    default: misused = true;
    }
}

void AhciHba::update() {
    if (firmware_lets_go_after != 0) {
        bohc_ |= BOHC_BOS | (handoff_asked_ && firmware_busy ? BOHC_BB : 0);
        if (handoff_asked_ && clock_.now() >= *handoff_asked_ + firmware_lets_go_after)
            bohc_ &= ~(BOHC_BOS | BOHC_BB);
    }
    for (unsigned number = 0; number < kPorts; ++number) {
        Port& port = ports_[number];
        if (port.ready_at && clock_.now() >= *port.ready_at && (port.cmd & CMD_FRE) != 0) {
            port.ready_at.reset();
            port.tfd = 0x50;
            port.sig = devices[number].signature;
        }
        if ((port.is & port.ie) != 0)
            is_ |= 1u << number;
    }
}

bool AhciHba::interrupt() {
    update();
    return !dead && (ghc_ & GHC_IE) != 0 && is_ != 0;
}

std::uint32_t AhciHba::port_register(unsigned port, PortRegister which) {
    return read_port(port, which);
}

std::uint32_t AhciHba::read_port(unsigned number, PortRegister which) {
    const Port& port = ports_[number];
    switch (which) {
    case PortRegister::PxCLB: return static_cast<std::uint32_t>(port.clb);
    case PortRegister::PxFB: return static_cast<std::uint32_t>(port.fb);
    case PortRegister::PxIS: return port.is;
    case PortRegister::PxIE: return port.ie;
    case PortRegister::PxCMD: return port.cmd;
    case PortRegister::PxTFD: return port.tfd;
    case PortRegister::PxSIG: return port.sig;
    case PortRegister::PxSSTS: return port.ssts;
    case PortRegister::PxSCTL: return port.sctl;
    case PortRegister::PxSERR: return port.serr;
    case PortRegister::PxSACT: return port.sact;
    case PortRegister::PxCI: return port.ci;
    }
    misused = true;
    return 0;
}

void AhciHba::write_port(unsigned number, std::size_t offset, std::uint32_t value) {
    Port& port = ports_[number];
    const auto set_half = [&](std::uint64_t& address, bool upper) {
        misused = misused || (port.cmd & (CMD_FR | CMD_CR)) != 0 || (upper && !CAP_S64A::test(capabilities));
        address = upper ? (address & 0xffff'ffff) | std::uint64_t{value} << 32
                        : (address & ~std::uint64_t{0xffff'ffff}) | value;
    };
    switch (offset) {
    case 0x00:
    case 0x04: return set_half(port.clb, offset == 0x04);
    case 0x08:
    case 0x0c: return set_half(port.fb, offset == 0x0c);
    default: break;
    }
    switch (static_cast<PortRegister>(offset)) {
    case PortRegister::PxIS:
        port.is &= ~value;
        port.is |= (port.serr & SERR_DIAG_X) != 0 ? PCS : 0;
        port.is |= (port.serr & SERR_DIAG_N) != 0 ? PRCS : 0;
        return;
    case PortRegister::PxIE: port.ie = value; return;
    case PortRegister::PxCMD: return write_command(number, value);
    case PortRegister::PxSCTL: return write_link_control(number, value);
    case PortRegister::PxSERR: port.serr &= ~value; return;
    case PortRegister::PxSACT: port.sact |= (port.cmd & CMD_ST) != 0 ? value : 0; return;
    case PortRegister::PxCI: return take(number, value);
    default: misused = true;
    }
}

void AhciHba::write_command(unsigned number, std::uint32_t value) {
    Port& port = ports_[number];
    const bool start = (value & CMD_ST) != 0 && (port.cmd & CMD_ST) == 0;
    const bool established = SSTS_DET::get(port.ssts) == DET_ESTABLISHED;
    // [ahci 10.3.1 Start (PxCMD.ST)]
    misused = misused || (start && ((port.cmd & (CMD_CR | CMD_FRE)) != CMD_FRE || !established ||
                                    (port.tfd & (ata::BSY | ata::DRQ)) != 0));
    port.cmd = (port.cmd & (CMD_FR | CMD_CR)) | (value & ~(CMD_FR | CMD_CR | CMD_CLO));
    if ((value & CMD_CLO) != 0)
        port.tfd &= ~std::uint32_t{ata::BSY | ata::DRQ};
    if ((value & CMD_FRE) != 0)
        port.cmd |= CMD_FR;
    else
        port.cmd &= ~CMD_FR;
    if ((value & CMD_ST) != 0) {
        port.cmd |= CMD_CR;
        return;
    }
    port.ci = port.sact = 0;
    port.halted = false;
    if (!stuck[number])
        port.cmd &= ~CMD_CR;
}

void AhciHba::write_link_control(unsigned number, std::uint32_t value) {
    Port& port = ports_[number];
    const bool was_reset = SCTL_DET::get(port.sctl) == DET_COMRESET;
    const bool is_reset = SCTL_DET::get(value) == DET_COMRESET;
    port.sctl = value;
    if (is_reset) {
        misused = misused || (port.cmd & (CMD_ST | CMD_CR)) != 0 || (port.cmd & CMD_SUD) == 0;
        port.ssts = 0;
        port.tfd = 0x7f;
        port.ready_at.reset();
    } else if (was_reset) {
        start_device(number);
    }
}

void AhciHba::start_device(unsigned number) {
    SataDevice& device = devices[number];
    Port& port = ports_[number];
    device.active.clear();
    device.failed_tag.reset();
    ++device.comresets;
    if (!device.present)
        return;
    port.ssts = 0x123;
    port.tfd = 0xff;
    port.serr |= SERR_DIAG_X | SERR_DIAG_N;
    port.is |= PCS | PRCS;
    port.ready_at = clock_.now() + device.ready_after;
}

void AhciHba::reset() {
    ++hba_resets;
    if (reset_hangs)
        return;
    ghc_ = is_ = 0;
    for (unsigned number = 0; number < kPorts; ++number) {
        ports_[number] = {};
        stuck[number] = stuck[number] && stays_stuck;
        start_device(number);
    }
}

void AhciHba::unplug(unsigned number) {
    Port& port = ports_[number];
    devices[number].present = false;
    devices[number].active.clear();
    port.ssts = 0;
    port.serr |= SERR_DIAG_N;
    port.is |= PRCS;
}

void AhciHba::disturb_link(unsigned number) {
    start_device(number);
}

// --- commands
// ---------------------------------------------------------------------------------------------------------

void AhciHba::take(unsigned number, std::uint32_t slots) {
    Port& port = ports_[number];
    if ((port.cmd & CMD_ST) == 0)
        return;
    misused = misused || (port.ci & slots) != 0;
    port.ci |= slots;
    for (unsigned slot = 0; slot < kMaxSlots; ++slot) {
        if ((slots >> slot & 1) != 0 && !port.halted)
            accept(number, slot);
    }
}

void AhciHba::accept(unsigned number, unsigned slot) {
    SataDevice& device = devices[number];
    Port& port = ports_[number];
    if (!device.present || device.deaf)
        return;
    const auto& header = machine::hva<PortPage>(Hpa{port.clb})->list[slot];
    const auto& table = *machine::hva<CommandTable>(Hpa{header.ctba});
    const SataDevice::Command command{slot, table.cfis};
    misused = misused || (header.flags & 0x1f) != 5 || table.cfis.type != ata::kRegisterHostToDevice ||
              table.cfis.flags != ata::kIsCommand ||
              (command.queued() && ((port.sact >> slot & 1) == 0 || table.cfis.count_low >> 3 != slot));
    device.seen.push_back(table.cfis);
    // A tag that is in use already aborts everything.
    if (command.queued() && std::ranges::count(device.active, slot, &SataDevice::Command::slot) != 0)
        return fail(number, command);
    for (const auto& other : device.active)
        device.mixed = device.mixed || other.queued() != command.queued() || !command.queued();
    const bool is_log = table.cfis.command == Command::READ_LOG_EXT;
    if (device.mixed || (device.failed_tag && !is_log) || (is_log && !device.has_log))
        return fail(number, command);
    if (table.cfis.command == Command::IDENTIFY_DEVICE && device.fails_identify > 0) {
        --device.fails_identify;
        return fail(number, command);
    }
    if (table.cfis.command == Command::IDENTIFY_DEVICE && device.ignores_identify > 0) {
        --device.ignores_identify;
        return;
    }
    device.active.push_back(command);
    if (command.queued())
        port.ci &= ~(1u << slot);
    const bool query = is_log || table.cfis.command == Command::IDENTIFY_DEVICE;
    if (!device.hold || query)
        finish(number, slot);
}

void AhciHba::finish(unsigned number, unsigned slot) {
    SataDevice& device = devices[number];
    Port& port = ports_[number];
    const auto found = std::ranges::find(device.active, slot, &SataDevice::Command::slot);
    if (found == device.active.end() || port.halted)
        return;
    const SataDevice::Command command = *found;
    device.active.erase(found);
    if (is_bad(device, command))
        return fail(number, command);
    execute(number, command);
    port.tfd = 0x50;
    if (command.queued()) {
        port.sact &= ~(1u << slot);
        port.is |= SDBS;
    } else {
        port.ci &= ~(1u << slot);
        port.is |= DHRS;
    }
}

void AhciHba::finish_all(unsigned number) {
    while (!devices[number].active.empty() && !ports_[number].halted)
        finish(number, devices[number].active.back().slot);
}

bool AhciHba::is_bad(const SataDevice& device, const SataDevice::Command& command) {
    const auto code = command.fis.command;
    if (code == Command::FLUSH_CACHE_EXT || code == Command::FLUSH_CACHE)
        return device.bad_blocks.contains(~std::uint64_t{0});
    if (!command.queued() && code != Command::READ_DMA_EXT && code != Command::WRITE_DMA_EXT)
        return false;
    const auto first = device.bad_blocks.lower_bound(command.lba());
    return (first != device.bad_blocks.end() && *first < command.lba() + command.blocks()) ||
           (command.lba() + command.blocks()) * device.block_size > device.contents.size();
}

void AhciHba::fail(unsigned number, const SataDevice::Command& command) {
    SataDevice& device = devices[number];
    Port& port = ports_[number];
    port.halted = true;
    port.is |= TFES | (command.queued() ? SDBS : DHRS);
    port.tfd = 0x41u | unsigned{device.error} << 8 | (device.busy_after_error ? unsigned{ata::BSY} : 0u);
    if (command.queued()) {
        device.failed_tag = command.slot;
        device.active.clear();  // all are aborted
    } else if (clears_ci_on_error) {
        port.ci &= ~(1u << command.slot);
    }
}

void AhciHba::execute(unsigned number, const SataDevice::Command& command) {
    SataDevice& device = devices[number];
    std::byte* const at = device.contents.data() + command.lba() * device.block_size;
    const std::size_t size = std::size_t{command.blocks()} * device.block_size;
    switch (command.fis.command) {
    case Command::READ_FPDMA_QUEUED:
    case Command::READ_DMA_EXT: return move(number, command.slot, at, size, false);
    case Command::WRITE_FPDMA_QUEUED:
    case Command::WRITE_DMA_EXT: return move(number, command.slot, at, size, true);
    case Command::IDENTIFY_DEVICE: {
        auto data = identity_of(device);
        if (device.garbles_identity > 0) {
            --device.garbles_identity;
            data[0] ^= std::byte{1};
        }
        return move(number, command.slot, data.data(), data.size(), false);
    }
    case Command::READ_LOG_EXT: {
        misused = misused || command.lba() != ata::kNcqErrorLog || command.blocks() != 1;
        auto data = error_log_of(device);
        device.failed_tag.reset();
        return move(number, command.slot, data.data(), data.size(), false);
    }
    case Command::DATA_SET_MANAGEMENT: {
        misused = misused || command.fis.features_low != ata::TRIM || command.blocks() != 1;
        std::array<std::byte, ata::kDataBlock> data;
        move(number, command.slot, data.data(), data.size(), true);
        for (std::size_t i = 0; i < data.size(); i += 8) {
            const auto range = load<std::uint64_t>(&data[i]);
            if (range >> 48 != 0)
                device.trimmed.emplace_back(range & (bit(48) - 1), range >> 48);
        }
        return;
    }
    case Command::FLUSH_CACHE:
    case Command::FLUSH_CACHE_EXT:
    case Command::STANDBY_IMMEDIATE: return;
    }
    misused = true;
}

void AhciHba::move(unsigned number, unsigned slot, std::byte* data, std::size_t size, bool to_device) {
    const auto& header = machine::hva<PortPage>(Hpa{ports_[number].clb})->list[slot];
    const auto& table = *machine::hva<CommandTable>(Hpa{header.ctba});
    misused = misused || ((header.flags & kHeaderWrite) != 0) != to_device;
    for (unsigned i = 0; i < header.prdtl; ++i) {
        const PrdtEntry& entry = table.prdt[i];
        const std::size_t bytes = std::size_t{entry.dbc} + 1;
        misused =
            misused || (entry.dba & 1) != 0 || (bytes & 1) != 0 || bytes > kMaxPrdtBytes || bytes > size;
        if (misused)
            return;
        std::byte* const memory = machine::hva(Hpa{entry.dba});
        std::memcpy(to_device ? data : memory, to_device ? memory : data, bytes);
        data += bytes;
        size -= bytes;
    }
    misused = misused || size != 0;
}

}  // namespace hv::fake
