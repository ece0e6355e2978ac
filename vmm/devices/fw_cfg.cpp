// SPDX-License-Identifier: MIT
#include "vmm/devices/fw_cfg.hpp"

namespace hv {
namespace {

// Keys, and the bytes of their items, little-endian; what is not here has none.
constexpr std::uint16_t SIGNATURE = 0x00;
constexpr std::uint16_t ID = 0x01;
constexpr std::uint16_t RAM_SIZE = 0x03;
constexpr std::uint16_t NOGRAPHIC = 0x04;
constexpr std::uint16_t NB_CPUS = 0x05;
constexpr std::uint16_t MAX_CPUS = 0x0f;

constexpr std::uint64_t kSignature = 0x554d'4551;  ///< "QEMU"
constexpr std::uint64_t kTraditionalInterface = 1;

constexpr std::uint64_t kDataOffset = 1;

std::uint64_t item(std::uint16_t key, const FwCfg::Machine& machine) {
    switch (key) {
    case SIGNATURE: return kSignature;
    case ID: return kTraditionalInterface;
    case RAM_SIZE: return machine.ram;
    case NOGRAPHIC: return 1;
    case NB_CPUS:
    case MAX_CPUS: return machine.vcpus & 0xffff;
    default: return 0;  // among them the directory of files: it has no entry
    }
}

}  // namespace

void FwCfg::reset() {
    LockGuard guard{lock_};
    key_ = 0;
    position_ = 0;
}

std::uint8_t FwCfg::next_byte() {
    // Beyond an item's end there are zeros; no item is longer than eight bytes.
    if (position_ >= sizeof(std::uint64_t))
        return 0;
    return static_cast<std::uint8_t>(item(key_, machine_) >> (8 * position_++));
}

std::uint64_t FwCfg::read(std::uint64_t offset, unsigned size) {
    if (offset != kDataOffset)
        return all_ones(size);  // the selector is write-only
    LockGuard guard{lock_};
    return next_byte();
}

void FwCfg::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset != 0 || size != 2)
        return;
    LockGuard guard{lock_};
    key_ = static_cast<std::uint16_t>(value);
    position_ = 0;
}

}  // namespace hv
