// SPDX-License-Identifier: MIT
// Where EPT entries are made: the radix table's format for VT-x, and a guest's address space of it.
//
// All that is mapped is RAM, so every leaf is write-back and ignores the guest's PAT [sdm3 29.3.7.2 Memory
// Type Used for Translated Guest-Physical Addresses]. A guest that could read its RAM uncached would find
// there what stood in memory before the hypervisor's zeroes left the caches. Accessed and dirty flags stay
// off: nobody reads them, and with them the guest's page walks count as writes, which page tables in
// read-only memory would not survive.
#pragma once

#include "arch/x86_64/defs/ept.hpp"
#include "arch/x86_64/defs/vmx.hpp"
#include "arch/x86_64/paging/nested_address_space.hpp"
#include "arch/x86_64/vmx/apic_access.hpp"
#include "vmm/base/address.hpp"
#include "vmm/core/guest_address_space.hpp"

#include <cstdint>

namespace hv::vmx {

class EptFormat {
public:
    /// What is present can be read: execute-only and write-only entries are misconfigurations on some
    /// processors.
    struct Attributes {
        bool write;
        bool execute;
        bool operator==(const Attributes&) const = default;
    };
    static constexpr unsigned kLevels = 4;
    static constexpr bool kSignExtended = false;

    /// `ept_vpid_cap`: IA32_VMX_EPT_VPID_CAP.
    explicit constexpr EptFormat(std::uint64_t ept_vpid_cap)
        : largest_leaf_level_{EptVpidCap::Page1G::test(ept_vpid_cap)   ? 3U
                              : EptVpidCap::Page2M::test(ept_vpid_cap) ? 2U
                                                                       : 1U} {}

    [[nodiscard]] constexpr unsigned largest_leaf_level() const { return largest_leaf_level_; }
    [[nodiscard]] constexpr std::uint64_t make_leaf(unsigned level, Hpa hpa, Attributes attributes) const {
        return hpa.raw | EptEntry::Read::kMask | EptEntry::Write::make(attributes.write) |
               EptEntry::Execute::make(attributes.execute) | EptEntry::MemoryType::make(EPT_MEMORY_TYPE_WB) |
               EptEntry::IgnorePat::kMask | EptEntry::Large::make(level > 1);
    }
    [[nodiscard]] constexpr std::uint64_t make_table(Hpa hpa) const {
        return hpa.raw | EptEntry::Rights::kMask;
    }
    static constexpr bool is_present(std::uint64_t entry) { return EptEntry::Rights::test(entry); }
    static constexpr bool is_leaf(unsigned level, std::uint64_t entry) {
        return level == 1 || EptEntry::Large::test(entry);
    }
    static constexpr Hpa address(unsigned, std::uint64_t entry) {
        return Hpa{entry & EptEntry::Frame::kMask};
    }
    static constexpr Attributes attributes(unsigned, std::uint64_t entry) {
        return {EptEntry::Write::test(entry), EptEntry::Execute::test(entry)};
    }

    static constexpr Attributes attributes_of(GuestAccess access) {
        const auto bits = static_cast<unsigned>(access);
        return {(bits & static_cast<unsigned>(GuestAccess::write)) != 0,
                (bits & static_cast<unsigned>(GuestAccess::execute)) != 0};
    }
    /// The EPT pointer.
    [[nodiscard]] constexpr std::uint64_t root(Hpa table) const {
        return table.raw | Eptp::MemoryType::make(EPT_MEMORY_TYPE_WB) |
               Eptp::WalkLengthMinus1::make(kLevels - 1);
    }

private:
    unsigned largest_leaf_level_;
};

/// A VM's: with the page where its local APICs are.
class EptAddressSpace final : public paging::NestedAddressSpace<EptFormat> {
public:
    static Expected<std::unique_ptr<GuestAddressSpace>> create(FrameSource& frames, EptFormat format) {
        Table table = HV_TRY(Table::create(format, paging::FrameTables{frames}));
        auto* space = new (std::nothrow) EptAddressSpace{std::move(table)};
        if (space == nullptr)
            return Unexpected{Error::no_memory};
        return std::unique_ptr<GuestAddressSpace>{space};
    }
    /// Of a space that create() made.
    static EptAddressSpace& of(GuestAddressSpace& space) { return static_cast<EptAddressSpace&>(space); }
    [[nodiscard]] ApicAccess& apic_access() { return apic_access_; }

private:
    explicit EptAddressSpace(Table table) : NestedAddressSpace{std::move(table)} {}

    ApicAccess apic_access_;
};

}  // namespace hv::vmx
