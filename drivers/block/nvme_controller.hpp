// SPDX-License-Identifier: MIT
// An NVMe controller on PCI Express, versions 1.0 to 2.x, with the NVM command set: its namespaces are disks.
// Each channel is a pair of queues with an interrupt. Left out: namespaces that come while the host runs,
// those with metadata, host memory buffers, queues in the controller's memory.
#pragma once

#include "drivers/block/command_engine.hpp"
#include "drivers/block/nvme_admin.hpp"
#include "drivers/block/nvme_identify.hpp"
#include "drivers/block/nvme_namespace_watch.hpp"
#include "drivers/block/nvme_queue.hpp"
#include "vmm/base/device_registers.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/dma.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace hv::block {

class NvmeController final : public CommandHardware {
public:
    struct Options {
        std::string_view name;  ///< in the log, "nvme0"; outlives the controller
        unsigned channels;      ///< at most so many, > 0
        unsigned vectors = 1;   ///< channel c raises interrupt c modulo this
    };
    /// Of a controller with more namespaces the others are left out.
    static constexpr unsigned kMaxDisks = 64;

    /// Resets the device and learns what it is, which may take as long as the device says that it does: for
    /// when nothing else runs. Registers, pool and clock outlive the controller. Error::unsupported: not a
    /// device for this driver; Error::timed_out, Error::io_error: it does not work; Error::no_memory.
    static Expected<std::unique_ptr<NvmeController>> create(DeviceRegisters& registers, DmaPool& pool,
                                                            Clock& clock, const Options& options);

    /// What to create the engine with.
    [[nodiscard]] unsigned channels() const { return channel_count_; }
    [[nodiscard]] unsigned slots() const { return entries_ - 1; }
    [[nodiscard]] std::string_view name() const { return admin_->name(); }
    /// The disks, by unit.
    [[nodiscard]] std::span<const DiskDescription> disks() const { return disks_.span(); }
    /// "nvme0n2", by the namespace's identifier, whichever others can be used; "nvme0" is namespace 1 of a
    /// controller that lists no other (before version 1.1: that can have no other).
    [[nodiscard]] TextBuffer<24> disk_name(unsigned unit) const override;

    /// Before the host's power goes off, with the engine stopped and no command in the device; waits. A reset
    /// that is under way is brought to its end before.
    void shut_down();

    void issue(unsigned channel, unsigned slot, const BlockCommand& command) override;
    void commit(unsigned channel) override { channels_[channel]->queue.commit(); }
    std::size_t reap(unsigned channel, std::span<Completion> out) override;
    [[nodiscard]] bool needs_reset(Look look) override {
        return silent_.load(std::memory_order_relaxed) || (look == Look::device && admin_->has_failed());
    }
    void begin_reset() override;
    ResetProgress poll_reset() override;
    [[nodiscard]] std::uint64_t stray_completions() const override {
        return strays_.load(std::memory_order_relaxed);
    }
    bool look_at_sizes(std::span<const std::unique_ptr<HardwareDisk>> disks) override;

private:
    static constexpr unsigned kMaxSlots = nvme::Queue::kMaxEntries - 1;

    struct Slot {
        bool in_use;
        /// Slot number 5:0, above it what differs from use to use: a completion that comes twice is not taken
        /// for the next command's.
        std::uint16_t identifier;
        // For the log:
        BlockRequest::Operation operation;
        std::uint32_t namespace_id;
        std::uint64_t block;
    };
    struct Channel {
        Channel(nvme::Queue its_queue, DmaBuffer its_pages);
        /// No command is in it; the device does not know the queue.
        void clear();

        nvme::Queue queue;
        DmaBuffer pages;  ///< one for each slot: its PRP list, or its range to discard
        std::array<Slot, kMaxSlots> slots{};
    };

    /// As poll_reset().
    ResetProgress continue_reset();
    explicit NvmeController(std::unique_ptr<nvme::Admin> admin) : admin_{std::move(admin)}, watch_{*admin_} {}
    Expected<void> initialize(DeviceRegisters& registers, DmaPool& pool, const Options& options);
    [[nodiscard]] nvme::Submission set_up_command(unsigned step);
    [[nodiscard]] unsigned last_step() const { return 2 * channel_count_; }
    Expected<void> find_disks();
    Expected<Vec<std::uint32_t>> list_namespaces(std::uint32_t highest);
    Expected<void> add_disk(std::uint32_t namespace_id);
    Expected<void> identify(nvme::IdentifyStructure structure, std::uint32_t namespace_id = 0);
    void start_watch();
    [[nodiscard]] std::uint64_t blocks_now(unsigned unit) const;
    [[nodiscard]] nvme::IdentifyPage identified() const;
    std::optional<Completion> end(Channel& channel, const nvme::Completion& completion);
    [[nodiscard]] BlockStatus status_of(const Slot& slot, const nvme::Completion& completion);

    Vec<std::unique_ptr<Channel>> channels_;
    Vec<DiskDescription> disks_;
    Vec<std::uint32_t> namespace_ids_;  ///< of the disks
    bool has_namespaces_{false};        ///< several, whether they are disks or not
    // Dies first, and with it what the device does.
    std::unique_ptr<nvme::Admin> admin_;
    nvme::NamespaceWatch watch_;
    std::atomic<bool> silent_{false};  ///< an administrative command got no answer
    nvme::ControllerIdentity identity_{};
    unsigned channel_count_{0};
    unsigned entries_{0};  ///< of each queue
    unsigned vectors_{0};
    std::uint64_t shutdown_ns_{0};
    bool resetting_{false};
    bool ready_{true};  ///< false: a reset has not come so far that it takes administrative commands
    unsigned step_{0};  ///< of set_up_command()
    std::atomic<std::uint64_t> strays_{0};
    log::RateLimit stray_limit_;
    log::RateLimit failure_limit_;
};

}  // namespace hv::block
