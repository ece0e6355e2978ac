// SPDX-License-Identifier: MIT
#include "vmm/monitor/text_ring.hpp"

#include <algorithm>

namespace hv {

void TextRing::rewind(std::size_t size) {
    const std::uint64_t kept = std::min<std::uint64_t>({size, buffer_.size(), end_});
    shown_ = end_ - kept;
    if (kept < end_)
        skip_line();  // it is cut somewhere, perhaps in an escape sequence
}

void TextRing::give_up() {
    const std::uint64_t from = shown_;
    shown_ += buffer_.size() / 2;
    skip_line();
    lost_ += shown_ - from;
}

void TextRing::skip_line() {
    const std::uint64_t end = std::min(end_, shown_ + kLongestLine);
    for (std::uint64_t position = shown_; position < end; ++position) {
        if (at(position) == '\n') {
            shown_ = position + 1;
            return;
        }
    }
}

}  // namespace hv
