// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/mm/dma.hpp"
#include "vmm/mm/frame_allocator.hpp"

#include <algorithm>

using namespace hv;

TEST_CASE("a DMA buffer is contiguous, zeroed, and freed with its owner", "[mm]") {
    const FrameRange range[] = {{Hpa{kMiB}, 4 * kMiB}};
    FrameAllocator& frames = *FrameAllocator::create(range, {}).value();
    const auto before = frames.statistics().free_bytes;
    std::memset(machine::hva(Hpa{kMiB + 64 * kPageSize}), 0xff, kMiB);
    DmaPool pool{frames};
    {
        DmaBuffer buffer = pool.allocate(3 * kPageSize).value();
        CHECK(buffer.bytes().size() == 4 * kPageSize);
        CHECK(buffer.address().aligned(4 * kPageSize));
        CHECK(std::all_of(buffer.bytes().begin(), buffer.bytes().end(),
                          [](std::byte b) { return b == std::byte{0}; }));
        *buffer.at<std::uint32_t>(kPageSize) = 7;
        CHECK(*machine::hva<std::uint32_t>(buffer.address() + kPageSize) == 7);
        DmaBuffer moved{std::move(buffer)};
        CHECK_FALSE(buffer);
        CHECK(moved);
        DmaBuffer empty;
        empty = std::move(moved);
        CHECK(frames.statistics().free_bytes == before - 4 * kPageSize);
    }
    CHECK(frames.statistics().free_bytes == before);
    CHECK(pool.allocate(16 * kMiB).error() == Error::no_memory);
}
