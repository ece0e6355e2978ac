// SPDX-License-Identifier: MIT
#include "vmm/config/toml_scanner.hpp"

#include <limits>

namespace hv::config::toml {
namespace {

constexpr bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
constexpr bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_bare(char c) {
    return is_letter(c) || is_digit(c) || c == '_' || c == '-';
}
constexpr bool is_control(char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
}

constexpr unsigned digit_value(char c) {
    if (is_digit(c))
        return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f')
        return static_cast<unsigned>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F')
        return static_cast<unsigned>(c - 'A' + 10);
    return 16;
}

/// Bytes of the UTF-8 sequence that `text` begins with, 0 if it is none [unicode 3.9 table 3-7].
std::size_t utf8_size(std::string_view text) {
    const auto byte = [&](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    const auto in = [](unsigned value, unsigned low, unsigned high) { return value >= low && value <= high; };
    const unsigned lead = byte(0);
    if (lead < 0x80)
        return 1;
    const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    const std::size_t size = in(lead, 0xc2, 0xdf)   ? 2
                             : in(lead, 0xe0, 0xef) ? 3
                             : in(lead, 0xf0, 0xf4) ? 4
                                                    : 0;
    if (size == 0 || !in(byte(1), low, high))
        return 0;
    for (std::size_t i = 2; i < size; ++i)
        if (!in(byte(i), 0x80, 0xbf))
            return 0;
    return size;
}

}  // namespace

Unexpected Scanner::fail(const char* format, ...) {
    char buffer[160];
    std::va_list arguments;
    va_start(arguments, format);
    const std::string_view message = format_into(buffer, format, arguments);
    va_end(arguments);
    errors_.add(line_, "%.*s (column %u)", static_cast<int>(message.size()), message.data(), column());
    return Unexpected{Error::corrupted};
}

Scanner::Shown Scanner::shown() const {
    Shown shown{};
    const std::span<char> buffer{shown.text, sizeof shown.text - 1};
    if (at_end())
        format_into(buffer, "end of file");
    else if (at_line_end())
        format_into(buffer, "end of line");
    else if (static_cast<unsigned char>(peek()) < 0x20 || static_cast<unsigned char>(peek()) >= 0x7f)
        format_into(buffer, "byte 0x%02x", static_cast<unsigned>(static_cast<unsigned char>(peek())));
    else
        format_into(buffer, "'%c'", peek());
    return shown;
}

bool Scanner::accept(std::string_view token) {
    if (!text_.substr(at_).starts_with(token))
        return false;
    at_ += token.size();
    return true;
}

void Scanner::skip_blanks() {
    while (peek() == ' ' || peek() == '\t')
        ++at_;
}

void Scanner::pass_line_end() {
    at_ += peek() == '\r' ? 2 : 1;
    line_start_ = at_;
    ++line_;
}

Expected<void> Scanner::skip_comment() {
    if (peek() != '#')
        return {};
    while (!at_end() && !at_line_end()) {
        if (is_control(peek()))
            return fail("%s in a comment", shown().text);
        at_ += HV_TRY(character_size());
    }
    return {};
}

Expected<void> Scanner::end_line() {
    skip_blanks();
    HV_TRY(skip_comment());
    if (at_end())
        return {};
    if (!at_line_end())
        return fail("%s where the line should end", shown().text);
    pass_line_end();
    return {};
}

Expected<void> Scanner::skip_lines() {
    for (;;) {
        skip_blanks();
        HV_TRY(skip_comment());
        if (at_end() || !at_line_end())
            return {};
        pass_line_end();
    }
}

void Scanner::recover() {
    for (;;) {
        while (!at_end() && !at_line_end())
            ++at_;
        if (at_end())
            return;
        pass_line_end();
        std::size_t ahead = 0;
        while (peek(ahead) == ' ' || peek(ahead) == '\t')
            ++ahead;
        if (peek(ahead) == '[' && (peek(ahead + 1) == '[' || is_letter(peek(ahead + 1))))
            return;
        const std::size_t start = ahead;
        while (is_bare(peek(ahead)) || peek(ahead) == '.')
            ++ahead;
        const bool named = ahead > start;
        while (peek(ahead) == ' ' || peek(ahead) == '\t')
            ++ahead;
        if (named && peek(ahead) == '=')
            return;
    }
}

void Scanner::keep(char c) {
    const auto pushed = strings_.push(c);
    HV_ASSERT(pushed);  // no string is longer than its source, and all the source has room
}

std::string_view Scanner::kept_since(std::size_t start) const {
    return {std::as_const(strings_).begin() + start, strings_.size() - start};
}

Expected<std::string_view> Scanner::key() {
    if (peek() == '"' || peek() == '\'') {
        const std::string_view quotes = peek() == '"' ? "\"\"\"" : "'''";
        if (text_.substr(at_).starts_with(quotes))
            return fail("a key cannot be a multi-line string");
        return string();
    }
    const std::size_t start = strings_.size();
    while (is_bare(peek())) {
        keep(peek());
        ++at_;
    }
    if (strings_.size() == start)
        return fail("%s where a key should be", shown().text);
    return kept_since(start);
}

Expected<std::string_view> Scanner::string() {
    if (accept("\"\"\""))
        return multiline_string('"');
    if (accept("'''"))
        return multiline_string('\'');
    return accept("\"") ? basic_string() : (accept("'"), literal_string());
}

Expected<std::size_t> Scanner::character_size() {
    const std::size_t size = utf8_size(text_.substr(at_));
    if (size == 0)
        return fail("%s is not UTF-8", shown().text);
    return size;
}

Expected<void> Scanner::character() {
    if (at_end() || at_line_end())
        return fail("%s inside a string", shown().text);
    if (is_control(peek()))
        return fail("%s inside a string; an escape such as \\u0007 is allowed", shown().text);
    for (std::size_t size = HV_TRY(character_size()); size > 0; --size) {
        keep(peek());
        ++at_;
    }
    return {};
}

Expected<std::string_view> Scanner::basic_string() {
    const std::size_t start = strings_.size();
    while (!accept("\"")) {
        if (peek() == '\\')
            HV_TRY(escape());
        else
            HV_TRY(character());
    }
    return kept_since(start);
}

Expected<std::string_view> Scanner::literal_string() {
    const std::size_t start = strings_.size();
    while (!accept("'"))
        HV_TRY(character());
    return kept_since(start);
}

// The opening quotes have been passed. Up to two quotes may stand inside, also right before the three that
// close it.
Expected<std::string_view> Scanner::multiline_string(char quote) {
    const std::size_t start = strings_.size();
    const std::string_view closing = quote == '"' ? "\"\"\"" : "'''";
    if (!at_end() && at_line_end())
        pass_line_end();
    while (!(text_.substr(at_).starts_with(closing) && peek(3) != quote)) {
        // Of more than five quotes in a row, the first three close the string.
        if (text_.substr(at_).starts_with(closing) && peek(3) == quote && peek(4) == quote &&
            peek(5) == quote)
            break;
        if (!at_end() && at_line_end()) {
            keep('\n');
            pass_line_end();
        } else if (quote == '"' && peek() == '\\') {
            std::size_t ahead = 1;
            while (peek(ahead) == ' ' || peek(ahead) == '\t')
                ++ahead;
            if (peek(ahead) != '\n' && !(peek(ahead) == '\r' && peek(ahead + 1) == '\n')) {
                HV_TRY(escape());
                continue;
            }
            at_ += ahead;  // a backslash at a line's end: the white space after it is not part of the string
            while (!at_end() && (at_line_end() || peek() == ' ' || peek() == '\t')) {
                if (at_line_end())
                    pass_line_end();
                else
                    ++at_;
            }
        } else {
            HV_TRY(character());
        }
    }
    accept(closing);
    return kept_since(start);
}

// [toml1.0 String]: the escape sequences of basic strings.
Expected<void> Scanner::escape() {
    const char kind = peek(1);
    constexpr std::string_view kNames = "btnfr\"\\";
    constexpr std::string_view kValues = "\b\t\n\f\r\"\\";
    if (const auto simple = kNames.find(kind); kind != '\0' && simple != std::string_view::npos) {
        keep(kValues[simple]);
        at_ += 2;
        return {};
    }
    if (kind != 'u' && kind != 'U')
        return fail("unknown escape in a string; allowed: \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX");
    const std::size_t digits = kind == 'u' ? 4 : 8;
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < digits; ++i) {
        const unsigned digit = digit_value(peek(2 + i));
        if (digit > 15)
            return fail("\\%c needs %zu hexadecimal digits", kind, digits);
        code = code * 16 + digit;
    }
    if (code > 0x10'ffff || (code >= 0xd800 && code <= 0xdfff))
        return fail("\\%c with %x is no Unicode scalar value", kind, code);
    const auto continuation = [&](unsigned shift) {
        return static_cast<char>(0x80 | ((code >> shift) & 0x3f));
    };
    if (code < 0x80) {
        keep(static_cast<char>(code));
    } else if (code < 0x800) {
        keep(static_cast<char>(0xc0 | (code >> 6)));
        keep(continuation(0));
    } else if (code < 0x1'0000) {
        keep(static_cast<char>(0xe0 | (code >> 12)));
        keep(continuation(6));
        keep(continuation(0));
    } else {
        keep(static_cast<char>(0xf0 | (code >> 18)));
        keep(continuation(12));
        keep(continuation(6));
        keep(continuation(0));
    }
    at_ += 2 + digits;
    return {};
}

std::string_view Scanner::word() const {
    std::size_t size = 0;
    while (is_bare(peek(size)) || peek(size) == '+' || peek(size) == '.' || peek(size) == ':')
        ++size;
    return text_.substr(at_, size);
}

// [toml1.0 Integer]: decimal with a sign and no leading zero, or 0x, 0o, 0b without a sign; underscores
// between digits.
Expected<std::int64_t> Scanner::integer(std::string_view word) {
    const int shown_size = static_cast<int>(std::min<std::size_t>(word.size(), 40));
    std::string_view digits = word;
    const bool negative = digits.starts_with('-');
    const bool sign = negative || digits.starts_with('+');
    digits.remove_prefix(sign ? 1 : 0);
    const bool prefixed =
        !sign && digits.size() > 1 && digits[0] == '0' && !is_digit(digits[1]) && digits[1] != '_';
    const char letter = prefixed ? digits[1] : '\0';
    const unsigned base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (base != 10)
        digits.remove_prefix(2);
    if (base == 10 &&
        (digits.find_first_of(".eE") != std::string_view::npos || digits == "inf" || digits == "nan") &&
        (is_digit(digits[0]) || digits == "inf" || digits == "nan"))
        return fail("%.*s is a floating-point number, which no key has; an integer is allowed", shown_size,
                    word.data());
    if (base == 10 && !sign && (digits.find(':') != digits.npos || digits.find('-') != digits.npos) &&
        is_digit(digits[0]))
        return fail("%.*s is a date or time, which no key has", shown_size, word.data());
    if (base == 10 && digits.size() > 1 && digits[0] == '0')
        return fail("%.*s: an integer has no leading zeros", shown_size, word.data());

    std::uint64_t value = 0;
    bool digit_before = false;
    for (const char c : digits) {
        const unsigned digit = digit_value(c);
        if ((c == '_' && !digit_before) || (c != '_' && digit >= base))
            return fail("%.*s is not a value; a string stands in quotes", shown_size, word.data());
        digit_before = c != '_';
        if (c == '_')
            continue;
        if (value > (std::numeric_limits<std::uint64_t>::max() - digit) / base)
            return fail("%.*s does not fit in 64 bits", shown_size, word.data());
        value = value * base + digit;
    }
    if (!digit_before)
        return fail("%.*s is not a value; a string stands in quotes", shown_size, word.data());
    const std::uint64_t limit = std::uint64_t{1} << 63;
    if (value > (negative ? limit : limit - 1))
        return fail("%.*s does not fit in 64 bits", shown_size, word.data());
    return static_cast<std::int64_t>(negative ? 0 - value : value);
}

}  // namespace hv::config::toml
