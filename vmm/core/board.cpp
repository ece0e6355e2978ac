// SPDX-License-Identifier: MIT
#include "vmm/core/board.hpp"

#include "vmm/core/guest_map.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <algorithm>
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
      pci_{parts.mmio, &reset_control_},
      ram_{parts.machine.ram},
      fw_cfg_{parts.machine} {
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
    HV_TRY(ports.add(map::kFwCfg, FwCfg::kSize, fw_cfg_));
    HV_TRY(ports.add(map::kCom1, Uart16550::kSize, uart_));
    HV_TRY(ports.add(map::kPm1aEvent, AcpiPm::kSize, pm_));
    HV_TRY(ports.add(map::kPciAddress, 8, pci_.ports()));
    HV_TRY(parts.mmio.add(map::kEcam, map::kEcamSize, pci_.ecam()));
    HV_TRY(parts.mmio.add(map::kIoApic, IoApic::kSize, io_apic_));
    HV_TRY(parts.mmio.add(map::kHpet, Hpet::kSize, hpet_));
    if (parts.debug_exit)
        HV_TRY(attach_test_device(parts));
    return {};
}

Expected<void> Board::attach_test_device(const Parts& parts) {
    namespace map = guest_map;
    TestDevice::Wires wires{};
    for (unsigned gsi = 0; gsi < wires.size(); ++gsi)
        wires[gsi] = irqs_.wire(gsi);
    test_device_ = HV_TRY(make<TestDevice>(wires));
    HV_TRY(parts.ports.add(map::kDebugExit, 4, debug_exit_));
    HV_TRY(parts.ports.add(map::kTestRegister, test_device_->register_block().kSize,
                           test_device_->register_block()));
    HV_TRY(parts.ports.add(map::kTestFlush, 4, test_device_->flush()));
    HV_TRY(parts.ports.add(map::kTestLines, TestDevice::kLines, test_device_->lines()));
    return parts.mmio.add(map::kTestMemory, test_device_->memory().kSize, test_device_->memory());
}

void Board::connect(LocalApic& boot_processor) {
    intr_.connect(boot_processor.lint0(), io_apic_.ext_int_line());
    reset();
}

void Board::reset() {
    if (test_device_ != nullptr)  // before those whose wires it may hold
        test_device_->reset();
    fw_cfg_.reset();
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
    program_as_firmware();
}

void Board::program_as_firmware() {
    // The 8259s with the vectors that real mode knows; timer, keyboard, cascade and drives are unmasked.
    // Systems that put the masks back after they have moved the vectors count on it.
    struct Initialization {
        IoDevice& chip;
        std::uint8_t vectors, wiring, mask;
    };
    constexpr std::uint8_t ICW1 = 0x11, ICW4_8086 = 0x01;
    for (const Initialization& each :
         {Initialization{pic_.master(), 0x08, 0x04, 0xb8}, Initialization{pic_.slave(), 0x70, 0x02, 0x8f}}) {
        each.chip.write(0, 1, ICW1);
        for (const std::uint8_t value : {each.vectors, each.wiring, ICW4_8086, each.mask})
            each.chip.write(1, 1, value);
    }
    store_memory_size();
}

/// The size of memory in CMOS RAM, for kernels that nobody tells: 640 KiB, then what lies above 1 MiB in KiB
/// (up to 64 MiB), above 16 MiB and above 4 GiB in units of 64 KiB.
void Board::store_memory_size() {
    const auto store = [this](std::uint8_t index, unsigned bytes, std::uint64_t value) {
        for (unsigned i = 0; i < bytes; ++i)
            rtc_.set_ram(static_cast<std::uint8_t>(index + i), static_cast<std::uint8_t>(value >> (8 * i)));
    };
    constexpr std::uint64_t kUnit = 64 * kKiB, kSixteenMib = 16 * kMiB, kMost = 0xffff;
    const std::uint64_t low = std::min(ram_, GuestMemory::kLowEnd);
    const std::uint64_t extended = std::min(low > kMiB ? (low - kMiB) / kKiB : 0, kMost);
    store(0x15, 2, 640);
    store(0x17, 2, extended);
    store(0x30, 2, extended);
    store(0x34, 2, std::min(low > kSixteenMib ? (low - kSixteenMib) / kUnit : 0, kMost));
    store(0x5b, 3, (ram_ - low) / kUnit);
}

IrqLine& Board::pci_line(unsigned device) {
    return irqs_.pci(device % IrqRouter::kPciLines).source(device);
}

}  // namespace hv
