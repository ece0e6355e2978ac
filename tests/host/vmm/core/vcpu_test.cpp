// SPDX-License-Identifier: MIT
// The run loop: what goes in, what blocks, what wakes, how a vCPU starts and stops.
#include "vmm/core/vcpu_fixture.hpp"

using namespace hv;
using namespace hv::test;
using Outcome = Vcpu::Outcome;
using Reason = VmExit::Reason;

TEST_CASE("a vCPU leaves the CPU when the CPU is needed, and nothing of it stays there", "[core]") {
    VcpuFixture f;
    f.start();
    const unsigned entered = f.backend().entered;
    CHECK(f.run({exit_of(Reason::cpuid, 2), exit_of(Reason::cpuid, 2)}) == Outcome::preempted);
    CHECK(f.backend().runs == 3);
    CHECK(f.backend().entered == entered + 1);
    CHECK(f.backend().left == f.backend().entered);
    CHECK(f.vcpu().exits(Reason::cpuid) == 2);
    CHECK(f.vcpu().exits(Reason::host_interrupt) == 1);
    CHECK(f.vcpu().name() == std::string{"vm/0"});
}

TEST_CASE("the highest pending interrupt goes in, and a window is asked for the next one", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.vcpu().apic().post(0x41, TriggerMode::edge);
    f.vcpu().apic().post(0x81, TriggerMode::edge);
    f.run({});
    REQUIRE(f.backend().injected.size() == 1);
    CHECK(f.injected(Event::interrupt(0x81)));
    // 0x41 is of a lower class than what is in service: it has to wait for the EOI, not for a window.
    CHECK(f.backend().windows.empty());
    f.vcpu().apic().eoi();
    f.run({});
    CHECK(f.injected(Event::interrupt(0x41)));
}

TEST_CASE("an interrupt waits for IF and for the end of an interrupt shadow", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.vcpu().apic().post(0x41, TriggerMode::edge);
    SECTION("IF") {
        f.regs().rflags = 2;
    }
    SECTION("shadow") {
        f.backend().cast_shadow();
    }
    f.run({});
    CHECK(f.backend().injected.empty());
    CHECK(f.backend().windows == std::vector{Event::Type::external_interrupt});
    f.regs().rflags = 0x202;
    f.backend().shadow = false;
    f.run({exit_of(Reason::interrupt_window)});
    CHECK(f.injected(Event::interrupt(0x41)));
}

TEST_CASE("CR8 holds back interrupts up to its class", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.code({0x44, 0x0f, 0x22, 0xc0});  // as 64-bit code: MOV CR8, RAX
    f.backend().state.cr0 = 0x8000'0011;
    f.backend().state.cr3 = 0x1000;
    f.backend().state.cr4 = 0x20;
    f.backend().state.efer = 0x500;
    f.backend().state.seg(SegmentName::cs).attributes = 0xa9b;
    // 0 to 2 MiB mapped onto themselves.
    f.memory.store(Gpa{0x1000}, std::uint64_t{0x2003}).value();
    f.memory.store(Gpa{0x2000}, std::uint64_t{0x3003}).value();
    f.memory.store(Gpa{0x3000}, std::uint64_t{0x83}).value();
    f.vcpu().apic().post(0x41, TriggerMode::edge);
    f.regs().rflags = 2;
    f.regs().gpr[RAX] = 4;
    VmExit exit = exit_of(Reason::cr_access);
    exit.cr = {8, true, false, 0};
    f.run({exit});
    CHECK(f.vcpu().apic().tpr() == 0x40);
    CHECK(f.regs().rip == VcpuFixture::kCode + 4);
    f.regs().rflags = 0x202;
    f.run({});
    CHECK(f.backend().injected.empty());

    f.regs().rip = VcpuFixture::kCode;
    f.regs().gpr[RAX] = 3;
    f.run({exit});
    CHECK(f.injected(Event::interrupt(0x41)));

    f.regs().rip = VcpuFixture::kCode;
    f.regs().gpr[RAX] = 0x10;
    f.run({exit});
    CHECK(f.injected(Event::exception(EXCEPTION_GP, 0)));
    CHECK(f.regs().rip == VcpuFixture::kCode);
}

