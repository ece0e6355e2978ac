// SPDX-License-Identifier: MIT
// The latest text of a channel, in a ring, with a mark up to where it has been shown. Text that is watched
// waits there to be shown; when it comes faster than it can be shown for so long that the ring is full, the
// older half of what waits is given up, so that what remains is in long coherent pieces and ends with what
// was said last.
#pragma once

#include "vmm/base/assert.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace hv {

class TextRing {
public:
    /// Where the text is made of lines up to this size, end included, only whole ones are given up.
    static constexpr std::size_t kLongestLine = 1025;

    /// `buffer` outlives the ring; its size is a power of two, at least 4 KiB.
    explicit TextRing(std::span<char> buffer) : buffer_{buffer} {
        HV_ASSERT(std::has_single_bit(buffer.size()) && buffer.size() >= 4096);
    }

    void append(std::string_view text) {
        for (const char c : text)
            append(c);
    }
    void append(char c) {
        if (waiting() == buffer_.size()) [[unlikely]]
            give_up();
        buffer_[end_++ & (buffer_.size() - 1)] = c;
        if (!watched_)
            shown_ = end_;
    }

    /// What comes while the text is not watched counts as shown.
    void watch(bool watched) {
        watched_ = watched;
        shown_ = watched ? shown_ : end_;
    }
    [[nodiscard]] bool watched() const { return watched_; }
    /// Lets at most `size` characters of what was shown wait again, from a line's start on.
    void rewind(std::size_t size);

    /// How much waits to be shown.
    [[nodiscard]] std::size_t waiting() const { return static_cast<std::size_t>(end_ - shown_); }
    /// The next character; one must be waiting.
    char take() {
        HV_ASSERT(waiting() > 0);
        return at(shown_++);
    }
    /// How many characters have been given up since the last call.
    std::uint64_t take_lost() { return std::exchange(lost_, 0); }
    /// Position of the next character to be shown, and of the one that will be appended next.
    [[nodiscard]] std::uint64_t shown() const { return shown_; }
    [[nodiscard]] std::uint64_t end() const { return end_; }
    /// The last character appended; '\n' if there is none.
    [[nodiscard]] char last() const { return end_ == 0 ? '\n' : at(end_ - 1); }

private:
    [[nodiscard]] char at(std::uint64_t position) const { return buffer_[position & (buffer_.size() - 1)]; }
    void give_up();
    /// On to the next line's start, if it is not far.
    void skip_line();

    std::span<char> buffer_;
    std::uint64_t end_{0};
    std::uint64_t shown_{0};
    std::uint64_t lost_{0};
    bool watched_{false};
};

}  // namespace hv
