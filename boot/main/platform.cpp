// SPDX-License-Identifier: MIT
#include "boot/main/platform.hpp"

#include "arch/x86_64/cpu/early_console.hpp"
#include "arch/x86_64/cpu/entropy.hpp"
#include "arch/x86_64/cpu/guest_fpu.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/panic.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "arch/x86_64/smp/smp.hpp"
#include "arch/x86_64/svm/svm_extension.hpp"
#include "arch/x86_64/vmx/vmx_extension.hpp"
#include "boot/main/boot_memory.hpp"
#include "boot/main/host_devices.hpp"
#include "boot/main/host_machine.hpp"
#include "boot/main/host_network.hpp"
#include "boot/main/host_ports.hpp"
#include "drivers/serial/debug_console.hpp"
#include "drivers/serial/uart16550.hpp"
#include "vmm/base/chacha20.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/config/config.hpp"
#include "vmm/core/cpu_loop.hpp"
#include "vmm/core/vm_manager.hpp"
#include "vmm/loader/module_files.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/monitor/disk_command.hpp"
#include "vmm/monitor/host_commands.hpp"
#include "vmm/monitor/monitor.hpp"
#include "vmm/monitor/net_command.hpp"
#include "vmm/monitor/stats_command.hpp"
#include "vmm/monitor/switch_view.hpp"
#include "vmm/monitor/vm_command.hpp"
#include "vmm/monitor/vm_console_set.hpp"
#include "vmm/monitor/vm_manager_view.hpp"
#include "vmm/monitor/vsock_terminal.hpp"
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

vmx::ApicUse apic_use(Options::Apicv option) {
    switch (option) {
    case Options::Apicv::off: return vmx::ApicUse::none;
    case Options::Apicv::tpr: return vmx::ApicUse::tpr_shadow;
    case Options::Apicv::on: return vmx::ApicUse::all;
    case Options::Apicv::automatic: break;
    }
    return vmx::ApicUse::automatic;
}

/// The processor's extension. What is missing has been said in the log, and is repeated where the reader
/// looks last.
std::unique_ptr<VirtExtension> find_extension(FrameSource& frames, Options::Apicv apicv) {
    const bool vmx = vmx::VmxExtension::present();
    if (!vmx && !svm::SvmExtension::present())
        cpu::refuse_to_run("this processor has neither VT-x nor AMD-V, or its firmware hides them");
    auto extension =
        vmx ? vmx::VmxExtension::create(frames, apic_use(apicv)) : svm::SvmExtension::create(frames);
    const char* name = vmx ? "VT-x" : "AMD-V";
    if (extension)
        return std::move(*extension);
    if (extension.error() == Error::disabled)
        cpu::refuse_to_run("%s is switched off by the firmware: enable it in its setup", name);
    if (extension.error() == Error::unsupported)
        cpu::refuse_to_run("%s of this processor lacks something that is needed (nested paging, for one): "
                           "see the line above",
                           name);
    cpu::refuse_to_run("%s cannot be used: %s", name, to_string(extension.error()));
}

struct HostCpuid {
    cpu::CpuidLeaf cpuid(std::uint32_t leaf, std::uint32_t subleaf) const {
        return cpu::cpuid(leaf, subleaf);
    }
};
x86::CpuidPolicy make_cpuid_policy(const x86::CpuidConfig& config) {
    HostCpuid host;
    return x86::CpuidPolicy::create(host, config);
}

/// Everything that lives as long as the host runs.
class Platform final : public Housekeeping, public HostInfo {
public:
    Platform(const BootInfo& info, const Options& options, FrameAllocator& frames, std::uint64_t started)
        : info_{info}, options_{options}, frames_{frames}, started_{started} {}

    [[noreturn]] void run();

private:
    void start_console();
    void collect_files();
    void read_config();
    void make_cpu_loops();
    void prepare_devices();
    void make_vms();
    void make_monitor();
    void begin();
    [[noreturn]] static void run_this_cpu();
    /// What the monitor needs to show and capture what passes the switches.
    NetDirectory& make_captures();
    /// All VMs have ended: does what was asked for, or what the configuration says.
    void idle();
    /// Waits until all that was said has left the machine.
    void flush_console();
    /// Says how it went, lets the console finish, and ends the host.
    [[noreturn]] void leave(config::WhenIdle how);
    void shut_down(config::WhenIdle how);