TEST_CASE("the 8259's interrupt is acknowledged when it goes in, not before", "[core]") {
    VcpuFixture f;
    f.start();  // in virtual wire mode
    f.vcpu().apic().lint0().set(true);
    f.regs().rflags = 2;
    f.run({});
    CHECK(f.pic.acknowledged == 0);
    f.regs().rflags = 0x202;
    f.backend().on_run = [&] { f.vcpu().apic().lint0().set(false); };
    f.run({});
    CHECK(f.pic.acknowledged == 1);
    CHECK(f.injected(Event::interrupt(0x27)));
}

TEST_CASE("the 8259 is not acknowledged for an interrupt that cannot go in", "[core]") {
    VcpuFixture f;
    f.start();
    f.vcpu().apic().lint0().set(true);
    f.regs().rflags = 0x202;
    f.backend().takes_interrupts = false;
    f.run({});
    CHECK(f.pic.acknowledged == 0);
    CHECK(f.backend().windows.back() == Event::Type::external_interrupt);
}

TEST_CASE("an ExtINT message that the acknowledge brings forth asks for a window", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    const InterruptMessage message{0, DestinationMode::physical, DeliveryMode::ext_int, TriggerMode::edge, 0};
    f.regs().rflags = 0x202;
    f.pic.on_acknowledge = [&] {
        if (f.pic.acknowledged == 1)
            f.vcpu().apic().receive(message);
    };
    f.vcpu().apic().receive(message);
    f.run({});
    CHECK(f.pic.acknowledged == 1);
    REQUIRE_FALSE(f.backend().windows.empty());
    CHECK(f.backend().windows.back() == Event::Type::external_interrupt);
}

TEST_CASE("an NMI of LINT1 goes in with the next entry", "[core]") {
    VcpuFixture f;
    f.start();  // in virtual wire mode
    f.vcpu().apic().lint1().set(true);
    f.run({});
    REQUIRE_FALSE(f.backend().injected.empty());
    CHECK(f.backend().injected.front().type == Event::Type::nmi);
}

TEST_CASE("an NMI goes before an interrupt, and waits while NMIs are blocked", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.vcpu().apic().post(0x41, TriggerMode::edge);
    f.vcpu().nmi();
    f.backend().shadows_nmis = true;
    f.run({});
    CHECK(f.backend().injected.empty());
    CHECK(f.backend().windows.front() == Event::Type::nmi);
    f.backend().shadows_nmis = false;
    f.run({exit_of(Reason::nmi_window), exit_of(Reason::interrupt_window)});
    REQUIRE(f.backend().injected.size() >= 2);
    CHECK(f.backend().injected[0].type == Event::Type::nmi);
    CHECK(f.backend().injected[1].vector == 0x41);
}

TEST_CASE("an NMI handler that sets IF takes interrupts while an NMI waits for its end", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.vcpu().apic().post(0x41, TriggerMode::edge);
    f.vcpu().nmi();
    f.backend().set_nmi_blocking(true);
    f.run({});
    REQUIRE(f.backend().injected.size() == 1);
    CHECK(f.injected(Event::interrupt(0x41)));
    f.backend().set_nmi_blocking(false);
    f.run({exit_of(Reason::nmi_window)});
    CHECK(f.injected(Event::non_maskable()));
}

TEST_CASE("an event whose delivery an exit interrupted goes in again", "[core]") {
    VcpuFixture f;
    f.start();
    VmExit exit = exit_of(Reason::host_interrupt);
    exit.interrupted = Event::exception(EXCEPTION_PF, 2);
    f.backend().exits = {exit};
    f.jobs.wanted = true;
    CHECK(f.turn() == Outcome::preempted);
    f.run({});
    CHECK(f.injected(Event::exception(EXCEPTION_PF, 2)));
}

