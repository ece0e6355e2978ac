// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cr.hpp"
#include "catch.hpp"
#include "guest.hpp"
#include "vmm/x86/page_walk.hpp"

namespace hv::x86 {
namespace {

using Status = Translation::Status;

constexpr std::uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kPs = 0x80,
                        kNx = std::uint64_t{1} << 63;

PagingState four_level() {
    return {CR0_PG | CR0_PE | CR0_WP, Guest::kRoot, CR4_PAE, EFER_LMA | EFER_LME | EFER_NXE, false};
}
PagingState pae() {
    return {CR0_PG | CR0_PE | CR0_WP, Guest::kRoot, CR4_PAE, EFER_NXE, false};
}
PagingState two_level() {
    return {CR0_PG | CR0_PE | CR0_WP, Guest::kRoot, CR4_PSE, 0, false};
}

struct Tables : Guest {
    template <class T>
    void set(std::uint64_t at, T entry) {
        memory.store(Gpa{at}, entry).value();
    }
    template <class T>
    T get(std::uint64_t at) {
        return memory.load<T>(Gpa{at}).value();
    }
    Translation go(const PagingState& paging, std::uint64_t linear, Access access,
                   Accessor accessor = Accessor::supervisor) {
        return walk(paging, cpu, memory, linear, access, accessor);
    }
};

}  // namespace

TEST_CASE("without paging linear addresses are physical", "[x86]") {
    Tables t;
    const Translation result = t.go({CR0_PE, 0, 0, 0, false}, 0x1234'5678, Access::write);
    CHECK(result.status == Status::ok);
    CHECK(result.gpa == Gpa{0x1234'5678});
}

TEST_CASE("4-level paging reaches 4 KiB, 2 MiB and 1 GiB pages", "[x86]") {
    Tables t;
    const std::uint64_t linear = 0xffff'8880'4060'3123;
    t.set(0x1000 + (linear >> 39 & 511) * 8, 0x2000 | kP | kW);
    const std::uint64_t pdpte = 0x2000 + (linear >> 30 & 511) * 8;
    const std::uint64_t pde = 0x3000 + (linear >> 21 & 511) * 8;
    const std::uint64_t pte = 0x4000 + (linear >> 12 & 511) * 8;
    SECTION("4 KiB") {
        t.set(pdpte, 0x3000 | kP | kW);
        t.set(pde, 0x4000 | kP | kW);
        t.set(pte, 0x12'3456'7000 | kP | kW);
        CHECK(t.go(four_level(), linear, Access::read).gpa == Gpa{0x12'3456'7123});
        CHECK(t.get<std::uint64_t>(pte) == (0x12'3456'7000 | kP | kW | kA));
        CHECK(t.get<std::uint64_t>(pde) == (0x4000 | kP | kW | kA));
        CHECK(t.go(four_level(), linear, Access::write).status == Status::ok);
        CHECK(t.get<std::uint64_t>(pte) == (0x12'3456'7000 | kP | kW | kA | kD));
        CHECK(t.get<std::uint64_t>(pde) == (0x4000 | kP | kW | kA));
    }
    SECTION("2 MiB") {
        t.set(pdpte, 0x3000 | kP | kW);
        t.set(pde, 0x12'3460'0000 | kP | kW | kPs);
        CHECK(t.go(four_level(), linear, Access::write).gpa == Gpa{0x12'3460'3123});
        t.set(pde, 0x12'3460'2000 | kP | kW | kPs);
        CHECK(t.go(four_level(), linear, Access::read).error_code == (PAGE_FAULT_P | PAGE_FAULT_RSVD));
    }
    SECTION("1 GiB, where the processor has them") {
        t.set(pdpte, 0x12'4000'0000 | kP | kW | kPs);
        CHECK(t.go(four_level(), linear, Access::write).gpa == Gpa{0x12'4060'3123});
        t.cpu.has_1g_pages = false;
        CHECK(t.go(four_level(), linear, Access::read).error_code == (PAGE_FAULT_P | PAGE_FAULT_RSVD));
    }
    SECTION("an address beyond the processor's physical addresses is reserved") {
        t.set(pdpte, 0x100'0000'3000 | kP | kW);
        CHECK(t.go(four_level(), linear, Access::read).error_code == (PAGE_FAULT_P | PAGE_FAULT_RSVD));
    }
    SECTION("a table outside RAM ends the walk") {
        t.set(pdpte, 0xd000'0000 | kP | kW);
        CHECK(t.go(four_level(), linear, Access::read).status == Status::not_memory);
    }
    SECTION("nothing is marked when the access fails") {
        t.set(pdpte, 0x3000 | kP | kW);
        CHECK(t.go(four_level(), linear, Access::write).status == Status::page_fault);
        CHECK(t.get<std::uint64_t>(pdpte) == (0x3000 | kP | kW));
    }
}

TEST_CASE("PAE paging has four top-level entries without rights", "[x86]") {
    Tables t;
    const std::uint64_t linear = 0xc060'3123;
    PagingState paging = pae();
    paging.cr3 = 0x1020;
    t.set(0x1020 + 3 * 8, 0x3000 | kP);
    t.set(0x3000 + (linear >> 21 & 511) * 8, 0x4000 | kP | kW | kU);
    t.set(0x4000 + (linear >> 12 & 511) * 8, 0x12'3456'7000 | kP | kW | kU | kNx);
    CHECK(t.go(paging, linear, Access::write, Accessor::user).gpa == Gpa{0x12'3456'7123});
    CHECK(t.get<std::uint64_t>(0x1020 + 3 * 8) == (0x3000 | kP));
    CHECK(t.go(paging, linear, Access::execute, Accessor::user).error_code ==
          (PAGE_FAULT_P | PAGE_FAULT_US | PAGE_FAULT_ID));
}

TEST_CASE("32-bit paging reaches 4 KiB pages and, with PSE, 4 MiB pages above 4 GiB", "[x86]") {
    Tables t;
    const std::uint64_t linear = 0x0060'3123;
    t.set(0x1004, std::uint32_t(0x4000 | kP | kW));
    t.set(0x4000 + (linear >> 12 & 1023) * 4, std::uint32_t(0x5678'9000 | kP | kW));
    CHECK(t.go(two_level(), linear, Access::write).gpa == Gpa{0x5678'9123});
    t.set(0x1004, std::uint32_t(0x1240'0000 | 0x2'6000 | kP | kW | kPs));
    CHECK(t.go(two_level(), linear, Access::write).gpa == Gpa{0x13'1260'3123});
    PagingState without_pse = two_level();
    without_pse.cr4 = 0;
    CHECK(t.go(without_pse, linear, Access::read).status == Status::not_memory);  // a table at 0x12426000
    t.set(0x1004, std::uint32_t(0x1260'0000 | kP | kPs));                         // bit 21
    CHECK(t.go(two_level(), linear, Access::read).error_code == (PAGE_FAULT_P | PAGE_FAULT_RSVD));
}

TEST_CASE("rights are those of all levels together, as CR0, CR4 and EFER have it", "[x86]") {
    Tables t;
    t.map(0x40'0000, 0x5000, kP);
    t.map(0x40'1000, 0x5000, kP | kW);
    t.map(0x40'2000, 0x5000, kP | kU);
    t.map(0x40'3000, 0x5000, kP | kW | kU);
    t.map(0x40'4000, 0x5000, kP | kW | kU | kNx);
    for (unsigned options = 0; options < 32; ++options) {
        const bool wp = options & 1, smep = options & 2, smap = options & 4, ac = options & 8,
                   nxe = options & 16;
        PagingState paging = four_level();
        if (!wp)
            paging.cr0 &= ~CR0_WP;
        if (!nxe)
            paging.efer &= ~EFER_NXE;
        paging.cr4 |= (smep ? CR4_SMEP : 0) | (smap ? CR4_SMAP : 0);
        paging.alignment_check = ac;
        for (unsigned page = 0; page < 5; ++page)
            for (const Access access : {Access::read, Access::write, Access::execute})
                for (const Accessor accessor :
                     {Accessor::supervisor, Accessor::user, Accessor::implicit_supervisor}) {
                    const bool writable = page == 1 || page >= 3, user_page = page >= 2, nx = page == 4;
                    const bool user = accessor == Accessor::user;
                    bool allowed = true;
                    if (user && !user_page)
                        allowed = false;
                    if (access == Access::write && !writable && (user || wp))
                        allowed = false;
                    if (access == Access::execute && (nx || (!user && user_page && smep)))
                        allowed = false;
                    if (!user && user_page && smap && access != Access::execute &&
                        (!ac || accessor == Accessor::implicit_supervisor))
                        allowed = false;
                    const bool reserved = nx && !nxe;
                    std::uint32_t code = PAGE_FAULT_P | (access == Access::write ? PAGE_FAULT_WR : 0) |
                                         (user ? PAGE_FAULT_US : 0) | (reserved ? PAGE_FAULT_RSVD : 0);
                    if (access == Access::execute && (nxe || smep))
                        code |= PAGE_FAULT_ID;
                    const Translation result = t.go(paging, 0x40'0000 + page * kPageSize, access, accessor);
                    CAPTURE(options, page, static_cast<int>(access), static_cast<int>(accessor));
                    if (allowed && !reserved) {
                        CHECK(result.status == Status::ok);
                    } else {
                        CHECK(result.status == Status::page_fault);
                        CHECK(result.error_code == code);
                    }
                }
    }
}

TEST_CASE("a trace tells when a translation no longer holds", "[x86]") {
    Tables t;
    t.map(0x40'0000, 0x5000, kP | kW);
    WalkTrace trace{};
    REQUIRE(walk(four_level(), t.cpu, t.memory, 0x40'0000, Access::execute, Accessor::supervisor, &trace)
                .status == Status::ok);
    CHECK(trace.unchanged());
    REQUIRE(t.go(four_level(), 0x40'0000, Access::write).status == Status::ok);  // sets the dirty bit
    CHECK(trace.unchanged());
    t.map(0x40'0000, 0x6000, kP | kW);
    CHECK_FALSE(trace.unchanged());
}

}  // namespace hv::x86
