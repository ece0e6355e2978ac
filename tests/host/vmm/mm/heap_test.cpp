// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/mm/aborts.hpp"
#include "vmm/mm/heap.hpp"

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

using namespace hv;

namespace {

struct Fixture {
    FrameAllocator& frames;
    Heap& heap;

    explicit Fixture(std::uint64_t bytes = 64 * kMiB)
        : frames{*make_frames(bytes)}, heap{*Heap::create(frames).value()} {}
    static FrameAllocator* make_frames(std::uint64_t bytes) {
        const FrameRange range[] = {{Hpa{kMiB}, bytes}};
        return FrameAllocator::create(range, {}).value();
    }
};

std::uint64_t address(const void* object) {
    return reinterpret_cast<std::uintptr_t>(object) - machine::direct_map_base();
}

}  // namespace

TEST_CASE("objects are aligned, distinct and keep what was written", "[mm]") {
    Fixture f;
    struct Object {
        unsigned char* data;
        std::size_t size;
        unsigned char fill;
    };
    std::vector<Object> live;
    std::mt19937 random{3};
    const auto intact = [](const Object& object) {
        return std::all_of(object.data, object.data + object.size,
                           [&](unsigned char c) { return c == object.fill; });
    };
    for (int step = 0; step < 20'000; ++step) {
        if (random() % 2 == 0 || live.empty()) {
            const std::size_t size = random() % 16 == 0 ? 1 + random() % 40'000 : 1 + random() % 2100;
            const std::size_t alignment = std::size_t{1} << (random() % 13);
            auto* data = static_cast<unsigned char*>(f.heap.allocate(size, alignment));
            REQUIRE(data != nullptr);
            REQUIRE(is_aligned(address(data), alignment));
            live.push_back({data, size, static_cast<unsigned char>(step)});
            std::memset(data, live.back().fill, size);
        } else {
            const std::size_t victim = random() % live.size();
            REQUIRE(intact(live[victim]));
            f.heap.free(live[victim].data);
            live[victim] = live.back();
            live.pop_back();
        }
    }
    CHECK(f.heap.statistics().objects == live.size());
    for (const Object& object : live) {
        REQUIRE(intact(object));
        f.heap.free(object.data);
    }
    CHECK(f.heap.statistics().objects == 0);
    CHECK(f.heap.statistics().object_bytes == 0);
}

TEST_CASE("empty slabs go back to the frame allocator, but for one of each class", "[mm]") {
    Fixture f;
    std::vector<void*> objects;
    for (int i = 0; i < 10'000; ++i)
        objects.push_back(f.heap.allocate(64, 8));
    CHECK(f.heap.statistics().frame_bytes >= 10'000 * 64);
    for (void* object : objects)
        f.heap.free(object);
    CHECK(f.heap.statistics().frame_bytes == 4 * kPageSize);
}

TEST_CASE("large objects take the smallest block of frames, and give it back", "[mm]") {
    Fixture f;
    const auto before = f.frames.statistics().free_bytes;
    void* page = f.heap.allocate(kPageSize, 16);
    CHECK(f.heap.statistics().frame_bytes == kPageSize);
    void* aligned = f.heap.allocate(1, kPageSize);
    CHECK(is_aligned(address(aligned), kPageSize));
    void* large = f.heap.allocate(kMiB + 1, 16);
    CHECK(f.frames.statistics().free_bytes == before - 2 * kPageSize - 2 * kMiB);
    for (void* object : {page, aligned, large})
        f.heap.free(object);
    CHECK(f.frames.statistics().free_bytes == before);
}

TEST_CASE("a heap without memory says so and goes on", "[mm]") {
    Fixture f{32 * kPageSize};
    CHECK(f.heap.allocate(kGiB, 16) == nullptr);
    CHECK(f.heap.allocate(~std::size_t{0}, 16) == nullptr);
    std::vector<void*> objects;
    for (;;) {
        void* object = f.heap.allocate(2048, 16);
        if (object == nullptr)
            break;
        objects.push_back(object);
    }
    CHECK(f.heap.allocate(16, 16) == nullptr);
    REQUIRE_FALSE(objects.empty());
    f.heap.free(objects.back());
    CHECK(f.heap.allocate(2048, 16) == objects.back());
}

TEST_CASE("nothing has an address, and freeing nothing is allowed", "[mm]") {
    Fixture f;
    void* empty = f.heap.allocate(0, 1);
    CHECK(empty != nullptr);
    f.heap.free(empty);
    f.heap.free(nullptr);
    CHECK(f.heap.statistics().objects == 0);
}

TEST_CASE("misuse of the heap is caught", "[mm]") {
    Fixture f;
    auto* object = static_cast<std::byte*>(f.heap.allocate(100, 8));
    auto* other = static_cast<std::byte*>(f.heap.allocate(100, 8));
    void* page = f.heap.allocate(kPageSize, 8);
    CHECK(test::aborts([&] { f.heap.free(object + 16); }));
    f.heap.free(object);
    CHECK(test::aborts([&] { f.heap.free(object); }));
    f.heap.free(page);
    CHECK(test::aborts([&] { f.heap.free(page); }));
    CHECK(test::aborts([&] { f.heap.free(machine::hva(Hpa{32 * kMiB + 64})); }));
    f.heap.free(other);
}

TEST_CASE("CPUs share the heap", "[mm]") {
    Fixture f;
    std::vector<std::thread> cpus;
    for (unsigned cpu = 0; cpu < 4; ++cpu) {
        cpus.emplace_back([&f, cpu] {
            fake::set_cpu(cpu);
            std::vector<unsigned char*> mine;
            for (unsigned i = 0; i < 2000; ++i) {
                mine.push_back(static_cast<unsigned char*>(f.heap.allocate(1 + i % 300, 8)));
                std::memset(mine.back(), static_cast<int>(cpu), 1 + i % 300);
                if (i % 3 == 0) {
                    HV_ASSERT(*mine.front() == cpu);
                    f.heap.free(mine.front());
                    mine.erase(mine.begin());
                }
            }
            for (void* object : mine)
                f.heap.free(object);
        });
    }
    for (std::thread& cpu : cpus)
        cpu.join();
    CHECK(f.heap.statistics().objects == 0);
}
