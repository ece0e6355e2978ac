// SPDX-License-Identifier: MIT
// A FrameSource over the fake machine's arena: counts what is out, and fails when a test wants it to.
#pragma once

#include "fakes/machine.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/mm/frame_source.hpp"

#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace hv::fake {

class ArenaFrames final : public FrameSource {
public:
    /// Hands out [start, end).
    explicit ArenaFrames(std::uint64_t start = kPage2M, std::uint64_t end = kPhysicalMemory)
        : next_{start}, end_{end} {}

    Expected<Hpa> allocate(unsigned order) override {
        std::lock_guard guard{mutex_};
        if (left_ == 0)
            return Unexpected{Error::no_memory};
        const std::uint64_t size = kPageSize << order;
        std::vector<Hpa>& free = free_[order];
        Hpa frame{};
        if (!free.empty()) {
            frame = free.back();
            free.pop_back();
        } else {
            const std::uint64_t at = align_up(next_, size);
            if (at + size > end_)
                return Unexpected{Error::no_memory};
            next_ = at + size;
            frame = Hpa{at};
        }
        if (order == 0)
            std::memset(machine::hva(frame), 0xa5, size);  // contents are undefined
        --left_;
        ++out_;
        return frame;
    }
    void free(Hpa frame, unsigned order) override {
        std::lock_guard guard{mutex_};
        free_[order].push_back(frame);
        --out_;
    }

    /// The next `count` blocks come in descending order, so that none continues the one before.
    ArenaFrames& scatter(unsigned order, unsigned count) {
        std::vector<Hpa> blocks;
        while (blocks.size() < count)
            blocks.push_back(*allocate(order));
        for (const Hpa block : blocks)
            free(block, order);
        return *this;
    }
    /// From now on `count` allocations succeed.
    void limit(std::uint64_t count) { left_ = count; }
    [[nodiscard]] std::uint64_t outstanding() const { return out_; }

private:
    std::mutex mutex_;
    std::map<unsigned, std::vector<Hpa>> free_;
    std::uint64_t next_;
    std::uint64_t end_;
    std::uint64_t left_{~std::uint64_t{0}};
    std::uint64_t out_{0};
};

}  // namespace hv::fake