    bool pending() const override;
    void service() override;

    // HostInfo
    [[nodiscard]] std::uint32_t cpu_count() const override { return cpu::cpu_count(); }
    [[nodiscard]] Cpu cpu(std::uint32_t index) const override;
    [[nodiscard]] std::string_view virtualization() const override { return extension_->name(); }
    [[nodiscard]] FrameStatistics frames() const override { return frames_.statistics(); }
    [[nodiscard]] HeapStatistics heap() const override { return kernel_heap().statistics(); }
    /// Frames that are taken, of the heap's only what is used.
    [[nodiscard]] std::uint64_t memory_in_use() const {
        const FrameStatistics frames = frames_.statistics();
        const HeapStatistics heap = kernel_heap().statistics();
        return frames.total_bytes - frames.free_bytes - heap.frame_bytes + heap.object_bytes;
    }
    [[nodiscard]] std::uint64_t uptime_ns() const override {
        return clock_->to_nanoseconds(clock_->now() - started_);
    }
    void power_off() override { shut_down(config::WhenIdle::poweroff); }
    void reboot() override { shut_down(config::WhenIdle::reboot); }

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
    std::optional<HostDevices> devices_;
    HostNetwork host_network_{config_};
    Vec<std::unique_ptr<CpuLoop>> loops_;
    std::optional<ChaChaGenerator> entropy_;
    std::optional<VmManager> manager_;
    std::unique_ptr<Monitor> monitor_;
    VsockTerminal* terminal_{nullptr};  ///< with the monitor
    std::optional<VmManagerView> vms_;
    std::unique_ptr<net::Capture> capture_;
    std::optional<CaptureStream> captures_;
    std::optional<SwitchView> network_;
    std::atomic<std::uint32_t> due_{0};  ///< what interrupts asked for:
    static constexpr std::uint32_t kConsole = 1, kDiskSizes = 2;
    std::optional<config::WhenIdle> asked_for_;
};

constinit Platform* platform = nullptr;

void Platform::run() {
    platform = this;
    machine_.discover(info_);
    machine_.start_boot_cpu();
    start_console();
    collect_files();
    read_config();
    extension_ = find_extension(frames_, options_.apicv);
    must(extension_->enable_on_this_cpu(), "the virtualization extension cannot be turned on");
    make_cpu_loops();
    prepare_devices();
    must(host_network_.make_switches(*clock_), "no memory for the switches");
    make_vms();
    if (mux_->mode() == ConsoleMux::Mode::interactive)
        make_monitor();
    // A device that answers slowly, or not at all, keeps those waiting that need one, and nobody else: other
    // CPUs run by now.
    manager_->autostart(VmManager::Needs::nothing);
    devices_->discover();
    host_network_.connect_uplinks(devices_->nics());
    manager_->autostart(VmManager::Needs::devices);
    begin();
    loops_[0]->run();
}

/// The debug port where it is asked for, or where there is no UART.
void Platform::start_console() {
    auto& debug = create<serial::DebugConsole<HostPorts>>(HostPorts{});
    auto& uart = create<serial::Uart16550<HostPorts>>(HostPorts{}, kCom1);
    const bool has_uart = uart.init();
    const bool use_debug = (options_.debug_console || !has_uart) && debug.present();
    console_ = use_debug ? static_cast<Console*>(&debug) : &uart;
    mux_ = &create<ConsoleMux>(*console_, options_.headless ? ConsoleMux::Mode::headless
                                                            : ConsoleMux::Mode::interactive);
    log::set_sink(mux_);
    if (use_debug)
        return;
    cpu::set_interrupt_handler(
        kCom1Vector,
        [](void* self) { static_cast<Platform*>(self)->due_.fetch_or(kConsole, std::memory_order_relaxed); },
        this);
    if (const auto routed = machine_.route_isa(kCom1Irq, kCom1Vector); !routed)
        log::warning(Topic::boot, "no interrupts from COM1: %s", to_string(routed.error()));
}

