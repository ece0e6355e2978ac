// SPDX-License-Identifier: MIT
// The radix page table of x86: one algorithm for the host's own tables, NPT and EPT, which differ in the
// encoding of an entry alone (Format) and are reached through TableMemory. It uses the largest leaves that
// fit.
//
// A processor may walk the table at any moment. Each change is one aligned 8-byte store, and a table is
// complete before it is linked, so that a walker finds for every address the old mapping or the new one.
// Tables that fall out are not freed but retired: paging-structure caches may still lead into them until the
// owner has flushed the TLBs and calls release_retired(). The owner serializes the calls.
//
// Left out: a leaf is split in place, without a moment of absence between. The processor then may hold both
// sizes in its TLB, with the same translation [sdm3 4.10.2.3 Details of TLB Use]. Leaves are never joined,
// only replaced by map().
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/bits.hpp"
#include "vmm/base/expected.hpp"

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace hv::paging {

inline constexpr unsigned kEntryBits = 9;
inline constexpr unsigned kEntries = 1U << kEntryBits;

/// Bytes that one entry at `level` covers; level 1 holds the 4 KiB leaves.
constexpr std::uint64_t entry_span(unsigned level) {
    return kPageSize << (kEntryBits * (level - 1));
}

/// The encoding of entries. `attributes` are what the format's users choose for a leaf: rights, memory type.
template <class F>
concept TableFormat = std::equality_comparable<typename F::Attributes> &&
    requires(const F& format, unsigned level, Hpa hpa, typename F::Attributes attributes,
             std::uint64_t entry) {
    { F::kLevels } -> std::convertible_to<unsigned>;
    /// The input address is a canonical linear address: its upper bits repeat the topmost one that is
    /// translated.
    { F::kSignExtended } -> std::convertible_to<bool>;
    /// The highest level that may hold leaves on this processor: 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB).
    { format.largest_leaf_level() } -> std::same_as<unsigned>;
    { format.make_leaf(level, hpa, attributes) } -> std::same_as<std::uint64_t>;
    { format.make_table(hpa) } -> std::same_as<std::uint64_t>;
    /// Zero is not present.
    { F::is_present(entry) } -> std::same_as<bool>;
    /// Of present entries.
    { F::is_leaf(level, entry) } -> std::same_as<bool>;
    { F::address(level, entry) } -> std::same_as<Hpa>;
    { F::attributes(level, entry) } -> std::same_as<typename F::Attributes>;
};

/// Where tables live. load() and store() are single 8-byte accesses; store() has release order.
template <class M>
concept TableMemory = requires(M& memory, const M& constant, Hpa table, unsigned index, std::uint64_t entry) {
    { memory.allocate() } -> std::same_as<Expected<Hpa>>;  ///< 4 KiB, zeroed
    {memory.free(table)};
    { constant.load(table, index) } -> std::same_as<std::uint64_t>;
    {memory.store(table, index, entry)};
};

template <TableFormat Format, TableMemory Memory>
class RadixTable {
public:
    using Attributes = typename Format::Attributes;

    /// A leaf: [address, address + size()) translates to [hpa, hpa + size()).
    struct Leaf {
        std::uint64_t address;
        Hpa hpa;
        unsigned level;
        Attributes attributes;

        [[nodiscard]] std::uint64_t size() const { return entry_span(level); }
    };

    static Expected<RadixTable> create(Format format, Memory memory) {
        const Hpa root = HV_TRY(memory.allocate());
        return RadixTable{std::move(format), std::move(memory), root};
    }
    RadixTable(RadixTable&& other) noexcept
        : format_{std::move(other.format_)},
          memory_{std::move(other.memory_)},
          root_{std::exchange(other.root_, kNone)},
          retired_{std::exchange(other.retired_, kNone)},
          tables_{other.tables_},
          revision_{other.revision_} {}
    RadixTable& operator=(RadixTable&&) = delete;
    /// No processor uses the table any more.
    ~RadixTable() {
        if (root_ == kNone)
            return;
        retire(root_, Format::kLevels);
        release_retired();
    }

    /// Maps `length` bytes; what was mapped there is replaced. All values are multiples of 4 KiB
    /// (Error::invalid_argument); Error::out_of_range: beyond what the table translates; Error::no_memory
    /// leaves a prefix mapped.
    Expected<void> map(std::uint64_t address, Hpa hpa, std::uint64_t length, const Attributes& attributes) {
        HV_TRY(check(address, length));
        if (!hpa.aligned(kPageSize))
            return Unexpected{Error::invalid_argument};
        const std::uint64_t first = address & kInputMask;
        for (std::uint64_t done = 0; done < length;) {
            const unsigned level = largest_leaf(first + done, hpa + done, length - done);
            const auto table = descend(first + done, level);
            if (!table) {
                prune(root_, Format::kLevels, first + done);
                return Unexpected{table.error()};
            }
            replace(*table, level, first + done, format_.make_leaf(level, hpa + done, attributes));
            done += entry_span(level);
        }
        return {};
    }

    /// Unmaps what is mapped in the range. Errors as map(); Error::no_memory (a large leaf had to be split):
    /// no translation has changed.
    Expected<void> unmap(std::uint64_t address, std::uint64_t length) {
        HV_TRY(isolate(address, length));
        const std::uint64_t first = address & kInputMask;
        clear(root_, Format::kLevels, first, first + (length - 1));
        return {};
    }

    /// Gives what is mapped in the range other attributes. Errors as unmap().
    Expected<void> protect(std::uint64_t address, std::uint64_t length, const Attributes& attributes) {
        HV_TRY(isolate(address, length));
        const std::uint64_t first = address & kInputMask;
        protect_leaves(root_, Format::kLevels, first, first + (length - 1), attributes);
        return {};
    }

    /// The leaf that translates `address`.
    [[nodiscard]] std::optional<Leaf> find(std::uint64_t address) const {
        if (!translatable(address))
            return std::nullopt;
        const std::uint64_t input = address & kInputMask;
        Hpa table = root_;
        for (unsigned level = Format::kLevels; level > 0; --level) {
            const std::uint64_t entry = memory_.load(table, index(level, input));
            if (!Format::is_present(entry))
                return std::nullopt;
            if (is_leaf(level, entry))
                return leaf_at(level, align_down(input, entry_span(level)), entry);
            table = Format::address(level, entry);
        }
        return std::nullopt;
    }
    [[nodiscard]] std::optional<Hpa> translate(std::uint64_t address) const {
        const std::optional<Leaf> leaf = find(address);
        return leaf ? std::optional{leaf->hpa + (address & (leaf->size() - 1))} : std::nullopt;
    }

    /// Calls `visit(const Leaf&)` for all leaves, by rising address of the table's index.
    template <class Visit>
    void for_each_leaf(Visit&& visit) const {
        visit_leaves(root_, Format::kLevels, 0, visit);
    }

    [[nodiscard]] const Format& format() const { return format_; }
    [[nodiscard]] Hpa root() const { return root_; }
    /// Tables in use or retired, 4 KiB each.
    [[nodiscard]] std::size_t tables() const { return tables_; }
    /// 1 at first; grows with each change that a TLB may contradict: whatever replaces or removes something
    /// present.
    [[nodiscard]] std::uint64_t revision() const { return revision_; }
    [[nodiscard]] bool has_retired() const { return retired_ != kNone; }
    /// Frees the retired tables. Every processor that used the table has flushed its TLB since the last
    /// change.
    void release_retired() {
        while (retired_ != kNone) {
            const Hpa table = std::exchange(retired_, next_retired(retired_));
            memory_.free(table);
            --tables_;
        }
    }

private:
    static constexpr unsigned kInputBits = kPageShift + kEntryBits * Format::kLevels;
    static constexpr std::uint64_t kInputMask = (std::uint64_t{1} << kInputBits) - 1;
    static constexpr Hpa kNone{~std::uint64_t{0}};

    RadixTable(Format format, Memory memory, Hpa root)
        : format_{std::move(format)}, memory_{std::move(memory)}, root_{root} {}

    static unsigned index(unsigned level, std::uint64_t input) {
        return static_cast<unsigned>(input / entry_span(level)) % kEntries;
    }
    static bool is_leaf(unsigned level, std::uint64_t entry) {
        return level == 1 || Format::is_leaf(level, entry);
    }

    /// The address of an input: sign-extended where the format says so.
    static std::uint64_t extend(std::uint64_t input) {
        return Format::kSignExtended && (input >> (kInputBits - 1)) != 0 ? input | ~kInputMask : input;
    }
    static bool translatable(std::uint64_t address) { return extend(address & kInputMask) == address; }

    static Expected<void> check(std::uint64_t address, std::uint64_t length) {
        if (length == 0 || !is_aligned(address | length, kPageSize))
            return Unexpected{Error::invalid_argument};
        const std::uint64_t last = address + (length - 1);
        if (last < address || length - 1 > kInputMask || !translatable(address) || !translatable(last) ||
            (address & kInputMask) > (last & kInputMask))
            return Unexpected{Error::out_of_range};
        return {};
    }

    static Leaf leaf_at(unsigned level, std::uint64_t input, std::uint64_t entry) {
        return {extend(input), Format::address(level, entry), level, Format::attributes(level, entry)};
    }

    [[nodiscard]] unsigned largest_leaf(std::uint64_t input, Hpa hpa, std::uint64_t length) const {
        unsigned level = format_.largest_leaf_level();
        while (level > 1 && (!is_aligned(input | hpa.raw, entry_span(level)) || length < entry_span(level)))
            --level;
        return level;
    }

    Expected<Hpa> allocate() {
        const Hpa table = HV_TRY(memory_.allocate());
        ++tables_;
        return table;
    }

    /// The table at `level` on the way to `input`; what is missing on the way is made, larger leaves are
    /// split.
    Expected<Hpa> descend(std::uint64_t input, unsigned level) {
        Hpa table = root_;
        for (unsigned above = Format::kLevels; above > level; --above) {
            const std::uint64_t entry = memory_.load(table, index(above, input));
            if (!Format::is_present(entry)) {
                const Hpa child = HV_TRY(allocate());
                memory_.store(table, index(above, input), format_.make_table(child));
                table = child;
            } else if (is_leaf(above, entry)) {
                table = HV_TRY(split(table, above, input));
            } else {
                table = Format::address(above, entry);
            }
        }
        return table;
    }

    /// Replaces the leaf of `table` at `input` by a table of smaller leaves with the same translation.
    Expected<Hpa> split(Hpa table, unsigned level, std::uint64_t input) {
        const Hpa child = HV_TRY(allocate());
        const std::uint64_t entry = memory_.load(table, index(level, input));
        const Hpa hpa = Format::address(level, entry);
        const Attributes attributes = Format::attributes(level, entry);
        for (unsigned i = 0; i < kEntries; ++i)
            memory_.store(child, i,
                          format_.make_leaf(level - 1, hpa + i * entry_span(level - 1), attributes));
        memory_.store(table, index(level, input), format_.make_table(child));
        return child;
    }

    /// Makes the range begin and end at leaves' ends.
    Expected<void> isolate(std::uint64_t address, std::uint64_t length) {
        HV_TRY(check(address, length));
        HV_TRY(split_at(address & kInputMask));
        return split_at((address & kInputMask) + length);
    }
    Expected<void> split_at(std::uint64_t input) {
        Hpa table = root_;
        for (unsigned level = Format::kLevels; level > 1 && !is_aligned(input, entry_span(level)); --level) {
            const std::uint64_t entry = memory_.load(table, index(level, input));
            if (!Format::is_present(entry))
                return {};
            table =
                is_leaf(level, entry) ? HV_TRY(split(table, level, input)) : Format::address(level, entry);
        }
        return {};
    }

    void replace(Hpa table, unsigned level, std::uint64_t input, std::uint64_t entry) {
        const std::uint64_t old = memory_.load(table, index(level, input));
        if (Format::is_present(old) && is_leaf(level, old) &&
            Format::address(level, old) == Format::address(level, entry) &&
            Format::attributes(level, old) == Format::attributes(level, entry))
            return;
        memory_.store(table, index(level, input), entry);
        if (!Format::is_present(old))
            return;
        ++revision_;
        if (!is_leaf(level, old))
            retire(Format::address(level, old), level - 1);
    }

    /// Calls `visit(index, first, last)` for each entry at `level` with its part of [first, last].
    template <class Visit>
    static void for_each_part(unsigned level, std::uint64_t first, std::uint64_t last, Visit&& visit) {
        for (;;) {
            const std::uint64_t end = std::min(last, first | (entry_span(level) - 1));
            visit(index(level, first), first, end);
            if (end == last)
                return;
            first = end + 1;
        }
    }

    void clear(Hpa table, unsigned level, std::uint64_t first, std::uint64_t last) {
        for_each_part(level, first, last, [&](unsigned i, std::uint64_t begin, std::uint64_t end) {
            const std::uint64_t entry = memory_.load(table, i);
            if (!Format::is_present(entry))
                return;
            const bool leaf = is_leaf(level, entry);
            if (end - begin != entry_span(level) - 1) {
                HV_ASSERT(!leaf);
                clear(Format::address(level, entry), level - 1, begin, end);
                if (!is_empty(Format::address(level, entry)))
                    return;
            }
            memory_.store(table, i, 0);
            ++revision_;
            if (!leaf)
                retire(Format::address(level, entry), level - 1);
        });
    }

    void protect_leaves(Hpa table, unsigned level, std::uint64_t first, std::uint64_t last,
                        const Attributes& attributes) {
        for_each_part(level, first, last, [&](unsigned i, std::uint64_t begin, std::uint64_t end) {
            const std::uint64_t entry = memory_.load(table, i);
            if (!Format::is_present(entry))
                return;
            const Hpa hpa = Format::address(level, entry);
            if (is_leaf(level, entry))
                replace(table, level, begin, format_.make_leaf(level, hpa, attributes));
            else
                protect_leaves(hpa, level - 1, begin, end, attributes);
        });
    }

    template <class Visit>
    void visit_leaves(Hpa table, unsigned level, std::uint64_t base, Visit& visit) const {
        for (unsigned i = 0; i < kEntries; ++i) {
            const std::uint64_t entry = memory_.load(table, i);
            if (!Format::is_present(entry))
                continue;
            const std::uint64_t input = base + i * entry_span(level);
            if (is_leaf(level, entry))
                visit(leaf_at(level, input, entry));
            else
                visit_leaves(Format::address(level, entry), level - 1, input, visit);
        }
    }

    [[nodiscard]] bool is_empty(Hpa table) const {
        for (unsigned i = 0; i < kEntries; ++i) {
            if (Format::is_present(memory_.load(table, i)))
                return false;
        }
        return true;
    }

    /// Unlinks the empty tables on the way to `input`; true if `table` is empty itself.
    bool prune(Hpa table, unsigned level, std::uint64_t input) {
        const std::uint64_t entry = memory_.load(table, index(level, input));
        if (Format::is_present(entry) && !is_leaf(level, entry) &&
            prune(Format::address(level, entry), level - 1, input)) {
            memory_.store(table, index(level, input), 0);
            ++revision_;
            retire(Format::address(level, entry), level - 1);
        }
        return is_empty(table);
    }

    /// Puts an unlinked table, and what it refers to, on the list of retired tables. A walker may still be
    /// inside and must not notice: the list is threaded through bits 56:52 of the tables' first entries,
    /// which processors ignore in all formats, present or not [sdm3 4.5.4 Linear-Address Translation with
    /// 4-Level Paging and 5-Level Paging] [sdm3 29.3.2 EPT Translation Mechanism] [apm2 5.4
    /// Page-Translation-Table Entry Fields].
    void retire(Hpa table, unsigned level) {
        for (unsigned i = 0; level > 1 && i < kEntries; ++i) {
            const std::uint64_t entry = memory_.load(table, i);
            if (Format::is_present(entry) && !is_leaf(level, entry))
                retire(Format::address(level, entry), level - 1);
        }
        std::uint64_t link = retired_.raw >> kPageShift;
        for (unsigned i = 0; i < kLinkEntries; ++i, link >>= LinkBits::kWidth)
            memory_.store(table, i, LinkBits::set(memory_.load(table, i), link));
        retired_ = table;
    }
    [[nodiscard]] Hpa next_retired(Hpa table) const {
        std::uint64_t link = 0;
        for (unsigned i = kLinkEntries; i-- > 0;)
            link = link << LinkBits::kWidth | LinkBits::get(memory_.load(table, i));
        return link == kNoLink ? kNone : Hpa{link << kPageShift};
    }
    using LinkBits = Bits<56, 52>;
    static constexpr unsigned kLinkEntries = 8;  ///< 8 * 5 bits: the frame number of a 52-bit address
    static constexpr std::uint64_t kNoLink = (std::uint64_t{1} << (kLinkEntries * LinkBits::kWidth)) - 1;

    [[no_unique_address]] Format format_;
    [[no_unique_address]] Memory memory_;
    Hpa root_;
    Hpa retired_{kNone};  ///< head of the list of retired tables
    std::size_t tables_{1};
    std::uint64_t revision_{1};
};

}  // namespace hv::paging
