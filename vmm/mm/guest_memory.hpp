// SPDX-License-Identifier: MIT
// A VM's RAM: guest-physical [0, low) and, where it has more than 3 GiB, [4 GiB, 4 GiB + high). It is made of
// runs of at least 2 MiB, so that a lookup is one table access. All that reads or writes guest RAM for a
// guest goes through here.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/frame_source.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

namespace hv {

class GuestMemory {
public:
    static constexpr std::uint64_t kGranule = kPage2M;
    /// End of low RAM at most; from here to 4 GiB is room for devices.
    static constexpr std::uint64_t kLowEnd = 3 * kGiB;
    static constexpr std::uint64_t kHighStart = 4 * kGiB;

    /// `bytes` is a multiple of kGranule (Error::invalid_argument). The memory is zeroed. Error::no_memory.
    static Expected<GuestMemory> create(FrameSource& frames, std::uint64_t bytes);
    GuestMemory(GuestMemory&& other) noexcept;
    GuestMemory& operator=(GuestMemory&&) = delete;
    /// Zeroes the memory and gives it back.
    ~GuestMemory();

    [[nodiscard]] std::uint64_t size() const { return size_; }
    [[nodiscard]] std::uint64_t low_size() const { return std::min(size_, kLowEnd); }
    [[nodiscard]] std::uint64_t high_size() const { return size_ - low_size(); }

    /// Host address of `length` bytes at `gpa`, or nullptr unless they are RAM and lie within one granule.
    [[nodiscard]] std::byte* at(Gpa gpa, std::size_t length) const {
        const std::uint64_t index = gpa.raw / kGranule;
        const std::uint64_t offset = gpa.raw % kGranule;
        if (index >= granules_.size() || length > kGranule - offset) [[unlikely]]
            return nullptr;
        std::byte* base = granules_[index];
        return base == nullptr ? nullptr : base + offset;
    }
    /// Whether all of [gpa, gpa + length) is RAM.
    [[nodiscard]] bool contains(Gpa gpa, std::uint64_t length) const;
    /// Error::out_of_range: some of it is not RAM; then nothing was copied.
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
    /// false ends it. Error::out_of_range: some of it is not RAM; then nothing was visited.
    template <class Visit>
    Expected<void> for_each_piece(Gpa gpa, std::uint64_t length, Visit&& visit) const {
        if (!contains(gpa, length))
            return Unexpected{Error::out_of_range};
        while (length > 0) {
            const std::uint64_t piece = std::min(length, kGranule - gpa.raw % kGranule);
            if (!visit(std::span{at(gpa, piece), piece}))
                break;
            gpa += piece;
            length -= piece;
        }
        return {};
    }
    /// Calls `visit(Gpa, Hpa, length)` for each physically contiguous run; it returns Expected<void>, an
    /// error ends it.
    template <class Visit>
    Expected<void> for_each_run(Visit&& visit) const {
        for (const Run& run : runs_)
            HV_TRY(visit(run.gpa, run.hpa, kPageSize << run.order));
        return {};
    }
    /// Zeroes all of it.
    void clear();

private:
    struct Run {
        Gpa gpa;
        Hpa hpa;
        unsigned order;
    };
    explicit GuestMemory(FrameSource& frames) : frames_{&frames} {}
    Expected<void> populate(Gpa start, std::uint64_t bytes);

    FrameSource* frames_;
    std::uint64_t size_{0};
    Vec<Run> runs_;
    Vec<std::byte*> granules_;  ///< host address of each 2 MiB of guest-physical space, nullptr: no RAM
};

}  // namespace hv
