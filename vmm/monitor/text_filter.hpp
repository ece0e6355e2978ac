// SPDX-License-Identifier: MIT
// Makes what a guest prints harmless for a terminal: escape sequences and control characters are taken out,
// and of what is not ASCII only well-formed UTF-8 from U+00A0 on is left (below lie the C1 controls, escape
// sequences by another name).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv {

class TextFilter {
public:
    enum class Escapes : std::uint8_t {
        drop,
        keep_looks,  ///< colours, erasing a line and backspace stay: what a terminal neither answers nor
                     ///< remembers
    };
    /// A sequence with more parameters is dropped.
    static constexpr std::size_t kSequenceSize = 40;
    /// The most that one character can bring out: a '?' for what it broke off, and itself.
    static constexpr std::size_t kMaxPiece = kSequenceSize + 1;

    explicit constexpr TextFilter(Escapes escapes) : escapes_{escapes} {}

    /// Takes a character; returns what can be shown now: whole characters, line ends ("\n", "\r") among them,
    /// at most kMaxPiece. Valid until the next call.
    std::string_view feed(char c);
    /// Not within a sequence.
    [[nodiscard]] bool idle() const { return state_ == State::text && utf8_left_ == 0; }

private:
    /// [ecma48 5.3 Elements of the C1 set, 5.4 Control sequences, 5.6 Control strings]
    enum class State : std::uint8_t { text, escape, control_sequence, control_string };

    void put(char c) { out_[out_size_++] = c; }
    void put_sequence();
    /// False: `byte` does not belong to the UTF-8 sequence under way, which is thereby broken.
    bool continue_utf8(std::uint8_t byte);
    void begin_utf8(std::uint8_t byte);
    void feed_text(std::uint8_t byte);
    void feed_escape(std::uint8_t byte);
    void feed_control_sequence(std::uint8_t byte);

    Escapes escapes_;
    State state_{State::text};
    std::uint8_t utf8_left_{0};  ///< bytes that the sequence lacks
    std::uint8_t utf8_low_{0};   ///< bounds of the next one
    std::uint8_t utf8_high_{0};
    std::array<char, kSequenceSize> sequence_{};
    std::size_t sequence_size_{0};
    std::array<char, kMaxPiece> out_{};
    std::size_t out_size_{0};
};

}  // namespace hv
