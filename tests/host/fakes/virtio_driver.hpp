// SPDX-License-Identifier: MIT
// The driver's side of virtio over PCI, as plain as can be: it finds the device's structures through the
// capabilities, negotiates, and builds rings in guest memory. Tests also reach into the rings to break them.
#pragma once

#include "fakes/arena_frames.hpp"
#include "fakes/board.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/core/io_bus.hpp"
#include "vmm/devices/pci_host_bridge.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace hv::fake {

/// A VM's board with guest RAM and PCI bus 0.
struct Board {
    static constexpr std::uint64_t kRam = 8 * kMiB;

    /// Its 2 MiB pieces, where the host sees them; and whether they can go.
    enum class Ram : std::uint8_t { contiguous, scattered, releasable };
    /// Boards that exist at once have different numbers.
    explicit Board(unsigned number = 0, Ram ram = Ram::contiguous, std::uint64_t size = kRam)
        : frames{kPage2M + number * 4 * kRam, kPage2M + (number + 1) * 4 * kRam},
          memory{std::move(GuestMemory::create(frames.scatter(9, ram == Ram::scattered ? kRam / kPage2M : 0),
                                               size,
                                               ram == Ram::releasable ? GuestMemory::Kind::releasable
                                                                      : GuestMemory::Kind::fixed))
                     .value()} {
        if (!memory_bus.add(guest_map::kEcam, guest_map::kEcamSize, bridge.ecam()) ||
            !ports.add(guest_map::kPciAddress, 8, bridge.ports()))
            std::abort();
    }
    /// Room in guest memory that nothing else uses.
    Gpa allocate(std::uint64_t size, std::uint64_t alignment = 16) {
        next = align_up(next, alignment);
        const Gpa at{next};
        next += size;
        if (next > kRam)
            std::abort();
        return at;
    }
    /// Words of 16 bits, which the rings' indices are, are read and written as a driver's barriers make it.
    template <class T>
    T get(Gpa gpa) {
        if constexpr (std::is_same_v<T, std::uint16_t>)
            return word(gpa).load();
        return memory.load<T>(gpa).value();
    }
    template <class T>
    void put(Gpa gpa, T value) {
        if constexpr (std::is_same_v<T, std::uint16_t>)
            return word(gpa).store(value);
        memory.store(gpa, value).value();
    }

    std::atomic_ref<std::uint16_t> word(Gpa gpa) {
        return std::atomic_ref<std::uint16_t>{*reinterpret_cast<std::uint16_t*>(memory.at(gpa, 2))};
    }

    ArenaFrames frames;
    GuestMemory memory;
    IoBus ports{IoBus::kPortHintShift};
    IoBus memory_bus{IoBus::kMemoryHintShift};
    PciHostBridge bridge{memory_bus};
    RecordingInterrupts interrupts;
    RecordingLine line;
    ManualClock clock;
    std::uint64_t next{0x1000};
};

/// A buffer of a chain.
struct DriverBuffer {
    Gpa gpa;
    std::uint32_t size;
    bool write;
};

class DriverQueue {
public:
    DriverQueue(Board& board, std::uint16_t entries, bool event_index)
        : size{entries},
          descriptors{board.allocate(16u * entries)},
          avail{board.allocate(6 + 2u * entries, 2)},
          used{board.allocate(6 + 8u * entries, 4)},
          board_{board},
          event_index_{event_index} {
        for (std::uint16_t i = 0; i < entries; ++i)
            free_.push_back(i);
        board.put<std::uint16_t>(used, 0);
        board.put<std::uint16_t>(used + 2, 0);
        board.put<std::uint16_t>(avail + 2, 0);
        want_interrupts(true);
    }

