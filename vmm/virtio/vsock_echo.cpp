// SPDX-License-Identifier: MIT
#include "vmm/virtio/vsock_echo.hpp"

#include "vmm/virtio/vsock_connection.hpp"

#include <algorithm>
#include <array>

namespace hv::virtio {

void VsockEcho::ready(VsockConnection& connection) {
    std::array<std::byte, 512> bytes;
    while (const std::size_t size =
               connection.read(std::span{bytes}.first(std::min(bytes.size(), connection.room()))))
        connection.write(std::span{bytes}.first(size));
    if (connection.ended())
        connection.close();
}

}  // namespace hv::virtio
