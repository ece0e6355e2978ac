// SPDX-License-Identifier: MIT
// A vCPU's local APIC, xAPIC and x2APIC [sdm3 11 Advanced Programmable Interrupt Controller (APIC)]:
// registers, priorities, IPIs, local vector table and timer. Left out: CMCI and the LVT polarity bits, which
// are kept without effect; lowest-priority arbitration takes turns instead of comparing APRs.
//
// receive(), post(), matches(), the LINT lines and the timer's fire() come from any CPU at any time, without
// locks: they set bits that the vCPU takes over by pending_vector(). Everything else is called on the vCPU's
// own CPU only.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/x86/local_apic_address.hpp"
#include "vmm/x86/local_apic_fabric.hpp"
#include "vmm/x86/local_apic_hardware.hpp"
#include "vmm/x86/local_apic_owner.hpp"
#include "vmm/x86/local_apic_registers.hpp"
#include "vmm/x86/local_apic_timer.hpp"
#include "vmm/x86/local_apic_vectors.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv {

class LocalApic final : private LocalApicTimer::Client, private ApicAcceleration::Client {
public:
    struct Config {
        std::uint32_t id;
        bool bsp;                            ///< the processor that boots
        bool x2apic{true};                   ///< CPUID offers x2APIC mode
        unsigned physical_address_bits{40};  ///< MAXPHYADDR
    };

    LocalApic(const Config& config, InterruptFabric& fabric, LocalApicOwner& owner, Clock& clock);
    LocalApic(const LocalApic&) = delete;
    LocalApic& operator=(const LocalApic&) = delete;

    /// Once, before the vCPU runs: the processor takes a part of the work.
    void attach(ApicAcceleration& acceleration);

    // --- the run loop ------------------------------------------------------------------------------------
    /// Takes over what other CPUs, the timer and the inputs have left: some of it is the owner's at once
    /// (nmi(), init()).
    void take_posted() {
        if (attention_.load(std::memory_order_relaxed) != 0) [[unlikely]]
            absorb();
    }
    /// The highest fixed interrupt whose priority is above the processor's, or -1. Takes over what was
    /// posted. Where the hardware delivers: one that it does not know of yet, whatever its priority.
    int pending_vector() {
        take_posted();
        return irr_.highest() >> 4 > ppr_ >> 4 ? irr_.highest() : -1;
    }
    /// The processor takes `vector`, which pending_vector() just returned: it goes from IRR to ISR.
    void accept(std::uint8_t vector) {
        irr_.clear(vector);
        isr_.set(vector);
        update_ppr();
    }
    /// After pending_vector(): whether the 8259's INTR reaches the processor, which then has to acknowledge
    /// it there for a vector. TPR and PPR do not hold it back.
    [[nodiscard]] bool ext_int_pending() const {
        return ext_int_message_ || (lint_[0].asserted() && lint0_is_ext_int());
    }
    /// The vector was fetched from the 8259.
    void accept_ext_int() { ext_int_message_ = false; }
    /// CR8 is TPR[7:4].
    [[nodiscard]] std::uint8_t tpr() const { return hardware_.delivers() ? hardware_.tpr() : tpr_; }
    void set_tpr(std::uint8_t value) {
        tpr_ = value;
        update_ppr();
        if (hardware_.present()) [[unlikely]]
            set_hardware_tpr(value);
        if (irr_.highest() >= 0)
            owner_.priority_changed();
    }
    void eoi() {
        const int vector = isr_.highest();
        if (vector < 0) {
            if (hardware_.delivers()) [[unlikely]]
                end_in_hardware();
            return;
        }
        isr_.clear(static_cast<std::uint8_t>(vector));
        update_ppr();
        if (irr_.highest() >= 0) [[unlikely]]
            owner_.priority_changed();
        if (tmr_.test(static_cast<std::uint8_t>(vector))) [[unlikely]]
            end_level(static_cast<std::uint8_t>(vector));
    }
    /// Whether an EOI now would do no more than clear the one ISR bit: nothing waits and the interrupt in
    /// service was edge-triggered. Then a paravirtual guest may skip it, and eoi() be called later.
    [[nodiscard]] bool eoi_can_wait();
    /// Whether any interrupt can be delivered as soon as the processor takes interrupts.
    [[nodiscard]] bool interrupt_pending() {
        const bool fixed = pending_vector() >= 0;
        return ext_int_pending() || (hardware_.delivers() ? hardware_pending() : fixed);
    }

