// SPDX-License-Identifier: MIT
// VLAN tags [ieee802.1q 9.6 VLAN Tag Control Information].
#pragma once

#include "vmm/net/ethernet.hpp"
#include "vmm/net/frame_segments.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hv::net {

/// Whether a frame has a VLAN tag, a customer's or a service provider's; with `offset`, behind so many bytes
/// of tags.
[[nodiscard]] bool is_tagged(const Frame& frame, std::size_t offset = 0);
/// The tag's VLAN identifier, 0 to 4095. Only for tagged frames.
[[nodiscard]] std::uint16_t vlan_of(const Frame& frame);

/// A frame without the tag that it had, or with one that it had not.
class Retagged {
public:
    /// False: it cannot be done (a frame cut short, or too many segments).
    [[nodiscard]] bool strip(const Frame& frame);
    [[nodiscard]] bool insert(const Frame& frame, std::uint16_t vlan);
    /// Valid as long as this object and what the original refers to.
    [[nodiscard]] Frame frame() const {
        Frame frame = builder_.frame(offload_);
        frame.progress = progress_;
        return frame;
    }

private:
    /// What is to be done to `frame`, for one with so many bytes more before its payload.
    void take_offload(const Frame& frame, int bytes);

    std::array<std::byte, 16> start_{};
    FrameBuilder builder_;
    FrameOffload offload_{};
    std::uint32_t* progress_{nullptr};
};

}  // namespace hv::net
