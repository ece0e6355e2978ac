// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/core/io_bus.hpp"

#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <vector>

namespace {

using hv::IoBus;

struct Recorder final : hv::IoDevice {
    explicit Recorder(std::uint64_t first_value) : seed{first_value} {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override {
        return (seed + offset) & hv::all_ones(size);
    }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
        writes.push_back({offset, size, value});
    }
    struct Write {
        std::uint64_t offset;
        unsigned size;
        std::uint64_t value;
        bool operator==(const Write&) const = default;
    };
    std::uint64_t seed;
    std::vector<Write> writes;
};

}  // namespace

TEST_CASE("an access reaches the device that owns the address, with an offset", "[core]") {
    IoBus bus{IoBus::kPortHintShift};
    Recorder uart{0x10}, pic{0x80};
    REQUIRE(bus.add(0x3f8, 8, uart));
    REQUIRE(bus.add(0x20, 2, pic));
    CHECK(bus.read(0x3fa, 1) == 0x12);
    CHECK(bus.read(0x21, 1) == 0x81);
    bus.write(0x3f9, 1, 0x55);
    CHECK(uart.writes == std::vector<Recorder::Write>{{1, 1, 0x55}});
    CHECK(bus.find(0x3f8).remaining == 8);
    CHECK(bus.find(0x400).device == nullptr);
}

TEST_CASE("what nobody claims reads as ones and swallows writes", "[core]") {
    IoBus bus{IoBus::kPortHintShift};
    CHECK(bus.read(0x80, 1) == 0xff);
    CHECK(bus.read(0x80, 4) == 0xffff'ffff);
    CHECK(bus.read(~0ull - 7, 8) == ~0ull);
    CHECK(bus.read(~0ull, 4) == 0xffff'ffff);
    bus.write(0x80, 2, 1);
    Recorder device{0};
    REQUIRE(bus.add(0x100, 1, device));
    CHECK(bus.read(0xf0, 4) == 0xffff'ffff);
    CHECK(bus.read(0x101, 4) == 0xffff'ffff);
}

TEST_CASE("an access that straddles ranges is made byte by byte", "[core]") {
    IoBus bus{IoBus::kPortHintShift};
    Recorder first{0x10}, second{0x20};
    REQUIRE(bus.add(0x10, 2, first));
    REQUIRE(bus.add(0x12, 1, second));
    CHECK(bus.read(0x10, 4) == 0xff20'1110);
    CHECK(bus.read(0x0f, 2) == 0x10ff);
    bus.write(0x11, 4, 0xddcc'bbaa);
    CHECK(first.writes == std::vector<Recorder::Write>{{1, 1, 0xaa}});
    CHECK(second.writes == std::vector<Recorder::Write>{{0, 1, 0xbb}});
}

TEST_CASE("ranges that overlap, are empty or wrap around are refused", "[core]") {
    IoBus bus{IoBus::kMemoryHintShift};
    Recorder device{0};
    REQUIRE(bus.add(0x1000, 0x1000, device));
    for (const auto& [base, length] : std::map<std::uint64_t, std::uint64_t>{
             {0x0, 0x1001}, {0x1000, 1}, {0x1fff, 1}, {0x800, 0x1000}, {0x1001, 0x5000}, {0x10, 0xffff}})
        CHECK(bus.add(base, length, device).error() == hv::Error::already_exists);
    CHECK(bus.add(0x4000, 0, device).error() == hv::Error::invalid_argument);
    CHECK(bus.add(~0ull, 2, device).error() == hv::Error::invalid_argument);
    CHECK(bus.add(0, 0x1000, device));
    CHECK(bus.add(0x2000, 0x1000, device));
    CHECK(bus.add(~0ull, 1, device));
    CHECK(bus.find(~0ull).device == &device);
    CHECK(bus.remove(0x1800).error() == hv::Error::not_found);
}

TEST_CASE("a full bus says so", "[core]") {
    IoBus bus{IoBus::kPortHintShift};
    Recorder device{0};
    for (unsigned i = 0; i < IoBus::kMaxRanges; ++i)
        REQUIRE(bus.add(i * 4, 2, device));
    CHECK(bus.add(0x8000, 1, device).error() == hv::Error::no_memory);
    REQUIRE(bus.remove(0));
    CHECK(bus.add(0x8000, 1, device));
}

TEST_CASE("the bus agrees with a model under random changes", "[core]") {
    IoBus bus{3};
    std::map<std::uint64_t, std::pair<std::uint64_t, Recorder*>> model;
    std::vector<std::unique_ptr<Recorder>> devices;
    for (unsigned i = 0; i < 8; ++i)
        devices.push_back(std::make_unique<Recorder>(i));
    std::mt19937 random{1};
    for (unsigned step = 0; step < 20'000; ++step) {
        const std::uint64_t base = random() % 256;
        const std::uint64_t length = random() % 12 + 1;
        const auto owner = [&](std::uint64_t at) {
            auto found = model.upper_bound(at);
            if (found == model.begin())
                return model.end();
            --found;
            return at - found->first < found->second.first ? found : model.end();
        };
        if (random() % 4 == 0) {
            CHECK(bus.remove(base).has_value() == (model.erase(base) == 1));
        } else if (random() % 2 == 0) {
            bool free = true;
            for (std::uint64_t at = base; at < base + length; ++at)
                free = free && owner(at) == model.end();
            Recorder& device = *devices[random() % devices.size()];
            REQUIRE(bus.add(base, length, device).has_value() == free);
            if (free)
                model[base] = {length, &device};
        }
        const std::uint64_t probe = random() % 280;
        const auto expected = owner(probe);
        const IoBus::Hit hit = bus.find(probe);
        REQUIRE(hit.device == (expected == model.end() ? nullptr : expected->second.second));
        if (hit.device != nullptr)
            REQUIRE(hit.offset == probe - expected->first);
    }
}

TEST_CASE("lookups stay right while another CPU moves ranges", "[core]") {
    IoBus bus{IoBus::kMemoryHintShift};
    Recorder fixed{1}, moving{2};
    REQUIRE(bus.add(0x8000, 0x1000, fixed));
    std::atomic<bool> done{false};
    std::thread mover{[&] {
        for (unsigned i = 0; i < 20'000; ++i) {
            const std::uint64_t base = 0x1000 * (i % 7);
            bus.add(base, 0x1000, moving).value();
            bus.remove(base).value();
        }
        done = true;
    }};
    bool right = true;
    while (!done) {
        const IoBus::Hit hit = bus.find(0x8123);
        right = right && hit.device == &fixed && hit.offset == 0x123;
        const IoBus::Hit other = bus.find(0x3010);
        right = right && (other.device == nullptr || (other.device == &moving && other.offset == 0x10));
    }
    mover.join();
    CHECK(right);
}