    // --- where the processor delivers interrupts, the 8259's excepted ------------------------------------
    [[nodiscard]] bool hardware_delivers() const { return hardware_.delivers(); }
    /// What is pending is from now on the processor's to deliver: in place of accept().
    void hand_over();
    /// The guest wrote the register at `offset` of the page, and has gone past the instruction.
    void finish_write(std::uint32_t offset);
    /// The guest ended `vector` in the page, and has gone past the instruction.
    void finish_eoi(std::uint8_t vector);

    // --- registers ---------------------------------------------------------------------------------------
    /// Whether the register page is there (xAPIC mode), at base().
    [[nodiscard]] bool mmio_enabled() const { return enabled() && !x2apic(); }
    [[nodiscard]] Gpa base() const { return Gpa{base_}.page(); }
    /// Whether `gpa` lies in the register page, and that is there: IA32_APIC_BASE has nothing but an address
    /// and the mode besides BSP.
    [[nodiscard]] bool answers_at(Gpa gpa) const {
        return (base_ & ~apic::Base::Bsp::kMask) == (gpa.page().raw | apic::Base::Enabled::kMask);
    }
    /// Accesses to the register page; `offset` < 4096.
    std::uint64_t mmio_read(std::uint64_t offset, unsigned size);
    void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value);
    /// MSRs apic::kFirstMsr to kLastMsr. Error::guest_fault: #GP.
    Expected<std::uint64_t> read_msr(std::uint32_t msr);
    Expected<void> write_msr(std::uint32_t msr, std::uint64_t value);
    /// IA32_APIC_BASE. After a write the owner looks at enabled(), base() and mmio_enabled() again.
    /// Error::guest_fault: #GP.
    [[nodiscard]] std::uint64_t apic_base() const { return base_; }
    Expected<void> set_apic_base(std::uint64_t value);
    /// IA32_TSC_DEADLINE.
    [[nodiscard]] std::uint64_t tsc_deadline();
    void set_tsc_deadline(std::uint64_t value) { timer_.set_deadline(value); }
    /// The vCPU runs again; `preempted`: it wanted to all the time. Periodic ticks that it could not take
    /// meanwhile are made up for.
    void resume(bool preempted);
    /// Guest TSC = host TSC + offset.
    void set_tsc_offset(std::int64_t offset) { timer_.set_tsc_offset(offset); }

    // --- life cycle --------------------------------------------------------------------------------------
    /// Power-up or RESET: xAPIC mode, software-disabled, everything masked.
    void reset();
    /// INIT: like reset(), but IA32_APIC_BASE and so the mode stay [sdm3 11.4.7.3 Local APIC State After an
    /// INIT Reset].
    void init_reset();
    /// What PC firmware leaves behind on the processor that boots: software-enabled, LINT0 takes the 8259's
    /// interrupts, LINT1 is NMI [mp1.4 3.6.2.2 Virtual Wire Mode].
    void enter_virtual_wire_mode();

    [[nodiscard]] std::uint32_t id() const { return config_.id; }
    /// Globally enabled: CPUID.1:EDX.APIC.
    [[nodiscard]] bool enabled() const { return apic::Base::Enabled::test(base_); }
    [[nodiscard]] bool x2apic() const { return apic::Base::X2apic::test(base_); }

    // --- from any CPU ------------------------------------------------------------------------------------
    [[nodiscard]] LocalApicAddress address() const { return {address_.load(std::memory_order_relaxed)}; }
    /// Whether something was left for pending_vector() to take over.
    [[nodiscard]] bool attention() const { return attention_.load(std::memory_order_seq_cst) != 0; }
    [[nodiscard]] bool matches(const InterruptMessage& message) const {
        return address().matches(message.destination, message.destination_mode);
    }
    /// A message whose destination includes this APIC.
    void receive(const InterruptMessage& message);
    /// A fixed interrupt for this APIC, dropped if it is software-disabled.
    void post(std::uint8_t vector, TriggerMode trigger);
    /// Inputs: LINT0 has the 8259's INTR, LINT1 NMI sources.
    [[nodiscard]] IrqLine& lint0() { return lint_[0]; }
    [[nodiscard]] IrqLine& lint1() { return lint_[1]; }

