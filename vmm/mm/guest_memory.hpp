// SPDX-License-Identifier: MIT
// A VM's RAM: guest-physical [0, low) and, where it has more than 3 GiB, [4 GiB, 4 GiB + high). It is made of
// runs of at least 2 MiB, so that a lookup is one table access. All that reads or writes guest RAM for a
// guest goes through here. Releasable memory can do without granules: one that is absent is taken again, full
// of zeroes, when somebody looks for it.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/frame_source.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>

namespace hv {

class GuestMemory {
public:
    static constexpr std::uint64_t kGranule = kPage2M;
    /// End of low RAM at most; from here to 4 GiB is room for devices.
    static constexpr std::uint64_t kLowEnd = 3 * kGiB;
    static constexpr std::uint64_t kHighStart = 4 * kGiB;

    enum class Kind : std::uint8_t { fixed, releasable };

    /// `bytes` is a multiple of kGranule (Error::invalid_argument). The memory is zeroed. Error::no_memory.
    static Expected<GuestMemory> create(FrameSource& frames, std::uint64_t bytes, Kind kind = Kind::fixed);
    GuestMemory(GuestMemory&& other) noexcept;
    GuestMemory& operator=(GuestMemory&&) = delete;
    /// Zeroes the memory and gives it back.
    ~GuestMemory();

    [[nodiscard]] std::uint64_t size() const { return size_; }
    [[nodiscard]] std::uint64_t low_size() const { return std::min(size_, kLowEnd); }
    [[nodiscard]] std::uint64_t high_size() const { return size_ - low_size(); }

    /// Host address of `length` bytes at `gpa`, or nullptr unless they are RAM and lie within one granule; or
    /// if that is absent and there is no memory for it, or about to be. What it points to stays until the CPU
    /// passes machine::let_interrupts_in(), longer if it is pinned or in use.
    [[nodiscard]] std::byte* at(Gpa gpa, std::size_t length) const {
        std::byte* data = present_at(gpa, length);
        return data != nullptr ? data : take(gpa, length);
    }
    /// The same, but nullptr too for what is absent.
    [[nodiscard]] std::byte* present_at(Gpa gpa, std::size_t length) const {
        const std::uint64_t index = gpa.raw / kGranule;
        const std::uint64_t offset = gpa.raw % kGranule;
        if (index >= granule_count_ || length > kGranule - offset) [[unlikely]]
            return nullptr;
        std::byte* base = granules_.get()[index].base.load(std::memory_order_acquire);
        return is_present(base) ? base + offset : nullptr;
    }
    /// Whether there is RAM at `gpa`, present or not.
    [[nodiscard]] bool is_ram(Gpa gpa) const {
        return gpa.raw < low_size() || gpa.raw - kHighStart < high_size();
    }
    /// Whether all of [gpa, gpa + length) is RAM.
    [[nodiscard]] bool contains(Gpa gpa, std::uint64_t length) const;
    /// Error::out_of_range: some of it is not RAM; then nothing was copied. Error::no_memory: some was
    /// absent.
    Expected<void> read(Gpa gpa, std::span<std::byte> out) const;
    Expected<void> write(Gpa gpa, std::span<const std::byte> in) const;
    Expected<void> fill(Gpa gpa, std::byte value, std::uint64_t length) const;
    template <class T>
    requires std::is_trivially_copyable_v<T> Expected<T> load(Gpa gpa)
    const {
        T value;
        HV_TRY(read(gpa, std::as_writable_bytes(std::span{&value, 1})));
        return value;
    }
    template <class T>
    requires std::is_trivially_copyable_v<T> Expected<void> store(Gpa gpa, const T& value)
    const { return write(gpa, std::as_bytes(std::span{&value, 1})); }
    /// Calls `visit(std::span<std::byte>)` for the host pieces of a range, in order; a visit that returns
    /// false ends it. Error::out_of_range: some of it is not RAM; then nothing was visited. Error::no_memory:
    /// some was absent; what is before it was visited.
    template <class Visit>
    Expected<void> for_each_piece(Gpa gpa, std::uint64_t length, Visit&& visit) const {
        if (!contains(gpa, length))
            return Unexpected{Error::out_of_range};
        while (length > 0) {
            const std::uint64_t piece = std::min(length, kGranule - gpa.raw % kGranule);
            std::byte* const data = at(gpa, piece);
            if (data == nullptr)
                return Unexpected{Error::no_memory};
            if (!visit(std::span{data, piece}))
                break;
            gpa += piece;
            length -= piece;
        }
        return {};
    }
    /// Calls `visit(Gpa, Hpa, length)` for each physically contiguous run; it returns Expected<void>, an
    /// error ends it. Nobody releases memory meanwhile.
    template <class Visit>
    Expected<void> for_each_run(Visit&& visit) const {
        for (const Run& run : runs_)
            HV_TRY(visit(run.gpa, run.hpa, kPageSize << run.order));
        for (std::size_t i = 0; kind_ == Kind::releasable && i < granule_count_; ++i)
            if (const std::byte* base = granules_.get()[i].base.load(); is_present(base))
                HV_TRY(visit(Gpa{i * kGranule}, machine::hpa(base), kGranule));
        return {};
    }
    /// Zeroes all of it. Nobody releases memory meanwhile.
    void clear();

