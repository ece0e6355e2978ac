// SPDX-License-Identifier: MIT
#include "vmm/devices/hpet.hpp"

#include "vmm/base/bits.hpp"
#include "vmm/devices/irq_router.hpp"

#include <algorithm>
#include <limits>

namespace hv {
namespace {

/// Registers [hpet1.0a 2.3 Memory Mapped Registers].
enum Register : std::uint64_t {
    GCAP_ID = 0x000,
    GEN_CONF = 0x010,
    GINTR_STA = 0x020,
    MAIN_CNT = 0x0f0,
    TIMERS = 0x100,
    TIMER_SIZE = 0x20,
    TIMER_CONF = 0x00,
    TIMER_CMP = 0x08,
};

constexpr std::uint64_t kPeriodFemtoseconds = 1'000'000'000'000'000 / Hpet::kHz;
constexpr std::uint64_t LEGACY_CAPABLE = bit(15);
constexpr std::uint64_t COUNTER_64 = bit(13);
constexpr std::uint64_t kCapabilities = kPeriodFemtoseconds << 32 |
                                        std::uint64_t{Hpet::kHardwareId >> 16} << 16 | LEGACY_CAPABLE |
                                        COUNTER_64 | (Hpet::kComparators - 1) << 8 | 0x01;

constexpr std::uint64_t ENABLE = bit(0);
constexpr std::uint64_t LEGACY = bit(1);

constexpr std::uint64_t INT_LEVEL = bit(1);
constexpr std::uint64_t INT_ENABLE = bit(2);
constexpr std::uint64_t PERIODIC = bit(3);
constexpr std::uint64_t PERIODIC_CAPABLE = bit(4);
constexpr std::uint64_t SIZE_64 = bit(5);
constexpr std::uint64_t VAL_SET = bit(6);
constexpr std::uint64_t MODE_32 = bit(8);
using Route = Bits<13, 9>;
constexpr std::uint64_t kTimerWritable = INT_LEVEL | INT_ENABLE | PERIODIC | VAL_SET | MODE_32 | Route::kMask;
constexpr std::uint64_t kTimerFixed =
    PERIODIC_CAPABLE | SIZE_64 | (bit(Hpet::kGsis) - 1) << Hpet::kFirstGsi << 32;

constexpr std::uint64_t kLow = 0xffff'ffff;
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

}  // namespace

Hpet::Hpet(Clock& clock, const Wiring& wiring) : clock_{clock, kHz}, wiring_{wiring} {}

void Hpet::reset() {
    LockGuard guard{lock_};
    clock_.disarm(*this);
    status_ = 0;
    for (unsigned index = 0; index < kComparators; ++index)
        update_level(index);
    comparators_ = {};
    config_ = 0;
    halted_ = 0;
    wiring_.irq0.select(0);
    wiring_.irq8.select(0);
}

bool Hpet::enabled() const {
    return (config_ & ENABLE) != 0;
}
bool Hpet::legacy() const {
    return (config_ & LEGACY) != 0;
}

IrqLine* Hpet::line_of(unsigned index) const {
    if (legacy() && index < 2)
        return index == 0 ? &wiring_.irq0.input(1) : &wiring_.irq8.input(1);
    const std::uint64_t route = Route::get(comparators_[index].config) - kFirstGsi;
    return route < kGsis ? wiring_.gsis[route] : nullptr;
}

void Hpet::update_level(unsigned index) {
    Comparator& comparator = comparators_[index];
    const bool asserted = enabled() && (status_ >> index & 1) != 0 &&
                          (comparator.config & (INT_LEVEL | INT_ENABLE)) == (INT_LEVEL | INT_ENABLE);
    IrqLine* line = asserted ? line_of(index) : nullptr;
    if (line == comparator.driven)
        return;
    if (comparator.driven != nullptr)
        comparator.driven->set(false);
    comparator.driven = line;
    if (line != nullptr)
        line->set(true);
}

void Hpet::raise(unsigned index) {
    const std::uint64_t config = comparators_[index].config;
    if ((config & INT_LEVEL) != 0) {
        status_ |= bit(index);
        update_level(index);
        return;
    }
    IrqLine* line = line_of(index);
    if ((config & INT_ENABLE) == 0 || line == nullptr)
        return;
    line->set(true);
    line->set(false);
}

void Hpet::place(Comparator& comparator, std::uint64_t now) const {
    if (!enabled()) {
        comparator.match.reset();
        return;
    }
    std::uint64_t ahead = comparator.value - counter(now);
    if ((comparator.config & MODE_32) != 0)
        ahead &= kLow;
    if (ahead > kNever - now)
        comparator.match.reset();  // after all time
    else
        comparator.match = now + ahead;
}

void Hpet::advance(std::uint64_t now) {
    if (!enabled())
        return;
    for (unsigned index = 0; index < kComparators; ++index) {
        Comparator& comparator = comparators_[index];
        if (!comparator.match || *comparator.match > now)
            continue;
        const bool narrow = (comparator.config & MODE_32) != 0;
        bool raises = true;
        if ((comparator.config & PERIODIC) != 0 && comparator.period != 0) {
            // Matches that nobody came for in time are one interrupt, or owed. A level stays until it is
            // ended.
            const std::uint64_t steps = (now - *comparator.match) / comparator.period + 1;
            comparator.value += steps * comparator.period;
            if (narrow)
                comparator.value &= kLow;
            const std::uint64_t passed = (steps - 1) * comparator.period;  // at most now - match
            if ((comparator.config & (INT_LEVEL | INT_ENABLE)) == INT_ENABLE) {
                comparator.late.set_target(target_);
                raises = comparator.late.tick(steps, comparator.period, now);
            }
            if (comparator.period > kNever - *comparator.match - passed)
                comparator.match.reset();
            else
                *comparator.match += passed + comparator.period;
        } else if (narrow) {
            *comparator.match += ((now - *comparator.match) >> 32 << 32) + bit(32);
        } else {
            comparator.match.reset();
        }
        if (raises)
            raise(index);
    }
}

void Hpet::pay(std::uint64_t now) {
    for (unsigned index = 0; index < kComparators; ++index) {
        Comparator& comparator = comparators_[index];
        const bool interrupts = enabled() && (comparator.config & INT_ENABLE) != 0 && comparator.match;
        if (interrupts && comparator.late.pay(now, *comparator.match))
            raise(index);
    }
}

std::uint64_t Hpet::first_match() const {
    std::uint64_t first = kNever;
    for (const Comparator& comparator : comparators_) {
        const bool interrupts = (comparator.config & INT_ENABLE) != 0;
        if (enabled() && interrupts && comparator.match)
            first = std::min(first, comparator.late.next_event(*comparator.match));
    }
    return first;
}

void Hpet::arm() {
    const std::uint64_t first = first_match();
    if (first == kNever)
        clock_.disarm(*this);
    else
        clock_.arm(*this, first);
}

void Hpet::fire() {
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    advance(now);
    pay(now);
    if (const std::uint64_t first = first_match(); first != kNever)
        clock_.arm_again(*this, first);
}

std::uint64_t Hpet::read(std::uint64_t offset, unsigned size) {
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    advance(now);
    // Accesses across registers are undefined: they get what there is of the first.
    const unsigned shift = static_cast<unsigned>(offset % 8) * 8;
    return (read_register(offset & ~std::uint64_t{7}, now) >> shift) & all_ones(size);
}

std::uint64_t Hpet::read_register(std::uint64_t offset, std::uint64_t now) const {
    switch (offset) {
    case GCAP_ID: return kCapabilities;
    case GEN_CONF: return config_;
    case GINTR_STA: return status_;
    case MAIN_CNT: return counter(now);
    default: break;
    }
    if (offset < TIMERS || (offset - TIMERS) / TIMER_SIZE >= kComparators)
        return 0;
    const Comparator& comparator = comparators_[(offset - TIMERS) / TIMER_SIZE];
    switch (offset % TIMER_SIZE) {
    case TIMER_CONF: return comparator.config | kTimerFixed;
    case TIMER_CMP: return comparator.value;
    default: return 0;
    }
}

void Hpet::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (size < 4 || offset % size != 0)
        return;  // registers take aligned double and quad words
    const unsigned shift = static_cast<unsigned>(offset % 8) * 8;
    const std::uint64_t mask = all_ones(size) << shift;
    LockGuard guard{lock_};
    const std::uint64_t now = clock_.now();
    advance(now);
    write_register(offset & ~std::uint64_t{7}, mask, value << shift, now);
    arm();
}

