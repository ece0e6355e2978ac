// SPDX-License-Identifier: MIT
// Memory operands of emulated instructions: segmentation, translation and the access itself, to RAM or to a
// device, piece by piece where an operand crosses a page. Alignment checking (#AC) is left out: the processor
// did it before the exit.
#pragma once

#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/breakpoints.hpp"
#include "vmm/x86/guest_bus.hpp"
#include "vmm/x86/instruction.hpp"
#include "vmm/x86/page_walk.hpp"

#include <array>
#include <cstdint>

namespace hv::x86 {

/// How far an emulation step came.
enum class Outcome : std::uint8_t {
    ok,
    exception,  ///< see OperandMemory::exception()
    retry,      ///< let the guest run the instruction again
    unsupported,
};

/// The largest operand: a YMM register.
inline constexpr unsigned kMaxOperand = 32;

/// Where an operand lies: both pages of it are translated before any byte is touched.
struct Place {
    struct Piece {
        std::byte* host;  ///< nullptr: a device
        Gpa gpa;
        unsigned size;
    };
    std::array<Piece, 2> pieces;
    unsigned count;

    [[nodiscard]] bool touches_device() const {
        return pieces[0].host == nullptr || (count == 2 && pieces[1].host == nullptr);
    }
};

class OperandMemory {
public:
    OperandMemory(const GuestCpu& cpu, const GuestMemory& memory, GuestBus& bus)
        : cpu_{cpu}, memory_{memory}, bus_{bus} {}

    /// Begins an instruction: `state` (control and segments) outlives it. `fault` is the exit's, if the
    /// instruction has one memory operand and the exit was caused by an access to it: its page needs no walk.
    /// Else nullptr.
    void begin(const CpuState& state, std::uint64_t rflags, CodeMode mode, const NestedFault* fault) {
        state_ = &state;
        rflags_ = rflags;
        mode_ = mode;
        fault_ = fault;
    }

    /// Tells `breakpoints` of all operands from now on; nullptr: nobody.
    void watch(Breakpoints* breakpoints) { breakpoints_ = breakpoints; }
    [[nodiscard]] Breakpoints* watcher() const { return breakpoints_; }

    /// Checks and translates `size` <= kMaxOperand bytes at segment:offset.
    Outcome resolve(SegmentName segment, std::uint64_t offset, unsigned size, Access access, Place& place);
    /// Of descriptor tables: the processor's own accesses, whatever the CPL [sdm3 4.6.1 Determination of
    /// Access Rights].
    Outcome resolve_system(std::uint64_t linear, unsigned size, Access access, Place& place);
    /// At most 8 bytes.
    std::uint64_t read(const Place& place);
    void write(const Place& place, std::uint64_t value);
    /// Any number of bytes, in accesses of at most 8.
    void read_bytes(const Place& place, void* out);
    void write_bytes(const Place& place, const void* in);
    /// Writes `value` if the operand is still `expected`; in aligned RAM atomically. False: another processor
    /// was faster.
    bool replace(const Place& place, std::uint64_t expected, std::uint64_t value);

    /// After Outcome::exception.
    [[nodiscard]] const Event& exception() const { return exception_; }
    [[nodiscard]] std::uint64_t fault_address() const { return fault_address_; }
    /// Raises `vector` with error code 0, which real mode does not push.
    Outcome fail(std::uint8_t vector);
    Outcome fail(std::uint8_t vector, std::uint16_t error_code);

    /// The operand's linear address.
    [[nodiscard]] std::uint64_t linear(SegmentName segment, std::uint64_t offset) const {
        if (mode_ != CodeMode::bits64)
            return static_cast<std::uint32_t>(state_->seg(segment).base + offset);
        return segment >= SegmentName::fs ? state_->seg(segment).base + offset : offset;
    }

private:
    [[nodiscard]] bool segment_allows(const Segment& segment, std::uint64_t offset, unsigned size,
                                      Access access) const;
    Outcome translate(std::uint64_t linear, unsigned size, Access access, Accessor accessor,
                      Place::Piece& piece);
    Outcome translate_pages(std::uint64_t linear, unsigned size, Access access, Accessor accessor,
                            Place& place);
    std::uint64_t read_device(Gpa gpa, unsigned size);
    void write_device(Gpa gpa, unsigned size, std::uint64_t value);

    const GuestCpu& cpu_;
    const GuestMemory& memory_;
    GuestBus& bus_;
    const CpuState* state_{nullptr};
    std::uint64_t rflags_{0};
    CodeMode mode_{};
    const NestedFault* fault_{nullptr};
    Breakpoints* breakpoints_{nullptr};
    Event exception_{};
    std::uint64_t fault_address_{0};
};

}  // namespace hv::x86
