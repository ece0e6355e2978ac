// SPDX-License-Identifier: MIT
// Sectors that were written, in memory: pages allocated on first write, found by a three-level table that
// grows with them, and a mark for each sector whether it has been written. Zeroes take no page. Any CPU at
// any time, without a lock: entries only ever gain a page or marks, so what becomes zero keeps its page,
// which others may be reading. Two accesses to one sector at once leave it with bytes of either.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/frame_source.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

class SectorStore {
public:
    static constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
    /// Room for `sectors` sectors of 512 bytes, in at most `most_frames` frames. `frames` outlives the store.
    /// Error::no_memory.
    static Expected<SectorStore> create(FrameSource& frames, std::uint64_t sectors,
                                        std::uint64_t most_frames = kNoLimit);
    SectorStore(SectorStore&& other) noexcept;
    SectorStore& operator=(SectorStore&&) = delete;
    ~SectorStore();

    /// A run of sectors that are alike.
    struct Run {
        enum class Kind : std::uint8_t { absent, zero, data };
        Kind kind;
        std::uint64_t sectors;
        const std::byte* data;  ///< of data: so many sectors in one piece
    };
    /// The run that starts at `sector`, of at most `limit` (> 0) sectors.
    [[nodiscard]] Run find(std::uint64_t sector, std::uint64_t limit) const;

    /// Calls `fill(std::span<std::byte>)` for the memory of `count` sectors at `sector`, page by page, and
    /// marks them written. Error::no_memory, Error::out_of_range (the limit): those before the one that found
    /// no memory are written.
    template <class Fill>
    Expected<void> write(std::uint64_t sector, std::uint64_t count, Fill&& fill) {
        std::uint64_t* leaf = nullptr;
        while (count > 0) {
            const Part part = part_at(sector, count);
            const std::uint64_t number = sector / kPageSectors;
            if (leaf == nullptr || number % kFanout == 0) [[unlikely]]
                leaf = HV_TRY(make_leaf(number));
            std::atomic_ref<std::uint64_t> entry{leaf[number % kFanout]};
            std::byte* page = HV_TRY(page_of(entry));
            fill(std::span{page + part.first * kSector, part.count * kSector});
            if ((entry.load(std::memory_order_relaxed) & part.mask) != part.mask)
                entry.fetch_or(part.mask, std::memory_order_release);
            sector += part.count;
            count -= part.count;
        }
        return {};
    }
    /// Makes sectors zero. Only tables may be allocated for that. Errors as write().
    Expected<void> zero(std::uint64_t sector, std::uint64_t count);

    /// Frames in use, tables included.
    [[nodiscard]] std::uint64_t frames_in_use() const { return used_.load(std::memory_order_relaxed); }

private:
    static constexpr std::size_t kSector = 512;
    static constexpr std::uint64_t kPageSectors = kPageSize / kSector;
    static constexpr std::uint64_t kFanout = kPageSize / sizeof(std::uint64_t);
    static constexpr std::uint64_t kWritten =
        (1 << kPageSectors) - 1;  ///< bits of an entry beside its page's address

    /// Sectors of one page.
    struct Part {
        std::uint64_t first;
        std::uint64_t count;
        std::uint64_t mask;
    };
    static Part part_at(std::uint64_t sector, std::uint64_t limit);
    /// The run that starts at the first sector of `part`, of a page whose entry is `entry`.
    static Run run_in(std::uint64_t entry, const Part& part);

    SectorStore(FrameSource& frames, std::uint64_t most_frames)
        : frames_{&frames}, most_frames_{most_frames} {}
    /// The table with the entry of a page, made as needed.
    Expected<std::uint64_t*> make_leaf(std::uint64_t page);
    /// The table with the entry of a page; nullptr: there is none yet.
    [[nodiscard]] std::uint64_t* leaf_of(std::uint64_t page) const;
    /// The frame that `slot` names in its upper bits; a zeroed one is put there first if there is none.
    Expected<std::byte*> page_of(std::atomic_ref<std::uint64_t> slot);
    /// A zeroed frame, counted as in use.
    Expected<Hpa> take_frame();
    void free_level(std::uint64_t entry, unsigned level);

    FrameSource* frames_;
    std::uint64_t most_frames_;
    /// Each names a table of kFanout tables of kFanout entries. An entry is the host physical address of a
    /// page, or 0, and a bit for each written sector; written sectors without a page are zero.
    Vec<std::uint64_t> top_;
    std::atomic<std::uint64_t> used_{0};
};

}  // namespace hv
