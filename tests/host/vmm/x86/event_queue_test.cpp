// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/event_queue.hpp"
#include "vmm/x86/finish_instruction.hpp"

namespace hv::x86 {
namespace {

using Delivery = EventQueue::Delivery;

const Event kGp = Event::exception(EXCEPTION_GP, 0);
const Event kPf = Event::exception(EXCEPTION_PF, 2);
const Event kDf = Event::exception(EXCEPTION_DF, 0);
const Event kUd = Event::exception(EXCEPTION_UD);

}  // namespace

TEST_CASE("exceptions combine as the manual's table says", "[x86]") {
    CHECK(combine(kUd, kGp) == Combined::second);
    CHECK(combine(kGp, kUd) == Combined::second);
    CHECK(combine(kGp, kGp) == Combined::double_fault);
    CHECK(combine(kGp, kPf) == Combined::second);
    CHECK(combine(kPf, kGp) == Combined::double_fault);
    CHECK(combine(kPf, kPf) == Combined::double_fault);
    CHECK(combine(kDf, kGp) == Combined::shutdown);
    CHECK(combine(kDf, kPf) == Combined::shutdown);
    CHECK(combine(kDf, kUd) == Combined::second);
    CHECK(combine(Event::interrupt(0x30), kPf) == Combined::second);
    CHECK(combine({}, kGp) == Combined::second);
}

TEST_CASE("a fault while an exception was being delivered becomes #DF, and one more shutdown", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    events.reinject(kPf);
    events.raise(kGp);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    REQUIRE(vcpu.injected.size() == 1);
    CHECK(vcpu.injected[0].vector == EXCEPTION_DF);
    CHECK(vcpu.injected[0].has_error_code);
    CHECK(events.empty());
    events.reinject(kDf);
    events.raise(kPf);
    CHECK(events.deliver(vcpu) == Delivery::shutdown);
    events.reset();
    CHECK(events.deliver(vcpu) == Delivery::idle);
}

TEST_CASE("an interrupt whose delivery faulted goes in after the exception", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    events.reinject(Event::interrupt(0x31));
    events.raise_page_fault(vcpu, 2, 0x1234);
    CHECK(vcpu.state.cr2 == 0x1234);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(vcpu.injected.back().vector == EXCEPTION_PF);
    CHECK((vcpu.regs.rflags & RFLAGS_RF) != 0);
    vcpu.takes_interrupts = false;
    CHECK(events.deliver(vcpu) == Delivery::blocked);
    vcpu.takes_interrupts = true;
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(vcpu.injected.back().vector == 0x31);
    CHECK(events.empty());
}

TEST_CASE("a software interrupt whose delivery faulted runs again instead", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    events.reinject({Event::Type::software_interrupt, 0x80, false, 2, 0});
    events.raise(kGp);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(events.deliver(vcpu) == Delivery::idle);
}

TEST_CASE("one NMI waits while NMIs are blocked, behind exceptions", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    vcpu.takes_nmis = false;
    events.request_nmi();
    events.request_nmi();
    CHECK(events.deliver(vcpu) == Delivery::idle);  // a maskable interrupt may go into the handler
    CHECK(events.pending());
    CHECK(vcpu.windows.back() == Event::Type::nmi);
    events.raise(kUd);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(vcpu.injected.back().vector == EXCEPTION_UD);
    vcpu.takes_nmis = true;
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(vcpu.injected.back().type == Event::Type::nmi);
    CHECK(events.deliver(vcpu) == Delivery::idle);
}

TEST_CASE("of NMIs that come while they are open, one is behind the first", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    for (int i = 0; i < 3; ++i)
        events.request_nmi();
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    REQUIRE_FALSE(vcpu.windows.empty());
    CHECK(vcpu.windows.back() == Event::Type::nmi);
    CHECK(events.pending());
    vcpu.set_nmi_blocking(true);  // by the first one's delivery
    events.request_nmi();         // there is no room for it
    CHECK(events.deliver(vcpu) == Delivery::idle);
    CHECK(vcpu.injected.size() == 1);
    vcpu.set_nmi_blocking(false);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK_FALSE(events.pending());
    CHECK_FALSE(events.nmi_requested());
    vcpu.set_nmi_blocking(true);
    CHECK(events.deliver(vcpu) == Delivery::idle);
    CHECK(vcpu.injected.size() == 2);
}

TEST_CASE("NMIs that wait for the end of a shadow both stay", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    vcpu.shadows_nmis = true;
    events.request_nmi();
    events.request_nmi();
    CHECK(events.deliver(vcpu) == Delivery::blocked);
    vcpu.shadows_nmis = false;
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(events.deliver(vcpu) == Delivery::idle);
}

TEST_CASE("a blocked NMI does not end HLT, nor keep the vCPU from sleeping", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    vcpu.set_nmi_blocking(true);
    events.request_nmi();
    CHECK(events.nmi_requested());
    CHECK_FALSE(events.wakes(vcpu));
    CHECK_FALSE(events.nmi_requested());
    events.request_nmi();
    CHECK(events.nmi_requested());
    vcpu.set_nmi_blocking(false);
    CHECK(events.wakes(vcpu));
    events.reset();
    CHECK_FALSE(events.wakes(vcpu));
    vcpu.set_nmi_blocking(true);
    events.raise(kUd);
    CHECK(events.wakes(vcpu));
}

TEST_CASE("an NMI behind an exception has a window", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    events.request_nmi();
    events.raise(kUd);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    REQUIRE_FALSE(vcpu.windows.empty());
    CHECK(vcpu.windows.back() == Event::Type::nmi);
}

TEST_CASE("completing an instruction ends the interrupt shadow and clears RF", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    vcpu.regs.rip = 0x1000;
    vcpu.cast_shadow();
    vcpu.regs.rflags = RFLAGS_RF | RFLAGS_FIXED;
    finish_instruction(vcpu, events, 3);
    CHECK(vcpu.regs.rip == 0x1003);
    CHECK(vcpu.regs.rflags == RFLAGS_FIXED);
    CHECK_FALSE(vcpu.interrupt_shadow());
    CHECK(events.empty());
}

TEST_CASE("completing an instruction that single-steps raises #DB with DR6.BS", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    vcpu.regs.rflags = RFLAGS_TF;
    finish_instruction(vcpu, events, 2);
    CHECK(vcpu.regs.rip == 2);
    CHECK((vcpu.state.dr6 & DR6_BS) != 0);
    CHECK(events.deliver(vcpu) == Delivery::delivered);
    CHECK(vcpu.injected.back().vector == EXCEPTION_DB);
    CHECK((vcpu.regs.rflags & RFLAGS_RF) == 0);
}

TEST_CASE("EIP wraps at 4 GiB, RIP does not", "[x86]") {
    fake::FakeVcpuBackend vcpu;
    EventQueue events;
    vcpu.enter_protected_mode();
    vcpu.regs.rip = 0xffff'ffff;
    finish_instruction(vcpu, events, 2);
    CHECK(vcpu.regs.rip == 1);
    vcpu.enter_long_mode(0);
    vcpu.regs.rip = 0xffff'ffff;
    finish_instruction(vcpu, events, 2);
    CHECK(vcpu.regs.rip == 0x1'0000'0001);
}

}  // namespace hv::x86
