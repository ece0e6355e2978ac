// SPDX-License-Identifier: MIT
// What a vCPU has to deliver through its guest's IDT before it goes on: an event whose delivery an exit
// interrupted, an exception that the VMM raises, an NMI. Maskable interrupts stay in the interrupt
// controllers until they can be taken.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "vmm/core/vcpu_backend.hpp"

#include <atomic>
#include <cstdint>

namespace hv::x86 {

/// Used by its vCPU's own CPU only, but for request_nmi().
class EventQueue {
public:
    enum class Delivery : std::uint8_t {
        idle,  ///< nothing was pending but what an NMI handler holds back: a maskable interrupt may go in
        delivered,  ///< an event goes in with the next entry, and nothing else can
        blocked,    ///< something pending has to wait; a window is requested
        shutdown,   ///< triple fault: the processor is in shutdown state [sdm3 6.15 Interrupt 8]
    };

    /// An exception caused by what the VMM did for the guest. It combines with one that is pending or was
    /// being delivered as the processor combines them, to #DF and to shutdown.
    void raise(const Event& exception);
    /// #PF: loads CR2 at once, as the processor does.
    void raise_page_fault(VcpuBackend& backend, std::uint32_t error_code, std::uint64_t linear_address);
    /// VmExit::interrupted: an event that has to go in again. To be called before anything is raised for the
    /// same exit.
    void reinject(const Event& interrupted) {
        if (interrupted.pending()) {
            interrupted_ = interrupted;
            pending_ = true;
        }
    }
    /// What reinject() noted.
    [[nodiscard]] const Event& interrupted() const { return interrupted_; }
    /// It has reached the guest by other means than injection.
    void forget_interrupted() { interrupted_ = {}; }
    /// From any CPU, which has to kick this vCPU afterwards. While NMIs are open there is room for two, one
    /// on its way and one behind it; while a handler blocks them, for one [sdm3 6.7.1 Handling Multiple
    /// NMIs].
    void request_nmi();

    /// Whether something has been left to be delivered since deliver() last said idle. An NMI that
    /// request_nmi() asked for is first seen by deliver().
    [[nodiscard]] bool pending() const { return pending_; }
    /// Whether one waits that wakes() has not been asked about. Any CPU.
    [[nodiscard]] bool nmi_requested() const { return nmis_.load(std::memory_order_seq_cst) > kNewNmi; }
    [[nodiscard]] bool empty() const {
        return !interrupted_.pending() && !exception_.pending() && !shutdown_ && waiting_nmis() == 0;
    }
    [[nodiscard]] bool exception_pending() const { return exception_.pending(); }
    /// Whether HLT has to end: an exception waits, or an NMI that the guest can take.
    [[nodiscard]] bool wakes(const VcpuBackend& backend) { return !empty() && something_wakes(backend); }

    /// Before each entry: hands over what goes first [sdm3 6.9 Prioritization of Concurrent Events].
    Delivery deliver(VcpuBackend& backend) {
        const Delivery delivery = empty() ? Delivery::idle : deliver_pending(backend);
        pending_ = !empty();
        return delivery;
    }

    /// INIT or RESET: drops everything.
    void reset();

private:
    static constexpr std::uint8_t kNmiCount = 3;  ///< at most 2
    static constexpr std::uint8_t kNewNmi = 4;

    [[nodiscard]] unsigned waiting_nmis() const { return nmis_.load(std::memory_order_acquire) & kNmiCount; }
    Delivery deliver_pending(VcpuBackend& backend);
    Delivery deliver_nmi(VcpuBackend& backend);
    bool something_wakes(const VcpuBackend& backend);
    bool inject(VcpuBackend& backend, const Event& event);

    Event interrupted_{};
    Event exception_{};
    bool shutdown_{false};
    bool pending_{false};
    std::atomic<std::uint8_t> nmis_{0};  ///< how many wait, and kNewNmi above
};

/// What happens when an exception meets another that is being delivered [sdm3 6.15 Interrupt 8--Double Fault
/// Exception].
enum class Combined : std::uint8_t { second, double_fault, shutdown };
Combined combine(const Event& first, const Event& second);

}  // namespace hv::x86
