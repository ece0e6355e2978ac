// SPDX-License-Identifier: MIT
#include "vmm/devices/io_apic.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/bits.hpp"

namespace hv {
namespace {

/// Offsets in the register block.
constexpr std::uint64_t IOREGSEL = 0x00;
constexpr std::uint64_t IOWIN = 0x10;
constexpr std::uint64_t EOIR = 0x40;

/// Indices of the window.
constexpr std::uint8_t IOAPICID = 0x00;
constexpr std::uint8_t IOAPICVER = 0x01;
constexpr std::uint8_t IOAPICARB = 0x02;
constexpr std::uint8_t IOREDTBL = 0x10;

constexpr std::uint32_t kVersion = 0x20 | (IoApic::kPins - 1) << 16;
constexpr std::uint32_t kIdMask = 0x0f00'0000;

/// A redirection table entry.
struct Entry {
    using Vector = Bits<7, 0>;
    using Delivery = Bits<10, 8>;
    using Logical = Bits<11>;
    using ActiveLow = Bits<13>;
    using RemoteIrr = Bits<14>;
    using Level = Bits<15>;
    using Masked = Bits<16>;
    using Destination = Bits<63, 56>;
    static constexpr std::uint32_t kWritableLow = 0x1'afff;
    static constexpr std::uint32_t kWritableHigh = 0xff00'0000;
};

DeliveryMode delivery_mode(std::uint64_t entry) {
    return static_cast<DeliveryMode>(Entry::Delivery::get(entry));
}

/// Level-triggered in effect: the other delivery modes are edges whatever the entry says.
bool is_level(std::uint64_t entry) {
    const DeliveryMode mode = delivery_mode(entry);
    return Entry::Level::test(entry) &&
           (mode == DeliveryMode::fixed || mode == DeliveryMode::lowest_priority);
}

InterruptMessage message_of(std::uint64_t entry) {
    const auto destination = static_cast<std::uint32_t>(Entry::Destination::get(entry));
    return {destination == 0xff ? InterruptMessage::kBroadcast : destination,
            Entry::Logical::test(entry) ? DestinationMode::logical : DestinationMode::physical,
            delivery_mode(entry), is_level(entry) ? TriggerMode::level : TriggerMode::edge,
            static_cast<std::uint8_t>(entry)};
}

}  // namespace

IoApic::IoApic(InterruptBus& bus) : bus_{bus}, ext_int_{bus} {
    for (unsigned pin = 0; pin < kPins; ++pin)
        pins_[pin].attach(*this, static_cast<std::uint8_t>(pin));
    reset();
}

void IoApic::reset() {
    LockGuard guard{lock_};
    entries_.fill(Entry::Masked::kMask);
    id_ = 0;
    select_ = 0;
    ext_int_.route(0);
}

IrqLine& IoApic::line(unsigned gsi) {
    HV_ASSERT(gsi >= 1 && gsi < kPins);
    return pins_[gsi];
}

bool IoApic::active(unsigned pin) const {
    const std::uint32_t high = asserted_ ^ kActiveLowWires;
    return (high >> pin & 1) != Entry::ActiveLow::get(entries_[pin]);
}

void IoApic::set_pin(unsigned pin, bool asserted) {
    LockGuard guard{lock_};
    const bool was_active = active(pin);
    asserted_ = (asserted_ & ~(1U << pin)) | std::uint32_t{asserted} << pin;
    const std::uint64_t entry = entries_[pin];
    if (Entry::Masked::test(entry))
        return;
    if (is_level(entry))
        evaluate_level(pin);
    else if (active(pin) && !was_active)
        bus_.deliver(message_of(entry));
}

void IoApic::evaluate_level(unsigned pin) {
    std::uint64_t& entry = entries_[pin];
    if (Entry::Masked::test(entry) || Entry::RemoteIrr::test(entry) || !is_level(entry) || !active(pin))
        return;
    entry |= Entry::RemoteIrr::kMask;
    bus_.deliver(message_of(entry));
}

void IoApic::eoi(std::uint8_t vector) {
    LockGuard guard{lock_};
    for (unsigned pin = 0; pin < kPins; ++pin) {
        std::uint64_t& entry = entries_[pin];
        if (!Entry::RemoteIrr::test(entry) || Entry::Vector::get(entry) != vector)
            continue;
        entry &= ~Entry::RemoteIrr::kMask;
        evaluate_level(pin);
    }
}

void IoApic::ExtInt::set(bool asserted) {
    if (asserted_.exchange(asserted, std::memory_order_acq_rel) || !asserted)
        return;
    const std::uint64_t entry = entry_.load(std::memory_order_acquire);
    if (entry != 0)
        bus_.deliver(message_of(entry));
}

void IoApic::ExtInt::route(std::uint64_t entry) {
    const bool was_routed = entry_.exchange(entry, std::memory_order_acq_rel) != 0;
    if (entry != 0 && !was_routed && asserted_.load(std::memory_order_acquire))
        bus_.deliver(message_of(entry));
}

std::uint64_t IoApic::read(std::uint64_t offset, unsigned size) {
    // The registers are the first bytes of sixteen each.
    const unsigned byte = offset & 0xf;
    if (byte >= 4)
        return 0;
    LockGuard guard{lock_};
    switch (offset - byte) {
    case IOREGSEL: return (std::uint64_t{select_} >> (byte * 8)) & all_ones(size);
    case IOWIN: return (std::uint64_t{read_window()} >> (byte * 8)) & all_ones(size);
    default: return 0;
    }
}

void IoApic::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    switch (offset) {
    case IOREGSEL: {
        LockGuard guard{lock_};
        select_ = static_cast<std::uint8_t>(value);
        break;
    }
    case IOWIN:
        if (size >= 4) {  // the window takes double words only
            LockGuard guard{lock_};
            write_window(static_cast<std::uint32_t>(value));
        }
        break;
    case EOIR: eoi(static_cast<std::uint8_t>(value)); break;
    default: break;
    }
}

