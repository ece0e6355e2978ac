// SPDX-License-Identifier: MIT
#include "vmm/devices/pci_msix.hpp"

#include "vmm/base/assert.hpp"

#include <bit>

namespace hv {
namespace {

constexpr std::uint64_t kEntrySize = 16;
/// Messages go to local APICs; anything else that an address could name is not an interrupt [sdm3 11.11.1
/// Message Address Register Format].
constexpr bool is_interrupt_address(std::uint64_t address) {
    return (address >> 20) == 0xfee;
}

constexpr std::uint64_t mask_of(unsigned vector) {
    return std::uint64_t{1} << vector;
}

}  // namespace

MsixTable::MsixTable(unsigned vectors, InterruptBus& bus) : vectors_{vectors}, bus_{bus} {
    HV_ASSERT(vectors >= 1 && vectors <= kMaxVectors);
}

void MsixTable::send(const Entry& entry) {
    const std::uint64_t address = entry.words[0] | std::uint64_t{entry.words[1]} << 32;
    if (is_interrupt_address(address))
        bus_.deliver(message_of_msi(address, entry.words[2]));
}

void MsixTable::raise(unsigned vector) {
    if (vector >= vectors_)
        return;
    Entry entry;
    const bool now = state_.with([&](State& state) {
        entry = state.entries[vector];
        if (!state.enabled)
            return false;
        if (state.masked || entry.masked())
            state.pending |= mask_of(vector);
        return !state.masked && !entry.masked();
    });
    if (now)
        send(entry);
}

void MsixTable::send_pending() {
    for (;;) {
        Entry entry;
        const bool found = state_.with([&](State& state) {
            if (!state.enabled || state.masked)
                return false;
            for (std::uint64_t left = state.pending; left != 0; left &= left - 1) {
                const auto vector = static_cast<unsigned>(std::countr_zero(left));
                if (state.entries[vector].masked())
                    continue;
                state.pending &= ~mask_of(vector);
                entry = state.entries[vector];
                return true;
            }
            return false;
        });
        if (!found)
            return;
        send(entry);
    }
}

std::uint8_t MsixTable::byte_at(const State& state, std::uint64_t offset) {
    if (offset < kMaxVectors * kEntrySize)
        return static_cast<std::uint8_t>(state.entries[offset / kEntrySize].words[offset / 4 % 4] >>
                                         (offset % 4 * 8));
    if (offset >= kPendingOffset && offset < kPendingOffset + sizeof state.pending)
        return static_cast<std::uint8_t>(state.pending >> ((offset - kPendingOffset) * 8));
    return 0;
}

std::uint64_t MsixTable::read(std::uint64_t offset, unsigned size) {
    return state_.with([&](const State& state) {
        std::uint64_t value = 0;
        for (unsigned i = 0; i < size; ++i)
            value |= std::uint64_t{byte_at(state, offset + i)} << (8 * i);
        return value;
    });
}

void MsixTable::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    state_.with([&](State& state) {
        for (unsigned i = 0; i < size; ++i) {
            const std::uint64_t at = offset + i;
            if (at >= vectors_ * kEntrySize)
                return;
            std::uint32_t& word = state.entries[at / kEntrySize].words[at / 4 % 4];
            const auto shift = static_cast<unsigned>(at % 4 * 8);
            word = (word & ~(0xffu << shift)) | static_cast<std::uint32_t>((value >> (8 * i)) & 0xff)
                                                    << shift;
            if (at / 4 % 4 == 3)
                word &= 1;  // vector control: all but the mask is reserved
        }
    });
    send_pending();
}

void MsixTable::set_control(bool enabled, bool masked) {
    state_.with([&](State& state) {
        state.enabled = enabled;
        state.masked = masked;
        if (!enabled)
            state.pending = 0;
    });
    send_pending();
}

void MsixTable::reset() {
    state_.with([](State& state) { state = State{}; });
}

}  // namespace hv
