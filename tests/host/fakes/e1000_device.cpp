// SPDX-License-Identifier: MIT
#include "fakes/e1000_device.hpp"

#include "fakes/machine.hpp"
#include "vmm/base/machine.hpp"

#include <algorithm>
#include <cstring>

namespace hv::fake {

using namespace netdrv::e1000;
using Kind = netdrv::E1000Kind;

namespace {

/// As rfc1071 defines it: 16-bit numbers, end-around carry.
unsigned sum_of(const E1000Device::Bytes& bytes, std::size_t begin, std::size_t end, unsigned sum = 0) {
    for (std::size_t i = begin; i < end; ++i) {
        sum += (i - begin) % 2 == 0 ? unsigned{bytes[i]} << 8 : bytes[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}
unsigned get16(const E1000Device::Bytes& bytes, std::size_t at) {
    return static_cast<unsigned>(bytes.at(at) << 8 | bytes.at(at + 1));
}
void put16(E1000Device::Bytes& bytes, std::size_t at, unsigned value) {
    bytes.at(at) = static_cast<std::uint8_t>(value >> 8);
    bytes.at(at + 1) = static_cast<std::uint8_t>(value);
}

}  // namespace

E1000Device::E1000Device(Kind kind, Clock& clock) : kind_{kind}, clock_{clock} {
    set_eeprom_mac({0x52, 0x54, 0x00, 0x12, 0x34, 0x56});
    // What firmware may leave behind: everything on.
    registers_[RCTL] = RCTL_EN;
    registers_[TCTL] = TCTL_EN;
    ims_ = ~0u;
    registers_[STATUS] = STATUS_GIO_MASTER_ENABLE;
}

void E1000Device::set_eeprom_mac(const MacAddress& mac) {
    eeprom.fill(0x0102);
    for (unsigned i = 0; i < 3; ++i)
        eeprom[i] = static_cast<std::uint16_t>(mac[2 * i] | mac[2 * i + 1] << 8);
    std::uint16_t sum = 0;
    for (unsigned i = 0; i + 1 < kEepromWords; ++i)
        sum = static_cast<std::uint16_t>(sum + eeprom[i]);
    eeprom.back() = static_cast<std::uint16_t>(kEepromSum - sum);
}

std::uint8_t E1000Device::read8(std::size_t /*offset*/) {
    violate("a read of 8 bits");
    return 0xff;
}
std::uint16_t E1000Device::read16(std::size_t /*offset*/) {
    violate("a read of 16 bits");
    return 0xffff;
}
void E1000Device::write8(std::size_t /*offset*/, std::uint8_t /*value*/) {
    violate("a write of 8 bits");
}
void E1000Device::write16(std::size_t /*offset*/, std::uint16_t /*value*/) {
    violate("a write of 16 bits");
}

std::uint32_t E1000Device::peek(std::size_t offset) const {
    const auto found = registers_.find(offset);
    return found == registers_.end() ? 0 : found->second;
}

std::uint32_t E1000Device::eeprom_answer() const {
    if (!eeprom_there || (peek(EERD) & EERD_START) == 0)
        return 0;
    const bool early = kind_ == Kind::i8254x;
    const std::uint32_t index = early ? peek(EERD) >> 8 & 0xff : peek(EERD) >> 2 & 0x3fff;
    return std::uint32_t{index < eeprom.size() ? eeprom[index] : 0xffffu} << 16 | (early ? 0x10u : 0x2u);
}

std::uint32_t E1000Device::read32(std::size_t offset) {
    if (vanished)
        return ~0u;
    if (clock_.now() < reset_until_)
        violate("a read during a reset");
    switch (offset) {
    case STATUS: {
        const bool master = master_sticks || (peek(CTRL) & CTRL_GIO_MASTER_DISABLE) == 0;
        return (link_ && (peek(CTRL) & CTRL_SLU) != 0 ? STATUS_LU : 0) | STATUS_FD | 2u << 6 |
               (kind_ == Kind::i82574 && master ? STATUS_GIO_MASTER_ENABLE : 0);
    }
    case CTRL: return peek(CTRL) | (in_endless_reset_ ? CTRL_RST : 0);
    case ICR: return std::exchange(icr_, 0);
    case IMS: return ims_;
    case EERD: return eeprom_answer();
    case MPC: return std::exchange(registers_[MPC], 0);
    default: return peek(offset);
    }
}

void E1000Device::reset() {
    ++resets;
    // Receive addresses are loaded from the EEPROM, which Bochs does not do; tests poke them.
    const std::uint32_t low = peek(RAL0);
    const std::uint32_t high = peek(RAH0);
    registers_.clear();
    registers_[RAL0] = low;
    registers_[RAH0] = high;
    icr_ = ims_ = 0;
    has_context_ = false;
    data_.clear();
    hung = hung && !reset_cures;
    in_endless_reset_ = reset_sticks;
    reset_until_ = clock_.now() + clock_.from_nanoseconds(1'000'000);
}

void E1000Device::write32(std::size_t offset, std::uint32_t value) {
    if (vanished)
        return;
    if (clock_.now() < reset_until_)
        violate("a write during a reset");
    ++writes[offset];
    switch (offset) {
    case CTRL:
        if ((value & CTRL_RST) != 0)
            return reset();
        registers_[CTRL] = value;
        return;
    case ICR: icr_ &= ~value; return;
    case IMS: ims_ |= value; return;
    case IMC: ims_ &= ~value; return;
    case RDBAL:
    case RDLEN:
    case RDH:
        if ((peek(RCTL) & RCTL_EN) != 0)
            violate("the receive ring was moved while in use");
        break;
    case TDBAL:
    case TDLEN:
    case TDH:
        if ((peek(TCTL) & TCTL_EN) != 0)
            violate("the transmit ring was moved while in use");
        break;
    case RDT:
        if (value >= peek(RDLEN) / sizeof(ReceiveDescriptor))
            violate("RDT outside of the ring");
        break;
    default: break;
    }
    registers_[offset] = value;
    if (offset == TDT || offset == TCTL)
        send_all();
}

std::byte* E1000Device::memory(std::uint64_t address, std::size_t size) {
    if (address < kPageSize || address + size > kPhysicalMemory) {
        violate("an address outside of memory");
        address = kPageSize;
    }
    return machine::hva(Hpa{address});
}

// --- receiving
// -------------------------------------------------------------------------------------------------------------

std::uint64_t E1000Device::checksum_report(const Bytes& frame) const {
    using D = ReceiveDescriptor;
    const bool is_tcp4 =
        frame.size() >= 54 && get16(frame, 12) == 0x0800 && frame[14] == 0x45 && frame[23] == 6;
    if ((peek(RXCSUM) & RXCSUM_TUOFLD) == 0 || !is_tcp4)
        return D::IXSM::kMask;
    const std::size_t end = 14 + get16(frame, 16);
    if (end > frame.size() || end < 54)
        return D::IXSM::kMask;
    const unsigned pseudo = sum_of(frame, 26, 34) + 6 + static_cast<unsigned>(end - 34);
    const bool good = sum_of(frame, 34, end, (pseudo & 0xffff) + (pseudo >> 16)) == 0xffff;
    return D::TCPCS::kMask | (good ? 0 : D::TCPE::kMask);
}

bool E1000Device::receive(const Bytes& frame) {
    using D = ReceiveDescriptor;
    const auto count = static_cast<std::uint32_t>(peek(RDLEN) / sizeof(D));
    if (vanished || (peek(RCTL) & RCTL_EN) == 0)
        return false;
    if (peek(RDH) == peek(RDT)) {
        ++registers_[MPC];
        raise(ICR_RXO);
        return false;
    }
    const std::uint64_t ring = std::uint64_t{peek(RDBAH)} << 32 | peek(RDBAL);
    auto* descriptor = reinterpret_cast<D*>(memory(ring + peek(RDH) * sizeof(D), sizeof(D)));
    if (descriptor->result != 0)
        violate("a receive buffer was given without clearing its status");
    Bytes stored = frame;
    if (keeps_fcs)
        stored.resize(frame.size() + 4, 0xfc);
    std::memcpy(memory(descriptor->address, 2048), stored.data(), std::min<std::size_t>(stored.size(), 2048));
    const std::uint64_t result = D::DD::kMask | D::EOP::kMask | checksum_report(frame) |
                                 report_length.value_or(static_cast<std::uint16_t>(stored.size()));
    descriptor->result = (result & ~report_clear) | report_set;
    registers_[RDH] = (peek(RDH) + 1) % count;
    raise(ICR_RXT0);
    return true;
}

void E1000Device::set_link(bool up) {
    link_ = up;
    raise(ICR_LSC);
}

// --- sending
// ---------------------------------------------------------------------------------------------------------------

void E1000Device::send_all() {
    const auto count = static_cast<std::uint32_t>(peek(TDLEN) / sizeof(Descriptor));
    if ((peek(TCTL) & TCTL_EN) == 0 || hung || count == 0)
        return;
    if (peek(TDT) >= count)
        return violate("TDT outside of the ring");
    const std::uint64_t ring = std::uint64_t{peek(TDBAH)} << 32 | peek(TDBAL);
    while (peek(TDH) != peek(TDT)) {
        auto* descriptor =
            reinterpret_cast<Descriptor*>(memory(ring + peek(TDH) * sizeof(Descriptor), sizeof(Descriptor)));
        process(*descriptor);
        registers_[TDH] = (peek(TDH) + 1) % count;
    }
}

void E1000Device::process(Descriptor& descriptor) {
    using D = Descriptor;
    if (D::DD::test(descriptor.high))
        violate("a descriptor was queued as done");
    if (!D::DEXT::test(descriptor.high))
        return violate("a legacy descriptor");
    if (D::DTYP::get(descriptor.high) == D::kContext) {
        if (!data_.empty())
            violate("a context within a frame");
        context_ = descriptor;
        has_context_ = true;
        return;
    }
    const std::size_t size = D::DTALEN::get(descriptor.high);
    if (size == 0 || size > 4096)
        violate("a data descriptor of a wrong length");
    if (data_.empty()) {
        flags_ = descriptor.high;
        first_size_ = size;
    }
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(memory(descriptor.low, size));
    data_.insert(data_.end(), bytes, bytes + size);
    if (D::EOP::test(descriptor.high)) {
        finish_frame();
        data_.clear();
    }
    if (D::RS::test(descriptor.high))
        descriptor.high |= D::DD::kMask;
}

void E1000Device::sum_frame(Bytes& frame) {
    using D = Descriptor;
    const auto sum_at = [&](std::size_t start, std::size_t offset, std::size_t last) {
        const std::size_t end = last == 0 ? frame.size() : last + 1;
        if (start >= end || end > frame.size() || offset + 2 > frame.size())
            return violate("a checksum outside of its frame");
        put16(frame, offset, ~sum_of(frame, start, end));
    };
    if (!has_context_)
        violate("a checksum without a context");
    checksums += D::TXSM::test(flags_) ? 1 : 0;
    if (D::TXSM::test(flags_))
        sum_at(D::TUCSS::get(context_.low), D::TUCSO::get(context_.low), D::TUCSE::get(context_.low));
    if (D::IXSM::test(flags_))
        sum_at(D::IPCSS::get(context_.low), D::IPCSO::get(context_.low), D::IPCSE::get(context_.low));
}

void E1000Device::finish_frame() {
    using D = Descriptor;
    if (!D::IFCS::test(flags_))
        violate("a frame without FCS");
    if (D::TSE::test(flags_))
        return cut_frame();
    if (data_.size() < 60)
        violate("a frame that was not padded");
    if (data_.size() > net::kMaxWireFrameSize)
        violate("a frame too long for the wire");
    if (D::TXSM::test(flags_) || D::IXSM::test(flags_))
        sum_frame(data_);
    sent.push_back(data_);
}

// [8254x 3.5.9 IP/TCP/UDP Header Updating]
void E1000Device::cut_frame() {
    using D = Descriptor;
    const std::size_t header = D::HDRLEN::get(context_.high);
    const std::size_t payload = D::PAYLEN::get(context_.high);
    const std::size_t mss = D::MSS::get(context_.high);
    const std::size_t ip = D::IPCSS::get(context_.low);
    const std::size_t tcp = D::TUCSS::get(context_.low);
    const bool is_v4 = D::IP::test(context_.high);
    const std::size_t length_at = ip + (is_v4 ? 2 : 4);
    if (!has_context_ || !D::TSE::test(context_.high) || !D::TCP::test(context_.high) || mss == 0 ||
        payload == 0 || header + payload != data_.size())
        return violate("a segmentation without a fitting context");
    if (first_size_ < header)
        violate("headers in several descriptors");
    if (get16(data_, length_at) != 0 || (is_v4 && get16(data_, ip + 10) != 0))
        violate("a prototype header with a length or checksum of IP");
    for (std::size_t at = 0, index = 0; at < payload; at += mss, ++index) {
        const std::size_t size = std::min(mss, payload - at);
        const bool last = at + size == payload;
        Bytes frame(data_.begin(), data_.begin() + static_cast<std::ptrdiff_t>(header));
        const auto from = data_.begin() + static_cast<std::ptrdiff_t>(header + at);
        frame.insert(frame.end(), from, from + static_cast<std::ptrdiff_t>(size));
        put16(frame, length_at, static_cast<unsigned>(frame.size() - ip - (is_v4 ? 0 : 40)));
        if (is_v4)
            put16(frame, ip + 4, static_cast<unsigned>(get16(frame, ip + 4) + index));
        const std::uint32_t sequence =
            (get16(frame, tcp + 4) << 16 | get16(frame, tcp + 6)) + static_cast<std::uint32_t>(at);
        put16(frame, tcp + 4, sequence >> 16);
        put16(frame, tcp + 6, sequence & 0xffff);
        if (!last)
            frame[tcp + 13] &= static_cast<std::uint8_t>(~0x09);
        const unsigned sum = get16(frame, tcp + 16) + static_cast<unsigned>(frame.size() - tcp);
        put16(frame, tcp + 16, (sum & 0xffff) + (sum >> 16));
        sum_frame(frame);
        if (frame.size() > net::kMaxWireFrameSize)
            violate("a segment too long for the wire");
        sent.push_back(frame);
    }
}

}  // namespace hv::fake
