// SPDX-License-Identifier: MIT
// The kernel's heap, behind operator new and delete. Small objects come from slabs of one size class each,
// larger ones are blocks of frames. A bitmap in the slab's header says which objects are free, so that a
// double free and a pointer into the middle of an object are caught in every build. Nothing on the VM-exit
// path allocates.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/list.hpp"
#include "vmm/mm/frame_allocator.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace hv {

struct HeapStatistics {
    std::uint64_t objects;
    std::uint64_t object_bytes;  ///< rounded up to their size class or block
    std::uint64_t frame_bytes;   ///< taken from the frame allocator
};

class Heap {
public:
    /// Up to this size objects come from slabs.
    static constexpr std::size_t kLargestSlabObject = 2048;

    /// The heap lies in frames of its own and is never destroyed. Error::no_memory.
    static Expected<Heap*> create(FrameAllocator& frames);
    Heap(const Heap&) = delete;
    Heap& operator=(const Heap&) = delete;

    /// `size` bytes aligned to `alignment` (a power of two), contents undefined; nullptr: no memory. Size 0
    /// counts as 1.
    void* allocate(std::size_t size, std::size_t alignment);
    /// Takes back what allocate() returned; nullptr is ignored.
    void free(void* object);
    [[nodiscard]] HeapStatistics statistics() const;

private:
    static constexpr unsigned kSlabOrder = 2;
    static constexpr std::size_t kSlabSize = kPageSize << kSlabOrder;
    /// Objects of a class are aligned to the largest power of two that divides its size.
    static constexpr std::array<std::uint16_t, 14> kClassSizes{
        16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, kLargestSlabObject};

    /// The head of a block of frames, aligned to kSlabSize, with objects of one class behind it.
    struct Slab {
        std::uint64_t magic;
        unsigned size_class;
        unsigned free_count;
        ListLink link;  ///< in SizeClass::partial, unless full
        std::array<std::uint64_t, kSlabSize / kClassSizes[0] / 64> free_objects;
    };
    struct SizeClass {
        List<Slab, &Slab::link> partial;  ///< slabs with free objects
    };

    explicit Heap(FrameAllocator& frames) : frames_{frames} {}
    static std::size_t first_object(unsigned size_class);
    static unsigned capacity(unsigned size_class);
    static std::optional<unsigned> class_for(std::size_t size, std::size_t alignment);
    Slab* create_slab(unsigned size_class);
    void* allocate_small(unsigned size_class);
    void* allocate_large(std::size_t size);
    void free_small(Slab& slab, std::size_t offset);

    FrameAllocator& frames_;
    std::array<Guarded<SizeClass, Rank::heap>, kClassSizes.size()> classes_;
    std::atomic<std::uint64_t> objects_{0};
    std::atomic<std::uint64_t> object_bytes_{0};
    std::atomic<std::uint64_t> frame_bytes_{0};
};

}  // namespace hv
