// SPDX-License-Identifier: MIT
// The system bus between a VM's interrupt sources and its local APICs: finds the destinations of a message.
#pragma once

#include "vmm/core/interrupt.hpp"

#include <atomic>
#include <cstdint>
#include <span>

namespace hv {

class LocalApic;

/// Who wants to know of EOIs to level-triggered vectors: the I/O APIC.
class EoiListener {
public:
    virtual void eoi(std::uint8_t vector) = 0;

protected:
    ~EoiListener() = default;
};

/// Lock-free; any CPU, any time after connect().
class InterruptFabric final : public InterruptBus {
public:
    /// Before the VM runs. Both outlive the fabric's use. Fastest if apics[i] has APIC ID i.
    void connect(std::span<LocalApic* const> apics, EoiListener* listener) {
        apics_ = apics;
        listener_ = listener;
    }

    void deliver(const InterruptMessage& message) override { deliver_except(message, nullptr); }
    /// All destinations but `excluded`.
    void deliver_except(const InterruptMessage& message, const LocalApic* excluded);
    void broadcast_eoi(std::uint8_t vector) override {
        if (listener_ != nullptr)
            listener_->eoi(vector);
    }

private:
    void deliver_to_one_of(const InterruptMessage& message, const LocalApic* excluded);

    std::span<LocalApic* const> apics_{};
    EoiListener* listener_{nullptr};
    std::atomic<std::uint32_t> turn_{0};  ///< where the search for a lowest-priority destination begins
};

}  // namespace hv
