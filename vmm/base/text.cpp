// SPDX-License-Identifier: MIT
#include "vmm/base/text.hpp"

#include <cstdint>
#include <cstring>

namespace hv {
namespace {

class Writer {
public:
    explicit Writer(std::span<char> buffer) : buffer_{buffer} {}
    void put(char c) {
        if (size_ < buffer_.size())
            buffer_[size_++] = c;
    }
    void fill(char c, std::size_t count) {
        while (count-- > 0)
            put(c);
    }
    void put(std::string_view text) {
        for (const char c : text)
            put(c);
    }
    [[nodiscard]] std::string_view written() const { return {buffer_.data(), size_}; }

private:
    std::span<char> buffer_;
    std::size_t size_{0};
};

struct Conversion {
    bool left{false};
    bool zero{false};
    std::size_t width{0};
    bool has_precision{false};
    std::size_t precision{0};
    int length{0};  ///< -2 hh, -1 h, 1 l, 2 ll, z, j
};

void put_padded(Writer& out, const Conversion& conversion, std::string_view prefix, std::string_view body) {
    const std::size_t used = prefix.size() + body.size();
    const std::size_t padding = conversion.width > used ? conversion.width - used : 0;
    const bool zeros = conversion.zero && !conversion.left;
    if (!conversion.left && !zeros)
        out.fill(' ', padding);
    out.put(prefix);
    if (zeros)
        out.fill('0', padding);
    out.put(body);
    if (conversion.left)
        out.fill(' ', padding);
}

void put_number(Writer& out, const Conversion& conversion, std::string_view prefix, std::uint64_t value,
                unsigned base, const char* digits) {
    char text[20];
    std::size_t at = sizeof text;
    do {
        text[--at] = digits[value % base];
        value /= base;
    } while (value != 0);
    put_padded(out, conversion, prefix, {text + at, sizeof text - at});
}

std::uint64_t truncate(std::uint64_t value, int length) {
    switch (length) {
    case -2: return static_cast<std::uint8_t>(value);
    case -1: return static_cast<std::uint16_t>(value);
    case 0: return static_cast<std::uint32_t>(value);
    default: return value;
    }
}

std::int64_t sign_extend(std::uint64_t value, int length) {
    switch (length) {
    case -2: return static_cast<std::int8_t>(value);
    case -1: return static_cast<std::int16_t>(value);
    case 0: return static_cast<std::int32_t>(value);
    default: return static_cast<std::int64_t>(value);
    }
}

/// Parses flags, width, precision and length after '%'; leaves `format` at the conversion character.
Conversion parse(const char*& format, std::va_list& arguments) {
    Conversion conversion;
    for (;; ++format) {
        if (*format == '-')
            conversion.left = true;
        else if (*format == '0')
            conversion.zero = true;
        else
            break;
    }
    const auto number = [&] {
        if (*format == '*') {
            ++format;
            const int value = va_arg(arguments, int);
            return value < 0 ? std::size_t{0} : static_cast<std::size_t>(value);
        }
        std::size_t value = 0;
        for (; *format >= '0' && *format <= '9'; ++format)
            value = value * 10 + static_cast<std::size_t>(*format - '0');
        return value;
    };
    conversion.width = number();
    if (*format == '.') {
        ++format;
        conversion.has_precision = true;
        conversion.precision = number();
    }
    for (;; ++format) {
        if (*format == 'h')
            --conversion.length;
        else if (*format == 'l')
            ++conversion.length;
        else if (*format == 'z' || *format == 'j')
            conversion.length = 2;
        else
            break;
    }
    return conversion;
}

void convert(Writer& out, const char*& format, std::va_list& arguments) {
    const Conversion conversion = parse(format, arguments);
    const auto argument = [&] {
        return conversion.length > 0 ? va_arg(arguments, std::uint64_t)
                                     : std::uint64_t{va_arg(arguments, unsigned)};
    };
    switch (*format) {
    case 'd':
    case 'i': {
        const std::int64_t value = sign_extend(argument(), conversion.length);
        const auto magnitude = value < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(value)
                                         : static_cast<std::uint64_t>(value);
        put_number(out, conversion, value < 0 ? "-" : "", magnitude, 10, "0123456789");
        break;
    }
    case 'u':
        put_number(out, conversion, "", truncate(argument(), conversion.length), 10, "0123456789");
        break;
    case 'x':
        put_number(out, conversion, "", truncate(argument(), conversion.length), 16, "0123456789abcdef");
        break;
    case 'X':
        put_number(out, conversion, "", truncate(argument(), conversion.length), 16, "0123456789ABCDEF");
        break;
    case 'p':
        put_number(out, conversion, "0x", reinterpret_cast<std::uintptr_t>(va_arg(arguments, void*)), 16,
                   "0123456789abcdef");
        break;
    case 'c': out.put(static_cast<char>(va_arg(arguments, int))); break;
    case 's': {
        const char* text = va_arg(arguments, const char*);
        if (text == nullptr)
            text = "(null)";
        std::size_t size = 0;
        while ((!conversion.has_precision || size < conversion.precision) && text[size] != '\0')
            ++size;
        put_padded(out, {conversion.left, false, conversion.width, false, 0, 0}, "", {text, size});
        break;
    }
    case '%': out.put('%'); break;
    default:  // The compiler's format check leaves this to a format that ends inside a conversion.
        --format;
        break;
    }
}

}  // namespace

std::string_view format_into(std::span<char> buffer, const char* format, std::va_list arguments) {
    Writer out{buffer};
    std::va_list copy;
    va_copy(copy, arguments);
    for (; *format != '\0'; ++format) {
        if (*format != '%') {
            out.put(*format);
            continue;
        }
        ++format;
        if (*format == '\0')
            break;
        convert(out, format, copy);
    }
    va_end(copy);
    return out.written();
}

std::string_view format_into(std::span<char> buffer, const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    const auto text = format_into(buffer, format, arguments);
    va_end(arguments);
    return text;
}

}  // namespace hv
