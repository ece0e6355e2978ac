// SPDX-License-Identifier: MIT
#include "vmm/devices/rtc.hpp"

#include "vmm/devices/calendar.hpp"

#include <algorithm>

namespace hv {
namespace {

enum Register : std::uint8_t {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    DAY_OF_WEEK,
    DAY_OF_MONTH,
    MONTH,
    YEAR,
    A,
    B,
    C,
    D,
};

// Register A
constexpr std::uint8_t UIP = 0x80;
constexpr std::uint8_t DV = 0x70;
constexpr std::uint8_t DV_RUN = 0x20;  ///< 32.768 kHz crystal, counting
constexpr std::uint8_t RS = 0x0f;
// Register B
constexpr std::uint8_t SET = 0x80;
constexpr std::uint8_t UIE = 0x10;
constexpr std::uint8_t DM = 0x04;  ///< binary
constexpr std::uint8_t HOURS_24 = 0x02;
constexpr std::uint8_t kInterruptEnables = 0x70;  ///< PIE, AIE, UIE
// Register C: bits 6:4 as B's enables
constexpr std::uint8_t IRQF = 0x80;
constexpr std::uint8_t PF = 0x40;
constexpr std::uint8_t AF = 0x20;
constexpr std::uint8_t UF = 0x10;
// Register D
constexpr std::uint8_t VRT = 0x80;

constexpr std::uint8_t PM = 0x80;  ///< in the hours of 12-hour mode
/// Alarm bytes with both high bits set match everything.
constexpr bool matches_any(std::uint8_t alarm) {
    return (alarm & 0xc0) == 0xc0;
}

/// Update in progress is announced 244 us ahead: eight crystal clocks.
constexpr std::uint64_t kUpdateWarning = 8;
/// A restarted divider chain makes its first update half a second later.
constexpr std::uint64_t kFirstUpdate = 16'384;

constexpr std::uint32_t kSecondsPerDay = 86'400;

}  // namespace

Rtc::Rtc(Clock& clock, IrqLine& irq, const WallClock& time) : clock_{clock, kCrystalHz}, irq_{irq} {
    ram_[A] = DV_RUN | 0x06;  // 1024 Hz
    ram_[B] = HOURS_24;
    ram_[D] = VRT;
    const std::uint64_t passed = clock.now() - time.at;
    set_seconds(time.seconds + static_cast<std::int64_t>(passed / clock.hz()));
    // The second began in the past: the counter wraps below zero, and differences stay right.
    second_start_ = clock_.now() - Clock::scale(passed % clock.hz(), kCrystalHz, clock.hz());
}

void Rtc::reset() {
    LockGuard guard{lock_};
    update();
    ram_[B] &= static_cast<std::uint8_t>(~kInterruptEnables);
    ram_[C] = 0;
    index_ = 0;
    update_irq();
    arm();
}

void Rtc::set_ram(std::uint8_t index, std::uint8_t value) {
    LockGuard guard{lock_};
    ram_[std::clamp<std::uint8_t>(index, kFirstRam, kRamSize - 1)] = value;
}

bool Rtc::counting() const {
    return (ram_[A] & DV) == DV_RUN && (ram_[B] & SET) == 0;
}

// --- calendar --------------------------------------------------------------------------------------------

unsigned Rtc::decode(std::uint8_t value) const {
    return (ram_[B] & DM) != 0 ? value : (value >> 4) * 10U + (value & 0xf);
}

std::uint8_t Rtc::encode(unsigned value) const {
    return static_cast<std::uint8_t>((ram_[B] & DM) != 0 ? value : value / 10 << 4 | value % 10);
}

unsigned Rtc::decode_hour(std::uint8_t value) const {
    if ((ram_[B] & HOURS_24) != 0)
        return decode(value);
    const unsigned hour = decode(value & static_cast<std::uint8_t>(~PM)) % 12;
    return (value & PM) != 0 ? hour + 12 : hour;
}

std::uint8_t Rtc::encode_hour(unsigned hour) const {
    if ((ram_[B] & HOURS_24) != 0)
        return encode(hour);
    const std::uint8_t value = encode((hour + 11) % 12 + 1);
    return hour >= 12 ? value | PM : value;
}

std::uint32_t Rtc::second_of_day() const {
    return (decode_hour(ram_[HOURS]) * 60 + decode(ram_[MINUTES])) * 60 + decode(ram_[SECONDS]);
}

std::int64_t Rtc::seconds() const {
    const CivilDate date{static_cast<std::int32_t>(decode(ram_[kCentury]) * 100 + decode(ram_[YEAR])),
                         std::clamp(decode(ram_[MONTH]), 1U, 12U), decode(ram_[DAY_OF_MONTH])};
    return days_of(date) * kSecondsPerDay + second_of_day();
}

void Rtc::set_seconds(std::int64_t seconds) {
    std::int64_t days = seconds / kSecondsPerDay;
    std::int64_t of_day = seconds % kSecondsPerDay;
    if (of_day < 0) {
        of_day += kSecondsPerDay;
        --days;
    }
    const CivilDate date = date_of(days);
    const auto tod = static_cast<unsigned>(of_day);
    const auto year = static_cast<unsigned>(date.year);
    ram_[SECONDS] = encode(tod % 60);
    ram_[MINUTES] = encode(tod / 60 % 60);
    ram_[HOURS] = encode_hour(tod / 3600);
    ram_[DAY_OF_WEEK] = encode(weekday_of(days));
    ram_[DAY_OF_MONTH] = encode(date.day);
    ram_[MONTH] = encode(date.month);
    ram_[YEAR] = encode(year % 100);
    ram_[kCentury] = encode(year / 100 % 100);
}

void Rtc::advance(std::uint64_t passed) {
    const std::int64_t before = seconds();
    // The day of the week counts on its own: a guest may have set any.
    const unsigned weekday = decode(ram_[DAY_OF_WEEK]);
    const std::int64_t after = before + static_cast<std::int64_t>(passed);
    set_seconds(after);
    const auto midnights = static_cast<std::uint64_t>(after / kSecondsPerDay - before / kSecondsPerDay);
    ram_[DAY_OF_WEEK] = encode(static_cast<unsigned>((weekday + 6 + midnights) % 7 + 1));
}

std::optional<std::uint32_t> Rtc::until_alarm() const {
    const auto field = [](std::uint8_t alarm, unsigned value, unsigned limit) -> std::optional<int> {
        if (matches_any(alarm))
            return -1;
        return value < limit ? std::optional<int>{static_cast<int>(value)} : std::nullopt;
    };
    const auto hour = field(ram_[HOURS_ALARM], decode_hour(ram_[HOURS_ALARM]), 24);
    const auto minute = field(ram_[MINUTES_ALARM], decode(ram_[MINUTES_ALARM]), 60);
    const auto second = field(ram_[SECONDS_ALARM], decode(ram_[SECONDS_ALARM]), 60);
    if (!hour || !minute || !second)
        return std::nullopt;
    // Candidates rise in steps of the smallest unit whose larger units match: fewer than 24 + 60 + 60 of
    // them.
    const std::uint32_t start = second_of_day() % kSecondsPerDay;
    std::uint32_t at = start + 1;
    const std::uint32_t end = start + kSecondsPerDay;
    while (at <= end) {
        const std::uint32_t tod = at % kSecondsPerDay;
        if (*hour >= 0 && tod / 3600 != static_cast<std::uint32_t>(*hour))
            at += 3600 - tod % 3600;
        else if (*minute >= 0 && tod / 60 % 60 != static_cast<std::uint32_t>(*minute))
            at += 60 - tod % 60;
        else if (*second >= 0 && tod % 60 != static_cast<std::uint32_t>(*second))
            ++at;
        else
            return at - start;
    }
    return std::nullopt;
}

// --- time ------------------------------------------------------------------------------------------------

std::uint64_t
Rtc::periodic_clocks() const {  // [mc146818 Table 5 Periodic Interrupt Rate and Square Wave Output Frequency]
    const unsigned rate = ram_[A] & RS;
    if (rate == 0 || (ram_[A] & DV) != DV_RUN)
        return 0;
    return std::uint64_t{1} << (rate <= 2 ? rate + 6 : rate - 1);
}

/// A periodic interrupt that finds the flag still set merges with the one before, unless the processor had no
/// CPU to read register C on.
void Rtc::update_periodic(std::uint64_t now, std::uint64_t period) {
    const std::uint64_t passed = now / period - periods_;
    periods_ += passed;
    const bool pending = (ram_[C] & PF) != 0;
    if (passed != 0 && !pending) {
        if (late_.tick(passed, period, now))
            ram_[C] |= PF;
    } else if (passed != 0 && late_.ran_since()) {
        late_.owe(passed, period, now);
    } else if (!pending && late_.pay(now, (periods_ + 1) * period)) {
        ram_[C] |= PF;
    }
}

void Rtc::update() {
    const std::uint64_t now = clock_.now();
    const std::uint64_t period = periodic_clocks();
    if (period != 0)
        update_periodic(now, period);
    const auto in_second = static_cast<std::int64_t>(now - second_start_);
    if (counting() && in_second >= static_cast<std::int64_t>(kCrystalHz)) {
        const auto passed = static_cast<std::uint64_t>(in_second) / kCrystalHz;
        const auto alarm = until_alarm();
        ram_[C] |= UF;
        if (alarm && *alarm <= passed)
            ram_[C] |= AF;
        advance(passed);
        second_start_ += passed * kCrystalHz;
    }
    update_irq();
}

void Rtc::update_irq() {
    const bool level = (ram_[C] & ram_[B] & kInterruptEnables) != 0;
    ram_[C] = static_cast<std::uint8_t>((ram_[C] & ~IRQF) | (level ? IRQF : 0));
    if (level == irq_level_)
        return;
    irq_level_ = level;
    irq_.set(level);
}

void Rtc::arm() {
    // A flag that is set already cannot cause another interrupt before register C is read.
    const auto wanted = static_cast<std::uint8_t>(ram_[B] & kInterruptEnables & ~ram_[C]);
    constexpr std::uint64_t kNever = ~std::uint64_t{0};
    std::uint64_t when = kNever;
    if (const std::uint64_t period = periodic_clocks(); (wanted & PF) != 0 && period != 0)
        when = late_.next_event((periods_ + 1) * period);
    if ((wanted & (AF | UF)) != 0 && counting()) {
        std::uint64_t seconds_ahead = 1;
        if ((wanted & UF) == 0)
            seconds_ahead = until_alarm().value_or(0);
        if (seconds_ahead != 0)
            when = std::min(when, second_start_ + seconds_ahead * kCrystalHz);
    }
    if (when == kNever)
        clock_.disarm(*this);
    else
        clock_.arm(*this, when);
}

void Rtc::fire() {
    LockGuard guard{lock_};
    update();
    arm();
}

// --- registers -------------------------------------------------------------------------------------------

std::uint8_t Rtc::read_byte(std::uint64_t offset) {
    if (offset == 0)
        return 0xff;  // the index is write-only
    LockGuard guard{lock_};
    return read_register(index_);
}

void Rtc::write_byte(std::uint64_t offset, std::uint8_t value) {
    LockGuard guard{lock_};
    if (offset == 0)
        index_ = value & 0x7f;  // bit 7 masks NMIs, of which the board has none
    else
        write_register(index_, value);
}

std::uint8_t Rtc::read_register(std::uint8_t index) {
    update();
    switch (index) {
    case A: {
        const auto in_second = static_cast<std::int64_t>(clock_.now() - second_start_);
        const bool updating =
            counting() && in_second >= static_cast<std::int64_t>(kCrystalHz - kUpdateWarning);
        return static_cast<std::uint8_t>(ram_[A] | (updating ? UIP : 0));
    }
    case C: {
        const std::uint8_t flags = ram_[C];
        ram_[C] = 0;
        update_irq();
        arm();
        return flags;
    }
    default: return ram_[index];
    }
}

void Rtc::write_register(std::uint8_t index, std::uint8_t value) {
    update();
    switch (index) {
    case A: write_control_a(value); break;
    case B: write_control_b(value); break;
    case C:
    case D: break;
    default: ram_[index] = value; break;
    }
    update_irq();
    arm();
}

void Rtc::write_control_a(std::uint8_t value) {
    const bool ran = (ram_[A] & DV) == DV_RUN;
    ram_[A] = value & static_cast<std::uint8_t>(~UIP);
    late_.forgive();
    const std::uint64_t now = clock_.now();
    if (!ran && (ram_[A] & DV) == DV_RUN)
        second_start_ = now - (kCrystalHz - kFirstUpdate);
    if (const std::uint64_t period = periodic_clocks(); period != 0)
        periods_ = now / period;
}

void Rtc::write_control_b(std::uint8_t value) {
    const bool was_set = (ram_[B] & SET) != 0;
    if ((value & SET) != 0)
        value &= static_cast<std::uint8_t>(~UIE);  // [mc146818 Register B, SET]
    ram_[B] = value;
    // Seconds that passed while updates were off are not made up for, but the divider chain kept its phase.
    if (was_set && (value & SET) == 0) {
        const std::uint64_t passed = clock_.now() - second_start_;
        if (static_cast<std::int64_t>(passed) > 0)
            second_start_ += passed / kCrystalHz * kCrystalHz;
    }
}

}  // namespace hv
