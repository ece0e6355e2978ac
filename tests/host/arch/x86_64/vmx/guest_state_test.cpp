// SPDX-License-Identifier: MIT
#include "arch/x86_64/vmx/fake_machine.hpp"
#include "arch/x86_64/vmx/guest_state.hpp"
#include "arch/x86_64/vmx/recorded_msrs.hpp"
#include "arch/x86_64/vmx/vmcs_setup.hpp"
#include "catch.hpp"

#include <vector>

using namespace hv;
using namespace hv::vmx;
using namespace hv::vmx::test;

namespace {

/// Writes control state and reads it back as the guest sees it.
CpuState round_trip(FakeVmcs& vmcs, const CpuState& in) {
    write_control(vmcs, in, broadwell_controls());
    CpuState out{};
    read_control(vmcs, out);
    return out;
}

}  // namespace

TEST_CASE("the guest sees its own control registers, the processor what VMX needs", "[vmx]") {
    FakeVmcs vmcs;
    CpuState in{};
    SECTION("after RESET: caches off, real mode") {
        in.cr0 = CR0_CD | CR0_NW | CR0_ET;
        CHECK(round_trip(vmcs, in).cr0 == in.cr0);
        CHECK(vmcs.read(GUEST_CR0) == (CR0_ET | CR0_NE));
        CHECK(vmcs.read(GUEST_CR4) == (CR4_VMXE | CR4_MCE));
        CHECK(round_trip(vmcs, in).cr4 == 0);
    }
    SECTION("64-bit mode") {
        in.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
        in.cr3 = 0x1000;
        in.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_SMEP | CR4_FSGSBASE;
        in.efer = EFER_LME | EFER_NXE | EFER_SCE;
        const CpuState out = round_trip(vmcs, in);
        CHECK(out.cr0 == in.cr0);
        CHECK(out.cr3 == 0x1000);
        CHECK(out.cr4 == in.cr4);
        CHECK(out.efer == (in.efer | EFER_LMA));
        CHECK((vmcs.read(VM_ENTRY_CONTROLS) & vm_entry::IA32E_MODE_GUEST) != 0);
        CHECK((vmcs.read(GUEST_CR4) & (CR4_SMEP | CR4_VMXE)) == (CR4_SMEP | CR4_VMXE));
    }
    SECTION("long mode enabled, paging not yet on") {
        in.cr0 = CR0_PE | CR0_ET;
        in.efer = EFER_LME | EFER_LMA;  // LMA is not the caller's to decide
        CHECK(round_trip(vmcs, in).efer == EFER_LME);
        CHECK((vmcs.read(VM_ENTRY_CONTROLS) & vm_entry::IA32E_MODE_GUEST) == 0);
    }
}

TEST_CASE("what the guest changes by itself is seen, what the VMM owns is not", "[vmx]") {
    FakeVmcs vmcs;
    CpuState in{};
    in.cr0 = CR0_PE | CR0_ET;
    in.cr4 = CR4_PAE;
    write_control(vmcs, in, broadwell_controls());
    // The guest sets PG and TS and clears PAE without an exit; the processor keeps NE, VMXE and MCE for
    // itself.
    vmcs.write(GUEST_CR0, vmcs.read(GUEST_CR0) | CR0_PG | CR0_TS);
    vmcs.write(GUEST_CR4, vmcs.read(GUEST_CR4) & ~CR4_PAE);
    CpuState out{};
    read_control(vmcs, out);
    CHECK(out.cr0 == (CR0_PE | CR0_ET | CR0_PG | CR0_TS));
    CHECK(out.cr4 == 0);
}

TEST_CASE("the VMM owns the bits that are not the guest's to flip", "[vmx]") {
    FakeVmcs vmcs;
    write_controls(vmcs, broadwell_controls(), {});
    const std::uint64_t cr0 = vmcs.read(CR0_GUEST_HOST_MASK), cr4 = vmcs.read(CR4_GUEST_HOST_MASK);
    for (const std::uint64_t owned : {CR0_CD, CR0_NW, CR0_NE, CR0_ET})
        CHECK((cr0 & owned) != 0);
    for (const std::uint64_t free : {CR0_PE, CR0_PG, CR0_WP, CR0_TS, CR0_MP, CR0_EM, CR0_AM})
        CHECK((cr0 & free) == 0);
    for (const std::uint64_t owned :
         {CR4_VMXE, CR4_SMXE, CR4_MCE, CR4_SMEP, CR4_SMAP, CR4_PCIDE, CR4_OSXSAVE, CR4_LA57, CR4_FSGSBASE})
        CHECK((cr4 & owned) != 0);
    for (const std::uint64_t free : {CR4_PGE, CR4_PAE, CR4_PSE, CR4_OSFXSR})
        CHECK((cr4 & free) == 0);
}

