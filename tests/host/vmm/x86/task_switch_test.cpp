// SPDX-License-Identifier: MIT
#include "arch/x86_64/defs/cr.hpp"
#include "catch.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/task_switch.hpp"

namespace hv::x86 {
namespace {

using Cause = TaskSwitch::Cause;

constexpr std::uint64_t kGdt = 0x1000, kOldTss = 0x2000, kNewTss = 0x3000, kLdt = 0x4000,
                        kPageDirectory = 0x8000, kPageTable = 0x9000, kOtherDirectory = 0xa000;
constexpr std::uint16_t kCode = 0x08, kData = 0x10, kUserCode = 0x1b, kUserData = 0x23, kOld = 0x28,
                        kNew = 0x30, kLocal = 0x38, kConforming = 0x40, kAbsent = 0x48;
constexpr std::uint16_t kGdtLimit = 0x4f;

constexpr std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, std::uint8_t access,
                                   std::uint8_t flags) {
    return (limit & 0xffff) | std::uint64_t{base & 0xff'ffff} << 16 | std::uint64_t{access} << 40 |
           std::uint64_t{limit >> 16} << 48 | std::uint64_t{flags} << 52 | std::uint64_t{base >> 24} << 56;
}

/// A kernel task in flat 32-bit segments without paging, and a second task that is ready to run. Numbers of
/// TSS fields are those of [sdm3 8.2.1 Task-State Segment (TSS)].
struct Tasks {
    Tasks() {
        vcpu.enter_protected_mode();
        vcpu.state.gdtr = {kGdt, kGdtLimit};
        set(kCode, descriptor(0, 0xf'ffff, 0x9a, 0xc));  // not accessed yet
        set(kData, descriptor(0, 0xf'ffff, 0x93, 0xc));
        set(kUserCode, descriptor(0, 0xf'ffff, 0xfb, 0xc));
        set(kUserData, descriptor(0, 0xf'ffff, 0xf3, 0xc));
        set(kOld, descriptor(kOldTss, 0x67, 0x8b, 0));
        set(kNew, descriptor(kNewTss, 0x67, 0x89, 0));
        set(kLocal, descriptor(kLdt, 0x0f, 0x82, 0));
        set(kConforming, descriptor(0, 0xf'ffff, 0x9f, 0xc));
        set(kAbsent, descriptor(0, 0xf'ffff, 0x13, 0xc));
        vcpu.state.tr = {kOld, 0x8b, 0x67, kOldTss};
        vcpu.state.ldtr = {0, 0, 0, 0};
        vcpu.state.dr6 = DR6_RESET;
        vcpu.state.dr7 = 0x7ff;
        for (unsigned i = 0; i < 6; ++i)
            vcpu.state.segment[i].selector = i == 1 ? kCode : kData;
        for (unsigned i = 0; i < 8; ++i) {
            vcpu.regs.gpr[i] = 0x0101'0101u * (i + 1);
            put32(kNewTss + 0x28 + i * 4, 0x1000'0000 + i);
        }
        vcpu.regs.gpr[RSP] = 0x7000;
        vcpu.regs.rip = 0x5'0000;
        vcpu.regs.rflags = 0x202;
        for (unsigned i = 0; i < 6; ++i)
            put16(kNewTss + 0x48 + i * 4, i == 1 ? kCode : kData);
        put32(kNewTss + 0x38, 0x6000);  // ESP
        put32(kNewTss + 0x20, 0x6'0000);
        put32(kNewTss + 0x24, 0x202);
    }
    void set(std::uint16_t selector, std::uint64_t value) {
        memory.store(Gpa{kGdt + (selector & ~7u)}, value).value();
    }
    void set_access(std::uint16_t selector, std::uint8_t value) {
        memory.store(Gpa{kGdt + (selector & ~7u) + 5}, value).value();
    }
    [[nodiscard]] unsigned access(std::uint16_t selector) const {
        return memory.load<std::uint8_t>(Gpa{kGdt + (selector & ~7u) + 5}).value();
    }
    void put32(std::uint64_t gpa, std::uint32_t value) { memory.store(Gpa{gpa}, value).value(); }
    void put16(std::uint64_t gpa, std::uint16_t value) { memory.store(Gpa{gpa}, value).value(); }
    [[nodiscard]] std::uint32_t get32(std::uint64_t gpa) const {
        return memory.load<std::uint32_t>(Gpa{gpa}).value();
    }
    [[nodiscard]] std::uint16_t get16(std::uint64_t gpa) const {
        return memory.load<std::uint16_t>(Gpa{gpa}).value();
    }
    /// The new task's segment register, in the order of the TSS.
    void new_segment(SegmentName name, std::uint16_t selector) {
        put16(kNewTss + 0x48 + static_cast<unsigned>(name) * 4, selector);
    }

    static TaskSwitch by(Cause cause) {
        TaskSwitch request{};
        request.cause = cause;
        request.instruction = cause != Cause::gate;
        request.external = cause == Cause::gate;
        request.selector = kNew;
        return request;
    }
    Outcome run(const TaskSwitch& request, unsigned length = 7) {
        return TaskSwitcher{cpu, vcpu, memory, events, request}.run(length);
    }
    /// The exception that waits.
    Event raised() {
        CHECK(events.deliver(vcpu) == EventQueue::Delivery::delivered);
        REQUIRE(!vcpu.injected.empty());
        return vcpu.injected.back();
    }
    void check_raised(std::uint8_t vector, std::uint32_t error_code) {
        const Event event = raised();
        CHECK(unsigned{event.vector} == unsigned{vector});
        CHECK(event.has_error_code);
        CHECK(event.error_code == error_code);
    }
    void check_in_old_task() {
        CHECK(vcpu.state.tr.selector == kOld);
        CHECK(vcpu.regs.rip == 0x5'0000);
        CHECK(get32(kOldTss + 0x20) == 0);
        CHECK(access(kOld) == 0x8b);
    }
    /// 32-bit paging, one to one for 4 MiB.
    void enable_paging() {
        put32(kPageDirectory, kPageTable | 3);
        put32(kOtherDirectory, kPageTable | 3);
        for (std::uint32_t i = 0; i < 1024; ++i)
            put32(kPageTable + i * 4, i << 12 | 3);
        vcpu.state.cr0 |= CR0_PG | CR0_WP;
        vcpu.state.cr3 = kPageDirectory;
        put32(kNewTss + 0x1c, kOtherDirectory);
    }
    void unmap(std::uint64_t linear) { put32(kPageTable + (linear >> 12) * 4, 0); }

    fake::ArenaFrames frames{};
    GuestMemory memory{GuestMemory::create(frames, 2 * kPage2M).value()};
    GuestCpu cpu{.physical_bits = 40};
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
};

}  // namespace

TEST_CASE("JMP to a TSS saves the old task and loads the new one", "[x86]") {
    Tasks t;
    REQUIRE(t.run(Tasks::by(Cause::jump)) == Outcome::ok);
    CHECK(t.get32(kOldTss + 0x20) == 0x5'0007);
    CHECK(t.get32(kOldTss + 0x24) == 0x202);
    CHECK(t.get32(kOldTss + 0x28) == 0x0101'0101);
    CHECK(t.get32(kOldTss + 0x38) == 0x7000);
    CHECK(t.get32(kOldTss + 0x44) == 0x0808'0808);
    CHECK(t.get16(kOldTss + 0x4c) == kCode);
    CHECK(t.get16(kOldTss + 0x5c) == kData);
    CHECK(t.access(kOld) == 0x89);
    CHECK(t.access(kNew) == 0x8b);
    CHECK(t.get16(kNewTss) == 0);
    CHECK(t.vcpu.regs.rip == 0x6'0000);
    CHECK(t.vcpu.regs.gpr[RAX] == 0x1000'0000);
    CHECK(t.vcpu.regs.gpr[RDI] == 0x1000'0007);
    CHECK(t.vcpu.regs.gpr[RSP] == 0x6000);
    CHECK(t.vcpu.regs.rflags == 0x202);
    CHECK(t.vcpu.state.tr.selector == kNew);
    CHECK(t.vcpu.state.tr.base == kNewTss);
    CHECK(t.vcpu.state.tr.attributes == 0x8b);
    CHECK((t.vcpu.state.cr0 & CR0_TS) != 0);
    CHECK(t.vcpu.state.dr7 == 0x6aa);  // local breakpoints are the old task's
    CHECK(t.vcpu.state.seg(SegmentName::cs).attributes == 0xc9b);
    CHECK(t.access(kCode) == 0x9b);  // accessed
    CHECK(t.events.empty());
}

TEST_CASE("CALL to a TSS nests, and IRET comes back", "[x86]") {
    Tasks t;
    t.vcpu.regs.rflags |= RFLAGS_RF;
    REQUIRE(t.run(Tasks::by(Cause::call)) == Outcome::ok);
    CHECK(t.get16(kNewTss) == kOld);
    CHECK(t.access(kOld) == 0x8b);
    CHECK(t.access(kNew) == 0x8b);
    CHECK(t.vcpu.regs.rflags == (0x202 | RFLAGS_NT));
    CHECK(t.get32(kOldTss + 0x24) == 0x202);
    t.vcpu.takes_nmis = false;
    TaskSwitch back = Tasks::by(Cause::iret);
    back.selector = kOld;
    REQUIRE(t.run(back, 1) == Outcome::ok);
    CHECK(t.vcpu.regs.rip == 0x5'0007);
    CHECK(t.vcpu.regs.rflags == 0x202);
    CHECK(t.get32(kNewTss + 0x20) == 0x6'0001);
    CHECK(t.get32(kNewTss + 0x24) == 0x202);  // NT is cleared in what is saved
    CHECK(t.access(kOld) == 0x8b);
    CHECK(t.access(kNew) == 0x89);
    CHECK(t.vcpu.takes_nmis);
}

TEST_CASE("an exception through a task gate pushes its error code on the new stack", "[x86]") {
    Tasks t;
    TaskSwitch gate = Tasks::by(Cause::gate);
    gate.has_error_code = true;
    gate.error_code = 0x2'0010;
    gate.resume_flag = true;
    t.events.reinject(Event::exception(EXCEPTION_PF, 0x2'0010));
    REQUIRE(t.run(gate) == Outcome::ok);
    CHECK(t.get32(kOldTss + 0x20) == 0x5'0000);  // it faulted: RIP stays
    CHECK(t.get32(kOldTss + 0x24) == (0x202 | RFLAGS_RF));
    CHECK(t.vcpu.regs.gpr[RSP] == 0x5ffc);
    CHECK(t.get32(0x5ffc) == 0x2'0010);
    CHECK((t.vcpu.regs.rflags & RFLAGS_NT) != 0);
    CHECK(t.events.empty());  // delivered
    CHECK(t.vcpu.takes_nmis);
}

TEST_CASE("an NMI through a task gate blocks NMIs, INT n saves where it ends", "[x86]") {
    Tasks t;
    t.events.reinject(Event::non_maskable());
    REQUIRE(t.run(Tasks::by(Cause::gate)) == Outcome::ok);
    CHECK_FALSE(t.vcpu.takes_nmis);
    CHECK(t.events.empty());
    Tasks other;
    TaskSwitch soft = Tasks::by(Cause::gate);
    soft.instruction = true;
    soft.external = false;
    other.events.reinject({Event::Type::software_interrupt, 0x40, false, 2, 0});
    REQUIRE(other.run(soft, 2) == Outcome::ok);
    CHECK(other.get32(kOldTss + 0x20) == 0x5'0002);
    CHECK(other.vcpu.takes_nmis);
    CHECK(other.events.empty());
}

TEST_CASE("what is wrong with the new TSS is found in the old task", "[x86]") {
    struct Case {
        Cause cause;
        std::uint16_t selector;
        std::uint8_t access;
        std::uint32_t limit;
        std::uint8_t vector;
    };
    const Case cases[] = {
        {Cause::jump, kNew, 0x8b, 0x67, EXCEPTION_GP},      // busy
        {Cause::call, kNew, 0x8b, 0x67, EXCEPTION_GP},      // busy
        {Cause::iret, kNew, 0x89, 0x67, EXCEPTION_TS},      // not busy
        {Cause::jump, kNew, 0x09, 0x67, EXCEPTION_NP},      // not present
        {Cause::iret, kNew, 0x0b, 0x67, EXCEPTION_NP},      // not present
        {Cause::jump, kNew, 0x89, 0x66, EXCEPTION_TS},      // too short
        {Cause::jump, kNew, 0x81, 0x2a, EXCEPTION_TS},      // too short, 16-bit
        {Cause::jump, kNew, 0x82, 0x67, EXCEPTION_GP},      // an LDT
        {Cause::jump, kNew, 0x93, 0x67, EXCEPTION_GP},      // data
        {Cause::jump, kNew | 4, 0x89, 0x67, EXCEPTION_GP},  // in the LDT
        {Cause::jump, 0x50, 0x89, 0x67, EXCEPTION_GP},      // beyond the GDT
        {Cause::iret, 0x50, 0x8b, 0x67, EXCEPTION_TS},     {Cause::jump, 3, 0x89, 0x67, EXCEPTION_GP},
    };
    for (const Case& c : cases) {
        INFO("access " << unsigned{c.access} << " selector " << c.selector);
        Tasks t;
        t.set(kNew, descriptor(kNewTss, c.limit, c.access, 0));
        TaskSwitch request = Tasks::by(c.cause);
        request.selector = c.selector;
        CHECK(t.run(request) == Outcome::exception);
        t.check_in_old_task();
        t.check_raised(c.vector, c.selector & ~3u);
    }
}

TEST_CASE("segments that the new task cannot have fault in the new task", "[x86]") {
    struct Case {
        SegmentName name;
        std::uint16_t selector;
        std::uint8_t vector;
    };
    const Case cases[] = {
        {SegmentName::cs, 0, EXCEPTION_TS},         {SegmentName::cs, kData, EXCEPTION_TS},
        {SegmentName::cs, kCode | 3, EXCEPTION_TS}, {SegmentName::cs, 0x58, EXCEPTION_TS},
        {SegmentName::ss, 0, EXCEPTION_TS},         {SegmentName::ss, kCode, EXCEPTION_TS},
        {SegmentName::ss, kUserData, EXCEPTION_TS}, {SegmentName::ss, kAbsent, EXCEPTION_SS},
        {SegmentName::ds, 0x58, EXCEPTION_TS},      {SegmentName::ds, kAbsent, EXCEPTION_NP},
        {SegmentName::fs, kNew, EXCEPTION_TS},      {SegmentName::gs, 0x0c, EXCEPTION_TS},
    };
    for (const Case& c : cases) {
        INFO("segment " << static_cast<unsigned>(c.name) << " selector " << c.selector);
        Tasks t;
        t.new_segment(c.name, c.selector);
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        CHECK(t.vcpu.state.tr.selector == kNew);
        CHECK(t.vcpu.regs.rip == 0x6'0000);
        CHECK(t.vcpu.state.seg(c.name).selector == c.selector);
        t.check_raised(c.vector, c.selector & ~3u);
    }
    SECTION("EIP beyond the code segment") {
        Tasks t;
        t.set(kCode, descriptor(0, 0xffff, 0x9b, 4));
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        t.check_raised(EXCEPTION_GP, 0);
    }
    SECTION("an absent code segment") {
        Tasks t;
        t.set_access(kCode, 0x1b);
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        t.check_raised(EXCEPTION_NP, kCode);
    }
    SECTION("the LDT is not there") {
        Tasks t;
        t.put16(kNewTss + 0x60, kLocal);
        t.set_access(kLocal, 0x02);
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        t.check_raised(EXCEPTION_TS, kLocal);
    }
    SECTION("no room for the error code") {
        Tasks t;
        t.put32(kNewTss + 0x38, 0x2);
        TaskSwitch gate = Tasks::by(Cause::gate);
        gate.has_error_code = true;
        CHECK(t.run(gate) == Outcome::exception);
        t.check_raised(EXCEPTION_SS, 1);  // EXT
    }
}

TEST_CASE("a fault of the switch that delivers an exception makes a #DF", "[x86]") {
    Tasks t;
    t.new_segment(SegmentName::ss, 0);
    t.events.reinject(Event::exception(EXCEPTION_GP, 0));
    CHECK(t.run(Tasks::by(Cause::gate)) == Outcome::exception);
    CHECK(t.raised().vector == EXCEPTION_DF);
    CHECK(t.events.empty());
    SECTION("that of an interrupt does not") {
        Tasks other;
        other.new_segment(SegmentName::ss, 0);
        other.events.reinject(Event::interrupt(0x40));
        CHECK(other.run(Tasks::by(Cause::gate)) == Outcome::exception);
        other.check_raised(EXCEPTION_TS, 1);
        CHECK(other.events.empty());
    }
}

TEST_CASE("the new task may run at CPL 3, with an LDT, and in conforming code", "[x86]") {
    Tasks t;
    for (const SegmentName name :
         {SegmentName::es, SegmentName::ss, SegmentName::ds, SegmentName::fs, SegmentName::gs})
        t.new_segment(name, kUserData);
    SECTION("user code") {
        t.new_segment(SegmentName::cs, kUserCode);
    }
    SECTION("conforming code of CPL 0") {
        t.new_segment(SegmentName::cs, kConforming | 3);
    }
    SECTION("code in the LDT") {
        t.new_segment(SegmentName::cs, 7);
        t.put16(kNewTss + 0x60, kLocal);
        t.memory.store(Gpa{kLdt}, descriptor(0, 0xf'ffff, 0xfb, 0xc)).value();
    }
    REQUIRE(t.run(Tasks::by(Cause::call)) == Outcome::ok);
    CHECK(t.vcpu.state.cpl() == 3);
    CHECK(t.events.empty());
}

TEST_CASE("a 16-bit TSS holds 16-bit registers and two segments less", "[x86]") {
    Tasks t;
    t.set(kNew, descriptor(kNewTss, 0x2b, 0x81, 0));
    for (unsigned offset = 0; offset < 0x2c; offset += 2)
        t.put16(kNewTss + offset, static_cast<std::uint16_t>(0x100 + offset));
    t.put16(kNewTss + 0x10, 0x0202);
    for (unsigned i = 0; i < 4; ++i)
        t.put16(kNewTss + 0x22 + i * 2, i == 1 ? kCode : kData);
    t.put16(kNewTss + 0x2a, 0);
    REQUIRE(t.run(Tasks::by(Cause::call)) == Outcome::ok);
    CHECK(t.vcpu.regs.rip == 0x10e);
    CHECK((t.vcpu.regs.gpr[RAX] & 0xffff) == 0x112);
    CHECK((t.vcpu.regs.gpr[RDI] & 0xffff) == 0x120);
    CHECK_FALSE(t.vcpu.state.seg(SegmentName::fs).present());
    CHECK(t.vcpu.state.tr.attributes == 0x83);
    CHECK(t.get16(kNewTss) == kOld);
    t.vcpu.regs.gpr[RBX] = 0x1234'5678;
    TaskSwitch back = Tasks::by(Cause::iret);
    back.selector = kOld;
    REQUIRE(t.run(back, 1) == Outcome::ok);
    CHECK(t.get16(kNewTss + 0x0e) == 0x10f);
    CHECK(t.get16(kNewTss + 0x18) == 0x5678);
    CHECK(t.get16(kNewTss + 0x28) == kData);
    CHECK(t.access(kNew) == 0x81);
    CHECK(t.vcpu.state.tr.attributes == 0x8b);
}

TEST_CASE("a task may be of virtual-8086 mode", "[x86]") {
    Tasks t;
    t.put32(kNewTss + 0x24, 0x2'0202);
    t.put32(kNewTss + 0x20, 0x100);
    t.new_segment(SegmentName::cs, 0x1234);
    t.new_segment(SegmentName::ds, 0xffff);
    REQUIRE(t.run(Tasks::by(Cause::jump)) == Outcome::ok);
    CHECK(t.vcpu.state.cpl() == 3);
    CHECK(t.vcpu.state.seg(SegmentName::cs).base == 0x1'2340);
    CHECK(t.vcpu.state.seg(SegmentName::ds).base == 0xf'fff0);
    for (const Segment& segment : t.vcpu.state.segment) {
        CHECK(segment.limit == 0xffff);
        CHECK(segment.attributes == 0xf3);
    }
}

TEST_CASE("the T flag of the new TSS traps before its first instruction", "[x86]") {
    Tasks t;
    t.put16(kNewTss + 0x64, 1);
    REQUIRE(t.run(Tasks::by(Cause::jump)) == Outcome::ok);
    CHECK(t.raised().vector == EXCEPTION_DB);
    CHECK((t.vcpu.state.dr6 & DR6_BT) != 0);
}

TEST_CASE("with paging the new task has its CR3, and pages that are missing fault in the right task",
          "[x86]") {
    Tasks t;
    t.enable_paging();
    SECTION("all is there") {
        REQUIRE(t.run(Tasks::by(Cause::call)) == Outcome::ok);
        CHECK(t.vcpu.state.cr3 == kOtherDirectory);
        CHECK(t.vcpu.flushes == 1);
        CHECK((t.get32(kPageTable + (kOldTss >> 12) * 4) & 0x60) == 0x60);
    }
    SECTION("the new TSS is not") {
        t.unmap(kNewTss);
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        t.check_raised(EXCEPTION_PF, 0);
        CHECK(t.vcpu.state.cr2 == kNewTss);
        CHECK(t.vcpu.state.cr3 == kPageDirectory);
    }
    SECTION("the old TSS is not") {
        t.unmap(kOldTss);
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        t.check_raised(EXCEPTION_PF, PAGE_FAULT_WR);
        CHECK(t.access(kNew) == 0x89);
    }
    SECTION("the GDT is not in the new address space") {
        t.put32(kOtherDirectory, 0);
        CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::exception);
        t.check_raised(EXCEPTION_PF, 0);
        CHECK(t.vcpu.state.cr2 == kGdt + kCode);
        CHECK(t.vcpu.state.tr.selector == kNew);
    }
    SECTION("the stack for the error code is not") {
        t.unmap(0x5000);
        TaskSwitch gate = Tasks::by(Cause::gate);
        gate.has_error_code = true;
        CHECK(t.run(gate) == Outcome::exception);
        t.check_raised(EXCEPTION_PF, PAGE_FAULT_WR);
        CHECK(t.vcpu.state.cr2 == 0x5ffc);
    }
    SECTION("a TSS that crosses pages") {
        constexpr std::uint64_t kAcross = 0x3fc0;
        for (unsigned i = 0; i < 0x68; i += 4)
            t.put32(kAcross + i, t.get32(kNewTss + i));
        t.set(kNew, descriptor(kAcross, 0x67, 0x89, 0));
        REQUIRE(t.run(Tasks::by(Cause::jump)) == Outcome::ok);
        CHECK(t.vcpu.regs.gpr[RDI] == 0x1000'0007);
    }
}

TEST_CASE("tables outside RAM are not touched", "[x86]") {
    Tasks t;
    t.set(kNew, descriptor(0xd000'0000, 0x67, 0x89, 0));
    CHECK(t.run(Tasks::by(Cause::jump)) == Outcome::unsupported);
    t.check_in_old_task();
}

}  // namespace hv::x86
