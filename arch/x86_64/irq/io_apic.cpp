// SPDX-License-Identifier: MIT
#include "arch/x86_64/irq/io_apic.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "vmm/base/guarded.hpp"

#include <array>

namespace hv::irq {
namespace {

constexpr std::uint32_t kVersion = 0x01;
constexpr std::uint32_t kRedirection = 0x10;
constexpr std::uint32_t kMasked = 1U << 16;

struct Chip {
    volatile std::uint32_t* registers;
    std::uint32_t first_gsi;
    std::uint32_t inputs;

    [[nodiscard]] std::uint32_t read(std::uint32_t index) const {
        registers[0] = index;
        return registers[4];
    }
    void write(std::uint32_t index, std::uint32_t value) const {
        registers[0] = index;
        registers[4] = value;
    }
};

struct Chips {
    std::array<Chip, 16> chip{};
    std::size_t count{0};

    /// Calls `use(chip, index)` with the low half of the input's entry. Error::not_found: nobody has it.
    template <class Use>
    Expected<void> with_entry(std::uint32_t gsi, Use&& use) const {
        for (std::size_t i = 0; i < count; ++i) {
            if (gsi - chip[i].first_gsi < chip[i].inputs) {
                use(chip[i], kRedirection + 2 * (gsi - chip[i].first_gsi));
                return {};
            }
        }
        return Unexpected{Error::not_found};
    }
};
constinit Guarded<Chips, Rank::leaf> chips;

}  // namespace

Expected<void> add_io_apic(Hpa registers, std::uint32_t first_gsi) {
    auto* mapped = HV_TRY(cpu::map_device<volatile std::uint32_t>(registers, kPageSize));
    return chips.with([&](Chips& all) -> Expected<void> {
        if (all.count == all.chip.size())
            return Unexpected{Error::out_of_range};
        Chip chip{mapped, first_gsi, 0};
        chip.inputs = (chip.read(kVersion) >> 16 & 0xff) + 1;
        for (std::uint32_t input = 0; input < chip.inputs; ++input)
            chip.write(kRedirection + 2 * input, kMasked);
        all.chip[all.count++] = chip;
        return {};
    });
}

Expected<void> route_gsi(std::uint32_t gsi, std::uint8_t vector, std::uint32_t apic_id, Polarity polarity,
                         Trigger trigger) {
    return chips.with([&](const Chips& all) {
        return all.with_entry(gsi, [&](const Chip& chip, std::uint32_t index) {
            chip.write(index + 1, apic_id << 24);
            chip.write(index, vector | (polarity == Polarity::active_low ? 1U << 13 : 0) |
                                  (trigger == Trigger::level ? 1U << 15 : 0));
        });
    });
}

void mask_gsi(std::uint32_t gsi, bool masked) {
    static_cast<void>(chips.with([&](const Chips& all) {
        return all.with_entry(gsi, [&](const Chip& chip, std::uint32_t index) {
            const std::uint32_t entry = chip.read(index);
            chip.write(index, masked ? entry | kMasked : entry & ~kMasked);
        });
    }));
}

void silence_legacy_pics() {
    cpu::out8(0x21, 0xff);
    cpu::out8(0xa1, 0xff);
}

}  // namespace hv::irq
