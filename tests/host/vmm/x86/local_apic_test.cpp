// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/x86/local_apic.hpp"

#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

using namespace hv;
using namespace hv::apic;

namespace {

constexpr std::uint32_t kMmioEnabled = 0x1ff;  // SVR

struct Owner final : LocalApicOwner {
    void interrupt_posted() override { ++posted; }
    void priority_changed() override { ++changes; }
    void nmi() override { ++nmis; }
    void init() override { ++inits; }
    void startup(std::uint8_t vector) override { startups.push_back(vector); }
    std::atomic<unsigned> posted{0};
    unsigned changes{0};
    unsigned nmis{0};
    unsigned inits{0};
    std::vector<unsigned> startups;
};

struct EoiRecorder final : EoiListener {
    void eoi(std::uint8_t vector) override { vectors.push_back(vector); }
    std::vector<unsigned> vectors;
};

struct Machine {
    explicit Machine(unsigned cpus = 1, std::uint64_t hz = 1'000'000'000) : clock{hz} {
        for (unsigned id = 0; id < cpus; ++id) {
            owners.push_back(std::make_unique<Owner>());
            apics.push_back(
                std::make_unique<LocalApic>(LocalApic::Config{id, id == 0}, fabric, *owners.back(), clock));
            pointers.push_back(apics.back().get());
        }
        fabric.connect(pointers, &eois);
    }
    LocalApic& operator[](unsigned index) { return *apics[index]; }
    void enable_all() {
        for (auto& apic : apics)
            apic->mmio_write(SVR << 4, 4, kMmioEnabled);
    }

    fake::StepClock clock;
    InterruptFabric fabric;
    EoiRecorder eois;
    std::vector<std::unique_ptr<Owner>> owners;
    std::vector<std::unique_ptr<LocalApic>> apics;
    std::vector<LocalApic*> pointers;
};

std::uint32_t get(LocalApic& apic, std::uint32_t index) {
    return static_cast<std::uint32_t>(apic.mmio_read(index << 4, 4));
}
void put(LocalApic& apic, std::uint32_t index, std::uint32_t value) {
    apic.mmio_write(index << 4, 4, value);
}
void send(LocalApic& apic, std::uint32_t destination, std::uint32_t low) {
    put(apic, ICR_HIGH, destination << 24);
    put(apic, ICR, low);
}
std::uint32_t latch_errors(LocalApic& apic) {
    put(apic, ESR, 0);
    return get(apic, ESR);
}
/// Takes everything that is pending, to the end, as a guest without nesting would.
std::vector<int> drain(LocalApic& apic) {
    std::vector<int> vectors;
    for (int vector; (vector = apic.pending_vector()) >= 0;) {
        apic.accept(static_cast<std::uint8_t>(vector));
        vectors.push_back(vector);
        apic.eoi();
    }
    return vectors;
}
void to_x2apic(LocalApic& apic) {
    REQUIRE(apic.set_apic_base(apic.apic_base() | Base::X2apic::kMask));
}
bool faults(LocalApic& apic, std::uint32_t index, std::uint64_t value) {
    return !apic.write_msr(kFirstMsr + index, value);
}

}  // namespace

// --- registers -------------------------------------------------------------------------------------------

