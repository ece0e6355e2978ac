// SPDX-License-Identifier: MIT
// Sends back what it gets, and ends when the guest does.
#pragma once

#include "vmm/virtio/vsock_service.hpp"

#include <cstdint>

namespace hv::virtio {

class VsockEcho final : public VsockService {
public:
    static constexpr std::uint32_t kPort = 7;  ///< as in TCP

    bool accept(VsockConnection&) override { return true; }
    void ready(VsockConnection& connection) override;
    void closed(VsockConnection&, VsockEnd) override {}
};

}  // namespace hv::virtio
