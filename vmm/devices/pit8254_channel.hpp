// SPDX-License-Identifier: MIT
// One counter of the 8254 [8254]. It does not tick: what it shows is computed from the time, in its own
// clocks, that each call is given. Times must not go backwards.
#pragma once

#include <cstdint>
#include <optional>

namespace hv {

class Pit8254Channel {
public:
    /// A control word for this counter: access mode and count mode. Output and counting start anew.
    void set_mode(std::uint8_t control);
    void latch_count(std::uint64_t now);
    void latch_status(std::uint64_t now);
    std::uint8_t read(std::uint64_t now);
    void write(std::uint8_t value, std::uint64_t now);
    void set_gate(bool high, std::uint64_t now);

    [[nodiscard]] bool gate() const { return gate_; }
    [[nodiscard]] bool output(std::uint64_t now) const;
    /// When the output rises next after `now`, if nobody intervenes.
    [[nodiscard]] std::optional<std::uint64_t> next_rise(std::uint64_t now) const;
    /// How often the output rose after `since`, up to `now`, in a periodic mode; else whether.
    [[nodiscard]] std::uint64_t rises(std::uint64_t since, std::uint64_t now) const;
    /// Clocks between two rises of a periodic mode; 0: it has none.
    [[nodiscard]] std::uint64_t period() const { return running_ && periodic() ? loaded_ : 0; }
    /// Applies what a running count has waiting for its end.
    void settle(std::uint64_t now);

private:
    enum class Access : std::uint8_t { latch, low, high, both };

    [[nodiscard]] bool periodic() const { return mode_ == 2 || mode_ == 3; }
    [[nodiscard]] bool triggered_by_gate() const { return mode_ == 1 || mode_ == 5; }
    [[nodiscard]] std::uint64_t elapsed(std::uint64_t now) const;
    [[nodiscard]] std::uint16_t count(std::uint64_t now) const;
    [[nodiscard]] std::uint32_t modulus() const { return bcd_ ? 10'000 : 0x1'0000; }
    void load(std::uint16_t raw, std::uint64_t now);
    void start(std::uint64_t at);

    std::uint8_t mode_{0};
    Access access_{Access::both};
    bool bcd_{false};
    bool gate_{true};
    bool write_high_next_{false};
    bool read_high_next_{false};
    std::uint8_t low_byte_{0};  ///< written, waiting for its high byte
    bool null_count_{true};     ///< a written count is not in the counter yet
    bool running_{false};       ///< a count was loaded since the control word
    bool paused_{false};        ///< by the gate
    bool count_latched_{false};
    bool status_latched_{false};
    std::uint16_t latched_count_{0};
    std::uint8_t latched_status_{0};
    std::uint32_t reload_{0};                 ///< as written, 1 to modulus(); 0: none since the control word
    std::uint32_t loaded_{0};                 ///< what the counter counts down from
    std::uint64_t start_{0};                  ///< clock at which loaded_ was in the counter
    std::uint64_t paused_at_{0};              ///< elapsed clocks
    std::optional<std::uint64_t> reload_at_;  ///< periodic: when a new count replaces loaded_
};

}  // namespace hv
