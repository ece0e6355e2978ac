// SPDX-License-Identifier: MIT
// Segment selectors and descriptors as they lie in memory [sdm3 3.4 Logical and Linear Addresses].
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/cpu_state.hpp"

#include <cstdint>
#include <optional>

namespace hv::x86 {

/// [sdm3 3.4.2 Segment Selectors]
struct Selector {
    static constexpr std::uint16_t kRpl = 3;
    static constexpr std::uint16_t kTableIndicator = 4;  ///< the LDT

    static constexpr bool is_null(std::uint16_t selector) { return (selector & ~kRpl) == 0; }
};

/// [sdm3 3.4.5 Segment Descriptors]
struct SegmentDescriptor {
    static constexpr unsigned kSize = 8;
    static constexpr unsigned kTypeByte = 5;

    // Of Segment::attributes [sdm3 3.4.5.1 Code- and Data-Segment Descriptor Types].
    static constexpr std::uint16_t kAccessed = 0x01;
    static constexpr std::uint16_t kReadableOrWritable = 0x02;
    static constexpr std::uint16_t kConforming = 0x04;  ///< of code; of data: expands down
    static constexpr std::uint16_t kCode = 0x08;
    static constexpr std::uint16_t kCodeOrData = 0x10;

    static constexpr Segment unpack(std::uint16_t selector, std::uint64_t raw) {
        const auto limit = static_cast<std::uint32_t>((raw & 0xffff) | (raw >> 32 & 0xf'0000));
        const auto attributes = static_cast<std::uint16_t>((raw >> 40 & 0xff) | (raw >> 44 & 0xf00));
        const bool in_pages = (attributes & 0x800) != 0;
        return {selector, attributes, in_pages ? limit << 12 | 0xfff : limit,
                (raw >> 16 & 0xff'ffff) | (raw >> 32 & 0xff00'0000)};
    }

    /// Linear address of `selector`'s descriptor; nullopt: it lies beyond its table. Of `state`: the
    /// descriptor tables and EFER.
    static constexpr std::optional<std::uint64_t> address(const CpuState& state, std::uint16_t selector) {
        const bool local = (selector & Selector::kTableIndicator) != 0;
        const std::uint64_t limit = local ? state.ldtr.limit : state.gdtr.limit;
        if ((local && !state.ldtr.present()) || (selector | 7U) > limit)
            return std::nullopt;
        const std::uint64_t linear = (local ? state.ldtr.base : state.gdtr.base) + (selector & ~7U);
        return (state.efer & EFER_LMA) != 0 ? linear : linear & 0xffff'ffff;
    }
};

}  // namespace hv::x86
