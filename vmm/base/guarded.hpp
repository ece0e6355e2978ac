// SPDX-License-Identifier: MIT
// Data together with the lock that protects it, reached by with(). Interrupt handlers take locks as well;
// none comes while a lock is held, since interrupts are let in at two places only, where none is
// (vmm/base/machine.hpp). Locks carry a rank: a CPU takes them in strictly rising rank, which debug builds
// check.
#pragma once

#include "vmm/base/machine.hpp"

#include <atomic>
#include <cstdint>
#include <utility>

namespace hv {

/// The order in which locks may nest: a lock is taken only while all held locks have a lower rank.
enum class Rank : std::uint8_t {
    machine,     ///< the list of VMs, life-cycle changes
    vm,          ///< one VM's state
    board,       ///< a VM's chipset devices (I/O APIC, PIC, UART, PCI configuration)
    device_tx,   ///< a virtio device's driver-to-device queues
    net_switch,  ///< a switch's forwarding table
    device_rx,   ///< a virtio device's device-to-driver queues
    block,       ///< block back ends
    interrupt,   ///< routing an interrupt to a vCPU
    scheduler,   ///< run queues, sleep and wake-up
    timer,       ///< timer queues
    console,     ///< console and log rings
    memory,      ///< what of a VM's memory is to go
    paging,      ///< a page table's updates
    heap,
    frames,  ///< frame allocator
    leaf,    ///< nothing is taken below it
};

#ifdef HV_DEBUG
void note_lock_taken(Rank rank);
void note_lock_released(Rank rank);
#else
inline void note_lock_taken(Rank) {}
inline void note_lock_released(Rank) {}
#endif

/// A ticket lock: CPUs get it in the order in which they asked.
class Spinlock {
public:
    explicit constexpr Spinlock(Rank rank) : rank_{rank} {}
    Spinlock(const Spinlock&) = delete;
    Spinlock& operator=(const Spinlock&) = delete;

    void lock() {
        note_lock_taken(rank_);
        const auto ticket = next_.fetch_add(1, std::memory_order_relaxed);
        if (serving_.load(std::memory_order_acquire) != ticket) [[unlikely]]
            wait_for(ticket);
    }
    /// False, at once: somebody has it.
    [[nodiscard]] bool try_lock() {
        std::uint32_t ticket = serving_.load(std::memory_order_acquire);
        if (!next_.compare_exchange_strong(ticket, ticket + 1, std::memory_order_acquire,
                                           std::memory_order_relaxed))
            return false;
        note_lock_taken(rank_);
        return true;
    }
    void unlock() {
        serving_.store(serving_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
        note_lock_released(rank_);
    }

private:
    [[gnu::noinline]] void wait_for(std::uint32_t ticket) const {
        while (serving_.load(std::memory_order_acquire) != ticket)
            machine::pause();
    }

    std::atomic<std::uint32_t> next_{0};
    std::atomic<std::uint32_t> serving_{0};
    Rank rank_;
};

/// Holds a spinlock for a scope.
class LockGuard {
public:
    explicit LockGuard(Spinlock& lock) : lock_{lock} { lock_.lock(); }
    ~LockGuard() { lock_.unlock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;

private:
    Spinlock& lock_;
};

template <class T, Rank R>
class Guarded {
public:
    template <class... Args>
    constexpr explicit Guarded(Args&&... args) : lock_{R}, value_{std::forward<Args>(args)...} {}

    /// Calls `function(T&)` under the lock and returns what it returns.
    template <class Function>
    decltype(auto) with(Function&& function) {
        LockGuard guard{lock_};
        return std::forward<Function>(function)(value_);
    }
    template <class Function>
    decltype(auto) with(Function&& function) const {
        LockGuard guard{lock_};
        return std::forward<Function>(function)(std::as_const(value_));
    }

private:
    mutable Spinlock lock_;
    T value_;
};

}  // namespace hv