TEST_CASE("segments keep what the neutral shape says", "[vmx]") {
    const Segment code64{0x10, 0xa9b, 0xffff'ffff, 0};  // G, L, present, execute/read, accessed
    CHECK(access_rights(code64, 1) == 0xa09b);
    FakeVmcs vmcs;
    write_segment(vmcs, 1, code64);
    const Segment back = read_segment(vmcs, 1);
    CHECK((back.selector == 0x10 && back.attributes == 0xa9b && back.limit == 0xffff'ffff && back.base == 0));
}

TEST_CASE("segments are made acceptable to VM entry", "[vmx]") {
    // Not present: unusable, SS' DPL stays as the CPL.
    CHECK(access_rights({0, 0x0060, 0, 0}, 2) == 0x1'0060);
    CHECK(attributes_of(0x1'0060) == 0x0060);
    CHECK(attributes_of(0x1'00f3) == 0x0073);  // present is cleared: unusable
    // Loaded segments count as accessed.
    CHECK(access_rights({8, 0x092, 0xffff, 0}, 3) == 0x93);
    // G follows the limit.
    CHECK(access_rights({8, 0x893, 0x1234, 0}, 3) == 0x0093);
    CHECK(access_rights({8, 0x093, 0xffff'ffff, 0}, 3) == 0x8093);
    // TR is always usable and busy.
    CHECK(access_rights({0x18, 0x089, 0x67, 0}, kTr) == 0x8b);
    CHECK(access_rights({0x18, 0x081, 0x67, 0}, kTr) == 0x83);
    CHECK(access_rights({0, 0x000, 0xffff, 0}, kTr) == 0x8b);
    // LDTR is an LDT or unusable.
    CHECK(access_rights({0x28, 0x082, 0xfff, 0}, kLdtr) == 0x82);
    CHECK((access_rights({0x28, 0x093, 0xfff, 0}, kLdtr) & 0x1'0000) != 0);
    CHECK((access_rights({0, 0x002, 0, 0}, kLdtr) & 0x1'0000) != 0);
}

TEST_CASE("PDPTEs count in PAE paging only", "[vmx]") {
    CHECK(uses_pdptes(CR0_PG, CR4_PAE, 0));
    CHECK_FALSE(uses_pdptes(0, CR4_PAE, 0));
    CHECK_FALSE(uses_pdptes(CR0_PG, 0, 0));
    CHECK_FALSE(uses_pdptes(CR0_PG, CR4_PAE, EFER_LME | EFER_LMA));
}

TEST_CASE("the MSR bitmap lets through what is switched with the vCPU and nothing else", "[vmx]") {
    std::vector<std::byte> bitmap(kPageSize, std::byte{0xff});
    for (const Msr msr : kUninterceptedMsrs)
        allow_msr(std::span<std::byte, kPageSize>{bitmap}, msr);
    const auto intercepted = [&](Msr msr, bool write) {
        // [sdm3 25.6.9 MSR-Bitmap Address], counted in bits
        const auto index = static_cast<std::uint32_t>(msr);
        const std::size_t position =
            (write ? 0x4000u : 0u) + (index >= 0xc000'0000 ? 0x2000u : 0u) + (index & 0x1fff);
        return (std::to_integer<unsigned>(bitmap[position / 8]) >> (position % 8) & 1) != 0;
    };
    for (const bool write : {false, true}) {
        for (const Msr msr : {Msr::IA32_FS_BASE, Msr::IA32_GS_BASE, Msr::IA32_KERNEL_GS_BASE, Msr::IA32_LSTAR,
                              Msr::IA32_SYSENTER_EIP})
            CHECK_FALSE(intercepted(msr, write));
        for (const Msr msr : {Msr::IA32_EFER, Msr::IA32_PAT, Msr::IA32_APIC_BASE, Msr::IA32_TSC_DEADLINE,
                              Msr::IA32_TIME_STAMP_COUNTER, Msr::IA32_TSC_AUX, Msr::IA32_FEATURE_CONTROL,
                              Msr::IA32_X2APIC_EOI, Msr::IA32_XSS})
            CHECK(intercepted(msr, write));
    }
    std::size_t clear = 0;
    for (const std::byte byte : bitmap)
        clear += 8 - static_cast<std::size_t>(std::popcount(std::to_integer<unsigned>(byte)));
    CHECK(clear == 2 * std::size(kUninterceptedMsrs));
}
