// SPDX-License-Identifier: MIT
// Where a monitor command says what it found.
#pragma once

#include "vmm/base/text.hpp"

#include <cstdarg>
#include <string_view>

namespace hv {

class Output {
public:
    /// Lines end with '\n'.
    virtual void write(std::string_view text) = 0;
    /// printf style, see vmm/base/text.hpp; cut off at kPrintSize characters.
    void print(const char* format, ...) __attribute__((format(printf, 2, 3))) {
        char text[kPrintSize];
        std::va_list arguments;
        va_start(arguments, format);
        const auto formatted = format_into(text, format, arguments);
        va_end(arguments);
        write(formatted);
    }
    static constexpr std::size_t kPrintSize = 256;

protected:
    ~Output() = default;
};

}  // namespace hv

/// The two arguments of "%.*s".
#define HV_VIEW(text) static_cast<int>((text).size()), (text).data()
