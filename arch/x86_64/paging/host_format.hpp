// SPDX-License-Identifier: MIT
// The host's own page tables [sdm3 4.5.4 Linear-Address Translation with 4-Level Paging and 5-Level Paging]:
// supervisor pages, four levels.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/bits.hpp"

#include <cstdint>

namespace hv::paging {

/// Memory types as indices into kHostPat; bit 0 is PWT, bit 1 PCD, and PAT stays clear.
enum class CacheType : std::uint8_t { write_back = 0, write_combining = 1, uncached = 3 };

/// What every CPU has in IA32_PAT before it uses a table of this format: the value after reset, with WC in
/// entry 1 [sdm3 12.12.4 Programming the PAT].
inline constexpr std::uint64_t kHostPat = 0x0007'0406'0007'0106;

class HostFormat {
public:
    struct Attributes {
        bool write{};
        bool execute{};
        bool global{true};
        CacheType cache{CacheType::write_back};
        bool operator==(const Attributes&) const = default;
    };
    static constexpr unsigned kLevels = 4;
    static constexpr bool kSignExtended = true;

    /// `has_1g`: CPUID.80000001H:EDX.Page1GB[bit 26].
    explicit constexpr HostFormat(bool has_1g) : largest_leaf_level_{has_1g ? 3U : 2U} {}

    [[nodiscard]] constexpr unsigned largest_leaf_level() const { return largest_leaf_level_; }
    [[nodiscard]] constexpr std::uint64_t make_leaf(unsigned level, Hpa hpa, Attributes attributes) const {
        return hpa.raw | Present::kMask | Write::make(attributes.write) |
               Cache::make(static_cast<std::uint64_t>(attributes.cache)) | Large::make(level > 1) |
               Global::make(attributes.global) | NoExecute::make(!attributes.execute);
    }
    [[nodiscard]] constexpr std::uint64_t make_table(Hpa hpa) const {
        return hpa.raw | Present::kMask | Write::kMask;
    }
    static constexpr bool is_present(std::uint64_t entry) { return Present::test(entry); }
    static constexpr bool is_leaf(unsigned level, std::uint64_t entry) {
        return level == 1 || Large::test(entry);
    }
    static constexpr Hpa address(unsigned, std::uint64_t entry) { return Hpa{entry & Frame::kMask}; }
    static constexpr Attributes attributes(unsigned, std::uint64_t entry) {
        return {Write::test(entry), !NoExecute::test(entry), Global::test(entry),
                static_cast<CacheType>(Cache::get(entry))};
    }

private:
    using Present = Bits<0>;
    using Write = Bits<1>;
    using Cache = Bits<4, 3>;  ///< PCD, PWT
    using Large = Bits<7>;     ///< PS; PAT at level 1, which is never set
    using Global = Bits<8>;
    using Frame = Bits<51, 12>;
    using NoExecute = Bits<63>;

    unsigned largest_leaf_level_;
};

}  // namespace hv::paging
