// SPDX-License-Identifier: MIT
// A vCPU: the hardware's backend, the virtual processor's state around it, and the loop that runs it.
// docs/architecture.md follows an exit through it.
#pragma once

#include "vmm/core/io_bus.hpp"
#include "vmm/core/vcpu_backend.hpp"
#include "vmm/core/vm_control.hpp"
#include "vmm/devices/late_ticks.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/sched/scheduler.hpp"
#include "vmm/x86/control_registers.hpp"
#include "vmm/x86/cpuid_policy.hpp"
#include "vmm/x86/emulator.hpp"
#include "vmm/x86/event_queue.hpp"
#include "vmm/x86/instruction_fetch.hpp"
#include "vmm/x86/local_apic.hpp"
#include "vmm/x86/msr_policy.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace hv {

class CpuLoop;
class SpareMemory;

/// Where the 8259 pair's vectors come from.
class ExtIntSource {
public:
    /// The vector of the highest request, as the INTA cycle fetches it.
    virtual std::uint8_t acknowledge() = 0;

protected:
    ~ExtIntSource() = default;
};

/// What all vCPUs of a VM share; outlives them.
struct VcpuEnvironment {
    GuestMemory& memory;
    IoBus& ports;
    IoBus& mmio;
    InterruptFabric& fabric;
    ExtIntSource& ext_int;
    const x86::CpuidPolicy& cpuid;
    const x86::KvmClock& kvm_clock;
    Clock& clock;
    Scheduler& scheduler;
    SchedGroup& group;
    VmControl& control;
    std::int64_t tsc_offset;
    /// Odd while the VM is to stop or stands still: vCPUs park. Each start and each stop adds one.
    const std::atomic<std::uint32_t>& stop_epoch;
    SpareMemory* spare{nullptr};  ///< nullptr: all memory is always there
};

class Vcpu final : public SchedEntity, private TickTarget, private LocalApicOwner, private x86::GuestBus {
public:
    enum class Outcome : std::uint8_t {
        preempted,     ///< the CPU is needed for something else
        yielded,       ///< the guest only waits for another vCPU
        halted,        ///< nothing to do until an interrupt
        waiting,       ///< nothing to do until a start-up IPI, or for want of memory
        parked,        ///< the VM stops; to be reported. It blocks until the VM is started again
        still_parked,  ///< a late wake-up: the VM stands still
    };

    static Expected<std::unique_ptr<Vcpu>> create(VcpuEnvironment& environment, std::uint32_t index,
                                                  std::unique_ptr<VcpuBackend> backend,
                                                  const CpuSet& affinity);
    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;

    /// Runs the guest on this CPU until one of the outcomes. Interrupts are masked before and after.
    Outcome run(const CpuLoop& loop);
    /// After parked, once the scheduler knows that it blocks.
    void parked() { environment_.control.vcpu_parked(); }
    /// Whether something has come since run() ended with `outcome`, one to block on. Looks only at what other
    /// CPUs write: the vCPU may already be on another one.
    [[nodiscard]] bool has_work(Outcome outcome) const;

    // --- life cycle, while the vCPU does not run
    // ----------------------------------------------------------------------------
    /// RESET: the boot processor starts in `entry`, the others wait for a start-up IPI.
    void reset(const CpuState* cpu, const VcpuRegs* regs);

    [[nodiscard]] std::uint32_t index() const { return index_; }
    [[nodiscard]] LocalApic& apic() { return apic_; }
    [[nodiscard]] const TickTarget& tick_target() const { return *this; }
    [[nodiscard]] VcpuBackend& backend() { return *backend_; }
    void set_name(std::string_view vm_name);
    /// "vm/vcpu", null-terminated.
    [[nodiscard]] const char* name() const { return name_.data(); }
    /// Exits so far, by VmExit::Reason. Any CPU; a momentary picture.
    [[nodiscard]] std::uint64_t exits(VmExit::Reason reason) const {
        return exits_[static_cast<unsigned>(reason)];
    }
    /// An NMI for the guest. Any CPU.
    void nmi() override;
    /// Makes the vCPU look around soon, wherever it is. Any CPU.
    void poke();
    /// Memory that was there has gone: before it enters the guest again, the vCPU forgets where memory lies.
    /// Any CPU; who calls this also makes its CPU look around.
    void memory_leaves() { signals_.fetch_or(kSignalMemory, std::memory_order_release); }
    /// No timer of the vCPU fires any more, but for one that may be under way. While it does not run.
    void quiesce();

private:
    enum class Activity : std::uint8_t { wait_for_startup, active, halted };
    enum class Next : std::uint8_t { enter, leave_cpu, yield, block, park };

    Vcpu(VcpuEnvironment& environment, std::uint32_t index, std::unique_ptr<VcpuBackend> backend,
         const CpuSet& affinity);

    // The run loop.
    Next run_guest(const CpuLoop& loop);
    /// Whether something may have come that the guest has to be told before it goes on, so that prepare() is
    /// needed. It stays so while an event cannot go in.
    [[nodiscard]] bool must_prepare() const {
        return look_.load(std::memory_order_relaxed) || events_.pending();
    }
    Next prepare();
    void deliver_interrupt(bool may_inject);
    [[gnu::noinline]] Next triple_fault();
    [[gnu::noinline]] void reach(std::uint32_t cpu);
    [[nodiscard]] bool wakes_from_halt();
    void take_signals();
    void start_up(std::uint8_t vector);
    void init_processor();
    void reset_registers();
    Next handle(const VmExit& exit);
    Next handle_interrupted(const VmExit& exit);
    Next handle_reason(const VmExit& exit);

