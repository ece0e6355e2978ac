// SPDX-License-Identifier: MIT
// The driver's side of a split virtqueue with indirect descriptors and the event index. All that the device
// writes is read once, checked, then used: a device that says what cannot be makes the queue broken, until it
// is started again. What the driver has to remember lies outside the rings. [virtio1.2 2.7 Split Virtqueues]
//
// For one CPU at a time.
#pragma once

#include "drivers/virtio/virtio_defs.hpp"
#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/dma.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hv::virtio {

/// Physically contiguous memory that the device reads or writes.
struct QueueBuffer {
    Hpa address;
    std::uint32_t size;
};

class DriverQueue {
public:
    struct Options {
        std::uint16_t size;       ///< a power of two, as large as the device allows at most
        std::uint16_t max_chain;  ///< the buffers of a chain at most, <= size
        std::uint64_t features;   ///< as negotiated
    };
    /// Its memory is allocated, its rings are empty. Error::no_memory.
    static Expected<DriverQueue> create(DmaPool& pool, const Options& options);

    /// Forgets all chains and begins anew with empty rings. The device does not know of the queue (yet).
    void start();

    /// A chain of `buffers`, at least one: first those that the device reads, `readable` of them, then those
    /// that it writes. The device sees it after publish(). False: there is no room now. reap() gives `token`
    /// back.
    [[nodiscard]] bool add(std::span<const QueueBuffer> buffers, std::size_t readable, std::uint16_t token);
    /// Shows the device what was added. True: it wants to be notified.
    [[nodiscard]] bool publish();

    struct Used {
        std::uint16_t token;
        std::uint32_t written;  ///< bytes, says the device
    };
    /// Takes a chain that the device is done with.
    std::optional<Used> reap();

    /// Asks for an interrupt once the device is done with a chain. True: it was meanwhile with some, for
    /// which none may come.
    [[nodiscard]] bool request_interrupts();
    /// Tells the device that interrupts are of no use for now. It may send some all the same.
    void suppress_interrupts();

    /// The device broke a rule, and nothing more comes from it.
    [[nodiscard]] bool broken() const { return broken_; }
    /// Chains that the device has.
    [[nodiscard]] std::uint16_t in_flight() const { return in_flight_; }
    /// Chains of max_chain buffers that have room at the same time, whatever their number of buffers.
    [[nodiscard]] std::uint16_t capacity() const {
        return static_cast<std::uint16_t>(indirect_ ? size_ : size_ / max_chain_);
    }

    // What the device has to know.
    [[nodiscard]] std::uint16_t size() const { return size_; }
    [[nodiscard]] Hpa descriptor_area() const { return rings_.address(); }
    [[nodiscard]] Hpa driver_area() const { return rings_.address() + driver_offset(); }
    [[nodiscard]] Hpa device_area() const { return rings_.address() + device_offset(); }

private:
    /// What is known of a descriptor: the chain that it heads, or which one is next in its chain or free.
    struct Descriptor {
        std::uint16_t next;
        std::uint16_t token;
        std::uint16_t count;  ///< of the chain that begins here; 0: none does
    };

    DriverQueue(DmaBuffer rings, DmaBuffer tables, Vec<Descriptor> descriptors, const Options& options);
    [[nodiscard]] std::size_t driver_offset() const { return sizeof(VirtqDescriptor) * size_; }
    [[nodiscard]] std::size_t device_offset() const;
    template <class T>
    [[nodiscard]] std::atomic_ref<T> driver_word(std::size_t offset) const {
        return std::atomic_ref<T>{*rings_.at<T>(driver_offset() + offset)};
    }
    template <class T>
    [[nodiscard]] std::atomic_ref<T> device_word(std::size_t offset) const {
        return std::atomic_ref<T>{*rings_.at<T>(device_offset() + offset)};
    }
    [[nodiscard]] std::size_t slot(std::uint16_t index) const { return index & (std::size_t{size_} - 1); }
    void write_chain(std::span<const QueueBuffer> buffers, std::size_t readable);
    void write_indirect(std::span<const QueueBuffer> buffers, std::size_t readable);
    /// Reads the used index afresh if nothing is known to be left. False: the device is done with no chain.
    bool refresh();
    void break_off(const char* why);

    DmaBuffer rings_;
    DmaBuffer tables_;  ///< of indirect descriptors: one for each descriptor that may name it
    Vec<Descriptor> descriptors_;
    const std::uint16_t size_;
    const std::uint16_t max_chain_;
    const bool event_idx_;
    const bool indirect_;
    bool broken_{false};
    std::uint16_t free_head_{0};
    std::uint16_t free_count_{0};
    std::uint16_t in_flight_{0};
    std::uint16_t next_avail_{0};  ///< the next place in the available ring
    std::uint16_t published_{0};   ///< the available index as the device sees it
    std::uint16_t next_used_{0};   ///< the next place to look at in the used ring
    std::uint16_t used_index_{0};  ///< the device's index as last read
};

}  // namespace hv::virtio
