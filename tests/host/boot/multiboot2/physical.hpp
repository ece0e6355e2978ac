// SPDX-License-Identifier: MIT
#pragma once

#include "boot/multiboot2/boot_info.hpp"

#include <span>
#include <utility>
#include <vector>

namespace hv::boot {

/// Physical memory of which one piece exists. A heap copy of exactly its size: ASan sees a read beyond.
class FakePhysical final : public PhysicalMemory {
public:
    FakePhysical(Hpa start, std::span<const std::byte> bytes)
        : start_{start}, bytes_{bytes.begin(), bytes.end()} {}
    [[nodiscard]] std::span<const std::byte> bytes(Hpa start, std::uint64_t length) const override {
        if (start < start_ || start - start_ > bytes_.size() || length > bytes_.size() - (start - start_))
            return {};
        return std::span{bytes_}.subspan(start - start_, length);
    }

private:
    Hpa start_;
    std::vector<std::byte> bytes_;
};

}  // namespace hv::boot