std::uint32_t IoApic::read_window() const {
    switch (select_) {
    case IOAPICID:
    case IOAPICARB: return id_;
    case IOAPICVER: return kVersion;
    default: break;
    }
    const unsigned index = select_ - IOREDTBL;
    if (select_ < IOREDTBL || index / 2 >= kPins)
        return 0;
    return static_cast<std::uint32_t>(entries_[index / 2] >> (index % 2 * 32));
}

void IoApic::write_window(std::uint32_t value) {
    if (select_ == IOAPICID) {
        id_ = value & kIdMask;
        return;
    }
    const unsigned index = select_ - IOREDTBL;
    const unsigned pin = index / 2;
    if (select_ < IOREDTBL || pin >= kPins)
        return;
    if (index % 2 == 0)
        write_entry_low(pin, value);
    else
        entries_[pin] = (entries_[pin] & 0xffff'ffff) | std::uint64_t{value & Entry::kWritableHigh} << 32;
    if (pin == 0) {
        const std::uint64_t entry = entries_[0];
        ext_int_.route(Entry::Masked::test(entry) || delivery_mode(entry) != DeliveryMode::ext_int ? 0
                                                                                                   : entry);
    } else {
        evaluate_level(pin);
    }
}

void IoApic::write_entry_low(unsigned pin, std::uint32_t value) {
    std::uint64_t& entry = entries_[pin];
    // An entry that becomes edge-triggered forgets an EOI that it waits for; systems without EOI register
    // rely on it.
    const std::uint64_t kept = Entry::Level::test(value) ? entry & Entry::RemoteIrr::kMask : 0;
    entry = (entry & ~std::uint64_t{0xffff'ffff}) | (value & Entry::kWritableLow) | kept;
}

}  // namespace hv
