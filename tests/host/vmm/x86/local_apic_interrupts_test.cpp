// SPDX-License-Identifier: MIT
// What is pending and in service: priorities, EOI, errors and the LINT pins.
#include "local_apic_fixture.hpp"

#include <random>
#include <set>

using namespace hv;
using namespace hv::apic;
using namespace hv::apic::test;

TEST_CASE("priorities nest by class", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    apic.post(0x31, TriggerMode::edge);
    CHECK(apic.pending_vector() == 0x31);
    apic.accept(0x31);
    CHECK(get(apic, PPR) == 0x30);
    CHECK(get(apic, ISR + 1) == 1u << 0x11);
    apic.post(0x3f, TriggerMode::edge);  // same class waits
    CHECK(apic.pending_vector() == -1);
    CHECK(get(apic, IRR + 1) == 1u << 0x1f);
    apic.post(0x45, TriggerMode::edge);
    CHECK(apic.pending_vector() == 0x45);
    apic.accept(0x45);
    CHECK(apic.pending_vector() == -1);
    apic.eoi();
    CHECK(get(apic, PPR) == 0x30);
    apic.eoi();
    CHECK(apic.pending_vector() == 0x3f);
}

TEST_CASE("TPR holds back its class and those below", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    apic.post(0x58, TriggerMode::edge);
    apic.set_tpr(0x50);
    CHECK(apic.pending_vector() == -1);
    CHECK(get(apic, PPR) == 0x50);
    apic.set_tpr(0x4f);
    CHECK(apic.pending_vector() == 0x58);
    CHECK(get(apic, PPR) == 0x4f);
    apic.accept(0x58);
    CHECK(get(apic, PPR) == 0x50);
    CHECK(get(apic, APR) == 0x50);
}

TEST_CASE("PPR and what is pending agree with a model through random traffic", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    std::mt19937 random{1};
    std::set<int> irr, isr;
    int tpr = 0;
    for (unsigned step = 0; step < 20'000; ++step) {
        switch (random() % 4) {
        case 0: {
            const int vector = 16 + static_cast<int>(random() % 240);
            apic.post(static_cast<std::uint8_t>(vector), TriggerMode::edge);
            irr.insert(vector);
            break;
        }
        case 1:
            tpr = random() % 3 == 0 ? static_cast<int>(random() % 256) : 0;
            apic.set_tpr(static_cast<std::uint8_t>(tpr));
            break;
        case 2:
            apic.eoi();
            if (!isr.empty())
                isr.erase(*isr.rbegin());
            break;
        default: break;
        }
        const int service = isr.empty() ? 0 : *isr.rbegin() & 0xf0;
        const int ppr = (tpr & 0xf0) >= service ? tpr : service;
        const int top = irr.empty() ? -1 : *irr.rbegin();
        const int expected = top >= 0 && (top & 0xf0) > (ppr & 0xf0) ? top : -1;
        REQUIRE(apic.pending_vector() == expected);
        REQUIRE(get(apic, PPR) == static_cast<unsigned>(ppr));
        if (expected >= 0 && random() % 2 == 0) {
            apic.accept(static_cast<std::uint8_t>(expected));
            irr.erase(expected);
            isr.insert(expected);
        }
    }
}

TEST_CASE("EOI of a level-triggered vector is broadcast unless suppressed", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    apic.post(0x61, TriggerMode::level);
    CHECK(apic.pending_vector() == 0x61);
    CHECK(get(apic, TMR + 3) == 2);
    drain(apic);
    CHECK(m.eois.vectors == std::vector<unsigned>{0x61});
    apic.post(0x61, TriggerMode::edge);
    drain(apic);
    CHECK(get(apic, TMR + 3) == 0);
    CHECK(m.eois.vectors.size() == 1);
    put(apic, SVR, kMmioEnabled | 1 << 12);
    apic.post(0x61, TriggerMode::level);
    drain(apic);
    CHECK(m.eois.vectors.size() == 1);
    apic.eoi();  // nothing in service
    CHECK(m.eois.vectors.size() == 1);
}

