// SPDX-License-Identifier: MIT
// The characters of a TOML text: position, white space, comments, and the values that are one token.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/config/error_list.hpp"

#include <cstdint>
#include <string_view>

namespace hv::config::toml {

/// Functions that return Expected report a syntax error to the list and return Error::corrupted.
class Scanner {
public:
    /// `strings` receives the contents of keys and strings and never grows beyond text.size(), which is
    /// reserved.
    Scanner(std::string_view text, Vec<char>& strings, ErrorList& errors)
        : text_{text}, strings_{strings}, errors_{errors} {}

    [[nodiscard]] std::uint32_t line() const { return line_; }
    [[nodiscard]] std::uint32_t column() const { return static_cast<std::uint32_t>(at_ - line_start_ + 1); }
    [[nodiscard]] bool at_end() const { return at_ == text_.size(); }
    /// The character `ahead` of the position; NUL, which TOML does not allow, beyond the end.
    [[nodiscard]] char peek(std::size_t ahead = 0) const {
        return ahead < text_.size() - at_ ? text_[at_ + ahead] : '\0';
    }
    /// Passes `token` if it is next.
    bool accept(std::string_view token);
    void skip_blanks();
    /// Passes blanks, a comment if there is one, and the line's end.
    Expected<void> end_line();
    /// Passes blanks, comments and line ends.
    Expected<void> skip_lines();
    /// Passes the rest of the line, and further lines until one looks like a header or a key with its value.
    void recover();

    /// A bare or quoted key.
    Expected<std::string_view> key();
    /// A string of any of the four kinds; the position is at a quote.
    Expected<std::string_view> string();
    /// The longest run of characters that numbers, booleans and dates consist of, not passed; empty if there
    /// is none.
    [[nodiscard]] std::string_view word() const;
    /// Reports what is wrong with a word that is no integer, or returns it.
    Expected<std::int64_t> integer(std::string_view word);

    Unexpected fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
    /// "end of file", "end of line" or the character, for messages.
    struct Shown {
        char text[16];
    };
    [[nodiscard]] Shown shown() const;

private:
    [[nodiscard]] bool at_line_end() const { return peek() == '\n' || (peek() == '\r' && peek(1) == '\n'); }
    void pass_line_end();
    Expected<void> skip_comment();
    Expected<std::string_view> basic_string();
    Expected<std::string_view> literal_string();
    Expected<std::string_view> multiline_string(char quote);
    Expected<void> escape();
    Expected<void> character();
    Expected<std::size_t> character_size();
    [[nodiscard]] std::string_view kept_since(std::size_t start) const;
    void keep(char c);

    std::string_view text_;
    Vec<char>& strings_;
    ErrorList& errors_;
    std::size_t at_{0};
    std::size_t line_start_{0};
    std::uint32_t line_{1};
};

}  // namespace hv::config::toml
