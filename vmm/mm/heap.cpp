// SPDX-License-Identifier: MIT
#include "vmm/mm/heap.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>
#include <bit>
#include <new>

namespace hv {
namespace {

constexpr std::uint64_t kSlabMagic = 0x6e72'6961'6362'616c;

/// The order of the smallest block that holds `size` bytes, size > 0.
constexpr unsigned order_for(std::size_t size) {
    return static_cast<unsigned>(std::bit_width((size - 1) >> kPageShift));
}

}  // namespace

Expected<Heap*> Heap::create(FrameAllocator& frames) {
    const Hpa frame = HV_TRY(frames.allocate(order_for(sizeof(Heap))));
    return new (machine::hva(frame)) Heap{frames};
}

void* Heap::allocate(std::size_t size, std::size_t alignment) {
    HV_ASSERT(std::has_single_bit(alignment));
    size = std::max<std::size_t>(size, 1);
    if (const std::optional<unsigned> size_class = class_for(size, alignment))
        return allocate_small(*size_class);
    return allocate_large(std::max(size, alignment));  // blocks are aligned to their size
}

void Heap::free(void* object) {
    if (object == nullptr)
        return;
    const Hpa address = machine::hpa(object);
    // A page-aligned object is a block of its own, or lies inside a slab: never at a slab's start.
    if (address.aligned(kPageSize)) {
        if (const std::optional<unsigned> order = frames_.allocated_order(address)) {
            object_bytes_.fetch_sub(kPageSize << *order, std::memory_order_relaxed);
            frame_bytes_.fetch_sub(kPageSize << *order, std::memory_order_relaxed);
            objects_.fetch_sub(1, std::memory_order_relaxed);
            frames_.free(address, *order);
            return;
        }
    }
    const Hpa base{align_down(address.raw, kSlabSize)};
    free_small(*machine::hva<Slab>(base), address - base);
}

HeapStatistics Heap::statistics() const {
    return {objects_.load(std::memory_order_relaxed), object_bytes_.load(std::memory_order_relaxed),
            frame_bytes_.load(std::memory_order_relaxed)};
}

std::size_t Heap::first_object(unsigned size_class) {
    const std::size_t size = kClassSizes[size_class];
    return align_up(sizeof(Slab), size & (~size + 1));
}

unsigned Heap::capacity(unsigned size_class) {
    return static_cast<unsigned>((kSlabSize - first_object(size_class)) / kClassSizes[size_class]);
}

std::optional<unsigned> Heap::class_for(std::size_t size, std::size_t alignment) {
    for (unsigned i = 0; i < kClassSizes.size(); ++i) {
        if (kClassSizes[i] >= size && is_aligned(kClassSizes[i], alignment))
            return i;
    }
    return std::nullopt;
}

Heap::Slab* Heap::create_slab(unsigned size_class) {
    const auto frame = frames_.allocate(kSlabOrder);
    if (!frame)
        return nullptr;
    frame_bytes_.fetch_add(kSlabSize, std::memory_order_relaxed);
    auto* slab = new (machine::hva(*frame)) Slab{};
    slab->magic = kSlabMagic;
    slab->size_class = size_class;
    slab->free_count = capacity(size_class);
    for (unsigned i = 0; i < slab->free_count; ++i)
        slab->free_objects[i / 64] |= std::uint64_t{1} << (i % 64);
    return slab;
}

void* Heap::allocate_small(unsigned size_class) {
    return classes_[size_class].with([&](SizeClass& slabs) -> void* {
        Slab* slab = slabs.partial.front();
        if (slab == nullptr) {
            slab = create_slab(size_class);
            if (slab == nullptr)
                return nullptr;
            slabs.partial.push_front(*slab);
        }
        const auto word =
            std::find_if(slab->free_objects.begin(), slab->free_objects.end(), [](auto w) { return w != 0; });
        const auto index = static_cast<std::size_t>(word - slab->free_objects.begin()) * 64 +
                           static_cast<std::size_t>(std::countr_zero(*word));
        *word &= *word - 1;
        if (--slab->free_count == 0)
            slabs.partial.remove(*slab);
        objects_.fetch_add(1, std::memory_order_relaxed);
        object_bytes_.fetch_add(kClassSizes[size_class], std::memory_order_relaxed);
        return reinterpret_cast<std::byte*>(slab) + first_object(size_class) +
               index * kClassSizes[size_class];
    });
}

void* Heap::allocate_large(std::size_t size) {
    const unsigned order = order_for(size);
    const auto frame = frames_.allocate(order);
    if (!frame)
        return nullptr;
    objects_.fetch_add(1, std::memory_order_relaxed);
    object_bytes_.fetch_add(kPageSize << order, std::memory_order_relaxed);
    frame_bytes_.fetch_add(kPageSize << order, std::memory_order_relaxed);
    return machine::hva(*frame);
}

void Heap::free_small(Slab& slab, std::size_t offset) {
    HV_ASSERT(slab.magic == kSlabMagic && slab.size_class < kClassSizes.size());
    const unsigned size_class = slab.size_class;
    const std::size_t size = kClassSizes[size_class];
    const std::size_t from_first = offset - first_object(size_class);
    const std::size_t index = from_first / size;
    HV_ASSERT(from_first % size == 0 && index < capacity(size_class));
    const std::uint64_t bit = std::uint64_t{1} << (index % 64);
    const bool empty = classes_[size_class].with([&](SizeClass& slabs) {
        HV_ASSERT((slab.free_objects[index / 64] & bit) == 0);
        slab.free_objects[index / 64] |= bit;
        if (++slab.free_count == 1)
            slabs.partial.push_front(slab);
        // One empty slab stays, so that allocating and freeing one object does not reach the frame allocator
        // each time.
        if (slab.free_count < capacity(size_class) || slabs.partial.front() == slabs.partial.back())
            return false;
        slabs.partial.remove(slab);
        slab.magic = 0;
        return true;
    });
    objects_.fetch_sub(1, std::memory_order_relaxed);
    object_bytes_.fetch_sub(size, std::memory_order_relaxed);
    if (empty) {
        frame_bytes_.fetch_sub(kSlabSize, std::memory_order_relaxed);
        frames_.free(machine::hpa(&slab), kSlabOrder);
    }
}

}  // namespace hv
