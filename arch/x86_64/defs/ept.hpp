// SPDX-License-Identifier: MIT
// Extended page tables: the entry and the pointer to the root [sdm3 29.3.2 EPT Translation Mechanism].
#pragma once

#include "vmm/base/bits.hpp"

#include <cstdint>

namespace hv::vmx {

/// Memory types of EPT entries and EPTP [sdm3 29.3.7 EPT and Memory Typing].
inline constexpr std::uint64_t EPT_MEMORY_TYPE_UC = 0;
inline constexpr std::uint64_t EPT_MEMORY_TYPE_WB = 6;

struct EptEntry {
    using Read = Bits<0>;
    using Write = Bits<1>;
    using Execute = Bits<2>;
    using Rights = Bits<2, 0>;      ///< all clear: not present
    using MemoryType = Bits<5, 3>;  ///< leaves only
    using IgnorePat = Bits<6>;      ///< leaves only
    using Large = Bits<7>;          ///< levels 2 and 3
    using Accessed = Bits<8>;
    using Dirty = Bits<9>;
    using Frame = Bits<51, 12>;
};

/// [sdm3 25.6.11 Extended-Page-Table Pointer (EPTP)]
struct Eptp {
    using MemoryType = Bits<2, 0>;
    using WalkLengthMinus1 = Bits<5, 3>;
    using AccessedDirty = Bits<6>;
    using Frame = Bits<51, 12>;
};

}  // namespace hv::vmx
