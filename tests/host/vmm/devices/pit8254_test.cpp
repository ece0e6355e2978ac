// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/board.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/devices/pit8254.hpp"

using namespace hv;

namespace {

struct Fixture {
    explicit Fixture(std::uint64_t hz = Pit8254::kHz * 1000) : clock{hz} {}
    void control(unsigned value) { pit.write(3, 1, value); }
    void count(unsigned channel, unsigned value) {
        pit.write(channel, 1, value & 0xff);
        pit.write(channel, 1, value >> 8);
    }
    unsigned read(unsigned channel) {
        const auto low = static_cast<unsigned>(pit.read(channel, 1));
        return low | static_cast<unsigned>(pit.read(channel, 1)) << 8;
    }
    unsigned latched(unsigned channel) {
        control(channel << 6);
        return read(channel);
    }
    unsigned status(unsigned channel) {
        control(0xe0 | 2u << channel);
        return static_cast<unsigned>(pit.read(channel, 1));
    }
    /// PIT clocks.
    void run(std::uint64_t clocks) { clock.run_for(clocks * 1000); }
    bool out2() { return (pit.port61().read(0, 1) & 0x20) != 0; }
    void gate2(bool high) { pit.port61().write(0, 1, high ? 1 : 0); }

    fake::StepClock clock;
    fake::RecordingLine irq;
    Pit8254 pit{clock, irq};
};

}  // namespace

TEST_CASE("the rate generator ticks exactly over minutes", "[devices]") {
    for (const std::uint64_t hz : {1'000'000'000ull, 2'893'437'211ull, 50'000'000ull}) {
        Fixture f{hz};
        f.control(0x34);
        f.count(0, 11932);  // about 100 Hz
        f.clock.lateness = hz / 1'000'000;
        const unsigned before = f.irq.edges;
        f.clock.run_seconds(120);
        CHECK(f.irq.edges - before == (120 * Pit8254::kHz - 1) / 11932);
    }
}

TEST_CASE("mode 2 counts down and reloads", "[devices]") {
    Fixture f;
    f.control(0x34);
    f.count(0, 100);
    f.run(1);
    CHECK(f.latched(0) == 100);
    f.run(30);
    CHECK(f.latched(0) == 70);
    CHECK(f.status(0) == 0xb4);
    f.run(69);
    CHECK(f.latched(0) == 1);
    CHECK((f.status(0) & 0x80) == 0);
    f.run(1);
    CHECK(f.latched(0) == 100);
    f.run(250);
    CHECK(f.latched(0) == 50);
}

TEST_CASE("mode 3 counts by two", "[devices]") {
    Fixture f;
    f.control(0xb6);
    f.gate2(true);
    f.count(2, 10);
    f.run(1);
    const unsigned even[]{10, 8, 6, 4, 2, 10, 8, 6, 4, 2};
    for (unsigned i = 0; i < 10; ++i, f.run(1)) {
        CHECK(f.latched(2) == even[i]);
        CHECK(f.out2() == (i < 5));
    }
    f.control(0xb6);
    f.count(2, 5);
    f.run(1);
    const unsigned odd[]{4, 2, 0, 4, 2};
    for (unsigned i = 0; i < 5; ++i, f.run(1)) {
        CHECK(f.latched(2) == odd[i]);
        CHECK(f.out2() == (i < 3));
    }
}

TEST_CASE("mode 0 interrupts once, at the end of the count", "[devices]") {
    Fixture f;
    f.control(0x30);
    CHECK_FALSE(f.irq.level);
    f.count(0, 1000);
    CHECK((f.status(0) & 0xc0) == 0x40);  // not in the counter yet
    f.run(1000);
    CHECK_FALSE(f.irq.level);
    f.run(1);
    CHECK(f.irq.level);
    CHECK(f.irq.edges == 1);
    CHECK(f.latched(0) == 0);
    f.run(1);
    CHECK(f.latched(0) == 0xffff);  // goes on
    f.run(1'000'000);
    CHECK(f.irq.edges == 1);
    f.pit.write(0, 1, 5);  // the first byte of a new count takes the output low
    CHECK_FALSE(f.irq.level);
    f.pit.write(0, 1, 0);
    f.run(6);
    CHECK(f.irq.edges == 2);
}

