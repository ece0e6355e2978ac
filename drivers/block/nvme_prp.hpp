// SPDX-License-Identifier: MIT
// A command's data as an NVMe controller takes it: two addresses, the second of which is a page of data or a
// list of pages. Pages have 4 KiB. [nvme2 4.1.1 Physical Region Page Entry and List]
#pragma once

#include "drivers/block/command_engine.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/assert.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace hv::block::nvme {

/// A list fills one page and is never continued in another.
inline constexpr std::size_t kPrpListEntries = kPageSize / sizeof(std::uint64_t);
/// Behind the piece that PRP1 names, the list has room for that many bytes wherever the data begins.
inline constexpr std::uint32_t kMaxTransfer = kPrpListEntries * kPageSize;

struct Prps {
    std::uint64_t prp1{0};
    std::uint64_t prp2{0};
};

/// `runs` join at page boundaries, at most kMaxTransfer bytes; `list` lies at `list_address`.
inline Prps make_prps(std::span<const DmaRun> runs, std::span<std::uint64_t, kPrpListEntries> list,
                      Hpa list_address) {
    Prps prps{runs.front().address.raw, 0};
    std::size_t listed = 0;
    bool first = true;  // which page it is tells nothing: a request may name one again
    for (const DmaRun& run : runs) {
        const Hpa end = run.address + run.size;
        for (Hpa at = run.address; at < end; at = at.page() + kPageSize) {
            if (std::exchange(first, false))
                continue;
            HV_ASSERT(listed < list.size() && at.page_offset() == 0);
            list[listed++] = at.raw;
        }
    }
    if (listed != 0)
        prps.prp2 = listed == 1 ? list[0] : list_address.raw;
    return prps;
}

}  // namespace hv::block::nvme
