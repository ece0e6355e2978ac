// SPDX-License-Identifier: MIT
#include "vmm/x86/page_walk.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/bits.hpp"

#include <atomic>

namespace hv::x86 {
namespace {

constexpr std::uint64_t kPresent = bit(0), kWritable = bit(1), kUser = bit(2), kAccessed = bit(5),
                        kDirty = bit(6), kLarge = bit(7), kNoExecute = bit(63);
constexpr unsigned kAttempts = 8;

/// One of the three formats with paging on.
struct Format {
    bool wide;  ///< 8-byte entries
    unsigned levels;
    unsigned index_bits;
};

Format format_of(const PagingState& paging) {
    if ((paging.efer & EFER_LMA) != 0)
        return {true, 4, 9};
    if ((paging.cr4 & CR4_PAE) != 0)
        return {true, 3, 9};
    return {false, 2, 10};
}

std::uint64_t load_entry(std::byte* at, bool wide) {
    return wide ? std::atomic_ref{*reinterpret_cast<std::uint64_t*>(at)}.load(std::memory_order_relaxed)
                : std::atomic_ref{*reinterpret_cast<std::uint32_t*>(at)}.load(std::memory_order_relaxed);
}

/// Sets bits in an entry unless it is no longer `expected`.
template <class Entry>
bool set_bits(std::byte* at, std::uint64_t expected, std::uint64_t bits) {
    auto old = static_cast<Entry>(expected);
    return std::atomic_ref{*reinterpret_cast<Entry*>(at)}.compare_exchange_strong(
        old, static_cast<Entry>(old | bits));
}

class Walk {
public:
    Walk(const PagingState& paging, const GuestCpu& cpu, const GuestMemory& memory, std::uint64_t linear,
         Access access, Accessor accessor)
        : paging_{paging},
          cpu_{cpu},
          memory_{memory},
          linear_{linear},
          access_{access},
          accessor_{accessor},
          format_{format_of(paging)} {}