    void descriptor(std::uint16_t index, const virtio::VirtqDescriptor& value) {
        board_.put(descriptors + 16u * index, value);
    }
    /// Writes a chain and makes it available, not yet visible by the index.
    std::uint16_t add(const std::vector<DriverBuffer>& buffers, bool indirect = false) {
        std::vector<std::uint16_t> indices;
        const std::size_t needed = indirect ? 1 : buffers.size();
        if (free_.size() < needed)
            std::abort();
        while (indices.size() < needed) {
            indices.push_back(free_.front());
            free_.pop_front();
        }
        const Gpa table = indirect ? board_.allocate(16 * buffers.size()) : descriptors;
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            const bool last = i + 1 == buffers.size();
            const auto next = static_cast<std::uint16_t>(last ? 0 : indirect ? i + 1 : indices[i + 1]);
            const auto flags = static_cast<std::uint16_t>(
                (buffers[i].write ? virtio::VIRTQ_DESC_F_WRITE : 0) | (last ? 0 : virtio::VIRTQ_DESC_F_NEXT));
            board_.put(table + 16 * (indirect ? i : indices[i]),
                       virtio::VirtqDescriptor{buffers[i].gpa.raw, buffers[i].size, flags, next});
        }
        if (indirect)
            descriptor(indices[0], {table.raw, static_cast<std::uint32_t>(16 * buffers.size()),
                                    virtio::VIRTQ_DESC_F_INDIRECT, 0});
        owned_[indices[0]] = indices;
        put_head(indices[0]);
        return indices[0];
    }
    /// Puts any number in the next place of the available ring.
    void put_head(std::uint16_t head) {
        board_.put<std::uint16_t>(avail + 4 + 2u * (next_avail % size), head);
        ++next_avail;
    }
    /// Shows what was added. True: the device wants to be notified.
    bool publish() {
        const auto old = board_.get<std::uint16_t>(avail + 2);
        board_.put<std::uint16_t>(avail + 2, next_avail);
        if (!event_index_)
            return (board_.get<std::uint16_t>(used) & virtio::VIRTQ_USED_F_NO_NOTIFY) == 0;
        const auto event = board_.get<std::uint16_t>(used + 4 + 8u * size);
        return static_cast<std::uint16_t>(next_avail - event - 1) <
               static_cast<std::uint16_t>(next_avail - old);
    }
    struct Used {
        std::uint32_t id;
        std::uint32_t length;
    };
    std::optional<Used> take_used() {
        if (board_.get<std::uint16_t>(used + 2) == last_used)
            return std::nullopt;
        const auto element = board_.get<Used>(used + 4 + 8u * (last_used % size));
        ++last_used;
        for (const std::uint16_t index : owned_[static_cast<std::uint16_t>(element.id)])
            free_.push_back(index);
        owned_.erase(static_cast<std::uint16_t>(element.id));
        if (event_index_ && wants_interrupts_)
            want_interrupts(true);
        return element;
    }
    void want_interrupts(bool wanted) {
        wants_interrupts_ = wanted;
        if (event_index_)
            board_.put<std::uint16_t>(avail + 4 + 2u * size,
                                      static_cast<std::uint16_t>(wanted ? last_used : last_used - 1));
        else
            board_.put<std::uint16_t>(avail, wanted ? 0 : virtio::VIRTQ_AVAIL_F_NO_INTERRUPT);
    }
    [[nodiscard]] std::size_t free_descriptors() const { return free_.size(); }

    std::uint16_t size;
    Gpa descriptors, avail, used;
    std::uint16_t next_avail{0};
    std::uint16_t last_used{0};

private:
    Board& board_;
    bool event_index_;
    bool wants_interrupts_{true};
    std::deque<std::uint16_t> free_;
    std::map<std::uint16_t, std::vector<std::uint16_t>> owned_;
};

class VirtioDriver {
public:
    static constexpr std::uint8_t kFirstVector = 0x40;  ///< configuration changes; queue q: + 1 + q

    /// The function's memory decoding is switched on, its structures are found.
    VirtioDriver(Board& board, unsigned device)
        : board_{board}, config_{guest_map::kEcam + (std::uint64_t{device} << 15)} {
        write_config(pci::kCommand, 2, pci::kCommandMemory | pci::kCommandMaster);
        for (std::uint64_t at = read_config(pci::kCapabilities, 1); at != 0; at = read_config(at + 1, 1)) {
            if (read_config(at, 1) == pci::kCapabilityMsix)
                msix_ = at;
            if (read_config(at, 1) != pci::kCapabilityVendor)
                continue;
            const auto type = read_config(at + 3, 1);
            structures_[type] = bar(read_config(at + 4, 1)) + read_config(at + 8, 4);
            if (type == 2)
                multiplier_ = read_config(at + 16, 4);
            if (type == 5)
                window_ = at;
        }
    }

