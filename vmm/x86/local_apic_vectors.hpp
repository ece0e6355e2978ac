// SPDX-License-Identifier: MIT
// Sets of the 256 interrupt vectors, as IRR, ISR and TMR are.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace hv {

/// Knows its highest member at any time.
class VectorSet {
public:
    static constexpr unsigned kWords = 4;

    [[nodiscard]] bool test(std::uint8_t vector) const {
        return (words_[vector / 64] >> (vector % 64) & 1) != 0;
    }
    /// -1: empty.
    [[nodiscard]] int highest() const { return highest_; }
    [[nodiscard]] std::uint64_t word(unsigned index) const { return words_[index]; }
    /// As the APIC's registers show it: 32 vectors.
    [[nodiscard]] std::uint32_t register_value(unsigned index) const {
        return static_cast<std::uint32_t>(words_[index / 2] >> (index % 2 * 32));
    }

    void set(std::uint8_t vector) {
        words_[vector / 64] |= std::uint64_t{1} << (vector % 64);
        if (vector > highest_)
            highest_ = vector;
    }
    void clear(std::uint8_t vector) {
        words_[vector / 64] &= ~(std::uint64_t{1} << (vector % 64));
        if (vector == highest_)
            highest_ = search(vector / 64);
    }
    void assign(std::uint8_t vector, bool member) { member ? set(vector) : clear(vector); }
    void set_word(unsigned index, std::uint64_t value) {
        words_[index] = value;
        highest_ = search(kWords - 1);
    }
    void clear_all() { *this = {}; }

private:
    [[nodiscard]] int search(unsigned from) const {
        for (unsigned word = from + 1; word-- > 0;) {
            if (words_[word] != 0)
                return static_cast<int>(word * 64 + 63) - std::countl_zero(words_[word]);
        }
        return -1;
    }

    std::array<std::uint64_t, kWords> words_{};
    int highest_{-1};
};

/// Collects vectors from any CPU for one that takes them over.
class PostedVectors {
public:
    void post(std::uint8_t vector) {
        words_[vector / 64].fetch_or(std::uint64_t{1} << (vector % 64), std::memory_order_release);
    }
    /// Removes and returns 64 vectors.
    std::uint64_t take(unsigned word) {
        if (words_[word].load(std::memory_order_relaxed) == 0)
            return 0;
        return words_[word].exchange(0, std::memory_order_acquire);
    }

private:
    std::array<std::atomic<std::uint64_t>, VectorSet::kWords> words_{};
};

}  // namespace hv
