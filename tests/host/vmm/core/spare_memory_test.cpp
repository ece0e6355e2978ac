// SPDX-License-Identifier: MIT
#include "vmm/core/spare_memory.hpp"
#include "vmm/core/vcpu_fixture.hpp"

#include <map>
#include <optional>
#include <vector>

namespace {

using namespace hv;
using namespace hv::test;
using Release = virtio::BalloonMemory::Release;

constexpr std::uint64_t kGranule = GuestMemory::kGranule;
constexpr std::uint64_t kMillisecond = 1'000'000;

/// An address space that says what is mapped where.
class Space final : public GuestAddressSpace {
public:
    Expected<void> map(Gpa gpa, Hpa hpa, std::uint64_t, GuestAccess) override {
        mapped[gpa.raw] = hpa;
        return {};
    }
    Expected<void> unmap(Gpa gpa, std::uint64_t length) override {
        CHECK(length == kGranule);
        if (stubborn)
            return Unexpected{Error::no_memory};
        mapped.erase(gpa.raw);
        return {};
    }
    [[nodiscard]] std::optional<Hpa> translate(Gpa gpa) const override {
        const auto found = mapped.find(gpa.raw);
        return found == mapped.end() ? std::nullopt : std::optional{found->second};
    }
    [[nodiscard]] std::uint64_t root() const override { return 0; }
    [[nodiscard]] std::uint64_t table_bytes() const override { return 0; }
    std::map<std::uint64_t, Hpa> mapped;
    bool stubborn{false};
};

class Nobody final : public SpareMemory::Owner {
public:
    void spare_memory_waits() override {}
    void memory_leaves() override {}
};

struct Fixture final : SpareMemory::Owner {
    Fixture() {
        fake::set_cpu(0);
        memory
            .for_each_run([&](Gpa gpa, Hpa hpa, std::uint64_t length) {
                return space.map(gpa, hpa, length, GuestAccess::read_write_execute);
            })
            .value();
    }
    void spare_memory_waits() override { ++calls; }
    void memory_leaves() override { ++leaves; }
    /// Calls service() as often as it asks for that; true: what was pending is settled.
    bool settle() {
        for (unsigned i = 0; i < 100'000; ++i) {
            if (spare.service())
                return true;
            const unsigned before = calls;
            clock.advance(1000);
            if (calls == before)
                return false;
        }
        return false;
    }
    Release wait_for(Gpa granule) {
        clock.advance(kMillisecond);
        settle();
        return spare.release(granule);
    }

    fake::ArenaFrames frames;
    GuestMemory memory{GuestMemory::create(frames, 64 * kMiB, GuestMemory::Kind::releasable).value()};
    Space space;
    fake::ManualClock clock;
    SpareMemory spare{memory, space, clock, *this};
    unsigned calls{0};
    unsigned leaves{0};
};

}  // namespace

TEST_CASE("a granule goes back to the host, and is mapped again when the guest touches it", "[core]") {
    Fixture f;
    const Gpa granule{3 * kGranule};
    f.memory.store(granule, std::uint64_t{5}).value();
    const auto out = f.frames.outstanding();
    CHECK(f.spare.release(granule) == Release::pending);
    CHECK(f.space.translate(granule));
    f.clock.run();
    CHECK(f.calls == 1);
    CHECK(f.settle());
    CHECK(f.leaves == 1);
    CHECK_FALSE(f.space.translate(granule));
    CHECK(f.frames.outstanding() == out - 1);
    CHECK(f.spare.release(granule) == Release::done);
    CHECK_FALSE(f.spare.service());

    CHECK(f.spare.resolve(granule + 0x1234));
    CHECK(f.space.translate(granule) == machine::hpa(f.memory.at(granule, 1)));
    CHECK(f.memory.load<std::uint64_t>(granule).value() == 0);
    CHECK(f.frames.outstanding() == out);
    CHECK(f.spare.resolve(granule));  // another vCPU's fault
    CHECK(f.spare.reclaim(granule));
}

TEST_CASE("what a device uses goes when the use is over, and is nobody's meanwhile", "[core]") {
    Fixture f;
    const Gpa granule{kGranule};
    const unsigned use = f.memory.begin_use();
    CHECK(f.spare.release(granule) == Release::pending);
    CHECK_FALSE(f.spare.service());
    const auto out = f.frames.outstanding();
    for (unsigned i = 0; i < 3; ++i) {
        f.clock.advance(kMillisecond);
        CHECK(f.calls == i + 1);
        CHECK_FALSE(f.spare.service());
        CHECK(f.spare.release(granule) == Release::pending);
        CHECK_FALSE(f.spare.resolve(granule));
    }
    const unsigned later = f.memory.begin_use();
    f.memory.end_use(use);
    f.clock.advance(kMillisecond);
    CHECK(f.settle());
    CHECK(f.frames.outstanding() == out - 1);
    CHECK(f.spare.release(granule) == Release::done);
    f.memory.end_use(later);
}