TEST_CASE("an EOI can wait only for a single edge with nothing behind it", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    CHECK_FALSE(apic.eoi_can_wait());
    apic.post(0x40, TriggerMode::edge);
    apic.accept(static_cast<std::uint8_t>(apic.pending_vector()));
    CHECK(apic.eoi_can_wait());
    apic.post(0x30, TriggerMode::edge);
    CHECK_FALSE(apic.eoi_can_wait());
    drain(apic);
    apic.eoi();
    CHECK(drain(apic) == std::vector<int>{0x30});
    apic.post(0x50, TriggerMode::level);
    apic.accept(static_cast<std::uint8_t>(apic.pending_vector()));
    CHECK_FALSE(apic.eoi_can_wait());
}

TEST_CASE("the owner is told once until it looks", "[x86]") {
    Machine m;
    m.enable_all();
    m[0].post(0x40, TriggerMode::edge);
    m[0].post(0x41, TriggerMode::edge);
    CHECK(m.owners[0]->posted == 1);
    m[0].pending_vector();
    m[0].post(0x40, TriggerMode::edge);
    CHECK(m.owners[0]->posted == 2);
}

TEST_CASE("a software-disabled APIC drops fixed interrupts but keeps what it has", "[x86]") {
    Machine m;
    m[0].post(0x40, TriggerMode::edge);
    CHECK(m[0].pending_vector() == -1);
    m.enable_all();
    m[0].post(0x50, TriggerMode::edge);
    m[0].pending_vector();
    put(m[0], SVR, 0xff);
    m[0].post(0x60, TriggerMode::edge);
    CHECK(drain(m[0]) == std::vector<int>{0x50});
    m[0].receive({0, DestinationMode::physical, DeliveryMode::nmi, TriggerMode::edge, 0});
    CHECK(m.owners[0]->nmis == 1);
}

TEST_CASE("illegal vectors are reported by sender and receiver", "[x86]") {
    Machine m{2};
    m.enable_all();
    send(m[0], 1, 0x4'0000 | 15);
    CHECK(latch_errors(m[0]) == SEND_ILLEGAL_VECTOR);
    m[1].post(15, TriggerMode::edge);
    CHECK(latch_errors(m[1]) == RECEIVE_ILLEGAL_VECTOR);
    CHECK(drain(m[1]).empty());
}

TEST_CASE("virtual wire mode passes the 8259's interrupts and NMIs", "[x86]") {
    Machine m;
    LocalApic& apic = m[0];
    apic.lint0().set(true);
    CHECK(apic.pending_vector() == -1);
    CHECK_FALSE(apic.ext_int_pending());
    apic.enter_virtual_wire_mode();
    CHECK(apic.ext_int_pending());
    apic.set_tpr(0xff);
    CHECK(apic.ext_int_pending());
    apic.lint0().set(false);
    CHECK_FALSE(apic.ext_int_pending());
    apic.lint1().set(true);
    apic.pending_vector();
    CHECK(m.owners[0]->nmis == 1);
    apic.lint1().set(true);
    apic.pending_vector();
    CHECK(m.owners[0]->nmis == 1);
    put(apic, LVT_LINT0, 0x1'0700);
    apic.lint0().set(true);
    CHECK_FALSE(apic.ext_int_pending());
    CHECK(apic.set_apic_base(0xfee0'0100));  // disabled: the pins are INTR and NMI
    CHECK(apic.ext_int_pending());
}

TEST_CASE("a level-triggered LINT0 comes back after EOI while it is asserted", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_LINT0, 0x8055);
    apic.lint0().set(true);
    CHECK(apic.pending_vector() == 0x55);
    CHECK(get(apic, LVT_LINT0) == 0xc055);
    apic.accept(0x55);
    CHECK(apic.pending_vector() == -1);
    apic.eoi();
    CHECK(apic.pending_vector() == 0x55);
    apic.lint0().set(false);
    apic.accept(0x55);
    apic.eoi();
    CHECK(apic.pending_vector() == -1);
    CHECK(get(apic, LVT_LINT0) == 0x8055);
}

TEST_CASE("an ExtINT message asks for an acknowledge cycle", "[x86]") {
    Machine m;
    m.enable_all();
    m.fabric.deliver({0, DestinationMode::physical, DeliveryMode::ext_int, TriggerMode::edge, 0});
    CHECK(m.owners[0]->posted == 1);
    CHECK(m[0].pending_vector() == -1);
    CHECK(m[0].ext_int_pending());
    m[0].accept_ext_int();
    CHECK_FALSE(m[0].ext_int_pending());
}
