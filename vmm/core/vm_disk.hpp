// SPDX-License-Identifier: MIT
// A disk of a VM: where its bytes are, and the virtio device that shows them to the guest.
#pragma once

#include "drivers/block/block_device.hpp"
#include "vmm/config/config.hpp"
#include "vmm/core/board.hpp"
#include "vmm/mm/guest_memory.hpp"
#include "vmm/storage/cow_overlay.hpp"
#include "vmm/virtio/virtio_blk.hpp"
#include "vmm/virtio/virtio_pci.hpp"

#include <cstdint>
#include <memory>

namespace hv {

struct VmServices;

class VmDisk {
public:
    /// Opens the source for the VM of this name and plugs the device into the board. Error::not_found: no
    /// such file; Error::no_memory; others as DiskDirectory::open().
    static Expected<std::unique_ptr<VmDisk>> create(const config::DiskConfig& config, std::string_view vm,
                                                    const VmServices& services, const GuestMemory& memory,
                                                    InterruptBus& interrupts, Board& board);

    /// What the configuration says of the device, and of an overlay.
    static virtio::VirtioBlk::Options device_options(const config::DiskConfig& config);
    static CowOverlay::Options overlay_options(const config::DiskConfig& config, std::string_view vm);

    /// See VirtioPciTransport.
    bool settle() { return transport_->settle(); }
    /// The platform's reset; the contents stay.
    void reset() { transport_->reset(); }
    /// Tells the guest if the disk has another size now. No lock held.
    void update_size() { device_->capacity_changed(contents().geometry().sectors); }
    [[nodiscard]] const config::DiskConfig& config() const { return config_; }
    [[nodiscard]] const virtio::VirtioBlk& device() const { return *device_; }
    /// Bytes of memory that an overlay has taken.
    [[nodiscard]] std::uint64_t overlay_bytes() const {
        return overlay_ != nullptr ? overlay_->store().frames_in_use() * kPageSize : 0;
    }

private:
    explicit VmDisk(const config::DiskConfig& config) : config_{config} {}
    [[nodiscard]] BlockDevice& contents() const {
        return overlay_ != nullptr ? static_cast<BlockDevice&>(*overlay_) : *source_;
    }
    Expected<void> open(const VmServices& services, std::string_view vm);

    const config::DiskConfig& config_;
    std::unique_ptr<BlockDevice> source_;
    std::unique_ptr<CowOverlay> overlay_;  ///< copy-on-write over source_, or nullptr
    std::unique_ptr<virtio::VirtioBlk> device_;
    std::unique_ptr<virtio::VirtioPciTransport> transport_;
};

}  // namespace hv
