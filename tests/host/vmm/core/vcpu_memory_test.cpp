// SPDX-License-Identifier: MIT
// A vCPU whose code lies in memory that the host takes away: what it knows of that memory it forgets.
#include "vmm/core/vcpu_fixture.hpp"

#include <array>
#include <cstdint>

using namespace hv;
using namespace hv::test;
using Outcome = Vcpu::Outcome;
using Reason = VmExit::Reason;

namespace {

constexpr std::uint64_t kMmio = 0xd000'0000;

struct Fixture : VcpuFixture {
    explicit Fixture(std::uint32_t count = 1) : VcpuFixture{count, GuestMemory::Kind::releasable} {
        mmio.add(kMmio, 0x1000, device).value();
    }
    /// The memory with the code goes to another VM, whose code is the same; the guest has new memory instead.
    void replace_memory() {
        const Gpa granule{align_down(kCode, GuestMemory::kGranule)};
        std::byte* const where = memory.detach(granule);
        REQUIRE(where != nullptr);
        for (auto& each : vcpus)
            each->memory_leaves();
        memory.release(granule, where);
        REQUIRE(frames.allocate(9).value() == machine::hpa(where));
        REQUIRE(memory.at(granule, 1) != nullptr);
        REQUIRE(memory.at(granule, 1) != where);
        REQUIRE(memory.load<std::uint64_t>(Gpa{kCode}).value() == 0);
    }
    Scratch device;
};

}  // namespace

TEST_CASE("an instruction's length comes from the memory that has taken the old one's place", "[core]") {
    Fixture f;
    f.start();
    f.code({0x0f, 0xa2});  // CPUID
    f.run({exit_of(Reason::cpuid)});
    REQUIRE(f.regs().rip == VcpuFixture::kCode + 2);
    f.replace_memory();
    SECTION("that has a longer form of it") {
        f.code({0x66, 0x0f, 0xa2});
        f.run({exit_of(Reason::cpuid)});
        CHECK(f.regs().rip == VcpuFixture::kCode + 3);
    }
    SECTION("that has another one") {
        f.code({0x90, 0x90});
        f.run({exit_of(Reason::cpuid)});
        CHECK(f.regs().rip == VcpuFixture::kCode);
        CHECK(f.control.reasons.empty());
    }
}

TEST_CASE("an instruction that was decoded before is not taken from memory that is gone", "[core]") {
    Fixture f;
    f.start();
    for (unsigned i = 0; i < 2; ++i) {           // by a walk, then by the cache
        f.code({0xa1, 0x10, 0x00, 0x00, 0xd0});  // MOV EAX, [0xd0000010]
        f.run({fault_exit(kMmio + 0x10)});
    }
    REQUIRE(f.device.reads.size() == 2);
    f.replace_memory();
    f.code({0xa1, 0x20, 0x00, 0x00, 0xd0});
    f.run({fault_exit(kMmio + 0x20)});
    REQUIRE(f.device.reads.size() == 3);
    CHECK(f.device.reads.back().offset == 0x20);
}

TEST_CASE("memory that leaves while the guest runs is forgotten before it runs again", "[core]") {
    Fixture f;
    f.start();
    f.code({0x0f, 0xa2});
    f.run({exit_of(Reason::cpuid)});
    // The physical interrupt by which the host makes a CPU look around, then the guest's instruction.
    f.backend().exits = {exit_of(Reason::host_interrupt), exit_of(Reason::cpuid)};
    f.jobs.wanted = false;
    f.backend().on_run = [&] {
        if (f.backend().exits.size() == 2) {
            f.replace_memory();
            f.code({0x66, 0x0f, 0xa2});
        } else {
            f.jobs.wanted = true;
        }
    };
    const unsigned left = f.backend().left;
    CHECK(f.turn() == Outcome::preempted);
    CHECK(f.backend().left == left + 1);  // it ran on
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);
}

TEST_CASE("memory that leaves before an exit is handled is forgotten in time", "[core]") {
    Fixture f;
    f.start();
    f.code({0x0f, 0xa2});
    f.run({exit_of(Reason::cpuid)});
    // Interrupts are let in ahead of an exit that interrupted an event's delivery.
    VmExit exit = exit_of(Reason::cpuid);
    exit.interrupted = Event::interrupt(0x40);
    f.backend().on_run = [&] {
        f.replace_memory();
        f.code({0x66, 0x0f, 0xa2});
    };
    f.run({exit});
    CHECK(f.regs().rip == VcpuFixture::kCode + 3);
}

TEST_CASE("neither INIT nor a start-up IPI keeps a vCPU from forgetting", "[core]") {
    constexpr std::uint8_t kVector = 0x10;
    constexpr Gpa kStart{std::uint64_t{kVector} << 12};
    Fixture f{2};
    const auto start_up = [&] {
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::init, TriggerMode::edge, 0});
        f.fabric.deliver({1, DestinationMode::physical, DeliveryMode::startup, TriggerMode::edge, kVector});
    };
    const auto run = [&] {
        f.backend(1).exits = {exit_of(Reason::cpuid)};
        f.jobs.wanted = true;
        CHECK(f.turn(1) == Outcome::preempted);
        return f.backend(1).regs.rip;
    };
    f.memory.store(kStart, std::array<std::uint8_t, 2>{0x0f, 0xa2}).value();
    start_up();
    REQUIRE(run() == 2);
    f.replace_memory();
    f.memory.store(kStart, std::array<std::uint8_t, 3>{0x66, 0x0f, 0xa2}).value();
    start_up();
    CHECK(run() == 3);
}
