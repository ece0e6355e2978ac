// SPDX-License-Identifier: MIT
// Page tables in frames of the direct map: the TableMemory of the kernel.
#pragma once

#include "vmm/base/machine.hpp"
#include "vmm/mm/frame_source.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>

namespace hv::paging {

class FrameTables {
public:
    explicit FrameTables(FrameSource& frames) : frames_{&frames} {}

    Expected<Hpa> allocate() {
        const Hpa table = HV_TRY(frames_->allocate(0));
        std::memset(machine::hva(table), 0, kPageSize);
        return table;
    }
    void free(Hpa table) { frames_->free(table, 0); }
    [[nodiscard]] std::uint64_t load(Hpa table, unsigned index) const {
        return entry(table, index).load(std::memory_order_relaxed);
    }
    void store(Hpa table, unsigned index, std::uint64_t value) {
        entry(table, index).store(value, std::memory_order_release);
    }

private:
    static std::atomic_ref<std::uint64_t> entry(Hpa table, unsigned index) {
        return std::atomic_ref{machine::hva<std::uint64_t>(table)[index]};
    }

    FrameSource* frames_;
};

}  // namespace hv::paging
