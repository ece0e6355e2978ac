// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cr.hpp"
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/control_registers.hpp"

namespace hv::x86 {
namespace {

struct Machine {
    bool refused(unsigned number, std::uint64_t value) {
        const CpuState before = vcpu.state;
        const auto result = registers.write(number, value);
        const CpuState& now = vcpu.state;
        CHECK((result || (now.cr0 == before.cr0 && now.cr3 == before.cr3 && now.cr4 == before.cr4 &&
                          now.efer == before.efer)));
        return !result && result.error() == Error::guest_fault;
    }

    GuestCpu cpu{.physical_bits = 40,
                 .cr4_allowed = CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP,
                 .xcr0_allowed = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512};
    fake::ArenaFrames frames{};
    GuestMemory memory{GuestMemory::create(frames, kPage2M).value()};
    fake::FakeVcpuBackend vcpu;
    ControlRegisters registers{cpu, vcpu, memory};
};

}  // namespace

TEST_CASE("long mode is entered and left by CR0.PG", "[x86]") {
    Machine m;
    m.vcpu.enter_protected_mode();
    m.vcpu.state.efer = EFER_LME;
    CHECK(m.refused(0, CR0_PE | CR0_PG));  // without PAE
    REQUIRE(m.registers.write_cr4(CR4_PAE));
    REQUIRE(m.registers.write_cr0(CR0_PE | CR0_PG));
    CHECK(m.vcpu.state.efer == (EFER_LME | EFER_LMA));
    CHECK(m.vcpu.state.cr0 == (CR0_PE | CR0_PG | CR0_ET));
    CHECK(m.vcpu.flushes == 2);
    CHECK(m.refused(4, 0));  // PAE stays on in long mode
    m.vcpu.state.seg(SegmentName::cs).attributes = 0xa9b;
    CHECK(m.refused(0, CR0_PE));  // not from 64-bit code
    m.vcpu.state.seg(SegmentName::cs).attributes = 0xc9b;
    REQUIRE(m.registers.write_cr0(CR0_PE));
    CHECK(m.vcpu.state.efer == EFER_LME);
}

TEST_CASE("CR0 refuses what makes no sense and ignores what it does not have", "[x86]") {
    Machine m;
    m.vcpu.enter_protected_mode();
    CHECK(m.refused(0, CR0_PG));
    CHECK(m.refused(0, CR0_PE | CR0_NW));
    CHECK(m.refused(0, CR0_PE | 1ull << 32));
    REQUIRE(m.registers.write_cr0(CR0_PE | 1u << 10));
    CHECK(m.vcpu.state.cr0 == (CR0_PE | CR0_ET));
}

TEST_CASE("CR4 takes what CPUID offers", "[x86]") {
    Machine m;
    m.vcpu.enter_long_mode(0x1000);
    CHECK(m.refused(4, CR4_PAE | CR4_VMXE));
    CHECK(m.refused(4, CR4_PAE | CR4_SMAP));
    CHECK(m.refused(4, CR4_PAE | 1ull << 40));
    REQUIRE(m.registers.write_cr4(CR4_PAE | CR4_PCIDE));
    m.vcpu.state.seg(SegmentName::cs).attributes = 0xc9b;
    CHECK(m.refused(0, CR0_PE));  // PCIDE forbids leaving long mode
}

TEST_CASE("PCIDE needs long mode and PCID 0", "[x86]") {
    Machine m;
    m.vcpu.enter_protected_mode();
    CHECK(m.refused(4, CR4_PAE | CR4_PCIDE));
    m.vcpu.enter_long_mode(0x1005);
    CHECK(m.refused(4, CR4_PAE | CR4_PCIDE));
}

TEST_CASE("CR3 refuses addresses beyond the processor's, and bit 63 needs PCIDE", "[x86]") {
    Machine m;
    m.vcpu.enter_long_mode(0x1000);
    CHECK(m.refused(3, 1ull << 40));
    CHECK(m.refused(3, CR3_NO_FLUSH | 0x2000));
    m.vcpu.state.cr4 |= CR4_PCIDE;
    REQUIRE(m.registers.write_cr3(CR3_NO_FLUSH | 0x2005));
    CHECK(m.vcpu.state.cr3 == 0x2005);
    CHECK(m.vcpu.flushes == 1);
}

TEST_CASE("PAE's top-level entries are checked when they are loaded", "[x86]") {
    Machine m;
    m.vcpu.enter_protected_mode();
    m.vcpu.state.cr4 = CR4_PAE;
    m.memory.store(Gpa{0x1008}, std::uint64_t{0x2000 | 1 | 2}).value();  // R/W is reserved
    m.vcpu.state.cr3 = 0x1000;
    CHECK(m.refused(0, CR0_PE | CR0_PG));
    m.memory.store(Gpa{0x1008}, std::uint64_t{0x2000 | 2}).value();  // not present: not looked at
    REQUIRE(m.registers.write_cr0(CR0_PE | CR0_PG));
    m.memory.store(Gpa{0x2010}, std::uint64_t{1} | 1ull << 50).value();
    CHECK(m.refused(3, 0x2000));
    CHECK(m.refused(3, 0xd000'0000));  // no RAM
}

TEST_CASE("LMSW sets PE but does not clear it", "[x86]") {
    Machine m;
    m.vcpu.enter_real_mode();
    REQUIRE(m.registers.load_machine_status_word(0xffff & ~0x8));
    CHECK(m.vcpu.state.cr0 == (CR0_PE | CR0_MP | CR0_EM | CR0_ET));
    REQUIRE(m.registers.load_machine_status_word(8));
    CHECK(m.vcpu.state.cr0 == (CR0_PE | CR0_TS | CR0_ET));
    REQUIRE(m.registers.clear_task_switched());
    CHECK(m.vcpu.state.cr0 == (CR0_PE | CR0_ET));
}

TEST_CASE("XCR0 takes complete sets of states from the kernel", "[x86]") {
    Machine m;
    m.vcpu.enter_long_mode(0x1000);
    CHECK(m.registers.set_extended(0, 1).error() == Error::not_found);  // OSXSAVE off: #UD
    m.vcpu.state.cr4 |= CR4_OSXSAVE;
    for (const std::uint64_t value : {1ull, 3ull, 7ull, 0xe7ull}) {
        REQUIRE(m.registers.set_extended(0, value));
        CHECK(m.vcpu.xcr0_value == value);
    }
    for (const std::uint64_t value : {0ull, 2ull, 5ull, 0x67ull, 0xe3ull, 0x207ull, 1ull << 63 | 1})
        CHECK(m.registers.set_extended(0, value).error() == Error::guest_fault);
    CHECK(m.registers.set_extended(1, 1).error() == Error::guest_fault);
    m.vcpu.set_cpl(3);
    CHECK(m.registers.set_extended(0, 1).error() == Error::guest_fault);
}

}  // namespace hv::x86
