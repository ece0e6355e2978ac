// SPDX-License-Identifier: MIT
// Messages between CPUs, and whom they reach.
#include "fakes/machine.hpp"
#include "local_apic_fixture.hpp"

#include <atomic>
#include <thread>

using namespace hv;
using namespace hv::apic;
using namespace hv::apic::test;

TEST_CASE("IPIs by shorthand reach whom they name", "[x86]") {
    Machine m{3};
    m.enable_all();
    const auto got = [&] {
        std::string who;
        for (unsigned cpu = 0; cpu < 3; ++cpu)
            who += drain(m[cpu]).empty() ? '-' : '+';
        return who;
    };
    send(m[1], 0, 0x4'4040);
    CHECK(got() == "-+-");
    send(m[1], 0, 0x8'4040);
    CHECK(got() == "+++");
    send(m[1], 0, 0xc'4040);
    CHECK(got() == "+-+");
    send(m[1], 2, 0x4040);
    CHECK(got() == "--+");
    send(m[1], 1, 0x4040);
    CHECK(got() == "-+-");
    send(m[1], 0xff, 0x4040);
    CHECK(got() == "+++");
    send(m[1], 7, 0x4040);
    CHECK(got() == "---");
}

TEST_CASE("NMI, INIT and start-up IPIs go to the owner", "[x86]") {
    Machine m{2};
    send(m[0], 1, 0x4500);  // INIT, also to an APIC that is software-disabled
    CHECK(m.owners[1]->inits == 1);
    send(m[0], 1, 0x8500);  // level de-assert
    CHECK(m.owners[1]->inits == 1);
    send(m[0], 0, 0xc'4608);
    CHECK(m.owners[1]->startups == std::vector<unsigned>{8});
    CHECK(m.owners[0]->startups.empty());
    send(m[0], 1, 0x4400);
    send(m[0], 0, 0x4'4400);  // to itself
    CHECK(m.owners[1]->nmis == 1);
    CHECK(m.owners[0]->nmis == 1);
    send(m[0], 0, 0x4'4500);  // INIT by a shorthand that includes the sender
    CHECK(m.owners[0]->inits == 0);
    send(m[0], 1, 0x4700);  // ExtINT and reserved modes cannot be sent
    send(m[0], 1, 0x4340);
    CHECK(m[1].pending_vector() == -1);
    CHECK_FALSE(m[1].ext_int_pending());
}

TEST_CASE("the self-IPI register works in x2APIC mode", "[x86]") {
    Machine m;
    m.enable_all();
    to_x2apic(m[0]);
    CHECK(m[0].write_msr(0x83f, 0xf1));
    CHECK(drain(m[0]) == std::vector<int>{0xf1});
    CHECK(m[0].write_msr(0x83f, 0x0f));
    CHECK(m[0].write_msr(0x828, 0));
    CHECK(m[0].read_msr(0x828).value() == SEND_ILLEGAL_VECTOR);
}

TEST_CASE("x2APIC destinations: physical, cluster, broadcast", "[x86]") {
    Machine m{20};
    m.enable_all();
    for (auto& apic : m.apics)
        to_x2apic(*apic);
    const auto receivers = [&](std::uint64_t icr) {
        CHECK(m[0].write_msr(0x830, icr));
        std::vector<unsigned> ids;
        for (unsigned cpu = 0; cpu < 20; ++cpu)
            if (!drain(m[cpu]).empty())
                ids.push_back(cpu);
        return ids;
    };
    CHECK(receivers(0x0000'0012'0000'0040) == std::vector<unsigned>{18});
    CHECK(receivers(0x0001'0005'0000'0840) == std::vector<unsigned>{16, 18});
    CHECK(receivers(0x0000'8001'0000'0840) == std::vector<unsigned>{0, 15});
    CHECK(receivers(0xffff'ffff'0000'0840).size() == 20);
    CHECK(receivers(0xffff'ffff'0000'0040).size() == 20);
    CHECK(receivers(0x0000'00ff'0000'0040).empty());
}

TEST_CASE("xAPIC logical destinations agree with the manual's rules for all of them", "[x86]") {
    for (const unsigned model : {0xfu, 0x0u, 0x3u}) {
        for (unsigned ldr = 0; ldr < 256; ++ldr) {
            const LocalApicAddress address{LocalApicAddress::Id::make(5) | LocalApicAddress::Ldr::make(ldr) |
                                           LocalApicAddress::Model::make(model) |
                                           LocalApicAddress::Present::make(1)};
            for (unsigned mda = 0; mda < 255; ++mda) {
                bool expected = false;
                for (unsigned member = 0; model == 0xf && member < 8; ++member)
                    expected |= (mda >> member & 1) != 0 && (ldr >> member & 1) != 0;
                for (unsigned member = 0; model == 0 && member < 4; ++member)
                    expected |= mda / 16 == ldr / 16 && (mda >> member & 1) != 0 && (ldr >> member & 1) != 0;
                REQUIRE(address.matches(mda, DestinationMode::logical) == expected);
                REQUIRE(address.matches(mda, DestinationMode::physical) == (mda == 5));
            }
            REQUIRE(address.matches(InterruptMessage::kBroadcast, DestinationMode::logical));
            REQUIRE_FALSE(LocalApicAddress{address.raw & ~LocalApicAddress::Present::kMask}.matches(
                5, DestinationMode::physical));
        }
    }
}

TEST_CASE("lowest priority takes turns among those that accept", "[x86]") {
    Machine m{4};
    m.enable_all();
    for (unsigned cpu = 0; cpu < 4; ++cpu)
        put(m[cpu], LDR, 1u << (24 + cpu));
    put(m[2], SVR, 0xff);
    unsigned taken[4]{};
    for (unsigned i = 0; i < 300; ++i) {
        m.fabric.deliver(
            {0x0f, DestinationMode::logical, DeliveryMode::lowest_priority, TriggerMode::edge, 0x40});
        for (unsigned cpu = 0; cpu < 4; ++cpu)
            taken[cpu] += static_cast<unsigned>(drain(m[cpu]).size());
    }
    CHECK(taken[0] == 100);
    CHECK(taken[1] == 100);
    CHECK(taken[2] == 0);
    CHECK(taken[3] == 100);
}

TEST_CASE("nothing that other CPUs post is lost", "[x86]") {
    Machine m{2};
    m.enable_all();
    for (unsigned cpu = 0; cpu < 2; ++cpu)
        put(m[cpu], LDR, 1u << (24 + cpu));
    constexpr unsigned kRounds = 20'000;
    std::atomic<unsigned> taken[256]{};
    std::atomic<bool> stop{false};
    std::thread receiver{[&] {
        fake::set_cpu(1);
        while (!stop.load()) {
            if (m.owners[1]->posted.exchange(0) == 0)
                std::this_thread::yield();
            for (const int vector : drain(m[1]))
                ++taken[vector];
        }
    }};
    const auto sender = [&](unsigned cpu, std::uint8_t vector, TriggerMode trigger) {
        fake::set_cpu(cpu);
        for (unsigned round = 0; round < kRounds; ++round) {
            // One at a time for each vector: every single one has to arrive.
            m.fabric.deliver({2, DestinationMode::logical, DeliveryMode::fixed, trigger, vector});
            while (taken[vector].load() != round + 1)
                std::this_thread::yield();
        }
    };
    std::thread edge{sender, 2, std::uint8_t{0x40}, TriggerMode::edge};
    std::thread level{sender, 3, std::uint8_t{0x41}, TriggerMode::level};
    edge.join();
    level.join();
    stop = true;
    receiver.join();
    CHECK(taken[0x40] == kRounds);
    CHECK(taken[0x41] == kRounds);
    CHECK(m.eois.vectors.size() == kRounds);
}
