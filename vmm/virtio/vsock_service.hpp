// SPDX-License-Identifier: MIT
// The host's side of connections: what answers on a port when a guest connects to it, or who had one made to
// the guest.
#pragma once

#include <cstdint>

namespace hv::virtio {

class VsockConnection;

/// Why a connection is over.
enum class VsockEnd : std::uint8_t {
    refused,     ///< the guest did not accept the host's request
    unanswered,  ///< nor did it refuse it in time
    over,        ///< by the guest, in order or not
    gone,        ///< with the driver, the guest or the device
};

/// Called on any CPU with the socket device's lock (Rank::device_tx) held: returns soon and calls nobody who
/// might call back. One service may have connections of several VMs.
class VsockService {
public:
    /// A connection begins, to a port of the service or by its own wish. False: it does not, the guest is
    /// refused. Else it is there until closed().
    virtual bool accept(VsockConnection& connection) = 0;
    /// There is something to read, or room to write, or the guest has accepted, or ended its side.
    virtual void ready(VsockConnection& connection) = 0;
    /// The connection goes away now; what the guest sent can still be read.
    virtual void closed(VsockConnection& connection, VsockEnd end) = 0;

protected:
    ~VsockService() = default;
};

struct VsockPort {
    std::uint32_t port;
    VsockService* service;
};

}  // namespace hv::virtio
