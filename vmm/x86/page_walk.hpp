// SPDX-License-Identifier: MIT
// The guest's own translation of linear to guest-physical addresses: no paging, 32-bit with 4 MiB pages, PAE,
// 4-level, with the access rights of NX, WP, SMEP and SMAP, and accessed and dirty bits [sdm3 4 Paging].
#pragma once

#include "vmm/base/bytes.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/guest_cpu.hpp"

#include <array>
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
class WalkTrace {
public:
    /// Of a walk with entries of 8 bytes (`wide`) or 4.
    void begin(bool wide) {
        wide_ = wide;
        for (Step& step : steps_)
            step = {reinterpret_cast<const std::byte*>(&kNoEntry), kNoEntry};
    }
    void add(unsigned level, const std::byte* entry, std::uint64_t value) {
        steps_[level] = {entry, value | kAccessedDirty};
    }
    /// Whether a walk would read the same entries again, accessed and dirty bits aside.
    [[nodiscard]] bool unchanged() const {
        return wide_ ? unchanged_as<std::uint64_t>() : unchanged_as<std::uint32_t>();
    }

private:
    static constexpr std::uint64_t kAccessedDirty = 0x60;
    static constexpr std::uint64_t kNoEntry = kAccessedDirty;
    static constexpr unsigned kLevels = 4;
    struct Step {
        const std::byte* entry;  ///< kNoEntry where the walk had fewer levels: checked like the others
        std::uint64_t value;     ///< with kAccessedDirty set
    };

    template <class Entry>
    [[nodiscard]] bool holds(const Step& step) const {
        // Another vCPU may write it meanwhile: one load, which is not torn on its natural alignment.
        return (load<Entry>(step.entry) | kAccessedDirty) == step.value;
    }
    template <class Entry>
    [[nodiscard]] bool unchanged_as() const {
        static_assert(kLevels == 4);
        return holds<Entry>(steps_[0]) && holds<Entry>(steps_[1]) && holds<Entry>(steps_[2]) &&
               holds<Entry>(steps_[3]);
    }

    std::array<Step, kLevels> steps_;
    bool wide_;
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
