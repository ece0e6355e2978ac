// SPDX-License-Identifier: MIT
#include "drivers/block/command_cutter.hpp"

#include "vmm/base/machine.hpp"

#include <algorithm>

namespace hv::block {
namespace {

/// Collects the runs of one command.
class RunBuilder {
public:
    RunBuilder(const CommandLimits& limits, std::span<DmaRun> runs) : limits_{limits}, runs_{runs} {}

    /// Adds as much of these `size` bytes as the command takes, perhaps in several calls; 0: no more.
    std::uint32_t add(Hpa address, std::uint32_t size) {
        const std::uint32_t whole = size - size % limits_.run_alignment;
        if (address.raw % limits_.run_alignment != 0 || whole == 0)
            return 0;
        if (count_ > 0 && end() == address) {
            DmaRun& last = runs_[count_ - 1];
            const std::uint32_t taken = std::min(whole, limits_.max_run_bytes - last.size);
            last.size += taken;
            bytes_ += taken;
            if (taken > 0)
                return taken;
        }
        if (count_ == limits_.max_runs || (count_ > 0 && leaves_gap(address)))
            return 0;
        const std::uint32_t taken = std::min(whole, limits_.max_run_bytes);
        runs_[count_++] = {address, taken};
        bytes_ += taken;
        return taken;
    }
    /// Gives up the last bytes.
    void drop(std::uint64_t bytes) {
        bytes_ -= bytes;
        while (bytes > 0) {
            DmaRun& last = runs_[count_ - 1];
            const auto dropped = static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, last.size));
            last.size -= dropped;
            bytes -= dropped;
            if (last.size == 0)
                --count_;
        }
    }
    [[nodiscard]] std::size_t count() const { return count_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

private:
    [[nodiscard]] Hpa end() const { return runs_[count_ - 1].address + runs_[count_ - 1].size; }
    [[nodiscard]] bool leaves_gap(Hpa address) const {
        const std::uint64_t boundary = limits_.run_boundary;
        return boundary != 0 && (end().raw % boundary != 0 || address.raw % boundary != 0);
    }

    const CommandLimits& limits_;
    std::span<DmaRun> runs_;
    std::size_t count_{0};
    std::uint64_t bytes_{0};
};

}  // namespace

Cut cut(std::span<const BlockSegment> segments, SegmentPosition from, std::uint64_t max_bytes,
        const CommandLimits& limits, std::uint32_t block, std::span<DmaRun> runs) {
    RunBuilder builder{limits, runs};
    SegmentPosition at = from;
    while (builder.bytes() < max_bytes) {
        const BlockSegment& segment = segments[at.segment];
        const auto size = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(segment.size - at.offset, max_bytes - builder.bytes()));
        const std::uint32_t taken = size == 0 ? 0 : builder.add(machine::hpa(segment.data + at.offset), size);
        at.offset += taken;
        if (at.offset == segment.size)
            at = {at.segment + 1, 0};
        else if (taken == 0)
            break;
    }
    const std::uint64_t excess = builder.bytes() % block;  // the hardware transfers whole blocks
    builder.drop(excess);
    if (excess == 0 && builder.bytes() != 0)
        return {builder.count(), builder.bytes(), at};
    const std::uint64_t bytes = builder.bytes() != 0 ? builder.bytes() : block;
    return {builder.count(), bytes, advance(segments, from, bytes, [](std::byte*, std::uint32_t) {})};
}

}  // namespace hv::block
