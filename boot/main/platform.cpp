// SPDX-License-Identifier: MIT
#include "boot/main/platform.hpp"

#include "arch/x86_64/cpu/early_console.hpp"
#include "arch/x86_64/cpu/guest_fpu.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "arch/x86_64/smp/smp.hpp"
#include "arch/x86_64/svm/svm_extension.hpp"
#include "arch/x86_64/vmx/vmx_extension.hpp"
#include "boot/main/boot_memory.hpp"
#include "boot/main/host_machine.hpp"
#include "drivers/serial/debug_console.hpp"
#include "drivers/serial/uart16550.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/config/config.hpp"
#include "vmm/core/cpu_loop.hpp"
#include "vmm/core/vm_manager.hpp"
#include "vmm/loader/module_files.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/monitor/vm_console_set.hpp"
#include "vmm/net/switch.hpp"
#include "vmm/sched/scheduler.hpp"
#include "vmm/sched/tsc_clock.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <optional>

namespace hv::boot {
namespace {

using log::Topic;

struct Ports {
    static std::uint8_t in8(std::uint16_t port) { return cpu::in8(port); }
    static void out8(std::uint16_t port, std::uint8_t value) { cpu::out8(port, value); }
};

constexpr std::uint16_t kCom1 = 0x3f8;
constexpr std::uint8_t kCom1Irq = 4;
constexpr std::uint8_t kCom1Vector = static_cast<std::uint8_t>(cpu::HostVector::first_device);

class LocalTimer final : public TimerHardware {
public:
    void set_deadline(std::uint64_t deadline) override {
        if (deadline == TimerQueue::kNever)
            irq::stop_timer();
        else
            irq::arm_timer(deadline);
    }
};

class ModuleIndex final : public config::FileIndex {
public:
    explicit ModuleIndex(const loader::ModuleFiles& files) : files_{files} {}
    [[nodiscard]] bool exists(std::string_view path) const override { return files_.find(path) != nullptr; }

private:
    const loader::ModuleFiles& files_;
};

/// `new`, or the end: the start cannot go on without its objects.
template <class T, class... Args>
T& create(Args&&... args) {
    T* object = new (std::nothrow) T{std::forward<Args>(args)...};
    if (object == nullptr)
        panic("no memory while starting");
    return *object;
}
template <class T>
T must(Expected<T> result, const char* what) {
    if (!result)
        panic("%s: %s", what, to_string(result.error()));
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

std::unique_ptr<VirtExtension> find_extension(FrameSource& frames) {
    if (vmx::VmxExtension::present())
        return must(vmx::VmxExtension::create(frames), "VT-x cannot be used");
    if (svm::SvmExtension::present())
        return must(svm::SvmExtension::create(frames), "AMD-V cannot be used");
    panic("this processor has neither VT-x nor AMD-V, or its firmware hides them");
}

struct HostCpuid {
    cpu::CpuidLeaf cpuid(std::uint32_t leaf, std::uint32_t subleaf) const { return cpu::cpuid(leaf, subleaf); }
};
x86::CpuidPolicy make_cpuid_policy(const x86::CpuidConfig& config) {
    HostCpuid host;
    return x86::CpuidPolicy::create(host, config);
}

/// Everything that lives as long as the host runs.
class Platform final : public Housekeeping {
public:
    Platform(const BootInfo& info, const Options& options, FrameAllocator& frames, std::uint64_t started)
        : info_{info}, options_{options}, frames_{frames}, started_{started} {}

    [[noreturn]] void run();

private:
    void start_console();
    void collect_files();
    void read_config();
    void make_cpu_loops();
    void make_switches();
    void start_vms();
    [[noreturn]] static void run_this_cpu();
    /// All VMs have ended: does what the configuration says.
    void idle();
    [[noreturn]] void power_off();

    bool pending() const override;
    void service() override;

    const BootInfo& info_;
    const Options& options_;
    FrameAllocator& frames_;
    std::uint64_t started_;
    HostMachine machine_;
    Console* console_{nullptr};
    ConsoleMux* mux_{nullptr};
    std::unique_ptr<VmConsoleSet> consoles_;
    loader::ModuleFiles files_;
    config::Config config_;
    bool config_is_wrong_{false};
    std::unique_ptr<VirtExtension> extension_;
    LocalTimer timer_hardware_;
    std::unique_ptr<TscClock> clock_;
    std::unique_ptr<Scheduler> scheduler_;
    Vec<std::unique_ptr<net::Switch>> switches_;
    Vec<std::unique_ptr<CpuLoop>> loops_;
    std::optional<VmManager> manager_;
    std::atomic<bool> power_off_wanted_{false};
};

constinit Platform* platform = nullptr;

void Platform::run() {
    platform = this;
    machine_.discover(info_);
    machine_.start_boot_cpu();
    start_console();
    collect_files();
    read_config();
    extension_ = find_extension(frames_);
    must(extension_->enable_on_this_cpu(), "the virtualization extension cannot be turned on");
    make_cpu_loops();
    make_switches();
    start_vms();
    loops_[0]->run();
}

/// The debug port where it is asked for, or where there is no UART.
void Platform::start_console() {
    auto& debug = create<serial::DebugConsole<Ports>>(Ports{});
    auto& uart = create<serial::Uart16550<Ports>>(Ports{}, kCom1);
    const bool has_uart = uart.init();
    const bool use_debug = (options_.debug_console || !has_uart) && debug.present();
    console_ = use_debug ? static_cast<Console*>(&debug) : &uart;
    mux_ = &create<ConsoleMux>(*console_, options_.headless ? ConsoleMux::Mode::headless : ConsoleMux::Mode::interactive);
    log::set_sink(mux_);
    if (use_debug)
        return;
    cpu::set_interrupt_handler(kCom1Vector, [](void* mux) { static_cast<ConsoleMux*>(mux)->service(); }, mux_);
    if (const auto routed = machine_.route_isa(kCom1Irq, kCom1Vector); !routed)
        log::warning(Topic::boot, "no interrupts from COM1: %s", to_string(routed.error()));
}

void Platform::collect_files() {
    for (const Module& module : info_.modules)
        must(files_.add(module.name(), {machine::hva(module.start), module.length}), "the boot modules cannot be listed");
}

void Platform::read_config() {
    const auto* file = files_.find(options_.config);
    if (file == nullptr) {
        log::error(Topic::config, "there is no %.*s among the boot modules: no VMs", static_cast<int>(options_.config.size()),
                   options_.config.data());
        config_is_wrong_ = true;
        config_.host.when_idle = config::WhenIdle::monitor;
        return;
    }
    const ModuleIndex index{files_};
    const auto cpus = static_cast<std::uint32_t>(std::max<std::size_t>(machine_.acpi().cpus.size(), 1));
    auto result = must(config::parse_config({reinterpret_cast<const char*>(file->bytes.data()), file->bytes.size()},
                                            {&index, cpus, frames_.statistics().free_bytes}),
                       "the configuration cannot be read");
    for (const config::ConfigError& error : result.errors)
        log::error(Topic::config, "%.*s:%u: %.*s", static_cast<int>(options_.config.size()), options_.config.data(), error.line,
                   static_cast<int>(error.message.view().size()), error.message.view().data());
    config_is_wrong_ = !result.errors.empty();
    config_ = std::move(result.config);
    log::set_level(config_.host.log);
}

/// Clock, scheduler and loops for all CPUs; the others then start, and wait in theirs.
void Platform::make_cpu_loops() {
    const auto count = static_cast<std::uint32_t>(std::clamp<std::size_t>(machine_.acpi().cpus.size(), 1, cpu::kMaxCpus));
    clock_ = must(TscClock::create(timer_hardware_, count), "the timers cannot be made");
    scheduler_ = must(Scheduler::create(count), "the scheduler cannot be made");
    for (std::uint32_t cpu = 0; cpu < count; ++cpu)
        must(loops_.push(must(make<CpuLoop>(*scheduler_, *clock_, cpu, cpu == 0 ? this : nullptr), "no memory")), "no memory");
    cpu::set_interrupt_handler(static_cast<std::uint8_t>(cpu::HostVector::timer),
                               [](void* clock) { static_cast<TscClock*>(clock)->expire(); }, clock_.get());
    cpu::set_interrupt_handler(static_cast<std::uint8_t>(cpu::HostVector::kick), [](void*) {}, nullptr);
    smp::start_cpus(machine_.acpi().cpus.span(), startup_page(), run_this_cpu);
    log::info(Topic::cpu, "%u of %u CPUs run, %s", cpu::cpu_count(), count, extension_->name());
}

void Platform::run_this_cpu() {
    must(platform->extension_->enable_on_this_cpu(), "the virtualization extension cannot be turned on");
    platform->loops_[cpu::this_cpu().index]->run();
}

void Platform::make_switches() {
    for (std::size_t i = 0; i < config_.switches.size(); ++i)
        must(switches_.push(must(net::Switch::create(*clock_), "no memory for a switch")), "no memory for a switch");
}

void Platform::start_vms() {
    const VmServices services{frames_,  *extension_, *clock_, *scheduler_, files_, switches_.span(), make_cpuid_policy,
                              machine_.read_wall_clock(), nullptr, nullptr};
    consoles_ = must(VmConsoleSet::create(*mux_, config_), "no memory for the VMs' consoles");
    manager_.emplace(config_, services, *consoles_);
    log::info(Topic::boot, "first guest entry after %llu ticks", static_cast<unsigned long long>(machine::tsc() - started_));
    must(manager_->init(), "no memory for the list of VMs");
    if (manager_->all_ended())
        idle();
}

bool Platform::pending() const { return mux_->has_work() || manager_->has_work() || power_off_wanted_.load(std::memory_order_relaxed); }

void Platform::service() {
    mux_->service();
    if (manager_->has_work()) {
        manager_->service();
        if (manager_->all_ended())
            idle();
    }
    if (power_off_wanted_.load(std::memory_order_relaxed))
        power_off();
}

void Platform::idle() {
    switch (config_.host.when_idle) {
    case config::WhenIdle::monitor: log::info(Topic::boot, "no VM runs"); break;
    case config::WhenIdle::poweroff: power_off();
    case config::WhenIdle::reboot: machine_.reboot();
    }
}

void Platform::power_off() {
    const bool well = !config_is_wrong_ && manager_->all_ended_well();
    mux_->announce(well ? "power off: ok" : "power off: failed");
    while (!mux_->flush())
        machine::pause();
    machine_.power_off();
    panic("the machine does not power off");
}

}  // namespace

void run_platform(const BootInfo& info, const Options& options, FrameAllocator& frames, std::uint64_t started) {
    create<Platform>(info, options, frames, started).run();
}

}  // namespace hv::boot