    std::uint64_t read_config(std::uint64_t offset, unsigned size) {
        return board_.memory_bus.read(config_ + offset, size);
    }
    void write_config(std::uint64_t offset, unsigned size, std::uint64_t value) {
        board_.memory_bus.write(config_ + offset, size, value);
    }
    std::uint64_t bar(std::uint64_t index) { return read_config(pci::kBar0 + 4 * index, 4) & ~0xfull; }
    std::uint64_t common(std::uint64_t offset, unsigned size) {
        return board_.memory_bus.read(structures_[1] + offset, size);
    }
    void set_common(std::uint64_t offset, unsigned size, std::uint64_t value) {
        board_.memory_bus.write(structures_[1] + offset, size, value);
    }
    std::uint64_t isr() { return board_.memory_bus.read(structures_[3], 1); }
    std::uint64_t device_config(std::uint64_t offset, unsigned size) {
        return board_.memory_bus.read(structures_[4] + offset, size);
    }
    void set_device_config(std::uint64_t offset, unsigned size, std::uint64_t value) {
        board_.memory_bus.write(structures_[4] + offset, size, value);
    }
    std::uint8_t status() { return static_cast<std::uint8_t>(common(20, 1)); }
    void set_status(std::uint8_t value) { set_common(20, 1, value); }
    std::uint64_t offered() {
        set_common(0, 4, 0);
        const std::uint64_t low = common(4, 4);
        set_common(0, 4, 1);
        return low | common(4, 4) << 32;
    }
    /// Up to FEATURES_OK. False: refused.
    bool negotiate(std::uint64_t wanted) {
        set_status(0);
        set_status(virtio::ACKNOWLEDGE);
        set_status(virtio::ACKNOWLEDGE | virtio::DRIVER);
        features = wanted;
        for (unsigned half = 0; half < 2; ++half) {
            set_common(8, 4, half);
            set_common(12, 4, (wanted >> (32 * half)) & 0xffff'ffff);
        }
        set_status(virtio::ACKNOWLEDGE | virtio::DRIVER | virtio::FEATURES_OK);
        return (status() & virtio::FEATURES_OK) != 0;
    }
    void enable_msix() {
        const std::uint64_t table = bar(1);
        for (unsigned i = 0; i <= common(18, 2); ++i) {
            board_.memory_bus.write(table + 16 * i, 4, 0xfee0'0000);
            board_.memory_bus.write(table + 16 * i + 4, 4, 0);
            board_.memory_bus.write(table + 16 * i + 8, 4, kFirstVector + i);
            board_.memory_bus.write(table + 16 * i + 12, 4, 0);
        }
        write_config(msix_ + 2, 2, 0x8000);
        set_common(16, 2, 0);
    }
    DriverQueue& add_queue(unsigned index, std::uint16_t size) {
        queues.emplace(index, DriverQueue{board_, size, (features & virtio::VIRTIO_F_EVENT_IDX) != 0});
        DriverQueue& queue = queues.at(index);
        set_common(22, 2, index);
        set_common(24, 2, size);
        set_common(26, 2, index + 1);
        set_common(32, 4, queue.descriptors.raw);
        set_common(36, 4, 0);
        set_common(40, 8, queue.avail.raw);
        set_common(48, 8, queue.used.raw);
        set_common(28, 2, 1);
        return queue;
    }
    void driver_ok() { set_status(static_cast<std::uint8_t>(status() | virtio::DRIVER_OK)); }
    /// All of it, with `queue_size` entries a queue.
    void start(std::uint64_t wanted, std::uint16_t queue_size = 64) {
        if (!negotiate(wanted))
            std::abort();
        queues.clear();
        enable_msix();
        for (unsigned i = 0; i < common(18, 2); ++i)
            add_queue(i, queue_size);
        driver_ok();
    }
    void notify(unsigned index) { board_.memory_bus.write(structures_[2] + index * multiplier_, 2, index); }
    /// Shows what was added, and rings if the device wants it.
    void kick(unsigned index) {
        if (queues.at(index).publish())
            notify(index);
    }
    unsigned interrupts(unsigned queue) {
        return board_.interrupts.count(static_cast<std::uint8_t>(kFirstVector + 1 + queue));
    }
    unsigned config_interrupts() { return board_.interrupts.count(kFirstVector); }

    std::map<unsigned, DriverQueue> queues;
    std::uint64_t features{0};
    std::uint64_t msix_{0};
    std::uint64_t window_{0};

private:
    Board& board_;
    std::uint64_t config_;
    std::map<std::uint64_t, std::uint64_t> structures_;
    std::uint64_t multiplier_{0};
};

}  // namespace hv::fake