void Hpet::write_register(std::uint64_t offset, std::uint64_t mask, std::uint64_t value, std::uint64_t now) {
    switch (offset) {
    case GEN_CONF:
        if ((mask & kLow) != 0)
            write_config(value, now);
        return;
    case GINTR_STA:  // ones clear
        status_ &= ~(value & mask);
        for (unsigned index = 0; index < kComparators; ++index)
            update_level(index);
        return;
    case MAIN_CNT:
        if (!enabled())  // a running counter is not written
            halted_ = (halted_ & ~mask) | (value & mask);
        return;
    default: break;
    }
    if (offset < TIMERS || (offset - TIMERS) / TIMER_SIZE >= kComparators)
        return;
    Comparator& comparator = comparators_[(offset - TIMERS) / TIMER_SIZE];
    if (offset % TIMER_SIZE == TIMER_CONF && (mask & kLow) != 0)
        write_comparator_config(comparator, value, now);
    else if (offset % TIMER_SIZE == TIMER_CMP)
        write_comparator(comparator, mask, value, now);
}

void Hpet::write_config(std::uint64_t value, std::uint64_t now) {
    const bool was_enabled = enabled();
    const std::uint64_t count = counter(now);
    const std::uint64_t changed = config_ ^ value;
    config_ = value & (ENABLE | LEGACY);
    if (enabled() && !was_enabled)
        origin_ = now - count;
    else if (!enabled())
        halted_ = count;
    if ((changed & ENABLE) != 0) {
        for (Comparator& comparator : comparators_)
            place(comparator, now);
    }
    if ((changed & LEGACY) != 0) {
        wiring_.irq0.select(legacy() ? 1 : 0);
        wiring_.irq8.select(legacy() ? 1 : 0);
    }
    for (unsigned index = 0; index < kComparators; ++index)
        update_level(index);
}

