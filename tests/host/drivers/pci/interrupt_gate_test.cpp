// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/pci/interrupt_gate.hpp"
#include "fakes/machine.hpp"
#include "fakes/step_clock.hpp"

using namespace hv;
using pci::InterruptGate;

namespace {

struct Device final : InterruptGate::Source {
    void mask(bool value) override { masked = value; }
    void note_storm() override { ++storms; }
    static void handle(void* self) { ++static_cast<Device*>(self)->handled; }
    bool masked{false};
    unsigned storms{0};
    unsigned handled{0};
};

}  // namespace

TEST_CASE("interrupts reach the driver, and nothing else happens", "[pci]") {
    fake::StepClock clock;
    Device device;
    InterruptGate gate{clock, device, Device::handle, &device};
    for (unsigned i = 0; i < 10'000; ++i) {
        gate.raise();
        clock.skip(InterruptGate::kWindowNs / InterruptGate::kMostInWindow + 100);
    }
    CHECK(device.handled == 10'000);
    CHECK(device.storms == 0);
    CHECK(clock.idle());
}

TEST_CASE("a device that interrupts without end is masked, and looked after by a timer", "[pci]") {
    fake::StepClock clock;
    Device device;
    InterruptGate gate{clock, device, Device::handle, &device};
    while (!device.masked)
        gate.raise();
    CHECK(device.handled == InterruptGate::kMostInWindow + 1);
    clock.run_for(InterruptGate::kWindowNs);
    CHECK_FALSE(device.masked);
    CHECK(device.handled == InterruptGate::kMostInWindow + 2);
    // A second of a storm: so many get through at most.
    const unsigned before = device.handled;
    for (unsigned step = 0; step < 1'000'000; ++step) {
        if (!device.masked)
            gate.raise();
        clock.run_for(1000);
    }
    CHECK(device.handled - before <
          1'000'000'000 / InterruptGate::kWindowNs * (InterruptGate::kMostInWindow + 3));
    CHECK(device.storms > 1000);
}

TEST_CASE("a device whose interrupts may get lost is looked after all the time", "[pci]") {
    fake::StepClock clock;
    Device device;
    InterruptGate gate{clock, device, Device::handle, &device, 2'000'000};
    clock.run_seconds(1);
    CHECK(device.handled == 500);
}

TEST_CASE("a device that is busy on many CPUs is no storm, one that floods a single CPU is", "[pci]") {
    fake::StepClock clock;
    Device device;
    InterruptGate gate{clock, device, Device::handle, &device};
    for (unsigned i = 0; i < 8 * InterruptGate::kMostInWindow; ++i) {
        fake::set_cpu(i % 8);
        gate.raise();
    }
    CHECK_FALSE(device.masked);
    gate.raise();
    CHECK(device.masked);
    fake::set_cpu(0);
}
