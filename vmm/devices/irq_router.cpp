// SPDX-License-Identifier: MIT
#include "vmm/devices/irq_router.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/devices/io_apic.hpp"
#include "vmm/devices/pic8259.hpp"

namespace hv {

void SharedIrqLine::connect(IrqLine& output) {
    output_ = &output;
    for (unsigned index = 0; index < kSources; ++index)
        sources_[index].attach(*this, std::uint32_t{1} << index);
}

IrqLine& SharedIrqLine::source(unsigned index) {
    HV_ASSERT(index < kSources);
    return sources_[index];
}

void SharedIrqLine::set(std::uint32_t mask, bool asserted) {
    const std::uint32_t before = asserted ? asserted_.fetch_or(mask) : asserted_.fetch_and(~mask);
    const std::uint32_t after = asserted ? before | mask : before & ~mask;
    if ((before != 0) != (after != 0))
        settle(*output_, [this] { return asserted_.load() != 0; });
}

bool IrqSelector::level() const {
    const std::uint32_t state = state_.load();
    return (state & ((state & kSecondSelected) != 0 ? 2 : 1)) != 0;
}

void IrqSelector::set(std::uint32_t mask, bool asserted) {
    const std::uint32_t before = asserted ? state_.fetch_or(mask) : state_.fetch_and(~mask);
    const bool second = (before & kSecondSelected) != 0;
    if (((before & mask) != 0) != asserted && second == (mask == 2))
        settle(*output_, [this] { return level(); });
}

void IrqSelector::select(unsigned index) {
    const bool before = level();
    if (index != 0)
        state_.fetch_or(kSecondSelected);
    else
        state_.fetch_and(~kSecondSelected);
    if (level() != before)
        settle(*output_, [this] { return level(); });
}

IrqRouter::IrqRouter(Pic8259& pic, IoApic& io_apic) {
    for (unsigned line = 0; line < pci_pic_.size(); ++line)
        pci_pic_[line].connect(pic.line(pic_irq_of_pci(line)));
    for (unsigned irq = 0; irq < isa_.size(); ++irq) {
        if (irq == guest_map::kGsiPit)  // the cascade
            continue;
        const unsigned shared = irq - pic_irq_of_pci(0);
        IrqLine& pic_line = shared < pci_pic_.size() ? pci_pic_[shared].source(kIsaSource) : pic.line(irq);
        isa_[irq].connect(pic_line, io_apic.line(irq == 0 ? guest_map::kGsiPit : irq));
    }
    pit_.connect(isa_[0]);
    rtc_.connect(isa_[guest_map::kGsiRtc]);
    for (unsigned index = 0; index < kPciLines; ++index) {
        pci_wires_[index].connect(io_apic.line(guest_map::kGsiPciFirst + index),
                                  pci_pic_[index % 2].source(index));
        pci_[index].connect(pci_wires_[index]);
    }
}

IrqLine& IrqRouter::isa(unsigned irq) {
    HV_ASSERT(irq < isa_.size() && irq != 0 && irq != guest_map::kGsiPit && irq != guest_map::kGsiRtc);
    return isa_[irq];
}

IrqLine* IrqRouter::wire(unsigned gsi) {
    if (gsi >= guest_map::kGsiPciFirst)
        return &pci(gsi - guest_map::kGsiPciFirst).source(kTestSource);
    return gsi != guest_map::kGsiPit ? &isa_[gsi] : nullptr;
}

SharedIrqLine& IrqRouter::pci(unsigned index) {
    HV_ASSERT(index < kPciLines);
    return pci_[index];
}

}  // namespace hv
