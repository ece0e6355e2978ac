// SPDX-License-Identifier: MIT
// A line being typed on a terminal: editing keys, history, echo. Pure: characters in, terminal text out.
#pragma once

#include "vmm/monitor/output.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv {

class LineEditor {
public:
    /// With a short prompt, a line fits on a terminal of 80 columns: it never wraps.
    static constexpr std::size_t kLineSize = 72;
    static constexpr std::size_t kHistorySize = 16;

    enum class Event : std::uint8_t {
        none,
        line,       ///< Enter: line() is complete; begin() goes on
        complete,   ///< Tab
        cancelled,  ///< Ctrl-C: begin() goes on
    };

    /// `prompt` and `screen` outlive the editor; it writes to `screen` what makes the terminal show the line.
    LineEditor(std::string_view prompt, Output& screen) : prompt_{prompt}, screen_{screen} {}

    /// Shows the prompt of a new, empty line.
    void begin();
    Event key(char c);
    [[nodiscard]] std::string_view line() const { return {text_.data(), size_}; }
    /// What stands before the cursor.
    [[nodiscard]] std::string_view before_cursor() const { return {text_.data(), cursor_}; }
    /// Types `text` at the cursor; rings the bell if it does not fit.
    void insert(std::string_view text);
    void bell() { screen_.write("\a"); }
    /// Shows the prompt and the line anew, wherever the terminal's cursor is.
    void redraw();

private:
    enum class State : std::uint8_t {
        text,
        escape,            ///< ESC
        control_sequence,  ///< ESC [
        function,          ///< ESC O
    };
    struct Line {
        std::array<char, kLineSize> text;
        std::size_t size;
    };

    Event enter();
    void control(char c);
    void control_sequence(char final);
    void escaped(char c);
    void move_to(std::size_t cursor);
    /// Removes [from, to), which contains the cursor or ends at it.
    void erase(std::size_t from, std::size_t to);
    void erase_word();
    void replace(std::string_view text);
    void remember();
    void older();
    void newer();
    [[nodiscard]] Line& history(std::size_t age) { return history_[(remembered_ - age) % kHistorySize]; }

    std::string_view prompt_;
    Output& screen_;
    std::array<char, kLineSize> text_{};
    std::size_t size_{0};
    std::size_t cursor_{0};
    State state_{State::text};
    unsigned parameter_{0};  ///< of a control sequence
    bool returned_{false};   ///< a CR came last: an LF behind it belongs to it
    std::array<Line, kHistorySize> history_{};
    std::size_t remembered_{0};  ///< lines so far
    std::size_t age_{0};         ///< of the line shown: 0 the one being typed, 1 the latest
    Line typed_{};               ///< what was being typed when one went back in history
};

}  // namespace hv
