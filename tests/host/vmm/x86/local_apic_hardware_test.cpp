// SPDX-License-Identifier: MIT
// A local APIC whose registers a processor has, against one that has none: the guest sees the same.
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/x86/local_apic.hpp"

#include <bit>
#include <optional>
#include <random>
#include <vector>

using namespace hv;
using namespace hv::apic;

namespace {

/// A processor that virtualizes its guest's APIC, as the manual has it [sdm3 30 APIC Virtualization and
/// Virtual Interrupts], and what the guest does with it.
class Processor final : public ApicAcceleration {
public:
    explicit Processor(Extent what) : what_{what} {}

    [[nodiscard]] Extent extent() const override { return what_; }
    [[nodiscard]] ApicPage& page() override { return page_; }
    void watch(Client& new_client, const int& highest_request) override {
        client = &new_client;
        request = &highest_request;
    }
    void set_mode(Mode new_mode, Gpa new_base) override {
        mode = new_mode;
        base = new_base;
    }
    [[nodiscard]] Status status() const override { return status_; }
    void set_status(Status status) override { status_ = status; }
    void set_eoi_exits(unsigned word, std::uint64_t vectors) override { eoi_exits[word] = vectors; }

    /// Interrupt delivery at an instruction boundary, IF set: the vector, or -1.
    int deliver() {
        virtualize_ppr();
        if (status_.requested >> 4 <= page_.read(PPR) >> 4)
            return -1;
        const std::uint8_t vector = status_.requested;
        change(IRR, vector, false);
        change(ISR, vector, true);
        status_ = {highest(IRR), vector};
        virtualize_ppr();
        return vector;
    }
    /// A write to EOI: the vector for which an exit follows.
    std::optional<std::uint8_t> end() {
        const std::uint8_t vector = status_.in_service;
        change(ISR, vector, false);
        status_.in_service = highest(ISR);
        virtualize_ppr();
        if ((eoi_exits[vector / 64] >> (vector % 64) & 1) != 0)
            return vector;
        return std::nullopt;
    }
    void self_ipi(std::uint8_t vector) {
        page_.write(ICR, 0x4'0000U | vector);
        change(IRR, vector, true);
        status_.requested = std::max(status_.requested, vector);
    }
    void virtualize_ppr() {
        const std::uint32_t tpr = page_.read(TPR), service = status_.in_service & 0xf0U;
        page_.write(PPR, tpr >> 4 >= service >> 4 ? tpr : service);
    }

    Client* client{nullptr};
    const int* request{nullptr};
    Mode mode{Mode::disabled};
    Gpa base{};
    std::uint64_t eoi_exits[4]{};

private:
    void change(std::uint32_t set, std::uint8_t vector, bool member) {
        const std::uint32_t index = set + vector / 32, mask = 1U << (vector % 32);
        page_.write(index, member ? page_.read(index) | mask : page_.read(index) & ~mask);
    }
    [[nodiscard]] std::uint8_t highest(std::uint32_t set) const {
        for (unsigned i = 8; i-- > 0;) {
            if (const std::uint32_t bits = page_.read(set + i); bits != 0)
                return static_cast<std::uint8_t>(i * 32 + 31 - static_cast<unsigned>(std::countl_zero(bits)));
        }
        return 0;
    }

    Extent what_;
    ApicPage page_{};
    Status status_{};
};

struct Eois final : EoiListener {
    void eoi(std::uint8_t vector) override { vectors.push_back(vector); }
    std::vector<unsigned> vectors;
};

struct Owner final : LocalApicOwner {
    void interrupt_posted() override {}
    void priority_changed() override {}
    void nmi() override {}
    void init() override {}
    void startup(std::uint8_t) override {}
};

/// An APIC, its processor if it has one, and the guest on it.
struct Guest {
    explicit Guest(std::optional<ApicAcceleration::Extent> extent = {}) {
        list[0] = &apic;
        fabric.connect(list, &eois);
        if (extent) {
            processor.emplace(*extent);
            apic.attach(*processor);
        }
        write(SVR, 0x1ff);
    }
    [[nodiscard]] bool hardware() const { return processor && apic.hardware_delivers(); }
    /// What the run loop does before it enters the guest.
    void enter() {
        if (apic.pending_vector() >= 0 && hardware())
            apic.hand_over();
    }
    /// With interrupts enabled: the vector that is delivered.
    int take() {
        enter();
        if (hardware())
            return processor->deliver();
        const int vector = apic.pending_vector();
        if (vector >= 0)
            apic.accept(static_cast<std::uint8_t>(vector));
        return vector;
    }
    void end() {
        if (!hardware()) {
            apic.eoi();
        } else if (const auto vector = processor->end()) {
            apic.finish_eoi(*vector);
        }
    }
    void set_tpr(std::uint8_t value) {
        if (!processor) {
            apic.set_tpr(value);
            return;
        }
        processor->page().write(TPR, value);
        if (processor->client != nullptr)
            processor->client->task_priority_changed(value);
    }
    void self_ipi(std::uint8_t vector) {
        if (hardware())
            processor->self_ipi(vector);
        else
            write(ICR, 0x4'0000 | vector);
    }
    /// An xAPIC write; the processor's part of it, and the exit.
    void write(std::uint32_t index, std::uint32_t value) {
        if (!hardware()) {
            apic.mmio_write(index * 16, 4, value);
            return;
        }
        processor->page().write(index, index == ICR_HIGH ? value & 0xff00'0000 : value);
        if (index != ICR_HIGH)
            apic.finish_write(index * 16);
    }
    std::uint32_t read(std::uint32_t index) {
        enter();
        if (!hardware() || index == PPR || index == APR || index == CURRENT_COUNT)
            return static_cast<std::uint32_t>(apic.mmio_read(index * 16, 4));
        return processor->page().read(index);
    }

    fake::StepClock clock{1'000'000'000};
    InterruptFabric fabric;
    Owner owner;
    Eois eois;
    LocalApic apic{LocalApic::Config{3, true}, fabric, owner, clock};
    LocalApic* list[1]{};
    std::optional<Processor> processor;
};

constexpr auto kInterrupts = ApicAcceleration::Extent::interrupts;

void compare(Guest& a, Guest& b) {
    for (std::uint32_t index = ID; index <= DIVIDE; ++index) {
        if (index == EOI || (index > DFR + 1 && index < SVR) || (index > ESR && index < ICR))
            continue;
        INFO("register " << std::hex << index);
        REQUIRE(a.read(index) == b.read(index));
        // By an instruction that the VMM emulates.
        REQUIRE(a.apic.mmio_read(index * 16, 4) == b.apic.mmio_read(index * 16, 4));
    }
    REQUIRE(a.apic.tpr() == b.apic.tpr());
    REQUIRE(a.apic.interrupt_pending() == b.apic.interrupt_pending());
    REQUIRE(a.eois.vectors == b.eois.vectors);
}

}  // namespace

TEST_CASE("a guest sees the same whoever keeps its APIC's registers", "[x86]") {
    for (const auto extent : {kInterrupts, ApicAcceleration::Extent::task_priority}) {
        std::mt19937 random{7};
        Guest software, hardware{extent};
        const auto both = [&](auto&& action) {
            action(software);
            action(hardware);
        };
        for (unsigned step = 0; step < 20'000; ++step) {
            const auto vector = static_cast<std::uint8_t>(16 + random() % 240);
            const auto value = static_cast<std::uint32_t>(random());
            switch (random() % 13) {
            case 0:
            case 1: both([&](Guest& g) { g.apic.post(vector, TriggerMode::edge); }); break;
            case 2: both([&](Guest& g) { g.apic.post(vector, TriggerMode::level); }); break;
            case 3:
                // The processor's self-IPI leaves TMR as it is.
                if ((software.read(TMR + vector / 32) >> (vector % 32) & 1) == 0)
                    both([&](Guest& g) { g.self_ipi(vector); });
                break;
            case 4: both([&](Guest& g) { g.set_tpr(static_cast<std::uint8_t>(value & 0x7f)); }); break;
            case 5:
            case 6: {
                const int taken = software.take();
                REQUIRE(hardware.take() == taken);
                break;
            }
            case 7:
            case 8: both([&](Guest& g) { g.end(); }); break;
            case 9: both([&](Guest& g) { g.apic.eoi(); }); break;  // by an emulated instruction
            case 10: {
                constexpr std::uint32_t kWritten[] = {ID,        LDR,       DFR,           ESR,   ICR_HIGH,
                                                      LVT_TIMER, LVT_LINT1, INITIAL_COUNT, DIVIDE};
                const std::uint32_t index = kWritten[value % std::size(kWritten)];
                both([&](Guest& g) { g.write(index, value & 0xff01'00ff); });
                break;
            }
            case 11:
                if (random() % 50 == 0)
                    both([](Guest& g) {
                        g.apic.init_reset();
                        g.write(SVR, 0x1ff);
                    });
                break;
            default:
                if (random() % 50 == 0)
                    both([&](Guest& g) { g.apic.lint0().set((value & 1) != 0); });
                break;
            }
            compare(software, hardware);
        }
    }
}

TEST_CASE("late ticks wait for the guest whoever keeps IRR and ISR", "[x86]") {
    Guest software, hardware{kInterrupts};
    for (Guest* guest : {&software, &hardware}) {
        INFO("hardware: " << guest->hardware());
        guest->write(LVT_TIMER, 0x2'0040);
        guest->write(DIVIDE, 0xb);
        guest->write(INITIAL_COUNT, 10'000'000);
        guest->clock.skip(35'000'000);
        guest->apic.resume(true);
        REQUIRE(guest->take() == 0x40);
        guest->clock.run_for(1'000'000, [&] { guest->enter(); });
        CHECK(guest->take() == -1);  // its handler takes its time
        guest->end();
        CHECK(guest->take() == -1);
        unsigned ticks = 0;
        const auto count = [&] {
            if (guest->take() == 0x40) {
                ++ticks;
                guest->end();
            }
        };
        guest->clock.run_for(100'000, count);
        CHECK(ticks == 1);
        guest->clock.run_for(1'000'000, count);
        CHECK(ticks == 2);
    }
}

TEST_CASE("the processor is told of modes, and of their registers", "[x86]") {
    Guest guest{kInterrupts};
    using Mode = ApicAcceleration::Mode;
    Processor& processor = *guest.processor;
    CHECK((processor.mode == Mode::xapic && processor.base == Gpa{0xfee0'0000}));
    CHECK(processor.page().read(ID) == 3U << 24);
    guest.apic.post(0x61, TriggerMode::edge);
    REQUIRE(guest.apic.set_apic_base(0xfee0'0d00));
    CHECK(processor.mode == Mode::x2apic);
    CHECK((processor.page().read(ID) == 3 && processor.page().read(LDR) == 8));
    CHECK(guest.take() == 0x61);
    REQUIRE(guest.apic.set_apic_base(0xfee0'0100));
    CHECK(processor.mode == Mode::disabled);
    CHECK((processor.status().in_service == 0 && processor.page().read(ISR + 3) == 0));
    REQUIRE(guest.apic.set_apic_base(0xfed0'0900));
    CHECK((processor.mode == Mode::xapic && processor.base == Gpa{0xfed0'0000}));
}

TEST_CASE("an EOI exit is asked for level-triggered vectors alone", "[x86]") {
    Guest guest{kInterrupts};
    guest.apic.post(0x45, TriggerMode::level);
    guest.enter();
    CHECK(guest.processor->eoi_exits[1] == std::uint64_t{1} << 5);
    CHECK(guest.take() == 0x45);
    guest.end();
    CHECK(guest.eois.vectors == std::vector<unsigned>{0x45});
    guest.apic.post(0x45, TriggerMode::edge);
    guest.enter();
    CHECK(guest.processor->eoi_exits[1] == 0);
}

TEST_CASE("with a TPR shadow alone the processor watches the highest request", "[x86]") {
    Guest guest{ApicAcceleration::Extent::task_priority};
    guest.set_tpr(0x70);
    guest.apic.post(0x61, TriggerMode::edge);
    CHECK(guest.apic.pending_vector() == -1);
    CHECK(*guest.processor->request == 0x61);
    guest.apic.set_tpr(0x20);
    CHECK(guest.processor->page().read(TPR) == 0x20);
    CHECK(guest.take() == 0x61);
    CHECK(*guest.processor->request == -1);
}
