// SPDX-License-Identifier: MIT
#include "vmm/core/board.hpp"

#include "vmm/core/guest_map.hpp"

#include <new>

namespace hv {
namespace {

constexpr unsigned kUartIrq = 4;
constexpr unsigned kSciIrq = 9;

Hpet::Wiring hpet_wiring(IrqRouter& irqs) {
    Hpet::Wiring wiring{irqs.pit(), irqs.rtc(), {}};
    for (unsigned i = 0; i < Hpet::kGsis; ++i)
        wiring.gsis[i] =
            &irqs.pci(Hpet::kFirstGsi - guest_map::kGsiPciFirst + i).source(IrqRouter::kHpetSource);
    return wiring;
}

}  // namespace

Expected<std::unique_ptr<Board>> Board::create(const Parts& parts) {
    std::unique_ptr<Board> board{new (std::nothrow) Board{parts}};
    if (board == nullptr)
        return Unexpected{Error::no_memory};
    HV_TRY(board->attach(parts));
    return board;
}

Board::Board(const Parts& parts)
    : power_{parts.control},
      io_apic_{parts.fabric},
      pic_{intr_},
      irqs_{pic_, io_apic_},
      uart_{parts.clock, irqs_.isa(kUartIrq), parts.serial},
      pm_{parts.clock, irqs_.isa(kSciIrq), power_},
      pit_{parts.clock, irqs_.pit().input(0)},
      rtc_{parts.clock, irqs_.rtc().input(0), parts.time},
      hpet_{parts.clock, hpet_wiring(irqs_)},
      debug_console_{parts.debug},
      debug_exit_{power_},
      reset_control_{power_},
      port92_{power_},
      keyboard_{power_},
      pci_{parts.mmio, &reset_control_} {
    // Until connect(): no processor is there.
    intr_.connect(io_apic_.ext_int_line(), io_apic_.ext_int_line());
}

Expected<void> Board::attach(const Parts& parts) {
    namespace map = guest_map;
    IoBus& ports = parts.ports;
    HV_TRY(ports.add(map::kPicMaster, 2, pic_.master()));
    HV_TRY(ports.add(map::kPicSlave, 2, pic_.slave()));
    HV_TRY(ports.add(map::kElcr, 2, pic_.elcr()));
    HV_TRY(ports.add(map::kPit, Pit8254::kSize, pit_));
    HV_TRY(ports.add(map::kPort61, 1, pit_.port61()));
    HV_TRY(ports.add(KeyboardController::kDataPort, 1, keyboard_.data()));
    HV_TRY(ports.add(KeyboardController::kCommandPort, 1, keyboard_.command()));
    HV_TRY(ports.add(map::kRtc, Rtc::kSize, rtc_));
    HV_TRY(ports.add(Port92::kPort, 1, port92_));
    HV_TRY(ports.add(map::kDebugConsole, 1, debug_console_));
    if (parts.debug_exit)
        HV_TRY(ports.add(map::kDebugExit, 4, debug_exit_));
    HV_TRY(ports.add(map::kCom1, Uart16550::kSize, uart_));
    HV_TRY(ports.add(map::kPm1aEvent, AcpiPm::kSize, pm_));
    HV_TRY(ports.add(map::kPciAddress, 8, pci_.ports()));
    HV_TRY(parts.mmio.add(map::kEcam, map::kEcamSize, pci_.ecam()));
    HV_TRY(parts.mmio.add(map::kIoApic, IoApic::kSize, io_apic_));
    HV_TRY(parts.mmio.add(map::kHpet, Hpet::kSize, hpet_));
    return {};
}

void Board::connect(LocalApic& boot_processor, const TickTarget* ticks) {
    pit_.set_target(ticks);
    rtc_.set_target(ticks);
    hpet_.set_target(ticks);
    intr_.connect(boot_processor.lint0(), io_apic_.ext_int_line());
    reset();
}

void Board::reset() {
    io_apic_.reset();
    pic_.reset(IrqRouter::kLevelIrqs);
    uart_.reset();
    pm_.reset();
    pit_.reset();
    rtc_.reset();
    hpet_.reset();
    reset_control_.reset();
    port92_.reset();
    keyboard_.reset();
    pci_.reset();
    debug_console_.flush();
}

IrqLine& Board::pci_line(unsigned device) {
    return irqs_.pci(device % IrqRouter::kPciLines).source(device);
}

}  // namespace hv
