// SPDX-License-Identifier: MIT
// Text into a caller's buffer, printf style, without a library: %d %i %u %x %X %c %s %p %% with h hh l ll z
// j, flags 0 and -, width (also *), and precision for %s (also *).
#pragma once

#include <cstdarg>
#include <cstddef>
#include <span>
#include <string_view>

namespace hv {

/// For "%.*s", before text.data().
constexpr int width(std::string_view text) {
    return static_cast<int>(text.size());
}

/// Writes at most buffer.size() characters, without a terminator; returns what was written.
std::string_view format_into(std::span<char> buffer, const char* format, std::va_list arguments);
std::string_view format_into(std::span<char> buffer, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

/// Text built up piece by piece in a fixed buffer; what does not fit is cut off.
template <std::size_t N>
class TextBuffer {
public:
    void append(const char* format, ...) __attribute__((format(printf, 2, 3))) {
        std::va_list arguments;
        va_start(arguments, format);
        size_ += format_into(std::span<char>{text_ + size_, N - size_}, format, arguments).size();
        va_end(arguments);
    }
    [[nodiscard]] std::string_view view() const { return {text_, size_}; }
    void clear() { size_ = 0; }

private:
    char text_[N];
    std::size_t size_{0};
};

}  // namespace hv
