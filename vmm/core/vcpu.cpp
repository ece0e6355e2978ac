// SPDX-License-Identifier: MIT
#include "vmm/core/vcpu.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/base/text.hpp"
#include "vmm/core/cpu_loop.hpp"

#include <new>

namespace hv {
namespace {

constexpr std::uint16_t kRealModeCode = 0x9b;

constexpr bool is_stop(std::uint32_t epoch) {
    return epoch % 2 != 0;
}

}  // namespace

Expected<std::unique_ptr<Vcpu>> Vcpu::create(VcpuEnvironment& environment, std::uint32_t index,
                                             std::unique_ptr<VcpuBackend> backend, const CpuSet& affinity) {
    // A backend's registers can be reached on the CPU that it is on only, and the MSRs' reset sets its TSC
    // offset.
    VcpuBackend& its_backend = *backend;
    its_backend.enter_cpu();
    auto* vcpu = new (std::nothrow) Vcpu{environment, index, std::move(backend), affinity};
    its_backend.leave_cpu();
    if (vcpu == nullptr)
        return Unexpected{Error::no_memory};
    return std::unique_ptr<Vcpu>{vcpu};
}

Vcpu::Vcpu(VcpuEnvironment& environment, std::uint32_t index, std::unique_ptr<VcpuBackend> backend,
           const CpuSet& affinity)
    : SchedEntity{environment.group, affinity},
      environment_{environment},
      index_{index},
      owned_backend_{std::move(backend)},
      backend_{owned_backend_.get()},
      apic_{{index, index == 0, true, environment.cpuid.cpu().physical_bits},
            environment.fabric,
            *this,
            environment.clock},
      msrs_{environment.cpuid.cpu(), *backend_, apic_, environment.memory, environment.kvm_clock,
            environment.tsc_offset},
      control_registers_{environment.cpuid.cpu(), *backend_, environment.memory},
      fetcher_{environment.cpuid.cpu(), *backend_, environment.memory},
      emulator_{environment.cpuid.cpu(), *backend_, environment.memory, *this, fetcher_, events_} {
    if (ApicAcceleration* acceleration = backend_->apic_acceleration(); acceleration != nullptr)
        apic_.attach(*acceleration);
}

void Vcpu::set_name(std::string_view vm_name) {
    const auto text = format_into(std::span{name_}.first(name_.size() - 1), "%.*s/%u",
                                  static_cast<int>(vm_name.size()), vm_name.data(), index_);
    name_[text.size()] = '\0';
}

void Vcpu::reset(const CpuState* cpu, const VcpuRegs* regs) {
    events_.reset();
    signals_.store(0, std::memory_order_relaxed);
    apic_.reset();
    backend_->enter_cpu();
    backend_->reset();
    msrs_.reset();
    msrs_.enter_firmware_state();
    apic_.set_tsc_offset(msrs_.tsc_offset());
    backend_->set_tsc_offset(msrs_.tsc_offset());
    activity_ = Activity::wait_for_startup;
    reset_registers();
    if (cpu != nullptr) {
        apic_.enter_virtual_wire_mode();
        backend_->set_state(*cpu, RegSet::all);
        backend_->regs = *regs;
        activity_ = Activity::active;
    }
    backend_->leave_cpu();
}

Vcpu::Outcome Vcpu::run(const CpuLoop& loop) {
    // A vCPU that something woke late may come here while the VM stands still, and is being reset on another
    // CPU: then nothing of it is touched.
    std::uint32_t epoch = environment_.stop_epoch.load(std::memory_order_acquire);
    Next next = Next::park;
    if (!is_stop(epoch)) {
        next = run_guest(loop);
        epoch = environment_.stop_epoch.load(std::memory_order_acquire);
    }
    switch (next) {
    case Next::block: return activity_ == Activity::halted ? Outcome::halted : Outcome::waiting;
    case Next::yield: return Outcome::yielded;
    case Next::park:
        return parked_epoch_.exchange(epoch, std::memory_order_relaxed) == epoch ? Outcome::still_parked
                                                                                 : Outcome::parked;
    default: return Outcome::preempted;
    }
}

Vcpu::Next Vcpu::run_guest(const CpuLoop& loop) {
    loop_ = &loop;
    running_on_.store(machine::cpu_index(), std::memory_order_seq_cst);
    backend_->enter_cpu();
    if (sibling_waits() != pause_exits_) [[unlikely]] {
        pause_exits_ = sibling_waits();
        backend_->set_pause_exits(pause_exits_);
    }
    turn_.store(turn() + 1, std::memory_order_relaxed);
    apic_.resume(activity_ == Activity::active);
    Next next;
    do {
        next = prepare();
        while (next == Next::enter) {
            backend_->run();
            next = handle(backend_->exit);
            if (next == Next::enter && must_prepare()) [[unlikely]]
                break;
        }
        // Whoever the exit woke here goes first: the kick would end the next entry at once.
        if (next == Next::enter && loop.must_pick())
            next = Next::leave_cpu;
    } while (next == Next::enter);
    backend_->leave_cpu();
    running_on_.store(kNowhere, std::memory_order_seq_cst);
    return next;
}

/// Puts the highest interrupt in, or asks for the moment when it can go in.
[[gnu::always_inline]] inline void Vcpu::deliver_interrupt(bool may_inject) {
    int vector = apic_.pending_vector();
    if (vector < 0 && !apic_.ext_int_pending())
        return;
    if (apic_.hardware_delivers()) [[unlikely]] {
        apic_.hand_over();
        if (!apic_.ext_int_pending())
            return;
        vector = -1;
    }
    if (may_inject) {
        if (vector >= 0) {
            if (backend_->inject(Event::interrupt(static_cast<std::uint8_t>(vector)))) {
                apic_.accept(static_cast<std::uint8_t>(vector));
                vector = -1;  // no other one has a higher priority
            }
        } else if (backend_->can_take_interrupt()) {
            apic_.accept_ext_int();
            backend_->inject(Event::interrupt(environment_.ext_int.acknowledge()));
            vector = apic_.pending_vector();  // the 8259 may ask again
        }
        if (vector < 0 && !apic_.ext_int_pending())
            return;
    }
    backend_->request_window(Event::Type::external_interrupt);
}

Vcpu::Next Vcpu::prepare() {
    // Cleared first: what comes from here on is for another look.
    look_.exchange(false, std::memory_order_seq_cst);
    if (is_stop(environment_.stop_epoch.load(std::memory_order_relaxed))) [[unlikely]]
        return Next::park;
    // Among what was posted may be an NMI or an INIT of the local interrupt inputs.
    apic_.take_posted();
    if (signals_.load(std::memory_order_relaxed) != 0) [[unlikely]]
        take_signals();
    if (activity_ != Activity::active) [[unlikely]] {
        if (activity_ == Activity::wait_for_startup || !wakes_from_halt())
            return Next::block;
        activity_ = Activity::active;
    }
    const x86::EventQueue::Delivery delivery = events_.deliver(*backend_);
    if (delivery == x86::EventQueue::Delivery::shutdown) [[unlikely]]
        return triple_fault();
    deliver_interrupt(delivery == x86::EventQueue::Delivery::idle);
    return Next::enter;
}

// Out of line, as Vcpu::raise() is.
Vcpu::Next Vcpu::triple_fault() {
    return crash("triple fault", VmExit{});
}

bool Vcpu::wakes_from_halt() {
    // Always taken over, whatever IF says: has_work() goes by what is posted.
    const bool interrupt = apic_.interrupt_pending();
    return events_.wakes(*backend_) || (interrupt && (backend_->regs.rflags & RFLAGS_IF) != 0);
}

bool Vcpu::has_work(Outcome outcome) const {
    const std::uint32_t epoch = environment_.stop_epoch.load(std::memory_order_seq_cst);
    if (outcome == Outcome::parked || outcome == Outcome::still_parked)
        return epoch != parked_epoch_.load(std::memory_order_relaxed);
    if (is_stop(epoch) || signals_.load(std::memory_order_seq_cst) != 0)
        return true;
    return outcome == Outcome::halted && (apic_.attention() || events_.nmi_requested());
}

void Vcpu::take_signals() {
    const std::uint32_t signals = signals_.exchange(0, std::memory_order_acquire);
    if ((signals & kSignalMemory) != 0)
        fetcher_.forget();
    if ((signals & kSignalInit) != 0) {
        apic_.init_reset();
        events_.reset();
        init_processor();
        activity_ = Activity::wait_for_startup;
    }
    if ((signals & kSignalStartup) != 0 && activity_ == Activity::wait_for_startup)
        start_up(static_cast<std::uint8_t>(signals));
}

/// [sdm3 10.1.1 Processor State After Reset]: what INIT leaves alone, and the rest.
void Vcpu::reset_registers() {
    CpuState state{};
    state.cr0 = CR0_CD | CR0_NW | CR0_ET;
    state.pat = PAT_RESET;
    backend_->set_state(state, RegSet::control | RegSet::msrs);
    init_processor();
}

/// [sdm3 10.1.1 Processor State After Reset], the column for INIT: what set_state() does not name stays as it
/// is.
void Vcpu::init_processor() {
    CpuState state;
    backend_->get_state(state, RegSet::all);
    constexpr std::uint16_t kData = 0x93, kLdt = 0x82, kTss = 0x8b;
    state.cr0 = (state.cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    state.cr2 = state.cr3 = state.cr4 = state.efer = 0;
    for (Segment& segment : state.segment)
        segment = {0, kData, 0xffff, 0};
    state.seg(SegmentName::cs) = {0xf000, kRealModeCode, 0xffff, 0xffff'0000};
    state.ldtr = {0, kLdt, 0xffff, 0};
    state.tr = {0, kTss, 0xffff, 0};
    state.gdtr = state.idtr = {0, 0xffff};
    for (std::uint64_t& address : state.dr)
        address = 0;
    state.dr6 = DR6_RESET;
    state.dr7 = DR7_RESET;
    backend_->set_state(state, RegSet::all);
    backend_->regs = {};
    backend_->regs.gpr[RDX] = environment_.cpuid.cpu().signature;
    backend_->regs.rip = 0xfff0;
    backend_->regs.rflags = RFLAGS_FIXED;
}

void Vcpu::start_up(std::uint8_t vector) {
    CpuState state;
    backend_->get_state(state, RegSet::segments);
    state.seg(SegmentName::cs) = {static_cast<std::uint16_t>(vector << 8), kRealModeCode, 0xffff,
                                  std::uint64_t{vector} << 12};
    backend_->set_state(state, RegSet::segments);
    backend_->regs.rip = 0;
    activity_ = Activity::active;
}

void Vcpu::quiesce() {
    apic_.reset();
    environment_.clock.disarm(memory_retry_);
}

void Vcpu::nmi() {
    events_.request_nmi();
    poke();
}

void Vcpu::init() {
    // A start-up IPI from before has no effect any more.
    std::uint32_t old = signals_.load(std::memory_order_relaxed);
    while (!signals_.compare_exchange_weak(old, (old & kSignalMemory) | kSignalInit,
                                           std::memory_order_release)) {
    }
    poke();
}

void Vcpu::startup(std::uint8_t vector) {
    // The first of several start-up IPIs counts: a vCPU that has started ignores them.
    std::uint32_t old = signals_.load(std::memory_order_relaxed);
    while ((old & kSignalStartup) == 0 &&
           !signals_.compare_exchange_weak(old,
                                           (old & (kSignalInit | kSignalMemory)) | kSignalStartup | vector,
                                           std::memory_order_release)) {
    }
    poke();
}

void Vcpu::poke() {
    const std::uint32_t self = machine::cpu_index();
    // Pairs with the stores to running_on_: either this sees where the vCPU runs, or the vCPU sees what was
    // posted.
    look_.store(true, std::memory_order_seq_cst);
    if (const std::uint32_t cpu = running_on_.load(std::memory_order_seq_cst); cpu != self)
        reach(cpu);
}

void Vcpu::reach(std::uint32_t cpu) {
    if (cpu == kNowhere)
        environment_.scheduler.wake(*this);
    else
        machine::kick_cpu(cpu);
}

}  // namespace hv
