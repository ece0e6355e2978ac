// SPDX-License-Identifier: MIT
// Physical frames that hardware is told of (VMXON region, VMCS, bitmaps), given back with their owner.
#pragma once

#include "vmm/base/machine.hpp"
#include "vmm/mm/frame_source.hpp"

#include <cstddef>
#include <cstring>
#include <utility>

namespace hv::vmx {

class OwnedFrames {
public:
    OwnedFrames() = default;
    /// 2^order frames, all bytes `fill`. Error::no_memory.
    static Expected<OwnedFrames> create(FrameSource& frames, unsigned order, std::byte fill) {
        OwnedFrames owned;
        owned.hpa_ = HV_TRY(frames.allocate(order));
        owned.frames_ = &frames;
        owned.order_ = order;
        std::memset(owned.data(), std::to_integer<int>(fill), kPageSize << order);
        return owned;
    }
    OwnedFrames(OwnedFrames&& other) noexcept
        : frames_{std::exchange(other.frames_, nullptr)}, hpa_{other.hpa_}, order_{other.order_} {}
    OwnedFrames& operator=(OwnedFrames&& other) noexcept {
        std::swap(frames_, other.frames_);
        std::swap(hpa_, other.hpa_);
        std::swap(order_, other.order_);
        return *this;
    }
    ~OwnedFrames() {
        if (frames_ != nullptr)
            frames_->free(hpa_, order_);
    }

    [[nodiscard]] bool empty() const { return frames_ == nullptr; }
    [[nodiscard]] Hpa hpa() const { return hpa_; }
    [[nodiscard]] std::byte* data() const { return machine::hva(hpa_); }

private:
    FrameSource* frames_{nullptr};
    Hpa hpa_{};
    unsigned order_{0};
};

}  // namespace hv::vmx
