// SPDX-License-Identifier: MIT
#include "vmm/loader/memory_plan.hpp"

#include "vmm/core/guest_map.hpp"

#include <algorithm>
#include <limits>

namespace hv::loader {
namespace {

constexpr std::uint64_t kConventionalEnd = 0xa'0000;
constexpr std::uint64_t kExtendedStart = kMiB;
constexpr std::uint64_t kForever = std::numeric_limits<std::uint64_t>::max();

}  // namespace

MemoryMap::MemoryMap(const GuestMemory& memory) {
    using enum MemoryMapEntry::Type;
    add(0, guest_map::kEbda, usable);
    add(guest_map::kEbda, kConventionalEnd, reserved);
    add(guest_map::kFirmwareStart, guest_map::kFirmwareEnd, reserved);
    add(kExtendedStart, memory.low_size(), usable);
    add(guest_map::kEcam, guest_map::kEcam + guest_map::kEcamSize, reserved);
    if (memory.high_size() != 0)
        add(GuestMemory::kHighStart, GuestMemory::kHighStart + memory.high_size(), usable);
}

void MemoryMap::add(std::uint64_t start, std::uint64_t end, MemoryMapEntry::Type type) {
    entries_[count_++] = {start, end - start, type};
}

Expected<MemoryPlan> MemoryPlan::create(GuestMemory& memory) {
    MemoryPlan plan{memory};
    HV_TRY(plan.taken_.push({0, kPageSize}));  // real mode's interrupt vectors and the BIOS data area
    HV_TRY(plan.taken_.push({guest_map::kEbda, kExtendedStart}));
    HV_TRY(plan.taken_.push({memory.low_size(), kForever}));
    return plan;
}

const MemoryPlan::Range* MemoryPlan::overlap(std::uint64_t start, std::uint64_t size) const {
    for (const Range& range : taken_)
        if (start < range.end && range.start < start + size)
            return &range;
    return nullptr;
}

Expected<void> MemoryPlan::claim(std::uint64_t start, std::uint64_t size) {
    if (size == 0)
        return {};
    if (size > kForever - start || overlap(start, size) != nullptr)
        return Unexpected{Error::out_of_range};
    return taken_.push({start, start + size});
}

Expected<Gpa> MemoryPlan::place_low(std::uint64_t size, std::uint64_t alignment, std::uint64_t from) {
    // Each step passes a taken range, and the last of them has no end.
    for (std::uint64_t start = align_up(from, alignment); start >= from && size <= kForever - start;) {
        const Range* const taken = overlap(start, size);
        if (taken == nullptr) {
            HV_TRY(claim(start, size));
            return Gpa{start};
        }
        start = align_up(taken->end, alignment);
        if (start < taken->end)
            break;
    }
    return Unexpected{Error::out_of_range};
}

Expected<Gpa> MemoryPlan::place_high(std::uint64_t size, std::uint64_t alignment, std::uint64_t end) {
    while (size <= end) {
        const std::uint64_t start = align_down(end - size, alignment);
        const Range* const taken = overlap(start, size);
        if (taken == nullptr) {
            HV_TRY(claim(start, size));
            return Gpa{start};
        }
        end = taken->start;
    }
    return Unexpected{Error::out_of_range};
}

Expected<Gpa> MemoryPlan::put(std::span<const std::byte> bytes, std::uint64_t alignment) {
    const Gpa place = HV_TRY(place_low(bytes.size(), alignment, kPageSize));
    HV_TRY(memory_->write(place, bytes));
    return place;
}

Expected<Gpa> MemoryPlan::put_string(std::string_view text) {
    const Gpa place = HV_TRY(place_low(text.size() + 1, 1, kPageSize));
    HV_TRY(memory_->write(place, std::as_bytes(std::span{text})));
    HV_TRY(memory_->fill(place + text.size(), std::byte{0}, 1));
    return place;
}

Expected<Gpa> MemoryPlan::put_above(std::span<const std::byte> bytes) {
    std::uint64_t from = kExtendedStart;
    for (const Range& range : taken_)
        if (range.end != kForever)
            from = std::max(from, range.end);
    auto place = place_low(bytes.size(), kPageSize, from);
    if (!place)
        place = place_low(bytes.size(), kPageSize, kExtendedStart);
    if (!place)
        return Unexpected{place.error()};
    HV_TRY(memory_->write(*place, bytes));
    return *place;
}

Expected<Gpa> MemoryPlan::put_high(std::span<const std::byte> bytes, std::uint64_t end) {
    const Gpa place = HV_TRY(place_high(bytes.size(), kPageSize, end));
    HV_TRY(memory_->write(place, bytes));
    return place;
}

}  // namespace hv::loader