    // --- of releasable memory; any CPU, but for release() and next_epoch(), which one CPU calls
    // -----------------------------------------------------------------------------------------------

    /// What the host has of a granule.
    enum class Presence : std::uint8_t { absent, leaving, present };
    [[nodiscard]] Presence presence(Gpa gpa) const {
        const std::byte* base = granules_.get()[gpa.raw / kGranule].base.load(std::memory_order_acquire);
        return is_present(base) ? Presence::present : base == nullptr ? Presence::absent : Presence::leaving;
    }
    [[nodiscard]] std::uint64_t absent_bytes() const {
        return absent_.load(std::memory_order_relaxed) * kGranule;
    }
    /// Keeps RAM present until unpin(): what is looked for once and used for long. False: some of it is
    /// leaving, or there is no memory for it.
    [[nodiscard]] bool pin(Gpa gpa, std::uint64_t length) const;
    void unpin(Gpa gpa, std::uint64_t length) const;
    [[nodiscard]] bool pinned(Gpa gpa) const { return granules_.get()[gpa.raw / kGranule].pins.load() != 0; }
    /// Nobody gets a present granule by at() any more: it is leaving. Returns where it lies; nullptr: it is
    /// pinned, or not present.
    std::byte* detach(Gpa granule);
    /// It stays after all,
    void attach(Gpa granule, std::byte* where);
    /// or is given back, zeroed by now, as nobody uses it any more: it is absent.
    void release(Gpa granule, std::byte* where);
    /// What is read or written on somebody else's behalf, as by a device: from when at() was called, or soon
    /// after on the same way through the VMM, until end_use() with what begin_use() returned.
    [[nodiscard]] unsigned begin_use() const {
        if (kind_ == Kind::fixed)
            return 0;
        for (;;) {
            const unsigned epoch = epoch_.load();
            uses_[epoch].fetch_add(1);
            // Else drained() may not have seen this one, which the next epoch would not look for.
            if (epoch_.load() == epoch) [[likely]]
                return epoch;
            uses_[epoch].fetch_sub(1);
        }
    }
    void end_use(unsigned epoch) const {
        if (kind_ != Kind::fixed)
            uses_[epoch].fetch_sub(1);
    }
    /// Begins a new epoch of uses, once drained(): none from before the last one is left.
    void next_epoch() { epoch_.store(1 - epoch_.load()); }
    [[nodiscard]] bool drained() const { return uses_[1 - epoch_.load()].load() == 0; }

private:
    struct Run {
        Gpa gpa;
        Hpa hpa;
        unsigned order;
    };
    struct Granule {
        /// Of its host memory; nullptr: no RAM, or absent; or kLeaving.
        std::atomic<std::byte*> base{nullptr};
        std::atomic<std::uint32_t> pins{0};
    };
    static constexpr std::uintptr_t kLeaving = 1;
    static bool is_present(const std::byte* base) {
        return reinterpret_cast<std::uintptr_t>(base) > kLeaving;
    }

    GuestMemory(FrameSource& frames, Kind kind) : frames_{&frames}, kind_{kind} {}
    Expected<void> populate(Gpa start, std::uint64_t bytes);
    /// at() of what is not present: makes it so if it can.
    [[gnu::cold]] std::byte* take(Gpa gpa, std::size_t length) const;
    [[nodiscard]] Granule& granule(Gpa gpa) const { return granules_.get()[gpa.raw / kGranule]; }

    FrameSource* frames_;
    Kind kind_;
    std::uint64_t size_{0};
    Vec<Run> runs_;                        ///< of fixed memory
    std::unique_ptr<Granule[]> granules_;  ///< of guest-physical space from 0 on
    std::size_t granule_count_{0};
    mutable std::atomic<std::uint64_t> absent_{0};
    mutable std::array<std::atomic<std::uint32_t>, 2> uses_{};
    std::atomic<unsigned> epoch_{0};
};

}  // namespace hv
