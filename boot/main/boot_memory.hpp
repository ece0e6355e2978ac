// SPDX-License-Identifier: MIT
// From the firmware's memory map to the frame allocator: the early frames that the first page tables come
// from, and what must not be handed out.
#pragma once

#include "arch/x86_64/cpu/host_memory.hpp"
#include "boot/multiboot2/boot_info.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/frame_source.hpp"

namespace hv {
class FrameAllocator;
class Heap;
}  // namespace hv

namespace hv::boot {

/// Takes frames from the end of one free range below 4 GiB and never gives any back.
class EarlyFrames final : public FrameSource {
public:
    void init(Hpa start, std::uint64_t length) {
        start_ = start;
        end_ = start + length;
    }
    Expected<Hpa> allocate(unsigned order) override;
    void free(Hpa, unsigned) override {}
    /// What has been taken.
    [[nodiscard]] cpu::PhysicalRange taken(Hpa original_end) const { return {end_, original_end - end_}; }
    [[nodiscard]] Hpa end() const { return end_; }

private:
    Hpa start_{};
    Hpa end_{};
};

/// Sets up the host's page tables, the frame allocator and the heap. The image lies at `image` (where kImage
/// is mapped). Panics where there is no way on. Returns the allocator.
FrameAllocator& init_memory(const BootInfo& info, Hpa image);
/// The heap behind operator new and delete; after init_memory().
Heap& kernel_heap();
/// A frame below 1 MiB that nobody else uses, for starting CPUs.
Hpa startup_page();

}  // namespace hv::boot
