// SPDX-License-Identifier: MIT
// Hardware task switches, which both vendors leave to software [sdm3 8.3 Task Switching]: from the checks of
// the new TSS' descriptor to the first instruction of the new task. A fault before the old task is saved is
// the old task's; from there on it is raised in the new one.
#pragma once

#include "vmm/core/vcpu_backend.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/x86/event_queue.hpp"
#include "vmm/x86/guest_cpu.hpp"
#include "vmm/x86/operand_memory.hpp"
#include "vmm/x86/system_memory.hpp"

#include <cstdint>

namespace hv::x86 {

/// For one switch.
class TaskSwitcher {
public:
    TaskSwitcher(const GuestCpu& cpu, VcpuBackend& backend, const GuestMemory& memory, EventQueue& events,
                 const TaskSwitch& request)
        : cpu_{cpu},
          backend_{backend},
          guest_memory_{memory},
          events_{events},
          request_{request},
          memory_{cpu, memory} {}

    /// `instruction_length` is that of the instruction that causes the switch, if one does.
    /// Outcome::exception: it is in the event queue; Outcome::unsupported: a table or TSS does not lie in
    /// RAM.
    Outcome run(unsigned instruction_length);

private:
    /// What a task keeps in its TSS.
    struct Task {
        std::uint32_t cr3, eip, eflags;
        std::uint32_t gpr[8];
        std::uint16_t segment[6];  ///< by SegmentName
        std::uint16_t ldt;
        bool trap;
    };
    struct Descriptor {
        SystemRange range;
        Segment segment;  ///< `selector` is what it was found by
        std::uint64_t linear;
    };

    // In the old task: all that can fail.
    Outcome find_new_task();
    Outcome find_old_task();
    // Neither fails.
    void leave_old_task(unsigned instruction_length);
    void enter_new_task();
    // In the new one.
    Outcome load_segments();
    Outcome load_ldtr();
    Outcome load_code();
    Outcome load_stack();
    Outcome load_data(SegmentName name);
    Outcome push_error_code();
    void load_virtual_8086_segments();

    [[nodiscard]] Task load_task() const;
    void save_task(const Task& task);
    Outcome resolve(std::uint64_t linear, unsigned size, Access access, SystemRange& out,
                    Accessor accessor = Accessor::implicit_supervisor);
    Outcome find_descriptor(std::uint16_t selector, Access access, std::uint8_t vector, Descriptor& out);
    Outcome mark_accessed(Descriptor& descriptor);
    Outcome fail(std::uint8_t vector, std::uint16_t selector);
    void raise();
    [[nodiscard]] bool nested() const {
        return request_.cause == TaskSwitch::Cause::call || request_.cause == TaskSwitch::Cause::gate;
    }

    const GuestCpu& cpu_;
    VcpuBackend& backend_;
    const GuestMemory& guest_memory_;
    EventQueue& events_;
    const TaskSwitch& request_;
    SystemMemory memory_;
    CpuState state_{};
    Event fault_{};
    Descriptor new_tss_{};
    SystemRange new_task_{}, new_link_{};
    SystemRange old_task_{}, old_descriptor_{};
    Task task_{};
    bool is_32bit_{false};  ///< the new TSS
};

}  // namespace hv::x86
