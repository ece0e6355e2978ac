// SPDX-License-Identifier: MIT
#include "vmm/core/vcpu_fixture.hpp"

using namespace hv;
using namespace hv::test;
using Reason = VmExit::Reason;

TEST_CASE("a CPU does its jobs and runs who wants to run", "[core]") {
    VcpuFixture f;
    f.start();
    f.loop.turn();
    CHECK(f.jobs.services == 0);
    CHECK(f.loop.running() == nullptr);

    f.vcpu().poke();
    f.jobs.wanted = true;
    f.backend().on_run = [&] { CHECK(f.loop.running() == &f.vcpu()); };
    f.loop.turn();
    CHECK(f.jobs.services == 1);
    CHECK(f.backend().runs == 1);
    CHECK(f.loop.running() == nullptr);
}

TEST_CASE("a vCPU that spins gives way to another one of its CPU", "[core]") {
    VcpuFixture f{2};
    f.start();
    f.vcpu().poke();
    unsigned runs = 0;
    f.backend().on_run = [&] {
        if (++runs == 10)
            f.vcpu(1).poke();
        f.clock.advance(100'000);
        f.jobs.wanted = runs > 10'000;  // it does not
    };
    for (unsigned turn = 0; turn < 2; ++turn)
        f.loop.turn();
    CHECK(runs >= 10);
    CHECK(runs < 10'000);
    f.jobs.wanted = true;
    f.loop.turn();
    CHECK(f.backend(1).entered > 1);
}

TEST_CASE("a vCPU with nothing to do blocks, and what wakes it runs it again", "[core]") {
    VcpuFixture f;
    f.start();
    f.enable_apic();
    f.vcpu().poke();
    f.backend().exits = {exit_of(Reason::hlt, 1)};
    f.loop.turn();
    CHECK(f.vcpu().state() == SchedEntity::State::blocked);
    f.loop.turn();
    CHECK(f.backend().runs == 1);
    f.vcpu().apic().post(0x41, TriggerMode::edge);
    CHECK(f.vcpu().state() == SchedEntity::State::queued);
    f.jobs.wanted = true;
    f.loop.turn();
    CHECK(f.injected(Event::interrupt(0x41)));
}

TEST_CASE("a vCPU that parks is blocked before its VM hears of it", "[core]") {
    VcpuFixture f;
    f.start();
    f.vcpu().poke();
    f.control.request_stop(VmStop::by_host, 0);
    f.loop.turn();
    CHECK(f.control.parked == 1);
    CHECK(f.vcpu().state() == SchedEntity::State::blocked);
    f.vcpu().poke();
    f.loop.turn();
    CHECK(f.control.parked == 1);
    CHECK(f.vcpu().state() == SchedEntity::State::blocked);
}