TEST_CASE("HLT blocks until an interrupt that the guest takes", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    CHECK(f.run({exit_of(Reason::hlt, 1)}) == Outcome::halted);
    CHECK(f.regs().rip == VcpuFixture::kCode + 1);
    CHECK_FALSE(f.vcpu().has_work(Outcome::halted));

    SECTION("nothing came: it stays halted") {
        CHECK(f.run({}) == Outcome::halted);
    }
    SECTION("an interrupt") {
        f.vcpu().apic().post(0x41, TriggerMode::edge);
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.run({}) == Outcome::preempted);
        CHECK(f.injected(Event::interrupt(0x41)));
    }
    SECTION("an interrupt while IF is clear does not, and does not spin either") {
        f.regs().rflags = 2;
        f.vcpu().apic().post(0x41, TriggerMode::edge);
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.run({}) == Outcome::halted);
        CHECK_FALSE(f.vcpu().has_work(Outcome::halted));
    }
    SECTION("an NMI while IF is clear") {
        f.regs().rflags = 2;
        f.vcpu().nmi();
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.run({}) == Outcome::preempted);
        CHECK(f.injected(Event::non_maskable()));
    }
    SECTION("an NMI that a handler blocks does not, and does not spin either") {
        f.backend().set_nmi_blocking(true);
        f.vcpu().nmi();
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.run({}) == Outcome::halted);
        CHECK_FALSE(f.vcpu().has_work(Outcome::halted));
    }
    SECTION("its timer") {
        f.vcpu().apic().mmio_write(0x320, 4, 0x51);
        f.vcpu().apic().mmio_write(0x380, 4, 1000);
        f.clock.advance(10'000);
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.run({}) == Outcome::preempted);
        CHECK(f.injected(Event::interrupt(0x51)));
    }
}

TEST_CASE("HLT with an interrupt pending goes on at once", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.regs().rflags = 2;
    f.backend().on_run = [&] {
        if (f.backend().runs == 1) {
            f.vcpu().apic().post(0x41, TriggerMode::edge);
            f.regs().rflags = 0x202;  // STI; HLT
        }
    };
    CHECK(f.run({exit_of(Reason::hlt, 1)}) == Outcome::preempted);
    CHECK(f.injected(Event::interrupt(0x41)));
}

TEST_CASE("an application processor waits for INIT and SIPI, and interrupts do not start it", "[core]") {
    VcpuFixture f{2};
    CHECK(f.turn(1) == Outcome::waiting);
    f.vcpu(1).apic().post(0x41, TriggerMode::edge);
    f.vcpu(1).nmi();
    CHECK_FALSE(f.vcpu(1).has_work(Outcome::waiting));
    CHECK(f.backend(1).runs == 0);

    f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::init, TriggerMode::edge, 0});
    CHECK(f.vcpu(1).has_work(Outcome::waiting));
    CHECK(f.turn(1) == Outcome::waiting);
    f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::startup, TriggerMode::edge, 0x9a});
    f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::startup, TriggerMode::edge, 0x77});
    CHECK(f.vcpu(1).has_work(Outcome::waiting));
    f.jobs.wanted = true;
    CHECK(f.turn(1) == Outcome::preempted);
    CHECK(f.backend(1).runs == 1);
    CHECK(f.backend(1).state.seg(SegmentName::cs).selector == 0x9a00);
    CHECK(f.backend(1).state.seg(SegmentName::cs).base == 0x9a000);
    CHECK(f.backend(1).regs.rip == 0);

    SECTION("a start-up IPI has no effect on one that runs") {
        f.backend(1).regs.rip = 0x1234;
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::startup, TriggerMode::edge, 0x55});
        CHECK(f.turn(1) == Outcome::preempted);
        CHECK(f.backend(1).regs.rip == 0x1234);
    }
    SECTION("a start-up IPI from before an INIT has no effect after it") {
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::startup, TriggerMode::edge, 0x55});
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::init, TriggerMode::edge, 0});
        CHECK(f.turn(1) == Outcome::waiting);
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::startup, TriggerMode::edge, 0x66});
        CHECK(f.turn(1) == Outcome::preempted);
        CHECK(f.backend(1).state.seg(SegmentName::cs).selector == 0x6600);
    }
    SECTION("INIT takes a halted one and what it had pending") {
        f.enable_apic(1);
        f.backend(1).exits = {exit_of(Reason::hlt, 1)};
        f.jobs.wanted = false;
        CHECK(f.turn(1) == Outcome::halted);
        f.vcpu(1).apic().post(0x41, TriggerMode::edge);
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::init, TriggerMode::edge, 0});
        CHECK(f.turn(1) == Outcome::waiting);
        CHECK(f.backend(1).injected.empty());
        CHECK(f.backend(1).state.cr0 == 0x6000'0010);  // CD and NW stay as RESET left them
        CHECK(f.backend(1).regs.gpr[RDX] == 0x000a'0f11);
        CHECK(f.backend(1).regs.rip == 0xfff0);
    }
}

