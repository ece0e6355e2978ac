// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace hv {

/// How a guest's kernel is started; the `boot` key of a VM.
enum class BootProtocol : std::uint8_t {
    linux,  ///< what Linux offers: an ELF by its PVH note, a bzImage by the 64-bit or 32-bit boot protocol
    pvh,    ///< an ELF by its PVH note
    multiboot,  ///< Multiboot 1
    firmware,   ///< UEFI firmware: not supported yet
};

constexpr const char* to_string(BootProtocol protocol) {
    switch (protocol) {
    case BootProtocol::linux: return "linux";
    case BootProtocol::pvh: return "pvh";
    case BootProtocol::multiboot: return "multiboot";
    case BootProtocol::firmware: return "firmware";
    }
    return "unknown";
}

}  // namespace hv
