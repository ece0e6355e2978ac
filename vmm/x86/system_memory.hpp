// SPDX-License-Identifier: MIT
// The processor's own accesses to descriptor tables and task-state segments, by linear address: a range is
// translated first, with all faults, and then read and written without any.
#pragma once

#include "vmm/base/bytes.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/page_walk.hpp"

#include <array>
#include <cstdint>
#include <span>

namespace hv::x86 {

/// A translated range of at most a page, in RAM.
class SystemRange {
public:
    [[nodiscard]] unsigned size() const { return sizes_[0] + sizes_[1]; }
    /// `offset` and the value lie inside the range.
    template <class T>
    [[nodiscard]] T load(unsigned offset) const {
        std::array<std::byte, sizeof(T)> bytes;
        for (unsigned i = 0; i < sizeof(T); ++i)
            bytes[i] = *at(offset + i);
        return hv::load<T>(bytes.data());
    }
    template <class T>
    void store(unsigned offset, T value) {
        std::array<std::byte, sizeof(T)> bytes;
        hv::store(bytes.data(), value);
        for (unsigned i = 0; i < sizeof(T); ++i)
            *at(offset + i) = bytes[i];
    }
    /// One byte, atomically: other processors may be at work on the same descriptor.
    void change_bits(unsigned offset, std::uint8_t clear, std::uint8_t set);

private:
    friend class SystemMemory;
    [[nodiscard]] std::byte* at(unsigned offset) const {
        return offset < sizes_[0] ? host_[0] + offset : host_[1] + (offset - sizes_[0]);
    }
    std::array<std::byte*, 2> host_{};
    std::array<unsigned, 2> sizes_{};
};

/// Holds references alone; for a processor that is not in long mode: linear addresses have 32 bits.
class SystemMemory {
public:
    SystemMemory(const GuestCpu& cpu, const GuestMemory& memory) : cpu_{cpu}, memory_{memory} {}

    /// Translates `size` bytes, at most a page. After page_fault, fault_code() and fault_address() tell of
    /// it.
    Translation::Status resolve(const PagingState& paging, std::uint64_t linear, unsigned size, Access access,
                                Accessor accessor, SystemRange& out);
    [[nodiscard]] std::uint32_t fault_code() const { return fault_code_; }
    [[nodiscard]] std::uint32_t fault_address() const { return fault_address_; }

private:
    const GuestCpu& cpu_;
    const GuestMemory& memory_;
    std::uint32_t fault_code_{0};
    std::uint32_t fault_address_{0};
};

}  // namespace hv::x86
