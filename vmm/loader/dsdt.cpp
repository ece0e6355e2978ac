// SPDX-License-Identifier: MIT
// Processors are in the MADT alone: device objects for them would add nothing but power management that a
// guest lacks.
#include "vmm/loader/dsdt.hpp"

#include "vmm/core/guest_map.hpp"
#include "vmm/devices/hpet.hpp"
#include "vmm/devices/irq_router.hpp"

namespace hv::loader {
namespace {

constexpr std::uint32_t low(std::uint64_t address) {
    return static_cast<std::uint32_t>(address);
}

/// A routing table [acpi 6.2.13 _PRT (PCI Routing Table)]: where INTA of each device arrives; device 0 is the
/// bridge itself, and no function has another pin.
template <class Interrupt>
void write_routes(std::string_view name, AmlWriter& aml, Interrupt&& interrupt_of) {
    constexpr std::uint8_t kDevices = 31;
    constexpr unsigned kPinA = 0;
    aml.name_package(name, kDevices, [&] {
        for (unsigned device = 1; device <= kDevices; ++device)
            aml.package(4, [&] {
                aml.integer(std::uint64_t{device} << 16 | 0xffff);  // any function
                aml.integer(kPinA);
                aml.integer(0);  // no link device: the next is a GSI
                aml.integer(interrupt_of(device));
            });
    });
}

/// The I/O APIC's inputs, or the 8259s' where the system said by _PIC that it uses those, or says nothing.
void write_interrupt_routing(AmlWriter& aml) {
    write_routes("PRTA", aml, [](unsigned device) { return guest_map::gsi_of_pci(device, 0); });
    write_routes("PRTP", aml,
                 [](unsigned device) { return IrqRouter::pic_irq_of_pci(device % IrqRouter::kPciLines); });
    aml.method("_PRT", 0, [&] {
        aml.if_set("PICM", [&] { aml.return_object("PRTA"); });
        aml.return_object("PRTP");
    });
}

/// [acpi 5.8.1 _PIC Method]: 0 for the 8259s, 1 for I/O APICs.
void write_interrupt_model(AmlWriter& aml) {
    aml.name("PICM", 0);
    aml.method("_PIC", 1, [&] { aml.store_argument("PICM"); });
}

void write_pci_host_bridge(AmlWriter& aml) {
    aml.device("PCI0", [&] {
        aml.name_eisa_id("_HID", "PNP0A08");
        aml.name_eisa_id("_CID", "PNP0A03");
        aml.name("_UID", 0);
        aml.name("_SEG", 0);
        aml.name("_BBN", 0);
        aml.current_resources([&] {
            aml.bus_window(0, 0);
            aml.io_ports(guest_map::kPciAddress, 8);
            aml.io_window(0, guest_map::kPciAddress - 1);
            aml.io_window(guest_map::kPciAddress + 8, 0xffff);
            aml.memory_window(low(guest_map::kPciWindow), low(guest_map::kPciWindowEnd - 1));
        });
        write_interrupt_routing(aml);
    });
}

/// What no driver claims, and nothing else may be put on.
void write_motherboard(AmlWriter& aml) {
    aml.device("MBRD", [&] {
        aml.name_eisa_id("_HID", "PNP0C02");
        aml.name("_UID", 0);
        aml.current_resources([&] {
            aml.memory(low(guest_map::kEcam), low(guest_map::kEcamSize));
            aml.io_ports(guest_map::kPm1aEvent, 16);
            aml.io_ports(guest_map::kElcr, 2);
        });
    });
}

void write_legacy_devices(AmlWriter& aml) {
    aml.device("COM1", [&] {
        aml.name_eisa_id("_HID", "PNP0501");
        aml.name("_UID", 1);
        aml.current_resources([&] {
            aml.io_ports(guest_map::kCom1, 8);
            aml.irq(guest_map::kGsiCom1);
        });
    });
    aml.device("RTC", [&] {
        aml.name_eisa_id("_HID", "PNP0B00");
        aml.current_resources([&] {
            aml.io_ports(guest_map::kRtc, 2);
            aml.irq(guest_map::kGsiRtc);
        });
    });
}

void write_hpet(AmlWriter& aml) {
    aml.device("HPET", [&] {
        aml.name_eisa_id("_HID", "PNP0103");
        aml.name("_UID", 0);
        aml.current_resources([&] { aml.memory(low(guest_map::kHpet), low(Hpet::kSize)); });
    });
}

}  // namespace

void write_dsdt(const AcpiBoard& board, AmlWriter& aml) {
    // SLP_TYP for PM1a and PM1b, two reserved [acpi 7.4.2 \_Sx states].
    aml.name_package("\\_S5", 4, [&] {
        for (const std::uint64_t each :
             {std::uint64_t{guest_map::kSleepTypeS5}, std::uint64_t{0}, std::uint64_t{0}, std::uint64_t{0}})
            aml.integer(each);
    });
    write_interrupt_model(aml);
    aml.scope("\\_SB", [&] {
        write_pci_host_bridge(aml);
        write_motherboard(aml);
        write_legacy_devices(aml);
        if (board.hpet)
            write_hpet(aml);
    });
}

}  // namespace hv::loader
