// SPDX-License-Identifier: MIT
// Which device answers at which port or guest-physical address. One bus serves a VM's ports, another its
// memory. Lookups take no lock and may run while other vCPUs move ranges: the sorted table is read under a
// sequence counter, and a small table of hints, indexed by address, makes the usual lookup one comparison.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/core/io_device.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hv {

class IoBus {
public:
    static constexpr unsigned kMaxRanges = 160;
    static constexpr unsigned kPortHintShift = 2;
    static constexpr unsigned kMemoryHintShift = 12;

    struct Hit {
        IoDevice* device{};      ///< nullptr: nobody answers there
        std::uint64_t offset{};  ///< from the start of the device's range
        std::uint64_t
            remaining{};  ///< bytes from the address to the end of the range, or of the gap; at least 1
    };

    /// Addresses that agree in all bits from `hint_shift` up share a hint.
    explicit constexpr IoBus(unsigned hint_shift) : hint_shift_{hint_shift} {}
    IoBus(const IoBus&) = delete;
    IoBus& operator=(const IoBus&) = delete;

    /// Makes `device`, which outlives its range, answer in [base, base + length). Error::already_exists: the
    /// range overlaps another; Error::invalid_argument: it is empty or wraps around; Error::no_memory:
    /// kMaxRanges are in use.
    Expected<void> add(std::uint64_t base, std::uint64_t length, IoDevice& device) {
        if (length == 0 || base + (length - 1) < base)
            return Unexpected{Error::invalid_argument};
        LockGuard guard{lock_};
        const unsigned count = count_.load(std::memory_order_relaxed);
        const unsigned at = first_after(base);
        if (at > 0 && base - ranges_[at - 1].first() <= ranges_[at - 1].span())
            return Unexpected{Error::already_exists};
        if (at < count && ranges_[at].first() - base <= length - 1)
            return Unexpected{Error::already_exists};
        if (count == kMaxRanges)
            return Unexpected{Error::no_memory};
        change([&] {
            for (unsigned i = count; i > at; --i)
                ranges_[i].copy(ranges_[i - 1]);
            ranges_[at].set(base, length - 1, &device);
            count_.store(count + 1, std::memory_order_release);
        });
        return {};
    }

    /// Takes back the range that starts at `base`. An access that was looked up before may still be under
    /// way. Error::not_found.
    Expected<void> remove(std::uint64_t base) {
        LockGuard guard{lock_};
        const unsigned count = count_.load(std::memory_order_relaxed);
        const unsigned after = first_after(base);
        if (after == 0 || ranges_[after - 1].first() != base)
            return Unexpected{Error::not_found};
        change([&] {
            for (unsigned i = after; i < count; ++i)
                ranges_[i - 1].copy(ranges_[i]);
            count_.store(count - 1, std::memory_order_release);
        });
        return {};
    }

    [[nodiscard]] Hit find(std::uint64_t address) const {
        for (;;) {
            const std::uint32_t before = version_.load(std::memory_order_acquire);
            const unsigned hint = hints_[(address >> hint_shift_) % kHints].load(std::memory_order_relaxed);
            Hit hit = ranges_[hint].match(address);
            if (hit.device == nullptr || hint >= count_.load(std::memory_order_acquire)) [[unlikely]]
                hit = search(address);
            if ((before & 1) == 0 && version_.load(std::memory_order_acquire) == before) [[likely]]
                return hit;
            machine::pause();
        }
    }

    /// `size` is 1, 2, 4 or 8. Bytes that nobody claims read as ones and swallow writes. An access that does
    /// not lie in one range is made byte by byte.
    [[nodiscard]] std::uint64_t read(std::uint64_t address, unsigned size) const {
        const Hit hit = find(address);
        if (hit.remaining >= size) [[likely]]
            return hit.device != nullptr ? hit.device->read(hit.offset, size) : all_ones(size);
        std::uint64_t value = 0;
        for (unsigned i = 0; i < size; ++i) {
            const Hit part = find(address + i);
            const std::uint64_t octet =
                part.device != nullptr ? part.device->read(part.offset, 1) & 0xff : 0xff;
            value |= octet << (8 * i);
        }
        return value;
    }
    void write(std::uint64_t address, unsigned size, std::uint64_t value) const {
        const Hit hit = find(address);
        if (hit.remaining >= size) [[likely]] {
            if (hit.device != nullptr)
                hit.device->write(hit.offset, size, value);
            return;
        }
        for (unsigned i = 0; i < size; ++i) {
            const Hit part = find(address + i);
            if (part.device != nullptr)
                part.device->write(part.offset, 1, (value >> (8 * i)) & 0xff);
        }
    }

private:
    static constexpr unsigned kHints = 64;

    /// Read without a lock while another CPU changes it: the caller validates what it saw with the version.
    class Range {
    public:
        [[nodiscard]] std::uint64_t first() const { return first_.load(std::memory_order_acquire); }
        [[nodiscard]] std::uint64_t span() const { return span_.load(std::memory_order_acquire); }
        [[nodiscard]] Hit match(std::uint64_t address) const {
            const std::uint64_t offset = address - first();
            const std::uint64_t last = span();
            if (offset > last)
                return {};
            return {device_.load(std::memory_order_acquire), offset, last - offset + 1};
        }
        void set(std::uint64_t first, std::uint64_t span, IoDevice* device) {
            first_.store(first, std::memory_order_release);
            span_.store(span, std::memory_order_release);
            device_.store(device, std::memory_order_release);
        }
        void copy(const Range& other) {
            set(other.first(), other.span(), other.device_.load(std::memory_order_relaxed));
        }

    private:
        std::atomic<std::uint64_t> first_{0};
        std::atomic<std::uint64_t> span_{0};  ///< length - 1, so that a range may end at the last address
        std::atomic<IoDevice*> device_{nullptr};
    };

    /// Index of the first range that starts after `address`.
    [[nodiscard]] unsigned first_after(std::uint64_t address) const {
        unsigned low = 0;
        unsigned high = count_.load(std::memory_order_acquire);
        while (low < high) {
            const unsigned middle = (low + high) / 2;
            if (ranges_[middle].first() <= address)
                low = middle + 1;
            else
                high = middle;
        }
        return low;
    }
    [[nodiscard]] Hit search(std::uint64_t address) const {
        const unsigned after = first_after(address);
        const Hit hit = after != 0 ? ranges_[after - 1].match(address) : Hit{};
        if (hit.device == nullptr)
            return {nullptr, 0,
                    after < count_.load(std::memory_order_acquire) ? ranges_[after].first() - address
                                                                   : ~address};
        hints_[(address >> hint_shift_) % kHints].store(static_cast<std::uint8_t>(after - 1),
                                                        std::memory_order_relaxed);
        return hit;
    }
    /// Readers that overlap `function` start again. Under lock_.
    template <class Function>
    void change(Function&& function) {
        const std::uint32_t version = version_.load(std::memory_order_relaxed);
        version_.store(version + 1, std::memory_order_relaxed);
        function();
        version_.store(version + 2, std::memory_order_release);
    }

    std::atomic<std::uint32_t> version_{0};  ///< odd while a change is under way
    std::atomic<std::uint32_t> count_{0};
    unsigned hint_shift_;
    mutable std::array<std::atomic<std::uint8_t>, kHints>
        hints_{};                             ///< index of the range that answered last
    std::array<Range, kMaxRanges> ranges_{};  ///< the first count_, sorted by address
    Spinlock lock_{Rank::leaf};
};

}  // namespace hv
