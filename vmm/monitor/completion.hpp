// SPDX-License-Identifier: MIT
// Collects the words that could complete a word that has begun.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace hv {

class Completion {
public:
    /// More are not listed.
    static constexpr std::size_t kMaxListed = 64;

    explicit Completion(std::string_view begun) : begun_{begun} {}

    /// Takes a word into account if it fits; it outlives this.
    void add(std::string_view word) {
        if (!word.starts_with(begun_))
            return;
        if (count_ == 0)
            common_ = word;
        const auto differ = std::mismatch(common_.begin(), common_.end(), word.begin(), word.end());
        common_ = common_.substr(0, static_cast<std::size_t>(differ.first - common_.begin()));
        if (count_ < kMaxListed)
            words_[count_] = word;
        ++count_;
    }
    /// How many words fit.
    [[nodiscard]] std::size_t count() const { return count_; }
    /// What all of them go on with.
    [[nodiscard]] std::string_view rest() const {
        return count_ == 0 ? std::string_view{} : common_.substr(begun_.size());
    }
    [[nodiscard]] std::span<const std::string_view> words() const {
        return {words_.data(), std::min(count_, kMaxListed)};
    }

private:
    std::string_view begun_;
    std::string_view common_;
    std::array<std::string_view, kMaxListed> words_{};
    std::size_t count_{0};
};

}  // namespace hv
