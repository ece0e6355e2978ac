// SPDX-License-Identifier: MIT
// Nested page tables of AMD-V: the long-mode format [apm2 15.25 Nested Paging]. A nested walk is a user
// access, so every entry has U/S set [apm2 15.25.5 Nested Table Walk]. Memory types: PAT index 0, write-back,
// in all entries, so that the guest's own PAT decides [apm2 15.25.8 Combining Memory Types, MTRRs].
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/core/guest_address_space.hpp"

#include <cstdint>

namespace hv::paging {

class NptFormat {
public:
    /// What is present can be read.
    struct Attributes {
        bool write;
        bool execute;
        bool operator==(const Attributes&) const = default;
    };
    static constexpr unsigned kLevels = 4;
    static constexpr bool kSignExtended = false;

    /// `has_1g`: CPUID Fn8000_0001_EDX[Page1GB].
    explicit constexpr NptFormat(bool has_1g) : largest_leaf_level_{has_1g ? 3U : 2U} {}

    [[nodiscard]] constexpr unsigned largest_leaf_level() const { return largest_leaf_level_; }
    [[nodiscard]] constexpr std::uint64_t make_leaf(unsigned level, Hpa hpa, Attributes attributes) const {
        return hpa.raw | kPresentUser | Write::make(attributes.write) | Large::make(level > 1) |
               NoExecute::make(!attributes.execute);
    }
    [[nodiscard]] constexpr std::uint64_t make_table(Hpa hpa) const {
        return hpa.raw | kPresentUser | Write::kMask;
    }
    static constexpr bool is_present(std::uint64_t entry) { return Present::test(entry); }
    static constexpr bool is_leaf(unsigned level, std::uint64_t entry) {
        return level == 1 || Large::test(entry);
    }
    static constexpr Hpa address(unsigned, std::uint64_t entry) { return Hpa{entry & Frame::kMask}; }
    static constexpr Attributes attributes(unsigned, std::uint64_t entry) {
        return {Write::test(entry), !NoExecute::test(entry)};
    }

    static constexpr Attributes attributes_of(GuestAccess access) {
        const auto bits = static_cast<unsigned>(access);
        return {(bits & static_cast<unsigned>(GuestAccess::write)) != 0,
                (bits & static_cast<unsigned>(GuestAccess::execute)) != 0};
    }
    /// nCR3.
    [[nodiscard]] constexpr std::uint64_t root(Hpa table) const { return table.raw; }

private:
    using Present = Bits<0>;
    using Write = Bits<1>;
    using User = Bits<2>;
    using Large = Bits<7>;
    using Frame = Bits<51, 12>;
    using NoExecute = Bits<63>;
    static constexpr std::uint64_t kPresentUser = Present::kMask | User::kMask;

    unsigned largest_leaf_level_;
};

}  // namespace hv::paging
