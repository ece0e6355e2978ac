// SPDX-License-Identifier: MIT
// A guest's physical address space by nested page tables of one format: NestedAddressSpace<NptFormat> on
// AMD-V, and its EPT sister on VT-x. Beside what RadixTable asks of it, the format says what a GuestAccess
// means (attributes_of) and what the processor gets as root.
#pragma once

#include "arch/x86_64/paging/frame_tables.hpp"
#include "arch/x86_64/paging/radix_table.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/core/guest_address_space.hpp"

#include <memory>
#include <new>

namespace hv::paging {

template <TableFormat Format>
class NestedAddressSpace : public GuestAddressSpace {
protected:
    using Table = RadixTable<Format, FrameTables>;

public:
    static Expected<std::unique_ptr<GuestAddressSpace>> create(FrameSource& frames, Format format) {
        Table table = HV_TRY(Table::create(format, FrameTables{frames}));
        auto* space = new (std::nothrow) NestedAddressSpace{std::move(table)};
        if (space == nullptr)
            return Unexpected{Error::no_memory};
        return std::unique_ptr<GuestAddressSpace>{space};
    }

    Expected<void> map(Gpa gpa, Hpa hpa, std::uint64_t length, GuestAccess access) override {
        return update(
            [&](Table& table) { return table.map(gpa.raw, hpa, length, Format::attributes_of(access)); });
    }
    Expected<void> unmap(Gpa gpa, std::uint64_t length) override {
        return update([&](Table& table) { return table.unmap(gpa.raw, length); });
    }
    [[nodiscard]] std::optional<Hpa> translate(Gpa gpa) const override {
        return table_.with([&](const Table& table) { return table.translate(gpa.raw); });
    }
    [[nodiscard]] std::uint64_t root() const override { return root_; }
    [[nodiscard]] std::uint64_t table_bytes() const override {
        return table_.with([](const Table& table) { return table.tables() * kPageSize; });
    }
    void reclaim(std::uint64_t flushed) override {
        table_.with([&](Table& table) {
            if (flushed == table.revision())
                table.release_retired();
        });
    }

protected:
    explicit NestedAddressSpace(Table table)
        : root_{table.format().root(table.root())}, table_{std::move(table)} {}

private:
    /// The new generation is visible before the caller goes on to make the CPUs flush.
    template <class Change>
    Expected<void> update(Change&& change) {
        return table_.with([&](Table& table) {
            auto result = change(table);
            set_generation(table.revision());
            return result;
        });
    }

    std::uint64_t root_;
    Guarded<Table, Rank::paging> table_;
};

}  // namespace hv::paging
