// SPDX-License-Identifier: MIT
// How the guest reaches the registers: the xAPIC page [sdm3 11.4.1 The Local APIC Block Diagram], the x2APIC
// MSRs [sdm3 11.12.1.2 x2APIC Register Address Space], IA32_APIC_BASE; and what a write to the ICR sends.
#include "vmm/core/io_device.hpp"
#include "vmm/x86/local_apic.hpp"

#include <array>

namespace hv {

using namespace apic;

namespace {

constexpr bool is_lvt(std::uint32_t index) {
    return index >= LVT_TIMER && index <= LVT_ERROR;
}

/// A set of registers, a bit for each index; both modes' registers lie below 64.
class Registers {
public:
    constexpr void add(std::uint32_t first, std::uint32_t last) {
        for (std::uint32_t index = first; index <= last; ++index)
            bits_ |= bit(index);
    }
    constexpr void remove(std::uint32_t index) { bits_ &= ~bit(index); }
    [[nodiscard]] constexpr bool contains(std::uint32_t index) const {
        return index < 64 && (bits_ >> index & 1) != 0;
    }

private:
    std::uint64_t bits_{0};
};

/// Registers that xAPIC mode has. The remote read register is none of them, but reports no error.
constexpr Registers kXapic = [] {
    Registers set;
    set.add(ID, VERSION);
    set.add(TPR, ESR);
    set.add(ICR, CURRENT_COUNT);
    set.add(DIVIDE, DIVIDE);
    return set;
}();

constexpr Registers kReadableMsrs = [] {
    Registers set = kXapic;
    for (const std::uint32_t index : {APR, EOI, RRD, DFR, ICR_HIGH})
        set.remove(index);
    return set;
}();

constexpr Registers kWritableMsrs = [] {
    Registers set;
    for (const std::uint32_t index : {TPR, EOI, SVR, ESR, ICR, INITIAL_COUNT, DIVIDE, SELF_IPI})
        set.add(index, index);
    set.add(LVT_TIMER, LVT_ERROR);
    return set;
}();

/// Bits that a write to an x2APIC register may have set.
constexpr std::array<std::uint64_t, 64> kMsrBits = [] {
    std::array<std::uint64_t, 64> bits{};
    bits[TPR] = bits[SELF_IPI] = 0xff;
    bits[SVR] = Svr::kWritable;
    bits[ICR] = ~std::uint64_t{Icr::kReserved};
    bits[INITIAL_COUNT] = 0xffff'ffff;
    bits[DIVIDE] = 0xb;
    for (std::uint32_t index = LVT_TIMER; index <= LVT_ERROR; ++index)
        bits[index] = Lvt::kWritable[index - LVT_TIMER] | Lvt::kReadOnly;
    return bits;
}();

}  // namespace

std::uint64_t LocalApic::mmio_read(std::uint64_t offset, unsigned size) {
    if (!mmio_enabled())
        return all_ones(size);
    const auto index = static_cast<std::uint32_t>(offset >> 4);
    if (!kXapic.contains(index)) {
        report_error(ILLEGAL_REGISTER);
        return 0;
    }
    // A register is the first four of its sixteen bytes. Other than whole reads are undefined: they get the
    // bytes.
    const unsigned byte = offset & 0xf;
    if (byte >= 4)
        return 0;
    const std::uint32_t value = read_register(index);
    return byte == 0 && size == 4 ? value : (value >> (byte * 8)) & all_ones(size);
}

void LocalApic::mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (!mmio_enabled() || size != 4 || (offset & 0xf) != 0)
        return;
    const auto index = static_cast<std::uint32_t>(offset >> 4);
    const auto word = static_cast<std::uint32_t>(value);
    switch (index) {
    case LDR:
        ldr_ = static_cast<std::uint8_t>(word >> 24);
        publish_address();
        changed(LDR);
        break;
    case DFR:
        dfr_ = static_cast<std::uint8_t>(word >> 28);
        publish_address();
        changed(DFR);
        break;
    case ICR_HIGH:
        icr_ = (icr_ & 0xffff'ffff) | std::uint64_t{word & 0xff00'0000} << 32;
        changed(ICR_HIGH);
        break;
    case ICR:
        icr_ = (icr_ & ~std::uint64_t{0xffff'ffff}) | (word & Icr::kWritable);
        changed(ICR);
        send(icr_);
        break;
    case TPR:
    case EOI:
    case SVR:
    case ESR:
    case INITIAL_COUNT:
    case DIVIDE: write_register(index, word); break;
    default:
        if (is_lvt(index))
            write_register(index, word);
        else if (!kXapic.contains(index))
            report_error(ILLEGAL_REGISTER);
        break;  // the others are read-only
    }
}

Expected<std::uint64_t> LocalApic::read_msr(std::uint32_t msr) {
    const std::uint32_t index = msr - kFirstMsr;
    if (!x2apic() || !kReadableMsrs.contains(index))
        return Unexpected{Error::guest_fault};
    if (index == ICR)
        return std::uint64_t{icr_};
    return std::uint64_t{read_register(index)};
}

Expected<void> LocalApic::write_msr(std::uint32_t msr, std::uint64_t value) {
    const std::uint32_t index = msr - kFirstMsr;
    if (!x2apic())
        return Unexpected{Error::guest_fault};
    if (index == EOI && value == 0) [[likely]] {
        eoi();
        return {};
    }
    if (!kWritableMsrs.contains(index) || (value & ~kMsrBits[index]) != 0)
        return Unexpected{Error::guest_fault};
    switch (index) {
    case ICR:
        icr_ = value & (~std::uint64_t{0xffff'ffff} | Icr::kWritable);
        send(icr_);
        break;
    case INITIAL_COUNT: timer_.set_initial_count(static_cast<std::uint32_t>(value)); break;
    case SELF_IPI: write_self_ipi(static_cast<std::uint8_t>(value)); break;
    default: write_register(index, static_cast<std::uint32_t>(value)); break;
    }
    return {};
}

Expected<void> LocalApic::set_apic_base(std::uint64_t value) {
    if (value == base_)
        return {};
    constexpr std::uint64_t kKnown = Base::Bsp::kMask | Base::X2apic::kMask | Base::Enabled::kMask;
    const std::uint64_t address_bits = (bit(config_.physical_address_bits) - 1) & ~(kPageSize - 1);
    const bool to_enabled = Base::Enabled::test(value);
    const bool to_x2apic = Base::X2apic::test(value);
    if ((value & ~(kKnown | address_bits)) != 0 || (to_x2apic && !config_.x2apic))
        return Unexpected{Error::guest_fault};
    // [sdm3 11.12.5 x2APIC State Transitions]: x2APIC mode is entered from xAPIC mode and left to the
    // disabled state.
    const bool legal = to_x2apic ? to_enabled && enabled() : !to_enabled || !x2apic();
    if (!legal)
        return Unexpected{Error::guest_fault};

    const bool disabled = enabled() && !to_enabled;
    if (hardware_.delivers() && mmio_enabled())
        icr_ = hardware_icr();
    if (to_x2apic && !x2apic())
        icr_ &= 0xffff'ffff;
    base_ = value;
    if (disabled)
        init_reset();
    else
        publish_address();
    change_hardware_mode();
    owner_.priority_changed();  // of a disabled APIC, LINT0 is INTR
    return {};
}

// --- interprocessor interrupts ---------------------------------------------------------------------------

void LocalApic::write_self_ipi(std::uint8_t vector) {
    if (vector < kFirstVector)
        report_error(SEND_ILLEGAL_VECTOR);
    else
        accept_local(vector, TriggerMode::edge);
}

void LocalApic::send(std::uint64_t icr) {
    auto destination = static_cast<std::uint32_t>(x2apic() ? Icr::X2apicDestination::get(icr)
                                                           : Icr::XapicDestination::get(icr));
    if (!x2apic() && destination == 0xff)
        destination = InterruptMessage::kBroadcast;
    // All but INIT level de-assert go out as edges [sdm3 Table 11-3. Valid Combinations for the Pentium 4 and
    // Intel Xeon Processors' Local xAPIC Interrupt Command Register].
    const InterruptMessage message{
        destination, Icr::Logical::test(icr) ? DestinationMode::logical : DestinationMode::physical,
        static_cast<DeliveryMode>(Icr::Delivery::get(icr)), TriggerMode::edge,
        static_cast<std::uint8_t>(icr)};
    switch (message.delivery_mode) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowest_priority:
        if (message.vector < kFirstVector) {
            report_error(SEND_ILLEGAL_VECTOR);
            return;
        }
        break;
    case DeliveryMode::init:
        if (Icr::Level::test(icr) && !Icr::Assert::test(icr))
            return;  // level de-assert: only arbitration IDs of long ago cared
        break;
    case DeliveryMode::nmi:
    case DeliveryMode::startup: break;
    case DeliveryMode::smi:
    case DeliveryMode::reserved:
    case DeliveryMode::ext_int: return;
    }
    const auto shorthand = static_cast<Shorthand>(Icr::Shorthand::get(icr));
    if (shorthand != Shorthand::none)
        send_shorthand(message, shorthand);
    else if (message.destination_mode == DestinationMode::physical && destination == config_.id)
        send_to_self(message);
    else
        fabric_.deliver(message);
}

void LocalApic::send_shorthand(InterruptMessage message, Shorthand shorthand) {
    message.destination = InterruptMessage::kBroadcast;
    message.destination_mode = DestinationMode::physical;
    if (shorthand == Shorthand::others) {
        fabric_.deliver_except(message, this);
        return;
    }
    // Those that include the sender are for fixed interrupts; processors also take NMI.
    if (message.delivery_mode != DeliveryMode::fixed && message.delivery_mode != DeliveryMode::nmi)
        return;
    if (shorthand == Shorthand::all)
        fabric_.deliver_except(message, this);
    send_to_self(message);
}

void LocalApic::send_to_self(const InterruptMessage& message) {
    const bool fixed = message.delivery_mode == DeliveryMode::fixed ||
                       message.delivery_mode == DeliveryMode::lowest_priority;
    if (fixed)
        accept_local(message.vector, TriggerMode::edge);
    else
        receive(message);
}

}  // namespace hv
