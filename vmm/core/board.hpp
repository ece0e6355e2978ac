// SPDX-License-Identifier: MIT
// The chipset of a VM: the devices that every PC has, on its port and memory buses.
#pragma once

#include "vmm/base/timer.hpp"
#include "vmm/core/io_bus.hpp"
#include "vmm/core/vcpu.hpp"
#include "vmm/core/vm_control.hpp"
#include "vmm/devices/acpi_pm.hpp"
#include "vmm/devices/char_sink.hpp"
#include "vmm/devices/debug_ports.hpp"
#include "vmm/devices/fw_cfg.hpp"
#include "vmm/devices/hpet.hpp"
#include "vmm/devices/io_apic.hpp"
#include "vmm/devices/irq_router.hpp"
#include "vmm/devices/pci_host_bridge.hpp"
#include "vmm/devices/pic8259.hpp"
#include "vmm/devices/pit8254.hpp"
#include "vmm/devices/power_control.hpp"
#include "vmm/devices/reset_ports.hpp"
#include "vmm/devices/rtc.hpp"
#include "vmm/devices/test_device.hpp"
#include "vmm/devices/uart16550.hpp"

#include <array>
#include <cstdint>
#include <memory>

namespace hv {

class Board final : private ExtIntSource {
public:
    struct Parts {
        IoBus& ports;
        IoBus& mmio;
        InterruptFabric& fabric;
        Clock& clock;
        VmControl& control;
        CharSink& serial;
        CharSink& debug;
        WallClock time;
        bool debug_exit;  ///< the debug exit port and the test device are there
        FwCfg::Machine machine{};
    };

    /// Puts every device on the buses. Errors as IoBus::add().
    static Expected<std::unique_ptr<Board>> create(const Parts& parts);

    /// The 8259's interrupts go to this processor's LINT0. `ticks`: how it is with the processor that takes
    /// the periodic interrupts, the same.
    void connect(LocalApic& boot_processor, const TickTarget* ticks = nullptr);
    /// The platform's reset. No vCPU runs.
    void reset();

    [[nodiscard]] IoApic& io_apic() { return io_apic_; }
    [[nodiscard]] PciHostBridge& pci() { return pci_; }
    [[nodiscard]] Uart16550& uart() { return uart_; }
    [[nodiscard]] ExtIntSource& ext_int() { return *this; }
    void press_power_button() { pm_.press_power_button(); }
    /// Gives the console what the guest has written to the debug port so far.
    void flush_debug_console() { debug_console_.flush(); }
    /// INTA# of a PCI device.
    [[nodiscard]] IrqLine& pci_line(unsigned device);

private:
    explicit Board(const Parts& parts);
    Expected<void> attach(const Parts& parts);
    Expected<void> attach_test_device(const Parts& parts);
    /// What a PC's firmware would have written before an operating system starts.
    void program_as_firmware();
    void store_memory_size();

    class Power final : public PowerControl {
    public:
        explicit Power(VmControl& control) : control_{control} {}
        void power_off() override { control_.request_stop(VmStop::power_off, 0); }
        void reset() override { control_.request_stop(VmStop::reset, 0); }
        void exit(std::uint32_t code) override { control_.request_stop(VmStop::exit_code, code); }

    private:
        VmControl& control_;
    };

    std::uint8_t acknowledge() override { return pic_.acknowledge(); }

    Power power_;
    IoApic io_apic_;
    IrqFanOut intr_;  ///< the 8259's INTR: LINT0 and the I/O APIC's pin 0
    Pic8259 pic_;
    IrqRouter irqs_;
    Uart16550 uart_;
    AcpiPm pm_;
    Pit8254 pit_;
    Rtc rtc_;
    Hpet hpet_;
    DebugConsole debug_console_;
    DebugExit debug_exit_;
    ResetControl reset_control_;
    Port92 port92_;
    KeyboardController keyboard_;
    PciHostBridge pci_;
    const std::uint64_t ram_;
    FwCfg fw_cfg_;
    std::unique_ptr<TestDevice> test_device_;  ///< may be null
};

}  // namespace hv