TEST_CASE("rings stay, and so does what cannot be unmapped or is cancelled", "[core]") {
    Fixture f;
    SECTION("pinned") {
        REQUIRE(f.memory.pin(Gpa{kGranule}, 16));
        CHECK(f.spare.release(Gpa{kGranule}) == Release::refused);
    }
    SECTION("pinned meanwhile") {
        CHECK(f.spare.release(Gpa{kGranule}) == Release::pending);
        REQUIRE(f.memory.pin(Gpa{kGranule}, 16));
        CHECK(f.spare.service());
        CHECK(f.spare.release(Gpa{kGranule}) == Release::refused);
    }
    SECTION("not unmapped") {
        f.space.stubborn = true;
        CHECK(f.spare.release(Gpa{kGranule}) == Release::pending);
        CHECK(f.spare.service());
    }
    SECTION("cancelled") {
        CHECK(f.spare.release(Gpa{kGranule}) == Release::pending);
        f.spare.cancel();
        CHECK(f.spare.service());
    }
    CHECK(f.memory.presence(Gpa{kGranule}) == GuestMemory::Presence::present);
    CHECK(f.space.translate(Gpa{kGranule}));
    CHECK(f.leaves == 0);
}

TEST_CASE("many granules go in batches with pauses, in which the boot CPU is free", "[core]") {
    Fixture f;
    const auto ask = [&] {
        unsigned done = 0;
        for (unsigned i = 0; i < 2 * SpareMemory::kBatch; ++i)
            done += f.spare.release(Gpa{i * kGranule}) == Release::done ? 1 : 0;
        return done;
    };
    CHECK(ask() == 0);
    f.clock.run();
    CHECK(f.settle());
    CHECK(ask() == SpareMemory::kBatch);
    const unsigned calls = f.calls;
    f.clock.run();
    CHECK(f.calls == calls);
    f.clock.advance(kMillisecond);
    CHECK(f.calls == calls + 1);
    CHECK(f.settle());
    CHECK(ask() == 2 * SpareMemory::kBatch);
    CHECK(f.memory.absent_bytes() == 2 * SpareMemory::kBatch * kGranule);
}

TEST_CASE("without memory a touch has to wait", "[core]") {
    Fixture f;
    CHECK(f.spare.release(Gpa{0}) == Release::pending);
    CHECK(f.wait_for(Gpa{0}) == Release::done);
    f.frames.limit(0);
    CHECK_FALSE(f.spare.resolve(Gpa{0x1000}));
    CHECK_FALSE(f.spare.reclaim(Gpa{0}));
    f.frames.limit(10);
    CHECK(f.spare.resolve(Gpa{0x1000}));
}

TEST_CASE("what is on its way at the VM's end is given back", "[core]") {
    fake::ArenaFrames frames;
    {
        fake::ManualClock clock;
        Space space;
        Nobody nobody;
        GuestMemory memory{GuestMemory::create(frames, 8 * kMiB, GuestMemory::Kind::releasable).value()};
        SpareMemory spare{memory, space, clock, nobody};
        const unsigned use = memory.begin_use();
        CHECK(spare.release(Gpa{0}) == Release::pending);
        CHECK_FALSE(spare.service());
        memory.end_use(use);
        spare.stop();
        CHECK(clock.armed() == 0);
    }
    CHECK(frames.outstanding() == 0);
}

TEST_CASE("a vCPU takes memory that it touches, and waits while there is none", "[core]") {
    VcpuFixture f;
    GuestMemory memory{GuestMemory::create(f.frames, 4 * kMiB, GuestMemory::Kind::releasable).value()};
    Space space;
    Nobody nobody;
    SpareMemory spare{memory, space, f.clock, nobody};
    std::byte* const where = memory.detach(Gpa{kGranule});
    SECTION("without memory to spare it is a defect") {
        f.start();
        CHECK(f.run({fault_exit(0x1000)}) == Vcpu::Outcome::parked);
        CHECK(f.control.reasons == std::vector{VmStop::crashed});
    }
    SECTION("with it") {
        f.environment.spare = &spare;
        f.start();
        CHECK(f.run({fault_exit(kGranule + 0x10, true)}) == Vcpu::Outcome::waiting);
        CHECK_FALSE(f.vcpu().has_work(Vcpu::Outcome::waiting));
        CHECK(f.regs().rip == VcpuFixture::kCode);
        memory.release(Gpa{kGranule}, where);
        f.clock.advance(kMillisecond);
        CHECK(f.vcpu().has_work(Vcpu::Outcome::waiting));
        CHECK(f.run({fault_exit(kGranule + 0x10, true)}) == Vcpu::Outcome::preempted);
        CHECK(space.translate(Gpa{kGranule}));
        CHECK(f.control.reasons.empty());
        f.vcpu().quiesce();
        CHECK(f.clock.armed() == 0);
    }
    if (memory.presence(Gpa{kGranule}) == GuestMemory::Presence::leaving)
        memory.attach(Gpa{kGranule}, where);
}
