// SPDX-License-Identifier: MIT
// A disk whose writes stay in memory while the disk below keeps its contents. Each sector comes from the
// overlay once it was written, from the base before that, so that a write never has to read. A write that
// finds no memory, or would take more than it may, completes with io_error; the log says so once. What was
// written is gone with the overlay.
#pragma once

#include "drivers/block/block_device.hpp"
#include "drivers/block/transfer.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/list.hpp"
#include "vmm/storage/sector_store.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace hv {

class CowOverlay final : public BlockDevice {
public:
    struct Options {
        std::uint64_t limit = 0;  ///< of the memory that it takes, in bytes, tables included; 0: none
        // For the log:
        std::string_view user{};  ///< the VM's name
        std::string_view disk{};  ///< the base's
    };
    /// `base`, `frames` and names outlive the overlay, which keeps the size that the base has now.
    /// Error::no_memory.
    static Expected<std::unique_ptr<CowOverlay>> create(BlockDevice& base, FrameSource& frames,
                                                        const Options& options);

    [[nodiscard]] BlockGeometry geometry() const override { return geometry_; }
    /// Reads that need both overlay and base are split; no more than kSplits at a time, others wait.
    void submit(BlockRequest& request) override;
    [[nodiscard]] const SectorStore& store() const { return store_; }

private:
    static constexpr unsigned kSplits = 8;
    static constexpr unsigned kSegments = 64;

    /// A read that alternates between overlay and base, one part after the other.
    struct Split {
        CowOverlay* owner{};
        BlockRequest* original{};
        std::uint64_t done{};  ///< sectors
        SegmentCursor data{{}};
        BlockRequest part{};  ///< what the base reads
        std::array<BlockSegment, kSegments> segments{};
        std::array<std::byte, kPageSize> page{};  ///< for a block in more segments than these
        std::uint64_t in_page{};                  ///< sectors that the part reads there, 0: it does not
        BlockStatus part_status{};
        /// The one that comes second, of submit()'s return and the completion, goes on.
        enum Meeting : std::uint8_t { nobody, returned, completed };
        std::atomic<std::uint8_t> meeting{nobody};
    };
    struct Splits {
        std::uint32_t free{(1u << kSplits) - 1};
        List<BlockRequest, &BlockRequest::link> waiting{};
    };

    CowOverlay(BlockDevice& base, const BlockGeometry& geometry, SectorStore store, const Options& options);
    BlockStatus change(const BlockRequest& request);
    void report(Error error);
    void read(BlockRequest& request);
    void begin(Split& split, BlockRequest& request);
    /// Goes on with a split, and with reads that waited for it.
    void run(Split* split);
    /// Reads on until the base has to be waited for (nothing) or the request has ended.
    std::optional<BlockStatus> advance(Split& split);
    /// Takes what the last part read into the page, and reads from the overlay as far as it goes. True: that
    /// was all.
    bool read_overlay(Split& split);
    /// Sets up `part` for the next sectors, of at most `limit`.
    void prepare_part(Split& split, std::uint64_t limit);
    /// As many whole blocks, of at most `limit` sectors, as the part's segments hold; what they do.
    struct Gathered {
        std::size_t segments;
        std::uint64_t sectors;
    };
    Gathered gather(Split& split, std::uint64_t limit) const;
    /// Completes the request; returns the split with a next one, or nullptr.
    Split* finish(Split& split, BlockStatus status);
    static void on_part_complete(BlockRequest& part, BlockStatus status);

    BlockDevice& base_;
    SectorStore store_;
    const Options options_;
    BlockGeometry geometry_;
    std::atomic<bool> reported_{false};
    std::array<Split, kSplits> splits_{};
    Guarded<Splits, Rank::block> state_{};
};

}  // namespace hv
