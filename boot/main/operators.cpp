// SPDX-License-Identifier: MIT
// operator new and delete on the kernel heap. Only the nothrow forms are called; the others exist because
// virtual destructors refer to them.
#include "boot/main/boot_memory.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/mm/heap.hpp"

#include <cstddef>
#include <new>

namespace {

constexpr std::size_t kDefaultAlignment = alignof(std::max_align_t);

void* allocate(std::size_t size, std::size_t alignment) {
    return hv::boot::kernel_heap().allocate(size, alignment);
}
void release(void* memory) {
    hv::boot::kernel_heap().free(memory);
}
void* allocate_or_panic(std::size_t size, std::size_t alignment) {
    void* memory = allocate(size, alignment);
    if (memory == nullptr)
        hv::panic("out of memory in an allocation that cannot fail");
    return memory;
}

}  // namespace

const std::nothrow_t std::nothrow{};

void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, kDefaultAlignment);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size, kDefaultAlignment);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size) {
    return allocate_or_panic(size, kDefaultAlignment);
}
void* operator new[](std::size_t size) {
    return allocate_or_panic(size, kDefaultAlignment);
}
void operator delete(void* memory) noexcept {
    release(memory);
}
void operator delete[](void* memory) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
    release(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
    release(memory);
}
