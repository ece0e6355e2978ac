// SPDX-License-Identifier: MIT
// Executes the instruction at RIP in the processor's stead: when its memory operand is a device, or when it
// is string I/O. docs/guest-platform.md lists the instructions. x87, vector arithmetic, EVEX, call gates,
// task switches and far returns are not there.
#pragma once

#include "vmm/x86/event_queue.hpp"
#include "vmm/x86/instruction_fetch.hpp"
#include "vmm/x86/operand_memory.hpp"

#include <array>
#include <cstdint>
#include <span>

namespace hv::x86 {

/// One per vCPU, used on its own CPU.
class Emulator {
public:
    enum class Result : std::uint8_t {
        done,         ///< go on; a repeated string instruction may have more to do at the same RIP
        exception,    ///< the guest gets one: it is in the event queue
        retry,        ///< enter the guest: the instruction has to run again
        unsupported,  ///< bytes() tell what it is
    };

    /// All outlive the emulator.
    Emulator(const GuestCpu& cpu, VcpuBackend& backend, const GuestMemory& memory, GuestBus& bus,
             InstructionFetcher& fetcher, EventQueue& events)
        : cpu_{cpu},
          backend_{backend},
          bus_{bus},
          fetcher_{fetcher},
          events_{events},
          operands_{cpu, memory, bus} {}

    /// The instruction whose access caused `fault`. Cheap where it moves data between a register and one
    /// page.
    Result emulate_mmio(const NestedFault& fault);
    /// The instruction at RIP, whatever it is: string I/O.
    Result emulate();

    /// Either of them in a guest that has breakpoints enabled, which it meets.
    Result emulate_watched();
    /// Reads the memory operand of `in`, the instruction at RIP, which somebody else executes. Result::done:
    /// it is in `value`.
    Result read_operand(const Instruction& in, std::uint64_t& value);

    /// The bytes at RIP after Result::unsupported.
    [[nodiscard]] std::span<const std::uint8_t> bytes() const { return std::span{bytes_}.first(byte_count_); }

private:
    /// Iterations of a repeated string instruction before the guest can take an interrupt.
    static constexpr unsigned kBatch = 256;

    [[gnu::noinline]] Result emulate_mmio_slowly(const NestedFault& fault);
    bool quick_move(const Instruction& in, const NestedFault& fault);
    const Instruction* fetch(Result& failure);
    Result run(const Instruction& instruction, const NestedFault* fault);
    Result conclude(const Instruction& instruction, Outcome outcome);

    Outcome execute(const Instruction& in);
    Outcome execute_on_memory(const Instruction& in);
    Outcome move(const Instruction& in);
    Outcome load(const Instruction& in);
    Outcome store(const Instruction& in);
    Outcome arithmetic_to_register(const Instruction& in);
    Outcome arithmetic_to_memory(const Instruction& in);
    Outcome bit_operation(const Instruction& in);
    Outcome exchange(const Instruction& in);
    Outcome compare_exchange(const Instruction& in);
    Outcome compare_exchange_8b(const Instruction& in);
    Outcome double_shift(const Instruction& in);
    Outcome bit_count(const Instruction& in);
    Outcome multiplication(const Instruction& in);
    Outcome division(const Instruction& in);
    Outcome push(const Instruction& in);
    Outcome pop(const Instruction& in);
    Outcome push_flags(const Instruction& in);
    Outcome pop_flags(const Instruction& in);
    Outcome enter(const Instruction& in);
    Outcome leave(const Instruction& in);
    Outcome branch(const Instruction& in);
    Outcome ret(const Instruction& in);
    Outcome vector_move(const Instruction& in);
    Outcome load_segment(const Instruction& in);
    Outcome store_segment(const Instruction& in);
    Outcome far_branch(const Instruction& in);
    Outcome load_table(const Instruction& in);
    Outcome store_table(const Instruction& in);
    Outcome store_status_word(const Instruction& in);
    Outcome string(const Instruction& in);
    Outcome string_step(const Instruction& in);

    Outcome operand(const Instruction& in, Access access, Place& place);
    [[nodiscard]] unsigned stack_address_size() const;
    void set_stack_pointer(std::uint64_t value);
    Outcome push_place(unsigned size, Place& place, std::uint64_t& top);
    Outcome push_value(std::uint64_t value, unsigned size);
    Outcome pop_value(unsigned size, std::uint64_t& value, std::uint64_t& top);
    [[nodiscard]] bool is_branch_target(std::uint64_t target) const;
    void jump(std::uint64_t target);
    Outcome check_vectors_enabled(VectorFile file);
    [[nodiscard]] bool uses_descriptors() const;
    Outcome read_descriptor(std::uint16_t selector, std::uint64_t& linear, Segment& segment);
    Outcome mark_accessed(std::uint64_t linear, Segment& segment);
    Outcome load_data_segment(SegmentName name, std::uint16_t selector);
    Outcome code_segment(std::uint16_t selector, std::uint64_t target, Segment& segment);
    [[nodiscard]] std::uint64_t source(const Instruction& in) const;
    [[nodiscard]] std::uint64_t gpr(const Instruction& in, unsigned reg, unsigned size) const;
    void set_gpr(const Instruction& in, unsigned reg, unsigned size, std::uint64_t value) {
        if (size == 4)
            backend_.regs.gpr[reg] = static_cast<std::uint32_t>(value);  // zero-extended
        else if (size == 8)
            backend_.regs.gpr[reg] = value;
        else
            set_gpr_part(in, reg, size, value);
    }
    void set_gpr_part(const Instruction& in, unsigned reg, unsigned size, std::uint64_t value);
    void set_rflags(std::uint64_t value) { backend_.regs.rflags = value; }

    const GuestCpu& cpu_;
    VcpuBackend& backend_;
    GuestBus& bus_;
    InstructionFetcher& fetcher_;
    EventQueue& events_;
    OperandMemory operands_;
    Breakpoints breakpoints_{};
    CpuState state_{};
    CodeMode mode_{};
    bool jumped_{false};      ///< RIP is set already
    bool unfinished_{false};  ///< a repeated string instruction goes on
    std::array<std::uint8_t, kMaxInstructionLength> bytes_{};
    std::size_t byte_count_{0};
};

}  // namespace hv::x86
