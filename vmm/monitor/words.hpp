// SPDX-License-Identifier: MIT
// A command line cut into words, which are separated by blanks. Names have no blanks, so there are no quotes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hv {

class Words {
public:
    static constexpr std::size_t kMax = 16;

    /// The words point into `line`. Words behind the kMax-th are counted, not kept.
    explicit Words(std::string_view line) {
        for (std::size_t at = 0; (at = line.find_first_not_of(kBlanks, at)) != std::string_view::npos;) {
            const std::size_t end = std::min(line.find_first_of(kBlanks, at), line.size());
            if (count_ < kMax)
                words_[count_] = line.substr(at, end - at);
            ++count_;
            at = end;
        }
    }
    [[nodiscard]] bool empty() const { return count_ == 0; }
    [[nodiscard]] bool too_many() const { return count_ > kMax; }
    [[nodiscard]] std::span<const std::string_view> all() const {
        return {words_.data(), std::min(count_, kMax)};
    }

private:
    static constexpr std::string_view kBlanks = " \t";

    std::array<std::string_view, kMax> words_{};
    std::size_t count_{0};
};

/// A decimal number of at most ten digits, if `word` is one.
inline std::optional<std::uint64_t> parse_number(std::string_view word) {
    std::uint64_t number = 0;
    for (const char c : word) {
        if (c < '0' || c > '9' || number > 1'000'000'000)
            return std::nullopt;
        number = number * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return word.empty() ? std::nullopt : std::optional{number};
}

}  // namespace hv