    /// For what may have changed without a word, as after a window or a physical interrupt.
    Next look_again() {
        look_.store(true, std::memory_order_relaxed);
        return Next::enter;
    }

    // Exit handlers, exit_dispatch.cpp.
    Next handle_host_interrupt();
    [[gnu::noinline]] Next handle_apic(const VmExit& exit);
    [[gnu::noinline]] Next handle_pause(const VmExit& exit);
    Next handle_io(const VmExit& exit);
    Next handle_nested_fault(const VmExit& exit);
    Next handle_cpuid(const VmExit& exit);
    Next handle_cpuid_slowly(const VmExit& exit);
    Next answer_cpuid(const CpuidRegs& answer, unsigned length);
    Next handle_rdmsr(const VmExit& exit);
    Next handle_wrmsr(const VmExit& exit);
    [[gnu::noinline]] Next handle_tsc_deadline(const VmExit& exit);
    Next handle_vmcall(const VmExit& exit);
    Next handle_cr_access(const VmExit& exit);
    Expected<void> access_control_register(const x86::Instruction& in);
    Next handle_xsetbv(const VmExit& exit);
    Next handle_cache_flush(const VmExit& exit);
    Next handle_halt(const VmExit& exit);
    // Rare ones, exit_rare.cpp.
    Next handle_task_switch(const VmExit& exit);
    Next handle_int1(const VmExit& exit);
    Next handle_invlpg(const VmExit& exit);
    Next handle_exception(const VmExit& exit);
    [[gnu::noinline]] Next handle_string_io(const VmExit& exit);
    [[gnu::noinline]] void meet_port_breakpoints(const IoExit& io);
    Next load_status_word(const x86::Instruction& instruction, const VmExit& exit);
    /// The instruction that exited, or nullptr: then `failure` is what to do.
    const x86::Instruction* fetch_instruction(const VmExit& exit, Next& failure);
    [[gnu::noinline]] Next handle_absent_memory(const VmExit& exit);
    Next handle_emulation(x86::Emulator::Result result, const VmExit& exit);
    Next crash(std::string_view what, const VmExit& exit);
    /// Bytes of the instruction that exited, an `Op`. 0: it has changed under way, the guest runs it again.
    template <x86::Operation Op>
    unsigned length_of(const VmExit& exit);
    /// The same at little cost. 0: length_of() has to look.
    template <x86::Operation Op>
    [[nodiscard]] unsigned known_length(const VmExit& exit) const;
    /// Completes the instruction that exited, an `Op`. False: it has changed under way, the guest runs it
    /// again.
    template <x86::Operation Op>
    bool skip(const VmExit& exit);
    [[gnu::noinline]] Next raise(const Event& exception);
    [[gnu::noinline]] Next raise_general_protection();
    [[gnu::noinline]] Next raise_undefined();

    // LocalApicOwner
    void interrupt_posted() override { poke(); }
    void priority_changed() override { look_.store(true, std::memory_order_relaxed); }
    void init() override;
    void startup(std::uint8_t vector) override;

    // TickTarget
    [[nodiscard]] std::uint32_t turn() const override { return turn_.load(std::memory_order_relaxed); }
    [[nodiscard]] bool away() const override {
        return running_on_.load(std::memory_order_relaxed) == kNowhere && state() != State::blocked;
    }

    // x86::GuestBus
    std::uint64_t mmio_read(Gpa gpa, unsigned size) override;
    void mmio_write(Gpa gpa, unsigned size, std::uint64_t value) override;
    std::uint64_t port_read(std::uint16_t port, unsigned size) override;
    void port_write(std::uint16_t port, unsigned size, std::uint64_t value) override;

    static constexpr std::uint32_t kFirstEpoch = 1;  ///< the VM has not run yet
    static constexpr std::uint32_t kNowhere = ~0U;
    static constexpr std::uint64_t kMemoryRetryNs = 1'000'000;
    static constexpr std::uint32_t kSignalInit = 1U << 8;
    static constexpr std::uint32_t kSignalStartup = 1U << 9;
    static constexpr std::uint32_t kSignalMemory = 1U << 10;

    /// Lets a vCPU that waits for memory try again.
    class MemoryRetry final : public Timer {
    public:
        explicit MemoryRetry(Vcpu& vcpu) : vcpu_{vcpu} {}
        void fire() override {
            vcpu_.memory_leaves();
            vcpu_.poke();
        }

    private:
        Vcpu& vcpu_;
    };

    VcpuEnvironment& environment_;
    const std::uint32_t index_;
    const std::unique_ptr<VcpuBackend> owned_backend_;
    VcpuBackend* const backend_;
    x86::EventQueue events_;
    LocalApic apic_;
    x86::MsrFile msrs_;
    x86::ControlRegisters control_registers_;
    x86::InstructionFetcher fetcher_;
    x86::Emulator emulator_;
    MemoryRetry memory_retry_{*this};
    Activity activity_{Activity::wait_for_startup};
    bool pause_exits_{false};       ///< as the backend knows
    const CpuLoop* loop_{nullptr};  ///< of the CPU that it runs on
    std::array<std::uint64_t, VmExit::kReasons> exits_{};
    std::array<char, 48> name_{};

    // Written by other CPUs.
    alignas(64) std::atomic<std::uint32_t> running_on_{kNowhere};
    std::atomic<std::uint32_t> turn_{0};     ///< how often it was entered
    std::atomic<std::uint32_t> signals_{0};  ///< kSignal* and, in bits 7:0, the start-up vector
    std::atomic<std::uint32_t> parked_epoch_{kFirstEpoch};  ///< of the stop that it has reported
};

}  // namespace hv