TEST_CASE("registers have their reset values", "[x86]") {
    Machine m{2};
    LocalApic& apic = m[1];
    CHECK(get(apic, ID) == 1u << 24);
    CHECK((get(apic, VERSION) & 0xff) == 0x14);
    CHECK((get(apic, VERSION) >> 16 & 0xff) == 5);
    CHECK(get(apic, TPR) == 0);
    CHECK(get(apic, LDR) == 0);
    CHECK(get(apic, DFR) == 0xffff'ffff);
    CHECK(get(apic, SVR) == 0xff);
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        CHECK(get(apic, index) == 0x1'0000);
    CHECK(apic.apic_base() == 0xfee0'0800);
    CHECK(m[0].apic_base() == 0xfee0'0900);
}

TEST_CASE("software-disabled LVT entries stay masked", "[x86]") {
    Machine m;
    put(m[0], LVT_TIMER, 0x40);
    CHECK(get(m[0], LVT_TIMER) == 0x1'0040);
    put(m[0], SVR, kMmioEnabled);
    put(m[0], LVT_TIMER, 0x40);
    CHECK(get(m[0], LVT_TIMER) == 0x40);
    put(m[0], SVR, 0xff);
    CHECK(get(m[0], LVT_TIMER) == 0x1'0040);
}

TEST_CASE("only bits that exist can be written", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    const std::pair<std::uint32_t, std::uint32_t> kept[]{
        {LVT_TIMER, 0x7'00ff}, {LVT_THERMAL, 0x1'07ff}, {LVT_PERFORMANCE, 0x1'07ff},
        {LVT_LINT0, 0x1'a7ff}, {LVT_LINT1, 0x1'a7ff},   {LVT_ERROR, 0x1'00ff},
        {DIVIDE, 0xb},         {LDR, 0xff00'0000},      {TPR, 0xff},
        {SVR, 0x13ff},         {ICR_HIGH, 0xff00'0000}};
    for (const auto& [index, bits] : kept) {
        put(apic, index, 0xffff'ffff);
        CHECK(get(apic, index) == bits);
    }
    put(apic, DFR, 0);
    CHECK(get(apic, DFR) == 0x0fff'ffff);
    put(apic, ID, 0xff00'0000);
    put(apic, VERSION, 0);
    CHECK(get(apic, ID) == 0);
    CHECK(get(apic, VERSION) == kVersion);
}

TEST_CASE("partial reads get bytes, writes that are no aligned double word are ignored", "[x86]") {
    Machine m;
    put(m[0], TPR, 0x37);
    CHECK(m[0].mmio_read(TPR << 4, 1) == 0x37);
    CHECK(m[0].mmio_read((VERSION << 4) + 2, 2) == kVersion >> 16);
    CHECK(m[0].mmio_read((TPR << 4) + 4, 4) == 0);
    m[0].mmio_write(TPR << 4, 1, 0x55);
    m[0].mmio_write((TPR << 4) + 4, 4, 0x55);
    CHECK(m[0].tpr() == 0x37);
}

TEST_CASE("a reserved register reports an illegal address in ESR, once written", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_ERROR, 0xe5);
    get(m[0], 0x3a);
    CHECK(get(m[0], ESR) == 0);
    CHECK(latch_errors(m[0]) == ILLEGAL_REGISTER);
    CHECK(drain(m[0]) == std::vector<int>{0xe5});
    CHECK(latch_errors(m[0]) == 0);
    put(m[0], 0x3f, 0x40);  // SELF IPI is no xAPIC register
    CHECK(drain(m[0]) == std::vector<int>{0xe5});
    put(m[0], 0x3f, 0x40);
    CHECK(drain(m[0]).empty());  // one interrupt until ESR is written
    CHECK(latch_errors(m[0]) == ILLEGAL_REGISTER);
}

TEST_CASE("an error vector that is illegal itself does not recurse", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_ERROR, 0x05);
    get(m[0], 0x00);
    CHECK(drain(m[0]).empty());
    CHECK(latch_errors(m[0]) == (ILLEGAL_REGISTER | RECEIVE_ILLEGAL_VECTOR));
}

// --- modes -----------------------------------------------------------------------------------------------

TEST_CASE("IA32_APIC_BASE allows the manual's transitions and no others", "[x86]") {
    constexpr std::uint64_t kBase = 0xfee0'0900;
    constexpr std::uint64_t kOff = kBase & ~Base::Enabled::kMask;
    constexpr std::uint64_t kX2 = kBase | Base::X2apic::kMask;
    constexpr std::uint64_t kInvalid = kOff | Base::X2apic::kMask;
    Machine m;
    LocalApic& apic = m[0];
    CHECK_FALSE(apic.set_apic_base(kInvalid));
    CHECK(apic.set_apic_base(kOff));
    CHECK_FALSE(apic.set_apic_base(kX2));
    CHECK_FALSE(apic.set_apic_base(kInvalid));
    CHECK(apic.set_apic_base(kBase));
    CHECK(apic.set_apic_base(kX2));
    CHECK(apic.x2apic());
    CHECK_FALSE(apic.mmio_enabled());
    CHECK_FALSE(apic.set_apic_base(kBase));
    CHECK_FALSE(apic.set_apic_base(kInvalid));
    CHECK(apic.set_apic_base(kX2));
    CHECK(apic.set_apic_base(kOff));
    CHECK_FALSE(apic.enabled());
    for (const unsigned reserved : {0u, 7u, 9u, 40u, 63u})
        CHECK_FALSE(apic.set_apic_base(kBase | std::uint64_t{1} << reserved));
    CHECK(apic.set_apic_base(0x4200'0900));
    CHECK(apic.base() == Gpa{0x4200'0000});
    CHECK(apic.mmio_enabled());
}

TEST_CASE("a disabled APIC answers all ones, and forgets its state", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], TPR, 0x20);
    put(m[0], LDR, 0x0100'0000);
    CHECK(m[0].set_apic_base(0xfee0'0100));
    CHECK(m[0].mmio_read(VERSION << 4, 4) == 0xffff'ffff);
    m[0].mmio_write(TPR << 4, 4, 0x50);
    CHECK(m[0].set_apic_base(0xfee0'0900));
    CHECK(get(m[0], TPR) == 0);
    CHECK(get(m[0], LDR) == 0);
    CHECK(get(m[0], SVR) == 0xff);
}

TEST_CASE("x2APIC: IDs are 32 bits wide, the logical one is derived", "[x86]") {
    Machine m{34};
    to_x2apic(m[33]);
    CHECK(m[33].read_msr(0x802).value() == 33);
    CHECK(m[33].read_msr(0x80d).value() == (2u << 16 | 1u << 1));
    CHECK(m[33].mmio_read(ID << 4, 4) == 0xffff'ffff);
}

TEST_CASE("x2APIC MSRs fault as the manual's table says", "[x86]") {
    Machine m;
    LocalApic& apic = m[0];
    CHECK_FALSE(apic.read_msr(0x802));  // still xAPIC
    CHECK(faults(apic, TPR, 0));
    to_x2apic(apic);
    std::set<std::uint32_t> readable{ID,  VERSION, TPR,           PPR,           LDR,   SVR,
                                     ESR, ICR,     INITIAL_COUNT, CURRENT_COUNT, DIVIDE};
    for (std::uint32_t index = ISR; index < ESR; ++index)
        readable.insert(index);
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        readable.insert(index);
    const std::set<std::uint32_t> writable{
        TPR,       EOI,       SVR,       ESR,           ICR,    LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE,
        LVT_LINT0, LVT_LINT1, LVT_ERROR, INITIAL_COUNT, DIVIDE, SELF_IPI};
    for (std::uint32_t index = 0; index < 0x100; ++index) {
        INFO("register " << index);
        CHECK(apic.read_msr(kFirstMsr + index).has_value() == (readable.count(index) == 1));
        CHECK(faults(apic, index, 0) == (writable.count(index) == 0));
    }
    const std::pair<std::uint32_t, std::uint64_t> bad[]{{TPR, 0x100},       {EOI, 1},
                                                        {ESR, 1},           {SVR, 0x400},
                                                        {ICR, 1u << 13},    {ICR, 1u << 16},
                                                        {ICR, 1u << 20},    {ICR, 1u << 31},
                                                        {LVT_TIMER, 0x100}, {LVT_TIMER, 1ull << 32},
                                                        {LVT_ERROR, 0x400}, {LVT_LINT0, 0x800},
                                                        {DIVIDE, 4},        {DIVIDE, 16},
                                                        {SELF_IPI, 0x100},  {INITIAL_COUNT, 1ull << 32}};
    for (const auto& [index, value] : bad) {
        INFO("register " << index << " value " << value);
        CHECK(faults(apic, index, value));
    }
    CHECK_FALSE(faults(apic, ICR, 0x0000'0005'0000'1030));  // delivery status is ignored
    CHECK(apic.read_msr(0x830).value() == 0x0000'0005'0000'0030);
}

// --- priorities ------------------------------------------------------------------------------------------

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

// --- IPIs ------------------------------------------------------------------------------------------------

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

// --- LINT pins -------------------------------------------------------------------------------------------

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

// --- timer -----------------------------------------------------------------------------------------------

TEST_CASE("a one-shot timer fires once, on the tick", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x40);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1000);
    m.clock.run_for(400);
    CHECK(get(apic, CURRENT_COUNT) == 600);
    m.clock.run_for(599);
    CHECK(apic.pending_vector() == -1);
    CHECK(get(apic, CURRENT_COUNT) == 1);
    m.clock.run_for(1);
    CHECK(m.owners[0]->posted == 1);
    CHECK(drain(apic) == std::vector<int>{0x40});
    CHECK(get(apic, CURRENT_COUNT) == 0);
    m.clock.run_for(5000);
    CHECK(drain(apic).empty());
    CHECK(get(apic, INITIAL_COUNT) == 1000);
}

TEST_CASE("every divisor divides", "[x86]") {
    const std::pair<std::uint32_t, unsigned> divisors[]{{0, 2},  {1, 4},  {2, 8},    {3, 16},
                                                        {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    for (const auto& [value, divisor] : divisors) {
        Machine m;
        m.enable_all();
        put(m[0], LVT_TIMER, 0x40);
        put(m[0], DIVIDE, value);
        put(m[0], INITIAL_COUNT, 100);
        m.clock.run_for(100 * divisor - 1);
        CHECK(drain(m[0]).empty());
        m.clock.run_for(1);
        CHECK(drain(m[0]).size() == 1);
    }
}

TEST_CASE("a changed divisor goes on from the current count", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_TIMER, 0x40);
    put(m[0], DIVIDE, 0xb);
    put(m[0], INITIAL_COUNT, 1000);
    m.clock.run_for(500);
    put(m[0], DIVIDE, 0x0);
    CHECK(get(m[0], CURRENT_COUNT) == 500);
    m.clock.run_for(999);
    CHECK(drain(m[0]).empty());
    m.clock.run_for(1);
    CHECK(drain(m[0]).size() == 1);
}

TEST_CASE("a periodic timer neither loses nor doubles a tick over minutes, at any host frequency", "[x86]") {
    for (const std::uint64_t hz : {1'000'000'000ull, 50'000'000ull, 2'400'000'017ull, 3'000'000'000ull}) {
        Machine m{1, hz};
        m.enable_all();
        LocalApic& apic = m[0];
        m.clock.lateness = hz / 100'000;  // 10 us
        put(apic, LVT_TIMER, 0x2'0040);
        put(apic, DIVIDE, 0x3);            // 16
        put(apic, INITIAL_COUNT, 62'500);  // 1 ms
        const std::uint64_t start = m.clock.now();
        std::uint64_t ticks = 0;
        m.clock.run_until(start + 180 * hz + hz / 2000, [&] {
            ticks += drain(apic).size();
            const std::uint64_t due =
                start + static_cast<std::uint64_t>(static_cast<unsigned __int128>(ticks) * hz / 1000);
            REQUIRE(m.clock.now() >= due);
            REQUIRE(m.clock.now() - due <= m.clock.lateness + 1);
        });
        CHECK(ticks == 180'000);
    }
}

TEST_CASE("periods that nobody saw coalesce, and the grid stays", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 100'000);
    m.clock.skip(1'050'000);  // ten periods and a half
    CHECK(get(apic, CURRENT_COUNT) == 50'000);
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(49'999);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(drain(apic).size() == 1);
}

TEST_CASE("periodic ticks of a time without a CPU are made up for, each once", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1'000'000);  // 1 ms
    const std::uint64_t start = m.clock.now();
    std::size_t ticks = 0;
    for (unsigned turn = 0; turn < 100; ++turn) {
        // 3 ms on the CPU, 6 without: its timer goes off, but nobody is there.
        m.clock.run_for(3'000'000, [&] { ticks += drain(apic).size(); });
        m.clock.skip(6'000'000);
        apic.resume(true);
        ticks += drain(apic).size();
    }
    m.clock.run_for(2'999'999, [&] { ticks += drain(apic).size(); });
    CHECK(ticks == (m.clock.now() - start) / 1'000'000);
}

TEST_CASE("the owner hears once of what was posted, and of what the guest does to its APIC", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    Owner& owner = *m.owners[0];
    put(apic, LVT_TIMER, 0x40);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1000);
    owner.changes = owner.posted = 0;
    m.clock.run_for(1000);
    CHECK(owner.posted == 1);
    CHECK(apic.pending_vector() == 0x40);
    CHECK(owner.changes == 0);
    put(apic, INITIAL_COUNT, 1000);
    m.clock.skip(1000);
    owner.changes = owner.posted = 0;
    CHECK(get(apic, CURRENT_COUNT) == 0);  // which finds that it has expired
    CHECK(owner.changes + owner.posted > 0);
}

TEST_CASE("late ticks keep their distance and wait for the guest", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 10'000'000);
    m.clock.skip(35'000'000);
    apic.resume(true);
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(99'999);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(apic.pending_vector() == 0x40);
    m.clock.run_for(1'000'000);  // the guest's interrupts are off
    apic.accept(0x40);
    m.clock.run_for(1'000'000);  // and its handler takes its time
    CHECK(apic.pending_vector() == -1);
    put(apic, EOI, 0);
    std::size_t ticks = 0;
    m.clock.run_for(100'000, [&] { ticks += drain(apic).size(); });
    CHECK(ticks == 1);
    m.clock.run_for(1'000'000, [&] { ticks += drain(apic).size(); });
    CHECK(ticks == 1);
}

TEST_CASE("what the guest missed by itself is not made up for", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, DIVIDE, 0xb);
    put(apic, INITIAL_COUNT, 1'000'000);
    m.clock.run_for(5'500'000, [&] { static_cast<void>(apic.pending_vector()); });  // interrupts off
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(400'000);
    CHECK(drain(apic).empty());
    // Halted until a tick comes: the first of three is taken, two are late.
    m.clock.skip(2'200'000);
    apic.resume(false);
    put(apic, INITIAL_COUNT, 1'000'000);  // a new count: nothing is owed any more
    CHECK(drain(apic).size() == 1);
    m.clock.run_for(900'000);
    CHECK(drain(apic).empty());
}

TEST_CASE("a periodic timer that is faster than sense does not take the host", "[x86]") {
    Machine m;
    m.enable_all();
    put(m[0], LVT_TIMER, 0x2'0040);
    put(m[0], DIVIDE, 0xb);
    put(m[0], INITIAL_COUNT, 1);
    unsigned taken = 0;
    m.clock.run_until(m.clock.now() + 1'000'000, [&] { taken += static_cast<unsigned>(drain(m[0]).size()); });
    CHECK(taken > 100);
    CHECK(m.clock.fired <= 201);
}

TEST_CASE("switching between one-shot and periodic keeps the count, an expired one stays at zero", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, DIVIDE, 0xb);
    put(apic, LVT_TIMER, 0x2'0040);
    put(apic, INITIAL_COUNT, 10'000);
    m.clock.run_for(6'000);
    put(apic, LVT_TIMER, 0x40);
    CHECK(get(apic, CURRENT_COUNT) == 4'000);
    m.clock.run_for(4'000);
    CHECK(drain(apic).size() == 1);
    CHECK(get(apic, CURRENT_COUNT) == 0);
    put(apic, LVT_TIMER, 0x2'0040);
    CHECK(get(apic, CURRENT_COUNT) == 0);
    m.clock.run_for(50'000);
    CHECK(drain(apic).empty());
}

TEST_CASE("a masked timer counts silently", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, DIVIDE, 0xb);
    put(apic, LVT_TIMER, 0x3'0040);
    put(apic, INITIAL_COUNT, 10'000);
    CHECK(m.clock.idle());
    m.clock.skip(25'000);
    CHECK(get(apic, CURRENT_COUNT) == 5'000);
    put(apic, LVT_TIMER, 0x2'0040);
    CHECK(drain(apic).empty());
    m.clock.run_for(5'000);
    CHECK(drain(apic).size() == 1);
    put(apic, INITIAL_COUNT, 0);
    CHECK(m.clock.idle());
    CHECK(get(apic, CURRENT_COUNT) == 0);
}

TEST_CASE("TSC-deadline mode follows the guest's TSC", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    apic.set_tsc_deadline(50'000);
    CHECK(apic.tsc_deadline() == 0);  // not in that mode
    apic.set_tsc_offset(-12'000);
    put(apic, LVT_TIMER, 0x4'0041);
    const std::uint64_t guest_now = m.clock.now() - 12'000;
    apic.set_tsc_deadline(guest_now + 700);
    CHECK(apic.tsc_deadline() == guest_now + 700);
    put(apic, INITIAL_COUNT, 5);  // ignored
    CHECK(get(apic, CURRENT_COUNT) == 0);
    m.clock.run_for(699);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(drain(apic) == std::vector<int>{0x41});
    CHECK(apic.tsc_deadline() == 0);
    apic.set_tsc_deadline(1);  // long past
    CHECK(drain(apic) == std::vector<int>{0x41});
    apic.set_tsc_deadline(guest_now + 5'000);
    apic.set_tsc_deadline(0);
    CHECK(m.clock.idle());
    apic.set_tsc_deadline(~0ull);
    m.clock.run_for(1'000'000'000);
    CHECK(drain(apic).empty());
    apic.set_tsc_deadline(m.clock.now() + 90'000);
    put(apic, LVT_TIMER, 0x0041);  // another mode disarms
    CHECK(apic.tsc_deadline() == 0);
    m.clock.run_for(1'000'000);
    CHECK(drain(apic).empty());
}

TEST_CASE("a deadline moves with the guest's TSC offset", "[x86]") {
    Machine m;
    m.enable_all();
    LocalApic& apic = m[0];
    put(apic, LVT_TIMER, 0x4'0041);
    apic.set_tsc_deadline(m.clock.now() + 10'000);
    apic.set_tsc_offset(6'000);
    m.clock.run_for(3'999);
    CHECK(drain(apic).empty());
    m.clock.run_for(1);
    CHECK(drain(apic).size() == 1);
}

TEST_CASE("a late call for an earlier deadline changes nothing", "[x86]") {
    struct Client final : LocalApicTimer::Client {
        void timer_due() override { ++due; }
        void timer_expired() override {}
        unsigned due{0};
    } client;
    fake::StepClock clock;
    LocalApicTimer timer{clock, client};
    timer.configure(0x40);
    timer.set_initial_count(1000);
    clock.skip(10);
    timer.fire();
    CHECK(client.due == 1);
    CHECK_FALSE(timer.advance());
    CHECK(timer.current_count() == 995);
}

TEST_CASE("INIT resets all but the mode", "[x86]") {
    Machine m;
    m.enable_all();
    to_x2apic(m[0]);
    CHECK(m[0].write_msr(0x808, 0x30));
    CHECK(m[0].write_msr(0x832, 0x40));
    CHECK(m[0].write_msr(0x838, 1000));
    m[0].post(0x80, TriggerMode::edge);
    m[0].init_reset();
    CHECK(m[0].x2apic());
    CHECK(m[0].read_msr(0x808).value() == 0);
    CHECK(m[0].read_msr(0x80f).value() == 0xff);
    CHECK(m[0].pending_vector() == -1);
    CHECK(m.clock.idle());
    m[0].reset();
    CHECK(m[0].mmio_enabled());
}

// --- other CPUs ------------------------------------------------------------------------------------------

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
