// SPDX-License-Identifier: MIT
// Sets of the 256 interrupt vectors, as IRR, ISR and TMR are.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace hv {

class VectorBits {
public:
    static constexpr unsigned kWords = 4;

    [[nodiscard]] bool test(std::uint8_t vector) const {
        return (words_[vector / 64] >> (vector % 64) & 1) != 0;
    }
    [[nodiscard]] std::uint64_t word(unsigned index) const { return words_[index]; }
    /// As the APIC's registers show it: 32 vectors.
    [[nodiscard]] std::uint32_t register_value(unsigned index) const {
        return static_cast<std::uint32_t>(words_[index / 2] >> (index % 2 * 32));
    }
    [[nodiscard]] bool empty() const { return (words_[0] | words_[1] | words_[2] | words_[3]) == 0; }
    void set_word(unsigned index, std::uint64_t value) { words_[index] = value; }
    void assign(std::uint8_t vector, bool member) {
        const std::uint64_t mask = std::uint64_t{1} << (vector % 64);
        words_[vector / 64] = member ? words_[vector / 64] | mask : words_[vector / 64] & ~mask;
    }

private:
    std::array<std::uint64_t, kWords> words_{};
};

/// Knows its highest member at any time.
class VectorSet {
public:
    /// -1: empty.
    [[nodiscard]] int highest() const { return highest_; }
    /// Where highest() is found, for who looks often.
    [[nodiscard]] const int& highest_member() const { return highest_; }
    [[nodiscard]] const VectorBits& bits() const { return bits_; }

    void set(std::uint8_t vector) {
        bits_.assign(vector, true);
        if (vector > highest_)
            highest_ = vector;
    }
    void clear(std::uint8_t vector) {
        bits_.assign(vector, false);
        if (vector == highest_)
            highest_ = bits_.empty() ? -1 : search(vector / 64);
    }
    /// Adds 64 vectors, not all of them 0.
    void merge_word(unsigned index, std::uint64_t value) {
        bits_.set_word(index, bits_.word(index) | value);
        const int top = highest_of(index, value);
        if (top > highest_)
            highest_ = top;
    }

private:
    static int highest_of(unsigned index, std::uint64_t word) {
        return static_cast<int>(index * 64 + 63) - std::countl_zero(word);
    }
    [[nodiscard]] int search(unsigned from) const {
        for (unsigned index = from + 1; index-- > 0;) {
            if (bits_.word(index) != 0)
                return highest_of(index, bits_.word(index));
        }
        return -1;
    }

    VectorBits bits_;
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
    std::array<std::atomic<std::uint64_t>, VectorBits::kWords> words_{};
};

}  // namespace hv
