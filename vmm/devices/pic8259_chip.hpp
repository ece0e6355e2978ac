// SPDX-License-Identifier: MIT
// One 8259A [8259a]: requests, masks, service and priorities. A request that goes away before it was
// acknowledged stays latched in edge mode, so that a pulse is not lost.
#pragma once

#include <cstdint>

namespace hv {

class Pic8259Chip {
public:
    /// Inputs that `level_capable` leaves out are edge-triggered whatever the ELCR says.
    constexpr explicit Pic8259Chip(std::uint8_t level_capable) : level_capable_{level_capable} {}

    void reset();
    /// Input `line`, 0 to 7.
    void set_line(unsigned line, bool asserted);
    /// The input that a slave's INT drives: requested as long as `requested`.
    void set_cascade(unsigned line, bool requested);
    /// The input that would be acknowledged now, or -1: INT is low.
    [[nodiscard]] int pending() const;
    struct Acknowledged {
        unsigned line;
        std::uint8_t vector;
    };
    /// INTA. Without a request: line 7 without service, the spurious interrupt.
    Acknowledged acknowledge();

    /// The next read acknowledges.
    [[nodiscard]] bool poll_requested() const { return poll_; }
    std::uint8_t read_command();
    std::uint8_t read_data();
    void write_command(std::uint8_t value);
    void write_data(std::uint8_t value);
    [[nodiscard]] std::uint8_t elcr() const { return elcr_; }
    void set_elcr(std::uint8_t value);

private:
    enum class Step : std::uint8_t { ready, icw2, icw3, icw4 };

    [[nodiscard]] std::uint8_t level_lines() const { return level_triggered_ ? 0xff : elcr_; }
    /// Position of the highest-priority bit counted from the highest priority, 8: none.
    [[nodiscard]] unsigned rank_of_first(std::uint8_t bits) const;
    [[nodiscard]] unsigned line_at(unsigned rank) const { return (lowest_ + 1U + rank) & 7; }
    void initialize(std::uint8_t icw1);
    void write_ocw2(std::uint8_t value);
    void write_ocw3(std::uint8_t value);
    void end_of_interrupt(unsigned line);
    std::uint8_t poll();

    std::uint8_t level_capable_;
    std::uint8_t lines_{0};
    std::uint8_t irr_{0};
    std::uint8_t imr_{0};
    std::uint8_t isr_{0};
    std::uint8_t elcr_{0};
    std::uint8_t base_{0};    ///< vector of line 0
    std::uint8_t lowest_{7};  ///< the line of lowest priority
    Step step_{Step::ready};
    bool icw4_follows_{false};
    bool single_{false};
    bool level_triggered_{false};  ///< all lines, by ICW1
    bool auto_eoi_{false};
    bool rotate_on_auto_eoi_{false};
    bool special_fully_nested_{false};
    bool special_mask_{false};
    bool read_isr_{false};
    bool poll_{false};
};

}  // namespace hv
