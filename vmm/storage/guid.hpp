// SPDX-License-Identifier: MIT
// A GUID as disks and firmware store it. [uefi Appendix A GUID and Time Formats]
#pragma once

#include "vmm/base/bytes.hpp"
#include "vmm/base/text.hpp"

#include <array>
#include <cstdint>

namespace hv {

struct Guid {
    std::array<std::uint8_t, 16> bytes{};

    friend bool operator==(const Guid&, const Guid&) = default;
    /// "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": the first three parts are little-endian numbers.
    [[nodiscard]] TextBuffer<36> text() const {
        TextBuffer<36> out;
        out.append("%08x-%04x-%04x-", load<std::uint32_t>(&bytes[0]), load<std::uint16_t>(&bytes[4]),
                   load<std::uint16_t>(&bytes[6]));
        for (std::size_t i = 8; i < bytes.size(); ++i)
            out.append("%s%02x", i == 10 ? "-" : "", bytes[i]);
        return out;
    }
};
static_assert(sizeof(Guid) == 16);

}  // namespace hv