    Translation run(WalkTrace* trace) {
        for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
            count_ = 0;
            rights_ = kWritable | kUser;
            no_execute_ = false;
            Translation result = descend();
            if (result.status != Translation::Status::ok || mark()) {
                if (trace != nullptr)
                    record(*trace);
                return result;
            }
        }
        return {.status = Translation::Status::retry};
    }

private:
    Translation descend() {
        // PAE's four-entry table is aligned to 32 bytes, all others to a page.
        const std::uint64_t root_mask = format_.levels == 3 ? 0xffff'ffe0
                                        : format_.wide      ? kAddress
                                                            : 0xffff'f000;
        std::uint64_t table = paging_.cr3 & root_mask;
        for (unsigned level = format_.levels;; --level) {
            const unsigned shift = kPageShift + (level - 1) * format_.index_bits;
            const std::uint64_t index_mask =
                format_.levels == 3 && level == 3 ? 3 : (std::uint64_t{1} << format_.index_bits) - 1;
            const unsigned bytes = format_.wide ? 8 : 4;
            std::byte* at = memory_.at(Gpa{table + ((linear_ >> shift) & index_mask) * bytes}, bytes);
            if (at == nullptr)
                return {.status = Translation::Status::not_memory};
            const std::uint64_t entry = load_entry(at, format_.wide);
            entries_[count_] = at;
            values_[count_++] = entry;
            if ((entry & kPresent) == 0)
                return fault(0);
            const bool leaf = level == 1 || is_large(entry, level);
            if ((entry & reserved_bits(level, leaf)) != 0)
                return fault(PAGE_FAULT_P | PAGE_FAULT_RSVD);
            // PAE's top level has no rights [sdm3 4.4.2 Linear-Address Translation with PAE Paging].
            if (!(format_.levels == 3 && level == 3)) {
                rights_ &= entry;
                no_execute_ |= format_.wide && (entry & kNoExecute) != 0;
            }
            if (leaf)
                return allowed() ? arrived(entry, level, shift) : fault(PAGE_FAULT_P);
            table = entry & (format_.wide ? kAddress : 0xffff'f000);
        }
    }

    [[nodiscard]] bool is_large(std::uint64_t entry, unsigned level) const {
        if ((entry & kLarge) == 0)
            return false;
        if (level == 2)
            return format_.wide || (paging_.cr4 & CR4_PSE) != 0;
        return level == 3 && format_.levels == 4 && cpu_.has_1g_pages;
    }

    /// [sdm3 4.2 Hierarchical Paging Structures: an Overview] and the figures of each format.
    [[nodiscard]] std::uint64_t reserved_bits(unsigned level, bool leaf) const {
        if (!format_.wide) {
            if (!leaf || level == 1)
                return 0;
            // PSE-36: bits 20:13 are address bits 39:32, as far as there are any [sdm3 4.3 32-Bit Paging].
            const unsigned high =
                cpu_.physical_bits > 32 ? (cpu_.physical_bits < 40U ? cpu_.physical_bits : 40U) - 32 : 0;
            return bit(21) | (0xffULL << (13 + high) & 0x1f'e000);
        }
        // PDPTEs were checked when they were loaded, and some processors keep an accessed bit in them
        // [sdm3 4.4.1 PDPTE Registers].
        if (format_.levels == 3 && level == 3)
            return 0;
        std::uint64_t reserved = cpu_.reserved_address_bits();
        if (format_.levels == 3)
            reserved |= 0x7ff0'0000'0000'0000;
        if ((paging_.efer & EFER_NXE) == 0)
            reserved |= kNoExecute;
        if (level == 4 || (level == 3 && format_.levels == 4 && !leaf))
            reserved |= kLarge;
        if (leaf && level > 1)
            reserved |= ((std::uint64_t{1} << (kPageShift + (level - 1) * 9)) - 1) & ~std::uint64_t{0x1fff};
        return reserved;
    }

    /// [sdm3 4.6.1 Determination of Access Rights]
    [[nodiscard]] bool allowed() const {
        const bool user_page = (rights_ & kUser) != 0;
        if (accessor_ == Accessor::user) {
            if (!user_page || (access_ == Access::write && (rights_ & kWritable) == 0))
                return false;
            return access_ != Access::execute || !no_execute_;
        }
        if (access_ == Access::execute)
            return !no_execute_ && !(user_page && (paging_.cr4 & CR4_SMEP) != 0);
        const bool smap_lifted = paging_.alignment_check && accessor_ != Accessor::implicit_supervisor;
        if (user_page && (paging_.cr4 & CR4_SMAP) != 0 && !smap_lifted)
            return false;
        return access_ == Access::read || (rights_ & kWritable) != 0 || (paging_.cr0 & CR0_WP) == 0;
    }

    /// [sdm3 4.7 Page-Fault Exceptions]
    [[nodiscard]] Translation fault(std::uint32_t code) const {
        if (access_ == Access::write)
            code |= PAGE_FAULT_WR;
        if (accessor_ == Accessor::user)
            code |= PAGE_FAULT_US;
        const bool nx = format_.wide && (paging_.efer & EFER_NXE) != 0;
        if (access_ == Access::execute && (nx || (paging_.cr4 & CR4_SMEP) != 0))
            code |= PAGE_FAULT_ID;
        return {.status = Translation::Status::page_fault, .error_code = code};
    }

    [[nodiscard]] Translation arrived(std::uint64_t entry, unsigned level, unsigned shift) const {
        const std::uint64_t in_page = (std::uint64_t{1} << shift) - 1;
        std::uint64_t base = entry & (format_.wide ? kAddress : 0xffff'f000) & ~in_page;
        if (!format_.wide && level == 2)
            base |= ((entry >> 13) & 0xff) << 32;
        return {.status = Translation::Status::ok, .gpa = Gpa{base | (linear_ & in_page)}};
    }

    /// Accessed in every entry on the way, dirty in the last for a write. False: an entry changed meanwhile.
    bool mark() {
        for (unsigned i = 0; i < count_; ++i) {
            if (format_.levels == 3 && i == 0)
                continue;  // PDPTEs have no such bits
            const std::uint64_t bits =
                i + 1 == count_ && access_ == Access::write ? kAccessed | kDirty : kAccessed;
            if ((values_[i] & bits) == bits)
                continue;
            if (!(format_.wide ? set_bits<std::uint64_t>(entries_[i], values_[i], bits)
                               : set_bits<std::uint32_t>(entries_[i], values_[i], bits)))
                return false;
        }
        return true;
    }

    void record(WalkTrace& trace) const {
        trace.begin(format_.wide);
        for (unsigned i = 0; i < count_; ++i)
            trace.add(i, entries_[i], values_[i]);
    }

    static constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;

    const PagingState& paging_;
    const GuestCpu& cpu_;
    const GuestMemory& memory_;
    const std::uint64_t linear_;
    const Access access_;
    const Accessor accessor_;
    const Format format_;
    std::array<std::byte*, 4> entries_{};
    std::array<std::uint64_t, 4> values_{};
    unsigned count_{0};
    std::uint64_t rights_{0};  ///< writable and user, as all levels agree
    bool no_execute_{false};
};

}  // namespace

PagingState PagingState::of(const CpuState& state, std::uint64_t rflags) {
    return {state.cr0, state.cr3, state.cr4, state.efer, (rflags & RFLAGS_AC) != 0};
}

Translation walk(const PagingState& paging, const GuestCpu& cpu, const GuestMemory& memory,
                 std::uint64_t linear, Access access, Accessor accessor, WalkTrace* trace) {
    if ((paging.cr0 & CR0_PG) == 0) {
        if (trace != nullptr)
            trace->begin(true);
        return {.status = Translation::Status::ok, .gpa = Gpa{linear & 0xffff'ffff}};
    }
    return Walk{paging, cpu, memory, linear, access, accessor}.run(trace);
}

}  // namespace hv::x86