private:
    /// What other CPUs left to be looked at.
    enum Attention : std::uint32_t {
        kVectors = 0xf,  ///< a bit for each word of the posted vectors
        kTimer = 0x10,
        kIllegalVector = 0x20,
        kExtInt = 0x40,
        kLint0 = 0x80,  ///< a rising edge
        kLint1 = 0x100,
    };
    enum class LintEvent : std::uint8_t { none, rising_edge };
    class Lint final : public IrqLine {
    public:
        Lint(LocalApic& apic, std::uint32_t attention) : apic_{apic}, attention_{attention} {}
        void set(bool asserted) override;
        [[nodiscard]] bool asserted() const { return asserted_.load(std::memory_order_acquire); }

    private:
        LocalApic& apic_;
        std::uint32_t attention_;
        std::atomic<bool> asserted_{false};
    };

    void timer_due() override { raise(kTimer); }
    void timer_expired() override { deliver_local(apic::LVT_TIMER); }
    void task_priority_changed(std::uint8_t value) override {
        tpr_ = value;
        update_ppr();
        owner_.priority_changed();
    }
    void raise(std::uint32_t attention);
    void absorb();
    void advance_timer();
    void account(bool expired);
    /// Whether IRR and ISR hold `vector`, whoever keeps them.
    [[nodiscard]] bool requested(std::uint8_t vector) const;
    [[nodiscard]] bool in_service(std::uint8_t vector) const;
    void catch_up_timer(bool expired);

    [[nodiscard]] std::uint32_t& lvt(std::uint32_t index) { return lvt_[index - apic::LVT_TIMER]; }
    [[nodiscard]] std::uint32_t lvt(std::uint32_t index) const { return lvt_[index - apic::LVT_TIMER]; }
    [[nodiscard]] bool software_enabled() const { return apic::Svr::Enabled::test(svr_); }
    [[nodiscard]] bool lint0_is_ext_int() const;

    void update_ppr() {
        const int in_service = isr_.highest() & ~0xf;  // -1: negative
        ppr_ = in_service >> 4 > tpr_ >> 4 ? in_service : tpr_;
    }
    [[nodiscard]] std::uint32_t arbitration_priority() const;
    static std::uint32_t arbitration_priority(unsigned task, int request, int service);
    [[nodiscard]] std::uint32_t logical_id() const;

    /// A fixed interrupt from this APIC itself.
    void accept_local(std::uint8_t vector, TriggerMode trigger);
    void deliver_local(std::uint32_t lvt_index);
    void evaluate_lint(unsigned pin, LintEvent event);
    void end_level(std::uint8_t vector);
    void report_error(std::uint32_t esr_bit);

    /// Registers that both modes have. `index` exists.
    std::uint32_t read_register(std::uint32_t index);
    void write_register(std::uint32_t index, std::uint32_t value);
    /// A register that only the VMM writes.
    [[nodiscard]] std::uint32_t kept_register(std::uint32_t index) const;
    void write_svr(std::uint32_t value);
    void write_esr();
    void write_lvt(std::uint32_t index, std::uint32_t value);
    void write_self_ipi(std::uint8_t vector);
    void send(std::uint64_t icr);
    void send_shorthand(InterruptMessage message, apic::Shorthand shorthand);
    void send_to_self(const InterruptMessage& message);
    void publish_address();

    // local_apic_hardware.cpp
    void reset_hardware();
    void change_hardware_mode();
    /// A register has changed that the guest reads in the page.
    void changed(std::uint32_t index) {
        if (hardware_.delivers()) [[unlikely]]
            publish(index);
    }
    void publish(std::uint32_t index);
    void end_in_hardware();
    void set_hardware_tpr(std::uint8_t value);
    bool hardware_pending();
    std::uint32_t read_hardware(std::uint32_t index);
    [[nodiscard]] std::uint64_t hardware_icr() const;

    const Config config_;
    InterruptFabric& fabric_;
    LocalApicOwner& owner_;
    LocalApicTimer timer_;
    bool absorbing_{false};        ///< what raise() has told the owner of already
    bool owed_tick_waits_{false};  ///< in IRR: one that came late, so that the next may find its place taken

    HardwareApic hardware_;
    VectorSet irr_, isr_;  ///< empty, but for what is to be handed over, where the hardware delivers
    VectorBits tmr_;
    int ppr_{0};
    std::uint8_t tpr_{0};
    bool ext_int_message_{false};
    std::uint8_t ldr_{0};
    std::uint8_t dfr_{0xf};
    std::uint32_t svr_{apic::Svr::kReset};
    std::uint32_t errors_{0};  ///< since the last write to ESR
    std::uint32_t esr_{0};
    std::uint64_t icr_{0};
    std::array<std::uint32_t, apic::kLvtCount> lvt_{};
    std::uint64_t base_;

    // Written by other CPUs.
    std::atomic<std::uint32_t> attention_{0};
    std::atomic<std::uint64_t> address_{0};
    PostedVectors posted_edge_, posted_level_;
    std::array<Lint, 2> lint_;
};

}  // namespace hv
