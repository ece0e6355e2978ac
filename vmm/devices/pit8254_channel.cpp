// SPDX-License-Identifier: MIT
#include "vmm/devices/pit8254_channel.hpp"

namespace hv {
namespace {

constexpr std::uint32_t from_bcd(std::uint32_t bcd) {
    return (bcd >> 12 & 0xf) * 1000 + (bcd >> 8 & 0xf) * 100 + (bcd >> 4 & 0xf) * 10 + (bcd & 0xf);
}
constexpr std::uint16_t to_bcd(std::uint32_t value) {
    return static_cast<std::uint16_t>(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
                                      value % 10);
}

}  // namespace

void Pit8254Channel::set_mode(std::uint8_t control) {
    const unsigned mode = control >> 1 & 7;
    mode_ = static_cast<std::uint8_t>(mode >= 6 ? mode - 4 : mode);  // 6 and 7 are 2 and 3
    access_ = static_cast<Access>(control >> 4 & 3);
    bcd_ = (control & 1) != 0;
    write_high_next_ = read_high_next_ = false;
    count_latched_ = status_latched_ = false;
    null_count_ = true;
    running_ = paused_ = false;
    reload_ = 0;
    reload_at_.reset();
}

void Pit8254Channel::start(std::uint64_t at) {
    loaded_ = reload_;
    start_ = at;
    running_ = true;
    paused_ = false;
    null_count_ = false;
    reload_at_.reset();
}

void Pit8254Channel::settle(std::uint64_t now) {
    if (reload_at_ && now >= *reload_at_)
        start(*reload_at_);
}

std::uint64_t Pit8254Channel::elapsed(std::uint64_t now) const {
    if (paused_)
        return paused_at_;
    return now > start_ ? now - start_ : 0;
}

void Pit8254Channel::load(std::uint16_t raw, std::uint64_t now) {
    const std::uint32_t value = bcd_ ? from_bcd(raw) : raw;
    reload_ = value == 0 ? modulus() : value;
    null_count_ = true;
    if (triggered_by_gate())
        return;
    if (!periodic()) {
        start(now + 1);  // in the counter with the next clock
        if (!gate_) {
            paused_ = true;
            paused_at_ = 0;
        }
        return;
    }
    if (running_ && gate_) {
        const std::uint64_t cycles = elapsed(now) / loaded_;
        reload_at_ = start_ + (cycles + 1) * loaded_;
    } else if (gate_) {
        start(now + 1);
    }
}

void Pit8254Channel::write(std::uint8_t value, std::uint64_t now) {
    settle(now);
    switch (access_) {
    case Access::latch: break;
    case Access::low: load(value, now); break;
    case Access::high: load(static_cast<std::uint16_t>(value << 8), now); break;
    case Access::both:
        write_high_next_ = !write_high_next_;
        if (write_high_next_) {
            low_byte_ = value;
            if (mode_ == 0)
                running_ = false;  // the first byte stops the count
        } else {
            load(static_cast<std::uint16_t>(value << 8 | low_byte_), now);
        }
        break;
    }
}

void Pit8254Channel::set_gate(bool high, std::uint64_t now) {
    settle(now);
    const bool rises = high && !gate_;
    const bool falls = !high && gate_;
    gate_ = high;
    if (triggered_by_gate() || periodic()) {
        if (rises && reload_ != 0)
            start(now + 1);
        else if (falls && periodic() && running_) {
            paused_at_ = elapsed(now);
            paused_ = true;
            reload_at_.reset();
        }
    } else if (falls && running_) {
        paused_at_ = elapsed(now);
        paused_ = true;
    } else if (rises && paused_) {
        start_ = now - paused_at_;
        paused_ = false;
    }
}

bool Pit8254Channel::output(std::uint64_t now) const {
    if (!running_)
        return mode_ != 0;
    const std::uint64_t clocks = elapsed(now);
    switch (mode_) {
    case 0: return clocks >= loaded_;
    case 1: return now < start_ || clocks >= loaded_;
    case 2: return paused_ || clocks % loaded_ != loaded_ - 1 || loaded_ == 1;
    case 3: return paused_ || clocks % loaded_ < (loaded_ + 1) / 2;
    default: return clocks != loaded_;
    }
}

std::optional<std::uint64_t> Pit8254Channel::next_rise(std::uint64_t now) const {
    if (!running_ || paused_)
        return std::nullopt;
    if (periodic())
        return start_ + (elapsed(now) / loaded_ + 1) * loaded_;
    const std::uint64_t rise = start_ + loaded_ + (mode_ >= 4 ? 1 : 0);
    return rise > now ? std::optional{rise} : std::nullopt;
}

std::uint64_t Pit8254Channel::rises(std::uint64_t since, std::uint64_t now) const {
    const auto next = next_rise(since);
    if (!next || *next > now)
        return 0;
    return periodic() ? (now - *next) / loaded_ + 1 : 1;
}

std::uint16_t Pit8254Channel::count(std::uint64_t now) const {
    if (!running_)
        return 0;
    const std::uint64_t clocks = elapsed(now);
    std::uint32_t value;
    if (mode_ == 3) {
        // Counts down by two, twice a cycle; an odd count is made even and its high half is one clock longer.
        const auto position = static_cast<std::uint32_t>(clocks % loaded_);
        const std::uint32_t high_half = (loaded_ + 1) / 2;
        value = (loaded_ & ~1U) - 2 * (position < high_half ? position : position - high_half);
    } else if (mode_ == 2) {
        value = loaded_ - static_cast<std::uint32_t>(clocks % loaded_);
    } else {
        value = static_cast<std::uint32_t>((loaded_ + modulus() - clocks % modulus()) % modulus());
    }
    return bcd_ ? to_bcd(value) : static_cast<std::uint16_t>(value);
}

void Pit8254Channel::latch_count(std::uint64_t now) {
    settle(now);
    if (count_latched_)
        return;
    latched_count_ = count(now);
    count_latched_ = true;
}

void Pit8254Channel::latch_status(std::uint64_t now) {
    settle(now);
    if (status_latched_)
        return;
    const bool null_count = null_count_ || (running_ && now < start_);
    latched_status_ = static_cast<std::uint8_t>((output(now) ? 0x80 : 0) | (null_count ? 0x40 : 0) |
                                                static_cast<unsigned>(access_) << 4 |
                                                static_cast<unsigned>(mode_) << 1 | (bcd_ ? 1 : 0));
    status_latched_ = true;
}

std::uint8_t Pit8254Channel::read(std::uint64_t now) {
    settle(now);
    if (status_latched_) {
        status_latched_ = false;
        return latched_status_;
    }
    const std::uint16_t value = count_latched_ ? latched_count_ : count(now);
    const auto low = static_cast<std::uint8_t>(value);
    const auto high = static_cast<std::uint8_t>(value >> 8);
    if (access_ != Access::both) {
        count_latched_ = false;
        return access_ == Access::high ? high : low;
    }
    read_high_next_ = !read_high_next_;
    if (read_high_next_)
        return low;
    count_latched_ = false;
    return high;
}

}  // namespace hv