void Platform::collect_files() {
    for (const Module& module : info_.modules)
        must(files_.add(module.name(), {machine::hva(module.start), module.length}),
             "the boot modules cannot be listed");
}

void Platform::read_config() {
    const auto* file = files_.find(options_.config);
    if (file == nullptr) {
        log::error(Topic::config, "there is no %.*s among the boot modules: no VMs",
                   static_cast<int>(options_.config.size()), options_.config.data());
        config_is_wrong_ = true;
        config_.host.when_idle = config::WhenIdle::monitor;
        return;
    }
    const ModuleIndex index{files_};
    const auto cpus = static_cast<std::uint32_t>(std::max<std::size_t>(machine_.acpi().cpus.size(), 1));
    auto result =
        must(config::parse_config({reinterpret_cast<const char*>(file->bytes.data()), file->bytes.size()},
                                  {&index, cpus, frames_.statistics().free_bytes}),
             "the configuration cannot be read");
    for (const config::ConfigError& error : result.errors)
        log::error(Topic::config, "%.*s:%u: %.*s", static_cast<int>(options_.config.size()),
                   options_.config.data(), error.line, static_cast<int>(error.message.view().size()),
                   error.message.view().data());
    config_is_wrong_ = !result.errors.empty();
    config_ = std::move(result.config);
    log::set_level(config_.host.log);
}

/// Clock, scheduler and loops for all CPUs; the others then start, and wait in theirs.
void Platform::make_cpu_loops() {
    const auto count =
        static_cast<std::uint32_t>(std::clamp<std::size_t>(machine_.acpi().cpus.size(), 1, cpu::kMaxCpus));
    clock_ = must(TscClock::create(timer_hardware_, count), "the timers cannot be made");
    scheduler_ = must(Scheduler::create(count), "the scheduler cannot be made");
    for (std::uint32_t cpu = 0; cpu < count; ++cpu)
        must(loops_.push(
                 must(make<CpuLoop>(*scheduler_, *clock_, cpu, cpu == 0 ? this : nullptr), "no memory")),
             "no memory");
    cpu::set_interrupt_handler(
        static_cast<std::uint8_t>(cpu::HostVector::timer),
        [](void* clock) { static_cast<TscClock*>(clock)->expire(); }, clock_.get());
    cpu::set_interrupt_handler(
        static_cast<std::uint8_t>(cpu::HostVector::kick), [](void*) {}, nullptr);
    smp::start_cpus(machine_.acpi().cpus.span(), startup_page(), run_this_cpu);
    log::info(Topic::cpu, "%u of %u CPUs run, %s", cpu::cpu_count(), count, extension_->name());
}

void Platform::run_this_cpu() {
    must(platform->extension_->enable_on_this_cpu(), "the virtualization extension cannot be turned on");
    platform->loops_[cpu::this_cpu().index]->run();
}

void Platform::prepare_devices() {
    Hpa end{};
    for (const MemoryRange& range : info_.memory) {
        if (range.type == MemoryType::usable)
            end = std::max(end, range.start + range.length);
    }
    devices_.emplace(
        frames_, *clock_, end,
        [](void* self) {
            static_cast<Platform*>(self)->due_.fetch_or(kDiskSizes, std::memory_order_release);
            machine::kick_cpu(0);
        },
        this);
}

void Platform::make_vms() {
    ChaChaKey seed{};
    cpu::gather_seed(seed);
    entropy_.emplace(seed);
    const VmServices services{frames_,
                              *extension_,
                              *clock_,
                              *scheduler_,
                              files_,
                              devices_->disks(),
                              host_network_.switches(),
                              make_cpuid_policy,
                              machine_.read_wall_clock(),
                              nullptr,
                              nullptr,
                              [] { return platform->memory_in_use(); },
                              &*entropy_};
    consoles_ = must(VmConsoleSet::create(*mux_, config_), "no memory for the VMs' consoles");
    manager_.emplace(config_, services, *consoles_);
    must(manager_->init(), "no memory for the list of VMs");
}

