// SPDX-License-Identifier: MIT
// Cuts a guest's output into lines that are harmless to show behind a prefix: no control characters but tabs,
// no escape sequences. A line ends with LF, also with CRs before it; a CR with text behind it, which would
// overwrite the line on a terminal, ends it as well, so that nothing is lost and nothing is forged.
#pragma once

#include "vmm/monitor/text_filter.hpp"

#include <array>
#include <cstddef>
#include <string_view>

namespace hv {

class LineBuilder {
public:
    /// A longer line becomes several, between characters.
    static constexpr std::size_t kSize = 1024;

    /// Calls `line(std::string_view)` for each line that is now complete, without its end.
    template <class Line>
    void add(std::string_view text, Line&& line) {
        for (const char c : text) {
            const std::string_view piece = filter_.feed(c);
            if (!piece.empty() && !is_line_end(piece[0]) && size_ + piece.size() > kSize)
                end(line);
            for (const char shown : piece)
                add(shown, line);
        }
    }
    /// Ends a line that has begun.
    template <class Line>
    void finish(Line&& line) {
        if (size_ > 0)
            end(line);
    }

private:
    static constexpr bool is_line_end(char c) { return c == '\n' || c == '\r'; }
    template <class Line>
    void add(char c, Line& line) {
        if (c == '\n') {
            end(line);
        } else if (c == '\r') {
            returned_ = true;
        } else {
            if (returned_ && size_ > 0)
                end(line);
            returned_ = false;
            text_[size_++] = c;
        }
    }
    template <class Line>
    void end(Line& line) {
        line(std::string_view{text_.data(), size_});
        size_ = 0;
        returned_ = false;
    }

    TextFilter filter_{TextFilter::Escapes::drop};
    std::array<char, kSize> text_{};
    std::size_t size_{0};
    bool returned_{false};  ///< a CR came last
};

}  // namespace hv
