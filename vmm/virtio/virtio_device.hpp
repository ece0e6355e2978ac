// SPDX-License-Identifier: MIT
// A virtio device apart from how its driver reaches it: features, configuration space, virtqueues. It knows
// nothing of PCI; its transport nothing of what it does. [virtio1.2 2 Basic Facilities of a Virtio Device]
#pragma once

#include "drivers/virtio/virtio_defs.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/virtio/virtqueue.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv::virtio {

/// How a device reaches its driver. Any CPU; no lock of rank board or above held.
class VirtioTransport {
public:
    /// Used buffers of `queue` want an interrupt.
    virtual void queue_interrupt(unsigned queue) = 0;
    /// The configuration space has changed.
    virtual void config_changed() = 0;
    /// The driver broke a rule: the device is of no use until it is reset.
    virtual void needs_reset() = 0;

protected:
    ~VirtioTransport() = default;
};

class VirtioDevice {
public:
    static constexpr unsigned kMaxQueues = 17;

    virtual ~VirtioDevice() = default;
    VirtioDevice(const VirtioDevice&) = delete;
    VirtioDevice& operator=(const VirtioDevice&) = delete;

    [[nodiscard]] virtual std::uint16_t device_id() const = 0;
    /// The device's own feature bits; those of the rings are the transport's affair.
    [[nodiscard]] virtual std::uint64_t features() const = 0;
    /// Whether a subset of what is offered is consistent in itself.
    [[nodiscard]] virtual bool accepts(std::uint64_t /*features*/) const { return true; }
    /// FEATURES_OK: these are in use from now on, until the next reset. Under the transport's lock.
    virtual void negotiated(std::uint64_t /*features*/) {}
    [[nodiscard]] virtual unsigned queue_count() const = 0;
    [[nodiscard]] virtual std::uint16_t max_queue_size(unsigned /*queue*/) const {
        return Virtqueue::kMaxSize;
    }
    /// `size` bytes at `offset` of the configuration space; zeroes beyond its end.
    [[nodiscard]] virtual std::uint64_t read_config(std::uint64_t offset, unsigned size) const = 0;
    virtual void write_config(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) {}

    /// DRIVER_OK: takes the queues into use; `layouts` has one for each queue, of size 0 where the driver
    /// enabled none. What a queue holds already is processed at the doorbells that the transport rings after
    /// this. Under the transport's lock (Rank::board). False: a queue was unusable, the device needs a reset.
    [[nodiscard]] virtual bool start(std::uint64_t features, std::span<const QueueLayout> layouts) = 0;
    /// Reset: after this no CPU takes anything from a queue, and no completion touches one. Waits for those
    /// at work. Under the transport's lock.
    virtual void stop() = 0;
    /// Whether the guest's memory is left alone after stop(): requests that other devices still work on have
    /// ended.
    [[nodiscard]] virtual bool drained() const { return true; }
    /// The driver rang the doorbell of `queue` (< queue_count()). Any vCPU, at any time.
    virtual void queue_notified(unsigned queue) = 0;

    /// The transport outlives the device's use.
    void set_transport(VirtioTransport& transport) { transport_ = &transport; }

protected:
    VirtioDevice() = default;
    [[nodiscard]] bool has_transport() const { return transport_ != nullptr; }
    [[nodiscard]] VirtioTransport& transport() const {
        HV_ASSERT(transport_ != nullptr);
        return *transport_;
    }
    /// read_config() over a structure in memory.
    static std::uint64_t read_bytes(std::span<const std::byte> config, std::uint64_t offset, unsigned size) {
        std::uint64_t value = 0;
        for (unsigned i = 0; i < size && offset + i < config.size(); ++i)
            value |= std::to_integer<std::uint64_t>(config[offset + i]) << (8 * i);
        return value;
    }

private:
    VirtioTransport* transport_{nullptr};
};

}  // namespace hv::virtio