void Hpet::write_comparator_config(Comparator& comparator, std::uint64_t value, std::uint64_t now) {
    const std::uint64_t before = comparator.config;
    comparator.config = value & kTimerWritable;
    comparator.late.forgive();
    if ((comparator.config & MODE_32) != 0) {
        comparator.value &= kLow;
        comparator.period &= kLow;
    }
    if (((before ^ comparator.config) & MODE_32) != 0)
        place(comparator, now);
    update_level(static_cast<unsigned>(&comparator - comparators_.data()));
}

void Hpet::write_comparator(Comparator& comparator, std::uint64_t mask, std::uint64_t value,
                            std::uint64_t now) {
    const bool narrow = (comparator.config & MODE_32) != 0;
    const auto merge = [&](std::uint64_t& target) {
        target = (target & ~mask) | (value & mask);
        if (narrow)
            target &= kLow;
    };
    // [hpet1.0a 2.3.9.2.2 Periodic Mode]: VAL_SET lets one write through to the accumulator and then falls;
    // without it a write sets the period. By halves, the low one decides.
    const bool has_low = (mask & kLow) != 0;
    const bool sets_value = has_low ? (comparator.config & VAL_SET) != 0 : comparator.high_half_sets_value;
    const bool periodic = (comparator.config & PERIODIC) != 0;
    comparator.late.forgive();
    if (periodic)
        merge(comparator.period);
    if (!periodic || sets_value) {
        merge(comparator.value);
        place(comparator, now);
    }
    if (has_low) {
        comparator.high_half_sets_value = sets_value;
        comparator.config &= ~VAL_SET;
    }
}

}  // namespace hv
