// SPDX-License-Identifier: MIT
#include "vmm/virtio/balloon_statistics.hpp"

#include "vmm/virtio/piece_list.hpp"

namespace hv::virtio {

Expected<void> BalloonStatistics::start(const QueueLayout& layout, std::uint64_t features) {
    held_.reset();
    values_ = {};
    if (layout.size == 0)
        return {};
    HV_TRY(ring_.start(layout, features));
    live_ = true;
    return {};
}

void BalloonStatistics::read(Chain& chain) {
    BalloonStat stat{};
    for (unsigned i = 0; i < kMaxEntries; ++i) {
        if (take_front(chain.readable, std::as_writable_bytes(std::span{&stat, 1})) != sizeof stat)
            return;
        if (stat.tag < values_.size())
            values_[stat.tag] = std::uint64_t{stat.val};
    }
}

BalloonStatistics::Outcome BalloonStatistics::take() {
    if (!live_ || ring_.broken())
        return {};
    Chain chain{};
    for (unsigned count = 0; count < ring_.size(); ++count) {
        const auto popped = ring_.pop(pieces_, chain);
        if (popped == Virtqueue::Pop::broken)
            return {ring_.publish(), true};
        if (popped == Virtqueue::Pop::absent)
            break;  // request() tries again
        if (popped == Virtqueue::Pop::empty) {
            if (!ring_.request_notifications())
                break;
            continue;
        }
        // One buffer is enough to keep.
        if (held_)
            ring_.push(*held_, 0);
        held_ = chain.head;
        read(chain);
    }
    return {ring_.publish(), false};
}

BalloonStatistics::Outcome BalloonStatistics::request() {
    if (!live_ || ring_.broken())
        return {};
    if (!held_)
        return take();
    ring_.push(*held_, 0);
    held_.reset();
    return {ring_.publish(), false};
}

}  // namespace hv::virtio
