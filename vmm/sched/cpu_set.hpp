// SPDX-License-Identifier: MIT
// Sets of host CPUs.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>

namespace hv {

class CpuSet {
public:
    static constexpr std::uint32_t kMaxCpus = 256;
    static constexpr std::size_t kWords = kMaxCpus / 64;

    constexpr CpuSet() = default;
    static constexpr CpuSet all() {
        CpuSet set;
        set.words_.fill(~std::uint64_t{0});
        return set;
    }
    static constexpr CpuSet of(std::uint32_t cpu) {
        CpuSet set;
        set.add(cpu);
        return set;
    }
    /// `cpu` < kMaxCpus.
    constexpr void add(std::uint32_t cpu) { words_[cpu / 64] |= std::uint64_t{1} << (cpu % 64); }
    constexpr void remove(std::uint32_t cpu) { words_[cpu / 64] &= ~(std::uint64_t{1} << (cpu % 64)); }
    [[nodiscard]] constexpr bool contains(std::uint32_t cpu) const {
        return (words_[cpu / 64] >> (cpu % 64) & 1) != 0;
    }
    [[nodiscard]] constexpr bool empty() const { return !first(); }
    [[nodiscard]] constexpr std::optional<std::uint32_t> first() const {
        for (std::uint32_t i = 0; i < kWords; ++i) {
            if (words_[i] != 0)
                return i * 64 + static_cast<std::uint32_t>(std::countr_zero(words_[i]));
        }
        return std::nullopt;
    }
    constexpr CpuSet operator&(const CpuSet& other) const {
        CpuSet both = *this;
        for (std::size_t i = 0; i < kWords; ++i)
            both.words_[i] &= other.words_[i];
        return both;
    }
    constexpr bool operator==(const CpuSet&) const = default;
    /// Calls `visit(cpu)` for each member, in order.
    template <class Visit>
    constexpr void for_each(Visit&& visit) const {
        for (std::uint32_t i = 0; i < kWords; ++i)
            for_each_of(i, words_[i], visit);
    }

private:
    friend class AtomicCpuSet;
    template <class Visit>
    static constexpr void for_each_of(std::uint32_t index, std::uint64_t word, Visit&& visit) {
        for (; word != 0; word &= word - 1)
            visit(index * 64 + static_cast<std::uint32_t>(std::countr_zero(word)));
    }
    std::array<std::uint64_t, kWords> words_{};
};

/// A set that CPUs change at the same time; each member by itself is exact.
class AtomicCpuSet {
public:
    /// For CPUs 0 to cpu_count - 1.
    explicit AtomicCpuSet(std::uint32_t cpu_count = CpuSet::kMaxCpus) : words_used_{(cpu_count + 63) / 64} {}

    void add(std::uint32_t cpu) { words_[cpu / 64].fetch_or(bit(cpu), std::memory_order_acq_rel); }
    /// True if `cpu` was a member.
    bool remove(std::uint32_t cpu) {
        return contains(cpu) &&
               (words_[cpu / 64].fetch_and(~bit(cpu), std::memory_order_acq_rel) & bit(cpu)) != 0;
    }
    [[nodiscard]] bool contains(std::uint32_t cpu) const {
        return (words_[cpu / 64].load(std::memory_order_acquire) & bit(cpu)) != 0;
    }
    [[nodiscard]] bool empty() const {
        for (std::uint32_t i = 0; i < words_used_; ++i) {
            if (words_[i].load(std::memory_order_acquire) != 0)
                return false;
        }
        return true;
    }
    /// Whether any CPU but `cpu` is a member.
    [[nodiscard]] bool has_other_than(std::uint32_t cpu) const {
        for (std::uint32_t i = 0; i < words_used_; ++i) {
            const std::uint64_t self = i == cpu / 64 ? bit(cpu) : 0;
            if ((words_[i].load(std::memory_order_acquire) & ~self) != 0)
                return true;
        }
        return false;
    }
    [[nodiscard]] CpuSet snapshot() const {
        CpuSet set;
        for (std::uint32_t i = 0; i < words_used_; ++i)
            set.words_[i] = words_[i].load(std::memory_order_acquire);
        return set;
    }
    /// Calls `visit(cpu)` for each member, in order; what it changes of the CPUs ahead may count or not.
    template <class Visit>
    void for_each(Visit&& visit) const {
        for (std::uint32_t i = 0; i < words_used_; ++i)
            CpuSet::for_each_of(i, words_[i].load(std::memory_order_acquire), visit);
    }
    /// The same for the members that are among `others`.
    template <class Visit>
    void for_each_of(const CpuSet& others, Visit&& visit) const {
        for (std::uint32_t i = 0; i < words_used_; ++i)
            CpuSet::for_each_of(i, words_[i].load(std::memory_order_acquire) & others.words_[i], visit);
    }

private:
    static constexpr std::uint64_t bit(std::uint32_t cpu) { return std::uint64_t{1} << (cpu % 64); }
    std::uint32_t words_used_;  ///< by the CPUs that exist: the rest need not be looked at
    std::array<std::atomic<std::uint64_t>, CpuSet::kWords> words_{};
};

}  // namespace hv
