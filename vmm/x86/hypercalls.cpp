// SPDX-License-Identifier: MIT
#include "vmm/x86/hypercalls.hpp"

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/base/bits.hpp"

#include <bit>

namespace hv::x86 {
namespace {

// [sdm3 11.6.1 Interrupt Command Register (ICR)]
using IcrVector = Bits<7, 0>;
using IcrMode = Bits<10, 8>;
using IcrLogical = Bits<11>;
using IcrLevel = Bits<15>;
using IcrShorthand = Bits<19, 18>;
constexpr std::uint8_t kFirstLegalVector = 16;

unsigned send_to_all(std::uint64_t bitmap, std::uint64_t first, InterruptMessage message, std::uint32_t vcpus,
                     InterruptBus& bus) {
    unsigned sent = 0;
    for (; bitmap != 0; bitmap &= bitmap - 1) {
        const std::uint64_t id = first + static_cast<unsigned>(std::countr_zero(bitmap));
        if (id >= vcpus)
            break;
        message.destination = static_cast<std::uint32_t>(id);
        bus.deliver(message);
        ++sent;
    }
    return sent;
}

std::int64_t send_ipis(const GuestCpu& cpu, const VcpuBackend& backend, InterruptBus& bus) {
    CpuState state;
    backend.get_state(state, RegSet::control | RegSet::segments);
    const bool wide = (state.efer & EFER_LMA) != 0 && state.seg(SegmentName::cs).long_mode();
    const auto argument = [&](Gpr name) {
        const std::uint64_t value = backend.regs.gpr[name];
        return wide ? value : static_cast<std::uint32_t>(value);
    };
    const std::uint64_t icr = argument(RSI);
    const auto mode = static_cast<DeliveryMode>(IcrMode::get(icr));
    const auto vector = static_cast<std::uint8_t>(IcrVector::get(icr));
    const bool known =
        mode == DeliveryMode::nmi || (mode == DeliveryMode::fixed && vector >= kFirstLegalVector);
    const std::uint64_t first = static_cast<std::uint32_t>(argument(RDX));
    if (first >= cpu.vcpus)
        return 0;
    if (!known || IcrLogical::test(icr) || IcrShorthand::get(icr) != 0)
        return static_cast<std::int64_t>(HypercallResult::invalid);
    const InterruptMessage message{.destination = 0,
                                   .destination_mode = DestinationMode::physical,
                                   .delivery_mode = mode,
                                   .trigger_mode =
                                       IcrLevel::test(icr) ? TriggerMode::level : TriggerMode::edge,
                                   .vector = vector};
    return send_to_all(argument(RBX), first, message, cpu.vcpus, bus) +
           send_to_all(argument(RCX), first + (wide ? 64 : 32), message, cpu.vcpus, bus);
}

}  // namespace

std::int64_t hypercall(const GuestCpu& cpu, const VcpuBackend& backend, InterruptBus& bus) {
    if (backend.cpl() != 0)
        return static_cast<std::int64_t>(HypercallResult::not_permitted);
    if (static_cast<std::uint32_t>(backend.regs.gpr[RAX]) == kSendIpi)
        return send_ipis(cpu, backend, bus);
    return static_cast<std::int64_t>(HypercallResult::unknown);
}

}  // namespace hv::x86
