// SPDX-License-Identifier: MIT
// A receive and a transmit queue of a network device, which work independently of each other and of other
// pairs. [virtio1.2 5.1.2 Virtqueues]
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/virtio/net_receive_ring.hpp"
#include "vmm/virtio/net_transmit_queue.hpp"

namespace hv::virtio {

struct NetQueuePair {
    NetQueuePair(VirtioNet& device, unsigned index, const GuestMemory& memory, Clock& clock)
        : transmit{device, index, memory, clock}, receive{memory} {}

    NetTransmitQueue transmit;
    Guarded<NetReceiveRing, Rank::device_rx> receive;
};

}  // namespace hv::virtio
