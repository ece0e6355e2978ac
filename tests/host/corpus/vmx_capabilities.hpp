// SPDX-License-Identifier: MIT
// VMX capability MSRs as processors report them, MSRs 480H to 490H in order. Recorded by a boot sector that
// reads them in real mode and prints them through port 0xe9.
#pragma once

#include <array>
#include <cstdint>

namespace hv::corpus {

/// IA32_VMX_BASIC to IA32_VMX_TRUE_ENTRY_CTLS.
using VmxCapabilities = std::array<std::uint64_t, 17>;

/// Bochs 2.7 (Debian 12), model broadwell_ult.
inline constexpr VmxCapabilities kBochsBroadwell{
    0x00d810000000002b, 0x0000007f00000016, 0xf7f9fffe0401e172, 0x007fffff00036dff, 0x0000ffff000011ff,
    0x00000000200401e0, 0x0000000080000021, 0x00000000ffffffff, 0x0000000000002000, 0x00000000003727ff,
    0x0000000000000034, 0x00057fff00000000, 0x00000f0106334141, 0x0000007f00000016, 0xf7f9fffe04006172,
    0x007fffff00036dfb, 0x0000ffff000011fb,
};

/// Bochs 2.7 (Debian 12), model corei5_lynnfield_750: the generation before "unrestricted guest".
inline constexpr VmxCapabilities kBochsLynnfield{
    0x00d810000000002b, 0x0000007f00000016, 0xf7f9fffe0401e172, 0x007fffff00036dff, 0x0000ffff000011ff,
    0x00000000000401e0, 0x0000000080000021, 0x00000000ffffffff, 0x0000000000002000, 0x00000000000067ff,
    0x0000000000000034, 0x0000007f00000000, 0x00000f0106114141, 0x0000007f00000016, 0xf7f9fffe04006172,
    0x007fffff00036dfb, 0x0000ffff000011fb,
};

}  // namespace hv::corpus
