// SPDX-License-Identifier: MIT
// Which device answers at which port or guest-physical address. One bus serves a VM's ports, another its
// memory. Segments, each a device's range or a gap between two, tile the whole of the address space. Lookups
// take no lock and may run while other vCPUs move ranges: the sorted segments are read under a sequence
// counter, and a small table of hints, indexed by address, makes the usual lookup one comparison, also where
// nobody answers.
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
        const unsigned at = search(base);
        const std::uint64_t last = base + (length - 1), gap_first = segments_[at].first(),
                            gap_last = segments_[at].last();
        if (segments_[at].device() != nullptr || last > gap_last)
            return Unexpected{Error::already_exists};
        if (ranges_ == kMaxRanges)
            return Unexpected{Error::no_memory};
        const bool before = base != gap_first, behind = last != gap_last;
        change([&] {
            move_tail(at + 1, at + 1 + unsigned{before} + unsigned{behind});
            unsigned next = at;
            if (before)
                segments_[next++].set(gap_first, base - 1, nullptr);
            segments_[next++].set(base, last, &device);
            if (behind)
                segments_[next].set(last + 1, gap_last, nullptr);
        });
        ++ranges_;
        return {};
    }

    /// Takes back the range that starts at `base`. An access that was looked up before may still be under
    /// way. Error::not_found.
    Expected<void> remove(std::uint64_t base) {
        LockGuard guard{lock_};
        const unsigned at = search(base);
        if (segments_[at].device() == nullptr || segments_[at].first() != base)
            return Unexpected{Error::not_found};
        // The gap that it leaves and those beside it become one.
        const bool before = at > 0 && segments_[at - 1].device() == nullptr;
        const bool behind = at + 1 < count_ && segments_[at + 1].device() == nullptr;
        const unsigned first = at - unsigned{before}, end = at + 1 + unsigned{behind};
        const std::uint64_t gap_first = segments_[first].first(), gap_last = segments_[end - 1].last();
        change([&] {
            segments_[first].set(gap_first, gap_last, nullptr);
            move_tail(end, first + 1);
        });
        --ranges_;
        return {};
    }

    [[nodiscard]] Hit find(std::uint64_t address) const {
        for (;;) {
            const std::uint32_t before = version_.load(std::memory_order_acquire);
            const unsigned at = search(address);
            const Segment& segment = segments_[at];
            const std::uint64_t first = segment.first(), rest = segment.last() - address;
            const Hit hit{segment.device(), address - first, rest == ~std::uint64_t{0} ? rest : rest + 1};
            if ((before & 1) == 0 && version_.load(std::memory_order_acquire) == before) [[likely]] {
                hint(address).store(static_cast<std::uint16_t>(at), std::memory_order_relaxed);
                return hit;
            }
            machine::pause();
        }
    }

    /// `size` is 1, 2, 4 or 8. Bytes that nobody claims read as ones and swallow writes. An access that does
    /// not lie in one range is made byte by byte.
    [[nodiscard]] std::uint64_t read(std::uint64_t address, unsigned size) const {
        Hit hit;
        if (!find_by_hint(address, size, hit)) [[unlikely]]
            return read_slowly(address, size);
        return hit.device != nullptr ? hit.device->read(hit.offset, size) : all_ones(size);
    }
    void write(std::uint64_t address, unsigned size, std::uint64_t value) const {
        Hit hit;
        if (!find_by_hint(address, size, hit)) [[unlikely]]
            write_slowly(address, size, value);
        else if (hit.device != nullptr)
            hit.device->write(hit.offset, size, value);
    }

