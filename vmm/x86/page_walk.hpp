// SPDX-License-Identifier: MIT
// The guest's own translation of linear to guest-physical addresses: no paging, 32-bit with 4 MiB pages, PAE,
// 4-level, with the access rights of NX, WP, SMEP and SMAP, and accessed and dirty bits [sdm3 4 Paging].
#pragma once

#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/guest_cpu.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv::x86 {

enum class Access : std::uint8_t { read, write, execute };
/// Who accesses: code by its CPL, or the processor itself (descriptor tables, TSS), which is always a
/// supervisor.
enum class Accessor : std::uint8_t { supervisor, user, implicit_supervisor };

struct Translation {
    enum class Status : std::uint8_t {
        ok,
        page_fault,
        retry,  ///< the tables change faster than they can be walked: let the guest run its instruction again
        not_memory,  ///< a paging structure does not lie in RAM
    };
    Status status{Status::not_memory};
    std::uint32_t error_code{0};  ///< of a page fault
    Gpa gpa{};
};

/// The entries that a translation went through, to see later whether it still holds.
struct WalkTrace {
    static constexpr std::uint64_t kAccessedDirty = 0x60;
    struct Step {
        std::byte* entry;
        std::uint64_t value;  ///< with kAccessedDirty set
    };
    std::array<Step, 4> steps;
    std::uint8_t count;
    bool wide;  ///< entries have 8 bytes, else 4

    /// Whether a walk would read the same entries again, accessed and dirty bits aside.
    [[nodiscard]] bool unchanged() const {
        return wide ? unchanged_as<std::uint64_t>() : unchanged_as<std::uint32_t>();
    }

private:
    template <class Entry>
    [[nodiscard]] bool unchanged_as() const {
        for (unsigned i = 0; i < count; ++i) {
            const std::atomic_ref entry{*reinterpret_cast<Entry*>(steps[i].entry)};
            if ((entry.load(std::memory_order_relaxed) | kAccessedDirty) != steps[i].value)
                return false;
        }
        return true;
    }
};

/// The registers that rule a walk.
struct PagingState {
    std::uint64_t cr0, cr3, cr4, efer;
    bool alignment_check;  ///< RFLAGS.AC: lets supervisors at user pages under SMAP

    static PagingState of(const CpuState& state, std::uint64_t rflags);
};

/// Translates one address. Sets accessed and dirty bits if the access is allowed.
Translation walk(const PagingState& paging, const GuestCpu& cpu, const GuestMemory& memory,
                 std::uint64_t linear, Access access, Accessor accessor, WalkTrace* trace = nullptr);

}  // namespace hv::x86
