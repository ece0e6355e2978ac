// SPDX-License-Identifier: MIT
#include "drivers/block/virtio_blk_driver.hpp"

#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"
#include "vmm/base/wait.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <new>

namespace hv::block {
namespace {

using namespace hv::virtio;
using Operation = BlockRequest::Operation;

constexpr std::uint64_t kWanted = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_RO |
                                  VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY |
                                  VIRTIO_BLK_F_MQ | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES |
                                  VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_ACCESS_PLATFORM;

/// Each look at the device's status is an exit where it is a hypervisor's.
constexpr std::uint64_t kLooksPerSecond = 100;
/// For the answer to the one command at boot.
constexpr std::uint64_t kSerialTimeNs = 1'000'000'000;
/// No device's; it says that the device did not write one.
constexpr std::uint8_t kNoStatus = 0xff;

constinit log::RateLimit failure_log;

std::uint32_t type_of(Operation operation) {
    switch (operation) {
    case Operation::read: return VIRTIO_BLK_T_IN;
    case Operation::write: return VIRTIO_BLK_T_OUT;
    case Operation::flush: return VIRTIO_BLK_T_FLUSH;
    case Operation::discard: return VIRTIO_BLK_T_DISCARD;
    case Operation::write_zeroes: return VIRTIO_BLK_T_WRITE_ZEROES;
    }
    return VIRTIO_BLK_T_FLUSH;
}

}  // namespace

// --- set-up
// -----------------------------------------------------------------------------------------------------------

Expected<std::unique_ptr<VirtioBlkDriver>> VirtioBlkDriver::create(const PciTransport& transport,
                                                                   DmaPool& pool, const Clock& clock,
                                                                   const Options& options) {
    HV_ASSERT(options.max_queues > 0 && options.max_queues <= CommandEngine::kMaxChannels);
    std::unique_ptr<VirtioBlkDriver> driver{new (std::nothrow) VirtioBlkDriver{transport, clock, options}};
    if (driver == nullptr)
        return Unexpected{Error::no_memory};
    HV_TRY(driver->transport_.reset(clock));
    driver->features_ = HV_TRY(driver->transport_.negotiate(kWanted));
    BlkConfig config{};
    HV_TRY(driver->read_config(config));
    const unsigned queues = driver->has(VIRTIO_BLK_F_MQ) ? config.num_queues : 1;
    const unsigned count = std::min(options.max_queues, queues);
    const std::uint16_t queue_size = driver->common_queue_size(count);
    HV_TRY(driver->describe(config, queue_size));
    HV_TRY(driver->make_channels(pool, count, queue_size));
    HV_TRY(driver->enable_queues());
    HV_TRY(driver->read_serial());
    return driver;
}

Expected<void> VirtioBlkDriver::read_config(BlkConfig& config) {
    return transport_.read_config([&] {
        config.capacity = transport_.config64(offsetof(BlkConfig, capacity));
        config.size_max = transport_.config32(offsetof(BlkConfig, size_max));
        config.seg_max = transport_.config32(offsetof(BlkConfig, seg_max));
        config.blk_size = transport_.config32(offsetof(BlkConfig, blk_size));
        config.physical_block_exp = transport_.config8(offsetof(BlkConfig, physical_block_exp));
        config.num_queues = transport_.config16(offsetof(BlkConfig, num_queues));
        config.max_discard_sectors = transport_.config32(offsetof(BlkConfig, max_discard_sectors));
        config.max_discard_seg = transport_.config32(offsetof(BlkConfig, max_discard_seg));
        config.max_write_zeroes_sectors = transport_.config32(offsetof(BlkConfig, max_write_zeroes_sectors));
        config.max_write_zeroes_seg = transport_.config32(offsetof(BlkConfig, max_write_zeroes_seg));
        config.write_zeroes_may_unmap = transport_.config8(offsetof(BlkConfig, write_zeroes_may_unmap));
    });
}

std::uint16_t VirtioBlkDriver::common_queue_size(unsigned count) {
    std::uint16_t size = count > 0 ? kQueueSize : std::uint16_t{0};
    for (unsigned i = 0; i < count; ++i)
        size = std::min(size, transport_.max_queue_size(static_cast<std::uint16_t>(i)));
    return std::bit_floor(size);
}

Expected<void> VirtioBlkDriver::describe(const BlkConfig& config, std::uint16_t queue_size) {
    if (queue_size <= kOwnBuffers)
        return Unexpected{Error::unsupported};
    const std::uint32_t block = has(VIRTIO_BLK_F_BLK_SIZE) ? config.blk_size : kSectorSize;
    if (!std::has_single_bit(block) || block < kSectorSize || block > kPageSize)
        return Unexpected{Error::corrupted};
    const std::uint32_t size_max = has(VIRTIO_BLK_F_SIZE_MAX) ? config.size_max : kMaxTransfer;
    if (size_max < kPageSize)
        return Unexpected{Error::unsupported};
    const std::uint32_t seg_max = has(VIRTIO_BLK_F_SEG_MAX) ? std::max(config.seg_max, 1U) : 1;
    // A chain is no longer than its queue is large, indirect or not [virtio1.2 2.7.5.3.1 Driver Requirements:
    // Indirect Descriptors].
    const std::uint32_t max_runs = std::min<std::uint32_t>(
        queue_size - kOwnBuffers, has(VIRTIO_F_INDIRECT_DESC) ? kMaxRuns : kMaxRunsDirect);
    disk_.model.append("virtio-blk");
    disk_.blocks = config.capacity / (block / kSectorSize);
    disk_.logical_block_size = block;
    // No physical block is as large as 32 bits count.
    if (has(VIRTIO_BLK_F_TOPOLOGY) && config.physical_block_exp < std::countl_zero(block))
        disk_.physical_block_size = block << config.physical_block_exp;
    disk_.read_only = has(VIRTIO_BLK_F_RO);
    disk_.limits.max_blocks = kMaxTransfer / block;
    disk_.limits.max_runs = std::min(seg_max, max_runs);
    disk_.limits.max_run_bytes =
        static_cast<std::uint32_t>(align_down(std::min(size_max, kMaxTransfer), kPageSize));
    disk_.limits.run_alignment = 1;
    disk_.limits.can_flush = has(VIRTIO_BLK_F_FLUSH);
    describe_ranges(config);
    return {};
}

void VirtioBlkDriver::describe_ranges(const BlkConfig& config) {
    CommandLimits& limits = disk_.limits;
    const std::uint32_t ratio = disk_.logical_block_size / kSectorSize;
    limits.max_range_blocks = std::numeric_limits<std::uint32_t>::max() / ratio;
    const auto can = [&](std::uint64_t feature, std::uint32_t sectors, std::uint32_t ranges) {
        if (!has(feature) || sectors < ratio || ranges == 0)
            return false;
        limits.max_range_blocks = std::min<std::uint64_t>(limits.max_range_blocks, sectors / ratio);
        return true;
    };
    limits.can_discard = can(VIRTIO_BLK_F_DISCARD, config.max_discard_sectors, config.max_discard_seg);
    limits.can_write_zeroes =
        can(VIRTIO_BLK_F_WRITE_ZEROES, config.max_write_zeroes_sectors, config.max_write_zeroes_seg);
    limits.can_unmap_zeroes = limits.can_write_zeroes && config.write_zeroes_may_unmap != 0;
}

Expected<void> VirtioBlkDriver::make_channels(DmaPool& pool, unsigned count, std::uint16_t queue_size) {
    // A discard's chain has a range in place of the data.
    const auto max_chain = static_cast<std::uint16_t>(disk_.limits.max_runs + kOwnBuffers);
    for (unsigned i = 0; i < count; ++i) {
        DriverQueue queue = HV_TRY(DriverQueue::create(pool, {queue_size, max_chain, features_}));
        slots_ = std::min<unsigned>(queue.capacity(), CommandEngine::kMaxSlots);
        DmaBuffer memory = HV_TRY(pool.allocate(sizeof(SlotMemory) * slots_));
        auto channel = HV_TRY(make<Channel>(std::move(queue), std::move(memory)));
        HV_TRY(channels_.push(std::move(channel)));
    }
    return {};
}

Expected<void> VirtioBlkDriver::enable_queues() {
    for (unsigned i = 0; i < channels(); ++i) {
        const unsigned vector = options_.vectors == 0 ? VIRTIO_MSI_NO_VECTOR : shared_interrupt() ? 0 : i;
        channels_[i]->doorbell = HV_TRY(transport_.enable_queue(
            static_cast<std::uint16_t>(i), channels_[i]->queue, static_cast<std::uint16_t>(vector)));
    }
    transport_.set_config_vector(options_.vectors == 0 ? VIRTIO_MSI_NO_VECTOR : std::uint16_t{0});
    transport_.set_driver_ok();
    return {};
}

Expected<void> VirtioBlkDriver::read_serial() {
    Channel& channel = *channels_[0];
    SlotMemory& memory = channel.slot(0);
    memory.header = {VIRTIO_BLK_T_GET_ID, 0, 0};
    memory.status = kNoStatus;
    channel.buffers[0] = channel.buffer(0, offsetof(SlotMemory, header), sizeof memory.header);
    channel.buffers[1] = channel.buffer(0, offsetof(SlotMemory, id), sizeof memory.id);
    channel.buffers[2] = channel.buffer(0, offsetof(SlotMemory, status), sizeof memory.status);
    channel.queue.suppress_interrupts();
    if (!channel.queue.add(std::span{channel.buffers}.first(3), 1, 0))
        return Unexpected{Error::unsupported};
    commit(0);
    bool answered = false;
    const auto is_over = [&] {
        answered = channel.queue.reap().has_value();
        return answered || channel.queue.broken();
    };
    if (!wait_until(clock_, kSerialTimeNs, is_over))
        return Unexpected{Error::timed_out};
    if (!answered)
        return Unexpected{Error::io_error};
    if (memory.status == VIRTIO_BLK_S_OK) {
        for (const char c : memory.id) {
            if (c == '\0')
                break;
            disk_.serial.append("%c", c > ' ' && c <= '~' ? c : '_');
        }
    }
    // Nothing else is under way.
    (void)channel.queue.request_interrupts();
    return {};
}

// --- commands
// ----------------------------------------------------------------------------------------------------------

void VirtioBlkDriver::issue(unsigned index, unsigned slot, const BlockCommand& command) {
    Channel& channel = *channels_[index];
    SlotMemory& memory = channel.slot(slot);
    const std::uint64_t ratio = disk_.logical_block_size / kSectorSize;
    const bool is_range =
        command.operation == Operation::discard || command.operation == Operation::write_zeroes;
    memory.header = {type_of(command.operation), 0, is_range ? 0 : command.block * ratio};
    memory.status = kNoStatus;
    std::size_t count = 0;
    channel.buffers[count++] = channel.buffer(slot, offsetof(SlotMemory, header), sizeof memory.header);
    if (is_range) {
        // Within max_range_blocks, which is 32 bits of sectors.
        memory.range = {command.block * ratio, static_cast<std::uint32_t>(command.blocks * ratio),
                        command.may_unmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0};
        channel.buffers[count++] = channel.buffer(slot, offsetof(SlotMemory, range), sizeof memory.range);
    }
    for (const DmaRun& run : command.runs)
        channel.buffers[count++] = {run.address, run.size};
    const std::size_t readable = command.operation == Operation::read ? 1 : count;
    channel.buffers[count++] = channel.buffer(slot, offsetof(SlotMemory, status), sizeof memory.status);
    // There is room: no more slots are in use than the queue has capacity for.
    const bool added = channel.queue.add(std::span{channel.buffers}.first(count), readable,
                                         static_cast<std::uint16_t>(slot));
    HV_ASSERT(added);
}

void VirtioBlkDriver::commit(unsigned index) {
    if (channels_[index]->queue.publish())
        channels_[index]->doorbell.ring();
}

std::size_t VirtioBlkDriver::reap(unsigned index, std::span<Completion> out) {
    Channel& channel = *channels_[index];
    std::size_t count = 0;
    do {
        while (count < out.size()) {
            const auto used = channel.queue.reap();
            if (!used)
                break;
            out[count++] = {used->token, status_of(channel, used->token)};
        }
    } while (count < out.size() && channel.queue.request_interrupts());
    if (channel.queue.broken())
        broken_.store(true, std::memory_order_relaxed);
    return count;
}

BlockStatus VirtioBlkDriver::status_of(const Channel& channel, unsigned slot) const {
    const SlotMemory& memory = channel.slot(slot);
    const std::uint8_t status = memory.status;
    if (status == VIRTIO_BLK_S_OK)
        return BlockStatus::ok;
    if (status == VIRTIO_BLK_S_UNSUPP)
        return BlockStatus::unsupported;
    if (failure_log.admit())
        log::warning(log::Topic::block, "%.*s: a request of type %u at sector %llu failed with status %u",
                     width(options_.name), options_.name.data(), memory.header.type,
                     static_cast<unsigned long long>(memory.header.sector), status);
    return BlockStatus::io_error;
}

// --- reset
// -----------------------------------------------------------------------------------------------------------

bool VirtioBlkDriver::needs_reset(Look look) {
    if (broken_.load(std::memory_order_relaxed))
        return true;
    if (look == Look::memory)
        return false;
    const std::uint64_t now = clock_.now();
    if (now - looked_at_.load(std::memory_order_relaxed) < clock_.hz() / kLooksPerSecond)
        return false;
    looked_at_.store(now, std::memory_order_relaxed);
    return transport_.needs_reset();
}

void VirtioBlkDriver::begin_reset() {
    transport_.begin_reset();
}

CommandHardware::ResetProgress VirtioBlkDriver::poll_reset() {
    const PciTransport::Reset progress = transport_.poll_reset(features_);
    if (progress == PciTransport::Reset::pending)
        return ResetProgress::pending;
    if (progress == PciTransport::Reset::done) {
        for (auto& channel : channels_)
            channel->queue.start();
        if (enable_queues()) {
            broken_.store(false, std::memory_order_relaxed);
            return ResetProgress::done;
        }
    }
    transport_.shut_down();
    return ResetProgress::gone;
}

// --- size
// ------------------------------------------------------------------------------------------------------------

bool VirtioBlkDriver::look_at_sizes(std::span<const std::unique_ptr<HardwareDisk>> disks) {
    std::uint64_t sectors = 0;
    const auto read =
        transport_.read_config([&] { sectors = transport_.config64(offsetof(BlkConfig, capacity)); });
    // A device that is not there any more, or does not work, has no size.
    if (read && !transport_.needs_reset())
        disks.front()->set_blocks(sectors / (disk_.logical_block_size / kSectorSize));
    return false;
}

}  // namespace hv::block
