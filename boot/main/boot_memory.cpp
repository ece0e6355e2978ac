// SPDX-License-Identifier: MIT
#include "boot/main/boot_memory.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/mm/frame_allocator.hpp"
#include "vmm/mm/heap.hpp"

#include <algorithm>

extern "C" const char image_start[];
extern "C" const char image_end[];

namespace hv::boot {
namespace {

/// Real-mode vectors, BIOS data, EBDA, option ROMs: left alone but for the start-up page.
constexpr std::uint64_t kFirstUsable = kMiB;
constexpr std::uint64_t kStartupPageEnd = 0xa'0000;
constexpr std::uint64_t kBootMapEnd = 4 * kGiB;

constinit EarlyFrames early_frames;
constinit Heap* heap = nullptr;
constinit Hpa startup_frame{};

using Ranges = FixedList<cpu::PhysicalRange, 256 + 64>;

/// Pages that are wholly usable RAM above 1 MiB.
void collect_usable(const BootInfo& info, Ranges& out) {
    for (const MemoryRange& range : info.memory) {
        if (range.type != MemoryType::usable)
            continue;
        const std::uint64_t first = align_up(std::max(range.start.raw, kFirstUsable), kPageSize);
        const std::uint64_t last = align_down(range.end().raw, kPageSize);
        if (last > first)
            HV_ASSERT(out.push({Hpa{first}, last - first}));
    }
}

/// What lies in usable RAM but is taken: the image and the modules, in whole pages.
void collect_reserved(const BootInfo& info, Hpa image, Ranges& out) {
    const auto offset = reinterpret_cast<std::uintptr_t>(image_start) - cpu::kImage;
    const auto push = [&](Hpa start, std::uint64_t length) {
        const std::uint64_t first = align_down(start.raw, kPageSize);
        HV_ASSERT(out.push({Hpa{first}, align_up(start.raw + length, kPageSize) - first}));
    };
    push(image + offset, static_cast<std::uint64_t>(image_end - image_start));
    for (const Module& module : info.modules)
        push(module.start, module.length);
}

/// The largest piece of usable RAM below 4 GiB that nothing reserved touches.
cpu::PhysicalRange largest_free(const Ranges& usable, const Ranges& reserved) {
    cpu::PhysicalRange best{};
    for (const cpu::PhysicalRange& range : usable) {
        std::uint64_t at = range.start.raw;
        const std::uint64_t end = std::min(range.start.raw + range.length, kBootMapEnd);
        while (at < end) {
            std::uint64_t free_end = end, next = end;
            for (const cpu::PhysicalRange& taken : reserved) {
                const std::uint64_t taken_end = taken.start.raw + taken.length;
                if (taken_end > at && taken.start.raw < free_end) {
                    free_end = std::max(taken.start.raw, at);
                    next = taken_end;
                }
            }
            if (free_end > at && free_end - at > best.length)
                best = {Hpa{at}, free_end - at};
            at = next;
        }
    }
    return best;
}

/// The highest page of conventional memory that no module touches: GRUB for UEFI puts small modules down
/// there.
Hpa find_startup_page(const BootInfo& info, const Ranges& reserved) {
    Hpa best{};
    for (const MemoryRange& range : info.memory) {
        if (range.type != MemoryType::usable || range.start.raw >= kStartupPageEnd)
            continue;
        const std::uint64_t first = std::max(align_up(range.start.raw, kPageSize), kPageSize);
        const std::uint64_t last = align_down(std::min(range.end().raw, kStartupPageEnd), kPageSize);
        for (std::uint64_t page = last; page > first && page - kPageSize > best.raw; page -= kPageSize) {
            const Hpa start{page - kPageSize};
            if (std::ranges::none_of(reserved, [start](const cpu::PhysicalRange& taken) {
                    return taken.start < start + kPageSize && start < taken.start + taken.length;
                })) {
                best = start;
                break;
            }
        }
    }
    return best;
}

/// RAM for the direct map: everything usable, and the modules and ACPI tables wherever they lie.
void collect_direct_map(const BootInfo& info, Ranges& out) {
    for (const MemoryRange& range : info.memory) {
        if (range.type == MemoryType::usable || range.type == MemoryType::acpi_reclaimable)
            HV_ASSERT(out.push({range.start, range.length}));
    }
    for (const Module& module : info.modules)
        HV_ASSERT(out.push({module.start, module.length}));
}

}  // namespace

Expected<Hpa> EarlyFrames::allocate(unsigned order) {
    const std::uint64_t size = kPageSize << order;
    const std::uint64_t frame = align_down(end_.raw - size, size);
    if (end_.raw < start_.raw + size || frame < start_.raw)
        return Unexpected{Error::no_memory};
    end_ = Hpa{frame};
    return end_;
}

FrameAllocator& init_memory(const BootInfo& info, Hpa image) {
    static constinit Ranges usable, reserved, direct_map;
    collect_usable(info, usable);
    collect_reserved(info, image, reserved);
    collect_direct_map(info, direct_map);
    startup_frame = find_startup_page(info, reserved);
    if (startup_frame == Hpa{})
        panic("no free page below 640 KiB to start CPUs with");
    const cpu::PhysicalRange early = largest_free(usable, reserved);
    const Hpa early_end = early.start + early.length;
    early_frames.init(early.start, early.length);
    if (const auto mapped = cpu::init_host_memory(early_frames, direct_map.span(), image); !mapped)
        panic("the host's page tables could not be built: %s", to_string(mapped.error()));
    cpu::enter_host_memory();

    HV_ASSERT(reserved.push(early_frames.taken(early_end)));
    static constinit FixedList<FrameRange, 256 + 64> usable_frames, reserved_frames;
    for (const cpu::PhysicalRange& range : usable)
        HV_ASSERT(usable_frames.push({range.start, range.length}));
    for (const cpu::PhysicalRange& range : reserved)
        HV_ASSERT(reserved_frames.push({range.start, range.length}));
    const auto frames = FrameAllocator::create(usable_frames.span(), reserved_frames.span());
    if (!frames)
        panic("the frame allocator could not be set up: %s", to_string(frames.error()));
    cpu::set_host_frames(**frames);
    const auto created = Heap::create(**frames);
    if (!created)
        panic("the heap could not be set up: %s", to_string(created.error()));
    heap = *created;
    return **frames;
}

Hpa startup_page() {
    return startup_frame;
}

Heap& kernel_heap() {
    return *heap;
}

}  // namespace hv::boot
