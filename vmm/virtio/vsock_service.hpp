// SPDX-License-Identifier: MIT
// What answers on a port of the host when a guest connects to it.
#pragma once

#include <cstdint>

namespace hv::virtio {

class VsockConnection;

/// Called on any CPU with the socket device's lock (Rank::device_tx) held: returns soon and calls nobody who
/// might call back. One service may have connections of several VMs.
class VsockService {
public:
    /// False: the guest is refused. Else the connection is there until closed().
    virtual bool accept(VsockConnection& connection) = 0;
    /// There is something to read, or room to write, or the guest has ended its side.
    virtual void ready(VsockConnection& connection) = 0;
    /// The connection goes away now.
    virtual void closed(VsockConnection& connection) = 0;

protected:
    ~VsockService() = default;
};

struct VsockPort {
    std::uint32_t port;
    VsockService* service;
};

}  // namespace hv::virtio
