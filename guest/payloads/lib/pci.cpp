// SPDX-License-Identifier: MIT
#include "lib/pci.hpp"

#include "lib/cpu.hpp"
#include "lib/runtime.hpp"

namespace payload::pci {
namespace {

constexpr std::uint16_t kAddress = 0xcf8;
constexpr std::uint16_t kData = 0xcfc;
constexpr std::uint8_t kCommand = 0x04;
constexpr std::uint8_t kBar0 = 0x10;
constexpr std::uint32_t kMemoryAndMaster = 0x6;
constexpr std::uint32_t kType64Bit = 0x4;

std::uint32_t next_free = 0xd000'0000;  // for BARs that no firmware has placed

void select(Function f, std::uint8_t offset) {
    out32(kAddress, 0x8000'0000u | static_cast<std::uint32_t>(f.device) << 11 |
                        static_cast<std::uint32_t>(f.function) << 8 | (offset & 0xfcu));
}

}  // namespace

std::uint32_t read(Function f, std::uint8_t offset) {
    select(f, offset);
    return in32(kData);
}

void write(Function f, std::uint8_t offset, std::uint32_t value) {
    select(f, offset);
    out32(kData, value);
}

std::uint8_t read8(Function f, std::uint8_t offset) {
    return static_cast<std::uint8_t>(read(f, offset) >> (offset % 4 * 8));
}

bool find(std::uint16_t vendor, std::uint16_t device, unsigned n, Function& found) {
    for (std::uint8_t slot = 0; slot < 32; ++slot)
        for (std::uint8_t function = 0; function < 8; ++function) {
            const Function f{slot, function};
            if (read(f, 0) != (static_cast<std::uint32_t>(device) << 16 | vendor) || n-- != 0)
                continue;
            found = f;
            return true;
        }
    return false;
}

std::uint64_t bar(Function f, unsigned index) {
    const auto offset = static_cast<std::uint8_t>(kBar0 + 4 * index);
    const bool wide = (read(f, offset) & kType64Bit) != 0;
    std::uint64_t base = read(f, offset) & ~0xfu;
    if (wide)
        base |= std::uint64_t{read(f, static_cast<std::uint8_t>(offset + 4))} << 32;
    if (base == 0) {
        write(f, offset, ~0u);
        const std::uint32_t size = ~(read(f, offset) & ~0xfu) + 1;
        CHECK(size != 0);
        next_free = (next_free + size - 1) & ~(size - 1);
        base = next_free;
        next_free += size;
        write(f, offset, static_cast<std::uint32_t>(base));
        if (wide)
            write(f, static_cast<std::uint8_t>(offset + 4), 0);
    }
    write(f, kCommand, kMemoryAndMaster);
    if (base >> 32 != 0)
        map_high(base);
    return base;
}

}  // namespace payload::pci