TEST_CASE("RESET leaves nothing of what ran before, INIT keeps the MSRs", "[core]") {
    VcpuFixture f;
    f.start();
    auto& state = f.backend().state;
    state.cr0 = 0x8000'0011;
    state.cr4 = 0x20;
    state.star = state.lstar = state.kernel_gs_base = state.sysenter_eip = 0x1234;
    state.pat = 0;
    f.backend().xcr0_value = 7;
    f.backend().tsc_aux_value = 5;
    const unsigned resets = f.backend().resets;
    SECTION("INIT") {
        f.fabric.deliver({0, DestinationMode::physical, DeliveryMode::init, TriggerMode::edge, 0});
        f.run({});
        CHECK(state.cr4 == 0);
        CHECK(state.star == 0x1234);
        CHECK(state.pat == 0);
        CHECK(f.backend().xcr0_value == 7);
        CHECK(f.backend().resets == resets);
    }
    SECTION("RESET") {
        f.vcpu().reset(nullptr, nullptr);
        CHECK(state.cr0 == 0x6000'0010);
        CHECK(state.cr4 == 0);
        CHECK((state.star | state.lstar | state.kernel_gs_base | state.sysenter_eip) == 0);
        CHECK(state.pat == 0x0007'0406'0007'0406);
        CHECK(f.backend().xcr0_value == 1);
        CHECK(f.backend().tsc_aux_value == 0);
        CHECK(f.backend().resets == resets + 1);
    }
}

TEST_CASE("whoever posts something kicks the CPU that the vCPU is on, and wakes it where it is on none",
          "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    const auto before = fake::kicks(3);
    f.backend().on_run = [&] {
        if (f.backend().runs != 1)
            return;
        fake::set_cpu(1);
        f.vcpu().apic().post(0x41, TriggerMode::edge);
        fake::set_cpu(3);
    };
    fake::set_cpu(3);
    f.run({exit_of(Reason::host_interrupt)});
    fake::set_cpu(0);
    CHECK(fake::kicks(3) == before + 1);

    CHECK(f.vcpu().state() == SchedEntity::State::blocked);
    f.vcpu().nmi();
    CHECK(f.vcpu().state() == SchedEntity::State::queued);
}

TEST_CASE("what comes between a vCPU's last look and its block is not lost", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.vcpu().poke();
    REQUIRE(f.scheduler->pick_next(0) == &f.vcpu());
    REQUIRE(f.run({exit_of(Reason::hlt, 1)}) == Outcome::halted);
    unsigned looks = 0;
    SECTION("before the scheduler knows that it blocks") {
        f.vcpu().apic().post(0x41, TriggerMode::edge);
        CHECK_FALSE(f.scheduler->block(f.vcpu(), [&] { return !f.vcpu().has_work(Outcome::halted); }));
        CHECK(f.vcpu().state() == SchedEntity::State::running);
    }
    SECTION("just after it does: another CPU has it already") {
        CHECK(f.scheduler->block(f.vcpu(), [&] {
            if (++looks == 2)
                f.vcpu().apic().post(0x41, TriggerMode::edge);
            return !f.vcpu().has_work(Outcome::halted);
        }));
        CHECK(f.vcpu().state() == SchedEntity::State::queued);
    }
    SECTION("and looking does not take anything from the CPU that has it") {
        f.vcpu().apic().post(0x41, TriggerMode::edge);
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.vcpu().apic().attention());
    }
}

TEST_CASE("a vCPU parks before its next instruction, and reports it once", "[core]") {
    VcpuFixture f;
    f.start();
    f.control.request_stop(VmStop::by_host, 0);
    const unsigned entered = f.backend().entered;
    CHECK(f.run({}) == Outcome::parked);
    CHECK(f.backend().runs == 0);
    CHECK(f.run({}) == Outcome::still_parked);
    CHECK(f.backend().entered == entered);
    CHECK_FALSE(f.vcpu().has_work(Outcome::still_parked));
    f.vcpu().nmi();
    CHECK_FALSE(f.vcpu().has_work(Outcome::still_parked));
    CHECK(f.run({}) == Outcome::still_parked);

    SECTION("it goes on after a start") {
        ++f.epoch;
        CHECK(f.vcpu().has_work(Outcome::still_parked));
        CHECK(f.run({}) == Outcome::preempted);
        SECTION("and reports the next stop") {
            ++f.epoch;
            CHECK(f.run({}) == Outcome::parked);
            CHECK(f.run({}) == Outcome::still_parked);
        }
    }
    SECTION("a stop that follows a start at once is reported too") {
        f.epoch += 2;
        CHECK(f.vcpu().has_work(Outcome::still_parked));
        CHECK(f.run({}) == Outcome::parked);
    }
}

TEST_CASE("a stop reaches a vCPU in the guest, a halted one and one that was never started", "[core]") {
    VcpuFixture f{2};
    f.start();
    SECTION("in the guest") {
        f.backend().on_run = [&] { f.control.request_stop(VmStop::by_host, 0); };
        f.backend().exits = {exit_of(Reason::cpuid, 2)};
        CHECK(f.turn() == Outcome::preempted);  // by the other one, which woke to park
        CHECK(f.turn() == Outcome::parked);
        CHECK(f.backend().runs == 1);
        CHECK(f.backend().left == f.backend().entered);
    }
    SECTION("halted") {
        CHECK(f.run({exit_of(Reason::hlt, 1)}) == Outcome::halted);
        f.control.request_stop(VmStop::by_host, 0);
        CHECK(f.vcpu().has_work(Outcome::halted));
        CHECK(f.run({}) == Outcome::parked);
    }
    SECTION("waiting for a start-up IPI") {
        CHECK(f.turn(1) == Outcome::waiting);
        f.control.request_stop(VmStop::by_host, 0);
        CHECK(f.vcpu(1).has_work(Outcome::waiting));
        CHECK(f.turn(1) == Outcome::parked);
    }
}

TEST_CASE("a late wake-up of a stopped vCPU touches nothing", "[core]") {
    VcpuFixture f;
    f.epoch = 1;  // never started: its backend may be in use by reset() on another CPU
    const unsigned entered = f.backend().entered;
    CHECK(f.run({}) == Outcome::still_parked);
    CHECK(f.backend().entered == entered);
}

TEST_CASE("PAUSE exits while a sibling waits for the CPU", "[core]") {
    VcpuFixture f{2};
    f.start();
    f.scheduler->wake(f.vcpu(0));
    f.run({});
    CHECK_FALSE(f.backend().pause_exits);
    f.scheduler->wake(f.vcpu(1));
    const auto turn_of = [&](std::size_t index) {
        while (f.scheduler->pick_next(0) != &f.vcpu(index))
            fake::advance_tsc(10'000'000);
        f.jobs.wanted = true;
        return f.vcpu(index).run(f.loop);
    };
    for (unsigned turn = 0; turn < 2; ++turn) {
        CHECK(turn_of(1) == Outcome::waiting);  // for its start
        CHECK(f.backend(1).pause_exits);
        CHECK(turn_of(0) == Outcome::preempted);
        CHECK(f.backend().pause_exits);
    }
    turn_of(1);
    REQUIRE(f.scheduler->block(f.vcpu(1), [] { return true; }));
    turn_of(0);
    CHECK_FALSE(f.backend().pause_exits);
}

TEST_CASE("PAUSE loops give way", "[core]") {
    VcpuFixture f;
    f.start();
    CHECK(f.run({exit_of(Reason::pause, 2)}) == Outcome::yielded);
    CHECK(f.regs().rip == VcpuFixture::kCode + 2);
}
