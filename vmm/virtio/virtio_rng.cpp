// SPDX-License-Identifier: MIT
#include "vmm/virtio/virtio_rng.hpp"

#include <algorithm>
#include <new>

namespace hv::virtio {

Expected<std::unique_ptr<VirtioRng>> VirtioRng::create(EntropySource& source, const GuestMemory& memory,
                                                       Clock& clock) {
    std::unique_ptr<VirtioRng> device{new (std::nothrow) VirtioRng{source, memory, clock}};
    if (device == nullptr)
        return Unexpected{Error::no_memory};
    return device;
}

QueueClient::Step VirtioRng::next(unsigned, Virtqueue& ring, Effort& effort) {
    Chain chain{};
    if (const auto popped = ring.pop(pieces_, chain); popped != Virtqueue::Pop::ready)
        return step_without(popped);
    // [virtio1.2 5.4.6.1 Driver Requirements: Device Operation]: buffers to write into, and to get at least
    // one byte.
    if (chain.readable_size != 0 || chain.writable_size == 0)
        return Step::broken;
    if (!bucket_.ready(clock_, clock_.now())) {
        ring.unpop(1);
        effort.retry_at = bucket_.ready_at(clock_);
        return Step::waits;
    }
    std::uint32_t written = 0;
    for (const Piece& piece : chain.writable) {
        const std::size_t size = std::min<std::uint64_t>(piece.size, kMaxAnswer - written);
        source_.fill({piece.data, size});
        written += static_cast<std::uint32_t>(size);
        if (written == kMaxAnswer)
            break;
    }
    bucket_.spend(written);
    effort.spent += written;
    ring.push(chain.head, written);
    return Step::handled;
}

}  // namespace hv::virtio
