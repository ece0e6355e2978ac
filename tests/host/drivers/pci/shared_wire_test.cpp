// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/pci/shared_wire.hpp"
#include "fakes/machine.hpp"
#include "fakes/step_clock.hpp"

using namespace hv;
using pci::InterruptGate;

namespace {

struct Wire final : pci::SharedWire {
    void mask(bool value) override { masked = value; }
    bool masked{false};
};

/// A driver and its device, which knows the wire alone.
struct Driver final : InterruptGate::Source {
    explicit Driver(Wire& at) : wire{at} {}
    void mask(bool masked) override { wire.mask(masked); }
    void note_storm() override { ++storms; }
    static void handle(void* self) { ++static_cast<Driver*>(self)->handled; }
    Wire& wire;
    unsigned handled{0};
    unsigned storms{0};
};

/// Two drivers listen; a function that is nobody's may pull the wire as well.
struct WireBench {
    WireBench() {
        REQUIRE(wire.add(first_gate));
        REQUIRE(wire.add(second_gate));
    }
    /// The stranger pulls for so long, and interrupts whenever it can. Returns how often it does.
    unsigned pull_for(std::uint64_t microseconds) {
        unsigned interrupts = 0;
        for (; microseconds > 0; --microseconds) {
            if (!wire.masked) {
                wire.raise();
                ++interrupts;
            }
            clock.run_for(1'000);
        }
        return interrupts;
    }

    fake::StepClock clock;
    Wire wire;
    Driver first{wire}, second{wire};
    InterruptGate first_gate{clock, first, Driver::handle, &first};
    InterruptGate second_gate{clock, second, Driver::handle, &second};
};

}  // namespace

TEST_CASE("whoever pulls a wire, all who listen to it are asked", "[pci]") {
    WireBench bench;
    CHECK(bench.pull_for(10) == 10);
    CHECK(bench.first.handled == 10);
    CHECK(bench.second.handled == 10);
    CHECK_FALSE(bench.wire.masked);
    CHECK(bench.clock.idle());
}

TEST_CASE("a wire that a stranger pulls without end interrupts within bounds, and goes on when that is over",
          "[pci]") {
    WireBench bench;
    const unsigned interrupts = bench.pull_for(1'000'000);
    CHECK(interrupts < 1'000'000'000 / InterruptGate::kWindowNs * (InterruptGate::kMostInWindow + 3));
    CHECK(interrupts > 1'000);
    CHECK(bench.first.storms > 1'000);
    CHECK(bench.first.handled > interrupts);  // and once each time it is unmasked
    CHECK(bench.second.handled > interrupts);
    bench.clock.run_for(InterruptGate::kWindowNs);
    CHECK_FALSE(bench.wire.masked);
    CHECK(bench.clock.idle());
}

TEST_CASE("a wire that one driver has masked is unmasked for all, and masked again by the other", "[pci]") {
    WireBench bench;
    for (unsigned i = 0; i < 20; ++i)
        bench.first_gate.raise();  // which the second one does not count
    const unsigned before = bench.pull_for(100);
    CHECK(before == InterruptGate::kMostInWindow + 1 - 20);
    CHECK(bench.wire.masked);
    bench.clock.run_for(InterruptGate::kWindowNs);
    CHECK_FALSE(bench.wire.masked);
    CHECK(bench.second.storms == 0);
    CHECK(bench.pull_for(100) <= InterruptGate::kMostInWindow + 1);
    CHECK(bench.wire.masked);
}