void Platform::begin() {
    // On one CPU, the first guest runs now; others may have begun with the first VM while the rest were
    // built.
    log::info(Topic::boot, "first guest entry after %llu ticks",
              static_cast<unsigned long long>(machine::tsc() - started_));
    if (monitor_ != nullptr) {
        monitor_->start();
        // The first VM that runs gets the line: Ctrl-A m leads to the monitor.
        const auto entries = manager_->entries();
        const auto first = std::find_if(entries.begin(), entries.end(),
                                        [](const VmManager::Entry& entry) { return entry.vm != nullptr; });
        if (first != entries.end())
            vms_->show_console(static_cast<std::size_t>(first - entries.begin()));
    }
    if (manager_->all_ended())
        idle();
}

void Platform::make_monitor() {
    monitor_ = must(Monitor::create(*mux_), "no memory for the monitor");
    terminal_ = &create<VsockTerminal>(*mux_);
    vms_.emplace(*manager_, *consoles_, *mux_, *terminal_);
    monitor_->add(create<VmCommand>(*vms_));
    monitor_->add(create<StatsCommand>(*this, *vms_));
    monitor_->add(create<MemCommand>(*this, *vms_));
    monitor_->add(create<CpuCommand>(*this));
    monitor_->add(create<DiskCommand>(devices_->disks()));
    monitor_->add(create<NetCommand>(make_captures()));
    monitor_->add(create<LogCommand>());
    monitor_->add(create<PowerCommand>(*this, PowerCommand::Kind::power_off));
    monitor_->add(create<PowerCommand>(*this, PowerCommand::Kind::reboot));
    mux_->set_power_off([](void* self) { static_cast<Platform*>(self)->power_off(); }, this);
}

NetDirectory& Platform::make_captures() {
    const WallClock boot = manager_->services().boot_time;
    const auto since_reset = static_cast<std::int64_t>(clock_->to_nanoseconds(boot.at));
    capture_ = must(net::Capture::create(*clock_, boot.seconds * 1'000'000'000 - since_reset),
                    "no memory for captures");
    captures_.emplace(*capture_, *monitor_);
    network_.emplace(config_, host_network_.switches(), *captures_);
    return *network_;
}

HostInfo::Cpu Platform::cpu(std::uint32_t index) const {
    const Vcpu* vcpu = loops_[index]->running();
    return {cpu::cpu_at(index).apic_id,
            vcpu != nullptr ? std::string_view{vcpu->name()} : std::string_view{}};
}

bool Platform::pending() const {
    return due_.load(std::memory_order_relaxed) != 0 || mux_->has_work() || manager_->has_work() ||
           (captures_ && captures_->has_work());
}

void Platform::service() {
    const std::uint32_t due = due_.exchange(0, std::memory_order_acquire);
    mux_->service();
    if ((due & kDiskSizes) != 0)
        manager_->update_disks();
    if (captures_)
        captures_->service();
    if (terminal_ != nullptr)
        terminal_->service();
    if (!manager_->has_work())
        return;
    manager_->service();
    if (manager_->all_ended())
        idle();
}

void Platform::shut_down(config::WhenIdle how) {
    asked_for_ = how;
    manager_->shut_down();
    if (manager_->all_ended())
        idle();
}

void Platform::idle() {
    const config::WhenIdle how = asked_for_.value_or(config_.host.when_idle);
    if (how == config::WhenIdle::monitor)
        log::info(Topic::boot, "no VM runs");
    else
        leave(how);
}

void Platform::flush_console() {
    while (!mux_->flush())
        machine::pause();
}

void Platform::leave(config::WhenIdle how) {
    const bool well = !config_is_wrong_ && manager_->all_ended_well();
    TextBuffer<32> line;
    line.append("%s: %s", how == config::WhenIdle::reboot ? "reboot" : "power off", well ? "ok" : "failed");
    devices_->shut_down();
    // Before and after, so that the last line does not cut into another.
    flush_console();
    mux_->announce(line.view());
    flush_console();
    if (how == config::WhenIdle::reboot)
        machine_.reboot();
    machine_.power_off();
    panic("the machine does not power off");
}

}  // namespace

void run_platform(const BootInfo& info, const Options& options, FrameAllocator& frames,
                  std::uint64_t started) {
    create<Platform>(info, options, frames, started).run();
}

}  // namespace hv::boot
