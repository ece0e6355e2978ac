// SPDX-License-Identifier: MIT
#include "vmm/x86/system_memory.hpp"

#include <algorithm>
#include <atomic>

namespace hv::x86 {

void SystemRange::change_bits(unsigned offset, std::uint8_t clear, std::uint8_t set) {
    const std::atomic_ref byte{*reinterpret_cast<std::uint8_t*>(at(offset))};
    byte.fetch_and(static_cast<std::uint8_t>(~clear));
    byte.fetch_or(set);
}

Translation::Status SystemMemory::resolve(const PagingState& paging, std::uint64_t linear, unsigned size,
                                          Access access, Accessor accessor, SystemRange& out) {
    out = {};
    for (unsigned piece = 0; size != 0; ++piece) {
        const auto address = static_cast<std::uint32_t>(linear);
        const auto room = static_cast<unsigned>(kPageSize - (address & (kPageSize - 1)));
        const unsigned part = std::min(size, room);
        const Translation where = walk(paging, cpu_, memory_, address, access, accessor);
        if (where.status != Translation::Status::ok) {
            fault_code_ = where.error_code;
            fault_address_ = address;
            return where.status;
        }
        std::byte* host = memory_.at(where.gpa, part);
        if (host == nullptr)
            return Translation::Status::not_memory;
        out.host_[piece] = host;
        out.sizes_[piece] = part;
        linear += part;
        size -= part;
    }
    return Translation::Status::ok;
}

}  // namespace hv::x86
