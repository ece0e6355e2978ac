// SPDX-License-Identifier: MIT
#include "vmm/devices/pit8254.hpp"

namespace hv {
namespace {

constexpr std::uint64_t kControl = 3;
constexpr unsigned kSpeaker = 2;

// The control word: bits 7:6 select the counter, or read-back.
constexpr unsigned kReadBack = 3;
constexpr std::uint8_t kReadBackNoCount = 0x20;
constexpr std::uint8_t kReadBackNoStatus = 0x10;
constexpr std::uint8_t kAccess = 0x30;  ///< 0: latch the count

// Port 0x61
constexpr std::uint8_t GATE2 = 0x01;
constexpr std::uint8_t kWritable = 0x0f;
constexpr std::uint8_t REFRESH = 0x10;
constexpr std::uint8_t OUT2 = 0x20;
/// Memory refresh toggles its bit every 15 us: counter 1's 18 clocks.
constexpr std::uint64_t kRefreshClocks = 18;

}  // namespace

Pit8254::Pit8254(Clock& clock, IrqLine& irq) : clock_{clock, kHz}, irq_{irq} {
    channels_[kSpeaker].set_gate(false, 0);
}

void Pit8254::reset() {
    LockGuard guard{lock_};
    clock_.disarm(*this);
    channels_ = {};
    port61_bits_ = 0;
    channels_[kSpeaker].set_gate(false, 0);
    set_irq(false);
}

void Pit8254::set_irq(bool level) {
    if (level == irq_level_)
        return;
    irq_level_ = level;
    irq_.set(level);
}

void Pit8254::raise_irq() {
    set_irq(false);
    set_irq(true);
}

void Pit8254::deliver(std::uint64_t now) {
    const std::uint64_t rises = channels_[0].rises(delivered_, now);
    delivered_ = now;
    if (rises != 0 && late_.tick(rises, channels_[0].period(), now))
        raise_irq();
    channels_[0].settle(now);
}

void Pit8254::reprogrammed(std::uint64_t now) {
    delivered_ = now;
    late_.forgive();
    set_irq(channels_[0].output(now));
    if (const auto rise = channels_[0].next_rise(now))
        clock_.arm(*this, *rise);
    else
        clock_.disarm(*this);
}

void Pit8254::fire() {
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    deliver(now);
    const auto rise = channels_[0].next_rise(now);
    if (!rise)
        return;
    if (late_.pay(now, *rise))
        raise_irq();
    clock_.arm_again(*this, late_.next_event(*rise));
}

std::uint8_t Pit8254::read_byte(std::uint64_t offset) {
    if (offset == kControl)
        return 0xff;  // write-only
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    if (offset == 0)
        deliver(now);
    return channels_[offset].read(now);
}

void Pit8254::write_byte(std::uint64_t offset, std::uint8_t value) {
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    deliver(now);
    if (offset != kControl) {
        channels_[offset].write(value, now);
        if (offset == 0)
            reprogrammed(now);
        return;
    }
    const unsigned index = value >> 6;
    if (index == kReadBack) {
        read_back(value, now);
    } else if ((value & kAccess) == 0) {
        channels_[index].latch_count(now);
    } else {
        channels_[index].set_mode(value);
        if (index == 0)
            reprogrammed(now);
    }
}

void Pit8254::read_back(std::uint8_t command, std::uint64_t now) {
    for (unsigned index = 0; index < channels_.size(); ++index) {
        if ((command >> (index + 1) & 1) == 0)
            continue;
        if ((command & kReadBackNoCount) == 0)
            channels_[index].latch_count(now);
        if ((command & kReadBackNoStatus) == 0)
            channels_[index].latch_status(now);
    }
}

std::uint8_t Pit8254::read_port61() {
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    channels_[kSpeaker].settle(now);
    return static_cast<std::uint8_t>(port61_bits_ | (now / kRefreshClocks % 2 != 0 ? REFRESH : 0) |
                                     (channels_[kSpeaker].output(now) ? OUT2 : 0));
}

void Pit8254::write_port61(std::uint8_t value) {
    LockGuard guard{lock_};
    port61_bits_ = value & kWritable;
    channels_[kSpeaker].set_gate((value & GATE2) != 0, clock_.now());
}

}  // namespace hv
