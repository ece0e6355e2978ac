// SPDX-License-Identifier: MIT
// The instruction at the guest's RIP: its length where an exit names the instruction but not the length, and
// its decoded form where the VMM has to execute it.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/decoder.hpp"
#include "vmm/x86/page_walk.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

namespace hv::x86 {

inline CodeMode code_mode(const CpuState& state) {
    const Segment& cs = state.seg(SegmentName::cs);
    if ((state.efer & EFER_LMA) != 0 && cs.long_mode())
        return CodeMode::bits64;
    return cs.big() ? CodeMode::bits32 : CodeMode::bits16;
}

/// One per vCPU, used on its own CPU. It caches host addresses of guest RAM, until it is told to forget them.
class InstructionFetcher {
public:
    InstructionFetcher(const GuestCpu& cpu, VcpuBackend& backend, const GuestMemory& memory)
        : cpu_{cpu}, backend_{backend}, memory_{memory} {}

    /// The length of the intercepted instruction `Op` at RIP. 0: what is there now is something else, or
    /// cannot be read; the guest changed it under way and has to run it again.
    ///
    /// Why a glance at a cached page is enough: that an `Op` starts at RIP is known from the exit; only its
    /// length is in question, and that differs from the bare opcode's only by prefixes without meaning. The
    /// page is cached by the page of RIP alone, so it may belong to another address space or to an older
    /// mapping. Then its bytes are hardly those of `Op` at just this RIP, and if they are not, the tables are
    /// walked. It goes wrong only for a guest that has an `Op` with a useless prefix where another of its
    /// address spaces has a bare one, at the same RIP; it would skip a wrong number of its own bytes, and
    /// nobody else would notice.
    template <Operation Op>
    unsigned length() {
        const unsigned known = known_length<Op>();
        return known != 0 ? known : length_by_walk(Op);
    }
    /// The glance alone; 0: length() has to walk.
    template <Operation Op>
    [[nodiscard]] unsigned known_length() const {
        const std::uint64_t rip = backend_.regs.rip;
        const std::uint64_t offset = rip & (kPageSize - 1);
        const Page& page = pages_.data()[(rip >> kPageShift) % kPages];
        if (page.number != rip >> kPageShift || offset > kPageSize - kMaxBare) [[unlikely]]
            return 0;
        return bare_length<Op>(page.host + offset);
    }

    struct Fetched {
        enum class Status : std::uint8_t { ok, page_fault, retry, invalid, not_memory };
        Status status;
        /// Valid until the next call.
        const Instruction* instruction;
        std::span<const std::uint8_t> bytes;  ///< as many as were read
        std::uint64_t linear;                 ///< where the fault is
        std::uint32_t error_code;
    };
    /// Decodes the instruction at RIP. `state` holds the control and segments groups. Instructions met before
    /// are taken from a cache when registers, page-table entries and bytes are all as they were.
    Fetched fetch(const CpuState& state);
    /// fetch()'s cache alone: nullptr if the instruction is not there, or no longer.
    [[nodiscard]] const Instruction* cached() const {
        const std::uint64_t rip = backend_.regs.rip;
        const Decoded& entry = decoded_[slot_of(rip)];
        const bool holds = entry.is_at(rip) && backend_.runs_in(entry.context) && entry.is_in_place();
        return holds ? &entry.instruction : nullptr;
    }

    /// Before guest RAM that was present goes away.
    void forget() {
        pages_ = {};
        decoded_ = {};
    }

private:
    static constexpr unsigned kPages = 8;
    static constexpr unsigned kDecoded = 16;
    static constexpr unsigned kMaxBare = 3;  ///< bytes of the longest opcode that length() knows

    struct Page {
        std::uint64_t number{~std::uint64_t{0}};
        const std::byte* host{nullptr};
    };
    struct Decoded {
        std::uint64_t rip{0};
        CodeContext context;
        WalkTrace trace;
        const std::byte* host{nullptr};  ///< nullptr: empty
        std::array<std::uint64_t, 2> bytes, mask;
        Instruction instruction;

        [[nodiscard]] bool is_at(std::uint64_t guest_rip) const {
            return rip == guest_rip && host != nullptr;
        }
        /// The page-table entries and the bytes are what they were.
        [[nodiscard]] bool is_in_place() const {
            return trace.unchanged() && (load<std::uint64_t>(host) & mask[0]) == bytes[0] &&
                   (load<std::uint64_t>(host + 8) & mask[1]) == bytes[1];
        }
    };

    /// The length if `at` holds exactly the opcode of `Op`, else 0.
    template <Operation Op>
    static unsigned bare_length(const std::byte* at) {
        std::uint16_t two;
        std::memcpy(&two, at, sizeof two);
        switch (Op) {
        case Operation::cpuid: return two == 0xa20f ? 2 : 0;
        case Operation::rdmsr: return two == 0x320f ? 2 : 0;
        case Operation::wrmsr: return two == 0x300f ? 2 : 0;
        case Operation::rdtsc: return two == 0x310f ? 2 : 0;
        case Operation::hlt: return (two & 0xff) == 0xf4 ? 1 : 0;
        case Operation::pause: return two == 0x90f3 ? 2 : 0;
        case Operation::invd: return two == 0x080f ? 2 : 0;
        case Operation::wbinvd: return two == 0x090f ? 2 : 0;
        case Operation::xsetbv: return two == 0x010f && at[2] == std::byte{0xd1} ? 3 : 0;
        case Operation::vmcall:
        case Operation::vmmcall:
            return two == 0x010f && (at[2] == std::byte{0xd9} || at[2] == std::byte{0xc1}) ? 3 : 0;
        default: return 0;
        }
    }

    unsigned length_by_walk(Operation expected);
    void remember_page(std::uint64_t rip, std::uint64_t linear, const std::byte* host);
    [[nodiscard]] std::uint64_t linear_rip(const CpuState& state, CodeMode mode) const {
        const std::uint64_t rip = backend_.regs.rip;
        return mode == CodeMode::bits64 ? rip
                                        : static_cast<std::uint32_t>(state.seg(SegmentName::cs).base + rip);
    }
    static std::size_t slot_of(std::uint64_t rip) { return (rip ^ (rip >> 4)) % kDecoded; }

    const GuestCpu& cpu_;
    VcpuBackend& backend_;
    const GuestMemory& memory_;
    std::array<Page, kPages> pages_{};
    std::array<Decoded, kDecoded> decoded_{};
    std::array<std::uint8_t, kMaxInstructionLength> buffer_{};
    Instruction instruction_{};
};

}  // namespace hv::x86