TEST_CASE("mode 4 strobes", "[devices]") {
    Fixture f;
    f.control(0x38);
    f.run(1);
    const unsigned before = f.irq.edges;
    f.count(0, 500);
    f.run(501);
    CHECK(f.irq.edges == before);
    CHECK((f.status(0) & 0x80) == 0);
    f.run(1);
    CHECK(f.irq.edges == before + 1);
    CHECK((f.status(0) & 0x80) != 0);
    f.run(100'000);
    CHECK(f.irq.edges == before + 1);
}

TEST_CASE("the speaker's gate stops, restarts and triggers counter 2", "[devices]") {
    Fixture f;
    f.control(0xb0);  // mode 0
    f.count(2, 1000);
    f.run(500);
    CHECK(f.latched(2) == 1000);  // gate low
    f.gate2(true);
    f.run(301);
    CHECK(f.latched(2) == 699);
    f.gate2(false);
    f.run(5000);
    CHECK(f.latched(2) == 699);
    CHECK_FALSE(f.out2());
    f.gate2(true);
    f.run(699);
    CHECK(f.out2());

    f.gate2(false);
    f.control(0xb2);  // mode 1
    f.count(2, 50);
    f.run(100);
    CHECK(f.out2());
    f.gate2(true);
    f.run(1);
    CHECK_FALSE(f.out2());
    f.run(30);
    f.gate2(false);
    f.gate2(true);  // retriggered
    f.run(50);
    CHECK_FALSE(f.out2());
    f.run(1);
    CHECK(f.out2());

    f.control(0xba);  // mode 5
    f.count(2, 50);
    f.gate2(false);
    f.run(10);
    f.gate2(true);
    f.run(50);
    CHECK(f.out2());
    f.run(1);
    CHECK_FALSE(f.out2());
    f.run(1);
    CHECK(f.out2());

    f.control(0xb4);  // mode 2: a low gate holds the output high, a rise reloads
    f.count(2, 100);
    f.run(31);
    f.gate2(false);
    CHECK(f.out2());
    f.run(1000);
    f.gate2(true);
    f.run(1);
    CHECK(f.latched(2) == 100);
}

TEST_CASE("a new count waits for the end of the cycle in the periodic modes", "[devices]") {
    Fixture f;
    f.control(0x34);
    f.count(0, 1000);
    f.run(401);
    f.count(0, 200);
    CHECK((f.status(0) & 0x40) != 0);
    CHECK(f.latched(0) == 600);
    const unsigned before = f.irq.edges;
    f.run(600);
    CHECK(f.irq.edges == before + 1);
    CHECK((f.status(0) & 0x40) == 0);
    f.run(200);
    CHECK(f.irq.edges == before + 2);
    f.run(200);
    CHECK(f.irq.edges == before + 3);
}

TEST_CASE("latched values stay until they are read", "[devices]") {
    Fixture f;
    f.control(0x34);
    f.count(0, 0x4000);
    f.run(1);
    f.control(0x00);
    f.run(100);
    f.control(0x00);  // ignored while one waits
    CHECK(f.read(0) == 0x4000);
    CHECK(f.read(0) == 0x4000 - 100);
    f.control(0xc2);  // read-back: count and status of counter 0; status comes first
    f.run(10);
    CHECK(f.pit.read(0, 1) == 0xb4);
    CHECK(f.read(0) == 0x4000 - 100);
    CHECK(f.read(0) == 0x4000 - 110);
}

TEST_CASE("access modes and BCD", "[devices]") {
    Fixture f;
    f.control(0x14);  // low byte only
    f.pit.write(0, 1, 100);
    f.run(11);
    CHECK(f.pit.read(0, 1) == 90);
    CHECK(f.pit.read(0, 1) == 90);
    f.control(0x24);  // high byte only
    f.pit.write(0, 1, 0x10);
    f.run(1);
    CHECK(f.pit.read(0, 1) == 0x10);
    f.control(0x35);
    f.count(0, 0x1234);
    f.run(1 + 235);
    CHECK(f.latched(0) == 0x0999);
    f.control(0x35);
    f.count(0, 0);  // ten thousand
    f.run(2);
    CHECK(f.latched(0) == 0x9999);
    CHECK(f.pit.read(3, 1) == 0xff);
}

TEST_CASE("a count of zero is 65,536", "[devices]") {
    Fixture f;
    f.control(0x36);
    f.count(0, 0);
    const unsigned before = f.irq.edges;
    f.run(65'536);
    CHECK(f.irq.edges == before);
    f.run(1);
    CHECK(f.irq.edges == before + 1);
}

TEST_CASE("port 0x61 keeps its bits and shows memory refresh", "[devices]") {
    Fixture f;
    f.pit.port61().write(0, 1, 0xff);
    CHECK((f.pit.port61().read(0, 1) & 0xcf) == 0x0f);
    unsigned toggles = 0;
    unsigned last = 0;
    for (unsigned i = 0; i < 1800; ++i, f.run(1)) {
        const unsigned now = static_cast<unsigned>(f.pit.port61().read(0, 1)) & 0x10;
        toggles += now != last ? 1 : 0;
        last = now;
    }
    CHECK(toggles >= 99);
    CHECK(toggles <= 100);
}

TEST_CASE("a count that is faster than sense does not take the host", "[devices]") {
    Fixture f{1'000'000'000};
    f.control(0x34);
    f.count(0, 2);
    const std::uint64_t before = f.clock.fired;
    f.clock.run_for(10'000'000);
    CHECK(f.clock.fired - before <= 550);
}

TEST_CASE("reset stops the counters", "[devices]") {
    Fixture f;
    f.control(0x34);
    f.count(0, 100);
    f.pit.reset();
    CHECK(f.clock.idle());
    CHECK_FALSE(f.irq.level);
}
