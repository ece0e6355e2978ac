// SPDX-License-Identifier: MIT
// Registers in both modes, and the ways between the modes.
#include "local_apic_fixture.hpp"

#include <set>
#include <utility>

using namespace hv;
using namespace hv::apic;
using namespace hv::apic::test;

TEST_CASE("registers have their reset values", "[x86]") {
    Machine m{2};
    LocalApic& apic = m[1];
    CHECK(get(apic, ID) == 1u << 24);
    CHECK((get(apic, VERSION) & 0xff) == 0x14);
    CHECK((get(apic, VERSION) >> 16 & 0xff) == 5);
    CHECK(get(apic, TPR) == 0);
    CHECK(get(apic, LDR) == 0);
    CHECK(get(apic, DFR) == 0xffff'ffff);
    CHECK(get(apic, SVR) == 0xff);
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        CHECK(get(apic, index) == 0x1'0000);
    CHECK(apic.apic_base() == 0xfee0'0800);
    CHECK(m[0].apic_base() == 0xfee0'0900);
}

TEST_CASE("software-disabled LVT entries stay masked", "[x86]") {
    Machine m;
    put(m[0], LVT_TIMER, 0x40);
    CHECK(get(m[0], LVT_TIMER) == 0x1'0040);
    put(m[0], SVR, kMmioEnabled);
    put(m[0], LVT_TIMER, 0x40);
    CHECK(get(m[0], LVT_TIMER) == 0x40);
    put(m[0], SVR, 0xff);
    CHECK(get(m[0], LVT_TIMER) == 0x1'0040);
}

TEST_CASE("only bits that exist can be written", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    const std::pair<std::uint32_t, std::uint32_t> kept[]{
        {LVT_TIMER, 0x7'00ff}, {LVT_THERMAL, 0x1'07ff}, {LVT_PERFORMANCE, 0x1'07ff},
        {LVT_LINT0, 0x1'a7ff}, {LVT_LINT1, 0x1'a7ff},   {LVT_ERROR, 0x1'00ff},
        {DIVIDE, 0xb},         {LDR, 0xff00'0000},      {TPR, 0xff},
        {SVR, 0x13ff},         {ICR_HIGH, 0xff00'0000}};
    for (const auto& [index, bits] : kept) {
        put(apic, index, 0xffff'ffff);
        CHECK(get(apic, index) == bits);
    }
    put(apic, DFR, 0);
    CHECK(get(apic, DFR) == 0x0fff'ffff);
    put(apic, ID, 0xff00'0000);
    put(apic, VERSION, 0);
    CHECK(get(apic, ID) == 0);
    CHECK(get(apic, VERSION) == kVersion);
}

TEST_CASE("partial reads get bytes, writes that are no aligned double word are ignored", "[x86]") {
    Machine m;
    put(m[0], TPR, 0x37);
    CHECK(m[0].mmio_read(TPR << 4, 1) == 0x37);
    CHECK(m[0].mmio_read((VERSION << 4) + 2, 2) == kVersion >> 16);
    CHECK(m[0].mmio_read((TPR << 4) + 4, 4) == 0);
    m[0].mmio_write(TPR << 4, 1, 0x55);
    m[0].mmio_write((TPR << 4) + 4, 4, 0x55);
    CHECK(m[0].tpr() == 0x37);
}

TEST_CASE("a reserved register reports an illegal address in ESR, once written", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_ERROR, 0xe5);
    get(m[0], 0x3a);
    CHECK(get(m[0], ESR) == 0);
    CHECK(latch_errors(m[0]) == ILLEGAL_REGISTER);
    CHECK(drain(m[0]) == std::vector<int>{0xe5});
    CHECK(latch_errors(m[0]) == 0);
    put(m[0], 0x3f, 0x40);  // SELF IPI is no xAPIC register
    CHECK(drain(m[0]) == std::vector<int>{0xe5});
    put(m[0], 0x3f, 0x40);
    CHECK(drain(m[0]).empty());  // one interrupt until ESR is written
    CHECK(latch_errors(m[0]) == ILLEGAL_REGISTER);
}

TEST_CASE("an error vector that is illegal itself does not recurse", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_ERROR, 0x05);
    get(m[0], 0x00);
    CHECK(drain(m[0]).empty());
    CHECK(latch_errors(m[0]) == (ILLEGAL_REGISTER | RECEIVE_ILLEGAL_VECTOR));
}

// --- modes -----------------------------------------------------------------------------------------------

TEST_CASE("IA32_APIC_BASE allows the manual's transitions and no others", "[x86]") {
    constexpr std::uint64_t kBase = 0xfee0'0900;
    constexpr std::uint64_t kOff = kBase & ~Base::Enabled::kMask;
    constexpr std::uint64_t kX2 = kBase | Base::X2apic::kMask;
    constexpr std::uint64_t kInvalid = kOff | Base::X2apic::kMask;
    Machine m;
    LocalApic& apic = m[0];
    CHECK_FALSE(apic.set_apic_base(kInvalid));
    CHECK(apic.set_apic_base(kOff));
    CHECK_FALSE(apic.set_apic_base(kX2));
    CHECK_FALSE(apic.set_apic_base(kInvalid));
    CHECK(apic.set_apic_base(kBase));
    CHECK(apic.set_apic_base(kX2));
    CHECK(apic.x2apic());
    CHECK_FALSE(apic.mmio_enabled());
    CHECK_FALSE(apic.set_apic_base(kBase));
    CHECK_FALSE(apic.set_apic_base(kInvalid));
    CHECK(apic.set_apic_base(kX2));
    CHECK(apic.set_apic_base(kOff));
    CHECK_FALSE(apic.enabled());
    for (const unsigned reserved : {0u, 7u, 9u, 40u, 63u})
        CHECK_FALSE(apic.set_apic_base(kBase | std::uint64_t{1} << reserved));
    CHECK(apic.set_apic_base(0x4200'0900));
    CHECK(apic.base() == Gpa{0x4200'0000});
    CHECK(apic.mmio_enabled());
}

TEST_CASE("a disabled APIC answers all ones, and forgets its state", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], TPR, 0x20);
    put(m[0], LDR, 0x0100'0000);
    CHECK(m[0].set_apic_base(0xfee0'0100));
    CHECK(m[0].mmio_read(VERSION << 4, 4) == 0xffff'ffff);
    m[0].mmio_write(TPR << 4, 4, 0x50);
    CHECK(m[0].set_apic_base(0xfee0'0900));
    CHECK(get(m[0], TPR) == 0);
    CHECK(get(m[0], LDR) == 0);
    CHECK(get(m[0], SVR) == 0xff);
}

TEST_CASE("x2APIC: IDs are 32 bits wide, the logical one is derived", "[x86]") {
    Machine m{34};
    to_x2apic(m[33]);
    CHECK(m[33].read_msr(0x802).value() == 33);
    CHECK(m[33].read_msr(0x80d).value() == (2u << 16 | 1u << 1));
    CHECK(m[33].mmio_read(ID << 4, 4) == 0xffff'ffff);
}

TEST_CASE("x2APIC MSRs fault as the manual's table says", "[x86]") {
    Machine m;
    LocalApic& apic = m[0];
    CHECK_FALSE(apic.read_msr(0x802));  // still xAPIC
    CHECK(faults(apic, TPR, 0));
    to_x2apic(apic);
    std::set<std::uint32_t> readable{ID,  VERSION, TPR,           PPR,           LDR,   SVR,
                                     ESR, ICR,     INITIAL_COUNT, CURRENT_COUNT, DIVIDE};
    for (std::uint32_t index = ISR; index < ESR; ++index)
        readable.insert(index);
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        readable.insert(index);
    const std::set<std::uint32_t> writable{
        TPR,       EOI,       SVR,       ESR,           ICR,    LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE,
        LVT_LINT0, LVT_LINT1, LVT_ERROR, INITIAL_COUNT, DIVIDE, SELF_IPI};
    for (std::uint32_t index = 0; index < 0x100; ++index) {
        INFO("register " << index);
        CHECK(apic.read_msr(kFirstMsr + index).has_value() == (readable.count(index) == 1));
        CHECK(faults(apic, index, 0) == (writable.count(index) == 0));
    }
    const std::pair<std::uint32_t, std::uint64_t> bad[]{{TPR, 0x100},       {EOI, 1},
                                                        {ESR, 1},           {SVR, 0x400},
                                                        {ICR, 1u << 13},    {ICR, 1u << 16},
                                                        {ICR, 1u << 20},    {ICR, 1u << 31},
                                                        {LVT_TIMER, 0x100}, {LVT_TIMER, 1ull << 32},
                                                        {LVT_ERROR, 0x400}, {LVT_LINT0, 0x800},
                                                        {DIVIDE, 4},        {DIVIDE, 16},
                                                        {SELF_IPI, 0x100},  {INITIAL_COUNT, 1ull << 32}};
    for (const auto& [index, value] : bad) {
        INFO("register " << index << " value " << value);
        CHECK(faults(apic, index, value));
    }
    CHECK_FALSE(faults(apic, ICR, 0x0000'0005'0000'1030));  // delivery status is ignored
    CHECK(apic.read_msr(0x830).value() == 0x0000'0005'0000'0030);
}

TEST_CASE("INIT resets all but the mode", "[x86]") {
    Machine m;
    m.enable_all();
    to_x2apic(m[0]);
    CHECK(m[0].write_msr(0x808, 0x30));
    CHECK(m[0].write_msr(0x832, 0x40));
    CHECK(m[0].write_msr(0x838, 1000));
    m[0].post(0x80, TriggerMode::edge);
    m[0].init_reset();
    CHECK(m[0].x2apic());
    CHECK(m[0].read_msr(0x808).value() == 0);
    CHECK(m[0].read_msr(0x80f).value() == 0xff);
    CHECK(m[0].pending_vector() == -1);
    CHECK(m.clock.idle());
    m[0].reset();
    CHECK(m[0].mmio_enabled());
}