private:
    static constexpr unsigned kHints = 64;
    static constexpr unsigned kMaxSegments = 2 * kMaxRanges + 1;

    /// Read without a lock while another CPU changes it: the reader validates what it saw with the version.
    class Segment {
    public:
        [[nodiscard]] std::uint64_t first() const { return first_.load(std::memory_order_acquire); }
        [[nodiscard]] std::uint64_t last() const { return last_.load(std::memory_order_acquire); }
        /// nullptr: a gap.
        [[nodiscard]] IoDevice* device() const { return device_.load(std::memory_order_acquire); }
        void set(std::uint64_t first, std::uint64_t last, IoDevice* device) {
            first_.store(first, std::memory_order_release);
            last_.store(last, std::memory_order_release);
            device_.store(device, std::memory_order_release);
        }
        void copy(const Segment& other) { set(other.first(), other.last(), other.device()); }

    private:
        std::atomic<std::uint64_t> first_{0};
        std::atomic<std::uint64_t> last_{~std::uint64_t{0}};
        std::atomic<IoDevice*> device_{nullptr};
    };

    [[nodiscard]] std::atomic<std::uint16_t>& hint(std::uint64_t address) const {
        return hints_.data()[(address >> hint_shift_) % kHints];
    }
    /// False: the hint is wrong, or the access does not lie in one segment.
    [[nodiscard]] bool find_by_hint(std::uint64_t address, unsigned size, Hit& hit) const {
        const std::uint32_t before = version_.load(std::memory_order_acquire);
        // Any index is below kMaxSegments, and what lies beyond count_ is a copy of the last segment.
        const Segment& segment = segments_.data()[hint(address).load(std::memory_order_relaxed)];
        const std::uint64_t first = segment.first(), last = segment.last();
        hit.device = segment.device();
        hit.offset = address - first;
        // `address` <= `last` does not wrap as `address` + `size` may.
        return address >= first && address <= last && last - address >= size - 1 && (before & 1) == 0 &&
               version_.load(std::memory_order_acquire) == before;
    }
    [[gnu::noinline]] std::uint64_t read_slowly(std::uint64_t address, unsigned size) const {
        const Hit hit = find(address);
        if (hit.remaining >= size)
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
    [[gnu::noinline]] void write_slowly(std::uint64_t address, unsigned size, std::uint64_t value) const {
        const Hit hit = find(address);
        if (hit.remaining >= size) {
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

    /// Index of the segment that holds `address`.
    [[nodiscard]] unsigned search(std::uint64_t address) const {
        unsigned low = 0;
        unsigned high = count_.load(std::memory_order_acquire);
        while (high - low > 1) {
            const unsigned middle = (low + high) / 2;
            if (segments_[middle].first() <= address)
                low = middle;
            else
                high = middle;
        }
        return low;
    }
    /// Moves the segments from index `from` on to index `to`. Under lock_, in change().
    void move_tail(unsigned from, unsigned to) {
        const unsigned count = count_.load(std::memory_order_relaxed), tail = count - from;
        if (to > from) {
            for (unsigned i = tail; i-- > 0;)
                segments_[to + i].copy(segments_[from + i]);
        } else {
            for (unsigned i = 0; i < tail; ++i)
                segments_[to + i].copy(segments_[from + i]);
        }
        count_.store(to + tail, std::memory_order_release);
    }
    /// Readers that overlap `function` start again. Under lock_.
    template <class Function>
    void change(Function&& function) {
        const std::uint32_t version = version_.load(std::memory_order_relaxed);
        version_.store(version + 1, std::memory_order_relaxed);
        function();
        const unsigned count = count_.load(std::memory_order_relaxed);
        for (unsigned i = count; i < kMaxSegments; ++i)
            segments_[i].copy(segments_[count - 1]);
        version_.store(version + 2, std::memory_order_release);
    }

    std::atomic<std::uint32_t> version_{0};  ///< odd while a change is under way
    std::atomic<std::uint32_t> count_{1};    ///< of segments
    unsigned hint_shift_;
    unsigned ranges_{0};
    /// Index of the segment that answered last.
    mutable std::array<std::atomic<std::uint16_t>, kHints> hints_{};
    std::array<Segment, kMaxSegments> segments_{};  ///< the first count_, sorted by address
    Spinlock lock_{Rank::leaf};
};

}  // namespace hv
