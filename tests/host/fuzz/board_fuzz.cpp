// SPDX-License-Identifier: MIT
// Random register accesses, wires and time on the whole board: nothing may assert, overflow or run for ever.
#include "fakes/board.hpp"
#include "fakes/power.hpp"
#include "fakes/step_clock.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/devices/acpi_pm.hpp"
#include "vmm/devices/debug_ports.hpp"
#include "vmm/devices/fw_cfg.hpp"
#include "vmm/devices/hpet.hpp"
#include "vmm/devices/io_apic.hpp"
#include "vmm/devices/irq_router.hpp"
#include "vmm/devices/pic8259.hpp"
#include "vmm/devices/pit8254.hpp"
#include "vmm/devices/reset_ports.hpp"
#include "vmm/devices/rtc.hpp"
#include "vmm/devices/test_device.hpp"
#include "vmm/devices/uart16550.hpp"
#include "vmm/x86/local_apic.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace hv;
    struct Owner final : LocalApicOwner {
        void interrupt_posted() override {}
        void priority_changed() override {}
        void nmi() override {}
        void init() override {}
        void startup(std::uint8_t) override {}
    } owner;
    struct Sink final : CharSink {
        void put(std::string_view) override {}
    } sink;

    fake::StepClock clock{2'893'000'001};
    fake::RecordingPower power;
    InterruptFabric fabric;
    LocalApic apics[2]{{{0, true}, fabric, owner, clock}, {{1, false}, fabric, owner, clock}};
    LocalApic* const pointers[]{&apics[0], &apics[1]};
    IoApic io_apic{fabric};
    fabric.connect(pointers, &io_apic);
    apics[0].enter_virtual_wire_mode();
    IrqFanOut intr;
    intr.connect(apics[0].lint0(), io_apic.ext_int_line());
    Pic8259 pic{intr};
    IrqRouter router{pic, io_apic};
    Pit8254 pit{clock, router.pit().input(0)};
    Rtc rtc{clock, router.rtc().input(0), {1'767'225'600, clock.now()}};
    Uart16550 uart{clock, router.isa(4), sink};
    AcpiPm pm{clock, router.isa(9), power, AcpiPm::TimerWidth::bits24};
    const auto hpet_line = [&](unsigned n) { return &router.pci(4 + n).source(IrqRouter::kHpetSource); };
    Hpet hpet{clock, {router.pit(), router.rtc(), {hpet_line(0), hpet_line(1), hpet_line(2), hpet_line(3)}}};
    KeyboardController keyboard{power};
    DebugConsole console{sink};
    ResetControl reset_control{power};
    Port92 port92{power};
    FwCfg fw_cfg{{2, 64 * kMiB}};
    TestDevice::Wires wires{};
    for (unsigned gsi = 0; gsi < wires.size(); ++gsi)
        wires[gsi] = router.wire(gsi);
    TestDevice test{wires};
    struct Block {
        IoDevice& device;
        std::uint64_t size;
    };
    const Block blocks[]{{io_apic, IoApic::kSize},
                         {pic.master(), 2},
                         {pic.slave(), 2},
                         {pic.elcr(), 2},
                         {pit, Pit8254::kSize},
                         {pit.port61(), 1},
                         {rtc, Rtc::kSize},
                         {uart, Uart16550::kSize},
                         {pm, AcpiPm::kSize},
                         {hpet, Hpet::kSize},
                         {keyboard.data(), 1},
                         {keyboard.command(), 1},
                         {console, 1},
                         {reset_control, 1},
                         {port92, 1},
                         {fw_cfg, FwCfg::kSize},
                         {test.register_block(), 4},
                         {test.flush(), 4},
                         {test.lines(), TestDevice::kLines},
                         {test.memory(), test.memory().kSize}};

    constexpr std::size_t kStep = 12;  // what, where, value
    for (; size >= kStep; data += kStep, size -= kStep) {
        const unsigned what = data[0];
        const auto offset = load<std::uint16_t>(data + 1);
        const auto value = load<std::uint64_t>(data + 4);
        const unsigned width = 1u << (data[3] & 3);
        if (what < 0xa0) {
            const Block& block = blocks[what % std::size(blocks)];
            const std::uint64_t at = offset % block.size;
            if (at + width > block.size)
                continue;
            if ((data[3] & 4) != 0)
                (void)block.device.read(at, width);
            else
                block.device.write(at, width, value & all_ones(width));
        } else if (what < 0xe0) {
            LocalApic& apic = apics[what & 1];
            switch (data[3] >> 3 & 7) {
            case 0: (void)apic.read_msr(0x800 + offset % 256); break;
            case 1: (void)apic.write_msr(0x800 + offset % 256, value); break;
            case 2: (void)apic.mmio_read(offset % 4096 / width * width, width); break;
            case 3: {  // mostly whole registers; else whatever the guest's instruction does
                const bool whole = (offset & 0x8000) == 0;
                const std::uint64_t at = whole ? offset % 1024 & ~0xfu : offset % 4096 / width * width;
                apic.mmio_write(at, whole ? 4 : width, value & all_ones(whole ? 4 : width));
                break;
            }
            case 4: (void)apic.set_apic_base(value); break;
            case 5: apic.set_tsc_deadline(value); break;
            case 6: apic.set_tsc_offset(static_cast<std::int64_t>(value)); break;
            default: apic.set_tpr(static_cast<std::uint8_t>(value)); break;
            }
        } else if (what < 0xf0) {
            router.pci(what & 7).source(offset % 31).set((data[3] & 1) != 0);
            (void)uart.receive(static_cast<char>(value));
        } else {
            clock.lateness = value >> 32 & 0xffff;
            clock.run_for(value % 10'000'000);
            if ((data[3] & 8) != 0)
                clock.skip(value % 1'000'000'000'000'000);
        }
        for (LocalApic& apic : apics) {
            const int vector = apic.pending_vector();
            if (vector >= 0)
                apic.accept(static_cast<std::uint8_t>(vector));
            else if (apic.ext_int_pending()) {
                apic.accept_ext_int();
                (void)pic.acknowledge();
            }
            if ((data[3] & 16) != 0)
                apic.eoi();
        }
    }
    return 0;
}
