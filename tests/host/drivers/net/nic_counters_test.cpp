// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/net/nic_counters.hpp"

#include <thread>
#include <vector>

using namespace hv;
using namespace hv::netdrv;

TEST_CASE("each of a NIC's counters is its own", "[net]") {
    NicCounters counters;
    counters.sent(60);
    counters.sent(1518);
    counters.received(100);
    counters.received(200);
    counters.received(300);
    for (unsigned i = 0; i < 5; ++i)
        counters.no_room();
    counters.missed(70);
    counters.missed(7);
    for (unsigned i = 0; i < 4; ++i)
        counters.error();
    counters.device_reset();
    const NetDevice::Counters values = counters.values();
    CHECK(values.frames_sent == 2);
    CHECK(values.bytes_sent == 1578);
    CHECK(values.frames_received == 3);
    CHECK(values.bytes_received == 600);
    CHECK(values.no_room == 5);
    CHECK(values.missed == 77);
    CHECK(values.errors == 4);
    CHECK(values.resets == 1);
}

TEST_CASE("CPUs that count at once lose nothing", "[net]") {
    NicCounters counters;
    std::vector<std::thread> cpus;
    for (unsigned cpu = 0; cpu < 4; ++cpu)
        cpus.emplace_back([&] {
            for (unsigned i = 0; i < 10'000; ++i)
                counters.sent(10);
        });
    for (std::thread& cpu : cpus)
        cpu.join();
    CHECK(counters.values().frames_sent == 40'000);
    CHECK(counters.values().bytes_sent == 400'000);
}
