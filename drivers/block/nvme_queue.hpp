// SPDX-License-Identifier: MIT
// A submission queue of an NVMe controller with the completion queue that it alone uses. Its user has at most
// entries() - 1 commands in it, so neither ring overflows. [nvme2 3.3.1 Memory-based Transport Queue Model
// (PCIe)]
#pragma once

#include "drivers/block/nvme_defs.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/mm/dma.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace hv::block::nvme {

class Queue {
public:
    /// As many submission entries as fit in a page.
    static constexpr unsigned kMaxEntries = kPageSize / sizeof(Submission);

    /// Queue `id`, with doorbells `stride` bytes apart, of 2 to kMaxEntries entries. Error::no_memory.
    static Expected<Queue> create(DeviceRegisters& registers, DmaPool& pool, std::uint16_t id,
                                  unsigned entries, std::size_t stride);

    /// Begins anew. The device does not know the queue, or does not any more.
    void clear();

    /// Puts a command into the submission queue; the device sees it after commit().
    void push(const Submission& command);
    void commit();
    /// The next entry of the completion queue; the device may use its place again after release().
    std::optional<Completion> take();
    void release();

    [[nodiscard]] std::uint16_t id() const { return id_; }
    [[nodiscard]] unsigned entries() const { return entries_; }
    [[nodiscard]] Hpa submissions() const { return rings_.address(); }
    [[nodiscard]] Hpa completions() const { return rings_.address() + kPageSize; }

private:
    Queue(DeviceRegisters& registers, DmaBuffer rings, std::uint16_t id, unsigned entries, std::size_t stride)
        : registers_{&registers}, rings_{std::move(rings)}, id_{id}, entries_{entries}, stride_{stride} {}
    [[nodiscard]] unsigned after(unsigned index) const { return index + 1 == entries_ ? 0 : index + 1; }

    DeviceRegisters* registers_;
    DmaBuffer rings_;  ///< a page of submissions, a page of completions
    std::uint16_t id_;
    unsigned entries_;
    std::size_t stride_;
    unsigned tail_{0};        ///< of the submissions
    unsigned told_tail_{0};   ///< as the device knows it
    unsigned head_{0};        ///< of the completions
    unsigned told_head_{0};   ///< as the device knows it
    std::uint64_t phase_{1};  ///< of the completions that are new
};

}  // namespace hv::block::nvme
