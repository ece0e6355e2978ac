// SPDX-License-Identifier: MIT
// Memory that devices read and write: physically contiguous, zeroed, freed with its owner.
#pragma once

#include "vmm/base/machine.hpp"
#include "vmm/mm/frame_source.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace hv {

/// A buffer of 4 KiB * 2^order, aligned to its size.
class DmaBuffer {
public:
    DmaBuffer() = default;
    DmaBuffer(DmaBuffer&& other) noexcept
        : frames_{std::exchange(other.frames_, nullptr)}, address_{other.address_}, order_{other.order_} {}
    DmaBuffer& operator=(DmaBuffer&& other) noexcept {
        std::swap(frames_, other.frames_);
        std::swap(address_, other.address_);
        std::swap(order_, other.order_);
        return *this;
    }
    /// The device has been told to leave it alone before.
    ~DmaBuffer() {
        if (frames_ == nullptr)
            return;
        std::memset(bytes().data(), 0, bytes().size());
        frames_->free(address_, order_);
    }

    explicit operator bool() const { return frames_ != nullptr; }
    /// What the device is given.
    [[nodiscard]] Hpa address() const { return address_; }
    [[nodiscard]] std::span<std::byte> bytes() const { return {machine::hva(address_), kPageSize << order_}; }
    /// The buffer as Ts, from byte `offset` on, which is a multiple of T's alignment.
    template <class T>
    [[nodiscard]] T* at(std::size_t offset = 0) const {
        return reinterpret_cast<T*>(bytes().subspan(offset, sizeof(T)).data());
    }

private:
    friend class DmaPool;
    DmaBuffer(FrameSource& frames, Hpa address, unsigned order)
        : frames_{&frames}, address_{address}, order_{order} {}

    FrameSource* frames_{nullptr};
    Hpa address_{};
    unsigned order_{0};
};

/// Where a driver gets DMA memory from. Devices address all of physical memory.
class DmaPool {
public:
    explicit DmaPool(FrameSource& frames) : frames_{frames} {}

    /// At least `size` bytes, size > 0. Error::no_memory.
    Expected<DmaBuffer> allocate(std::size_t size) {
        const auto order = static_cast<unsigned>(std::bit_width((size - 1) >> kPageShift));
        DmaBuffer buffer{frames_, HV_TRY(frames_.allocate(order)), order};
        std::memset(buffer.bytes().data(), 0, buffer.bytes().size());
        return buffer;
    }

private:
    FrameSource& frames_;
};

}  // namespace hv
