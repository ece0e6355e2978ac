// SPDX-License-Identifier: MIT
// The local APIC's timer [sdm3 11.5.4 APIC Timer]: one-shot and periodic counting of a constant bus clock,
// and TSC-deadline mode. Counts are computed from the clock when they are read; a host timer runs only while
// an unmasked expiry lies ahead.
//
// All calls are made on the vCPU's own CPU; fire() alone comes from anywhere, and does no more than tell the
// client, which then calls advance() on the vCPU's own CPU.
#pragma once

#include "vmm/base/timer.hpp"
#include "vmm/devices/clock_ratio.hpp"

#include <cstdint>
#include <limits>

namespace hv {

class LocalApicTimer final : public Timer {
public:
    /// The timer's input clock before division. CPUID leaf 0x40000010 tells the guest [cpuid 0x40000010].
    static constexpr std::uint64_t kBusHz = 1'000'000'000;
    /// A periodic timer asks for the host's attention no more often than this; faster periods coalesce.
    static constexpr std::uint64_t kShortestWakeupNs = 5'000;
    /// What the guest is owed of a periodic timer comes at this distance at least, or at half a period if
    /// that is less. Periods shorter than twice kShortestOwedNs are not made up for.
    static constexpr std::uint64_t kOwedDistanceNs = 100'000;
    static constexpr std::uint64_t kShortestOwedNs = 20'000;

    class Client {
    public:
        /// Any CPU: advance() may have something to say. May come late, or twice.
        virtual void timer_due() = 0;
        /// From set_initial_count() and set_deadline(): the timer had expired before, as advance() says; it
        /// is not to be called from here.
        virtual void timer_expired() = 0;

    protected:
        ~Client() = default;
    };

    LocalApicTimer(Clock& clock, Client& client);
    ~LocalApicTimer() { clock_.disarm(*this); }

    /// Accounts for the time that has passed; true if the timer expired since it last said so. configure()
    /// and set_divide() swallow an expiry that was not asked for before.
    bool advance() {
        if (!running_)
            return false;
        const std::uint64_t now = clock_.now();
        if (now < expiry_)
            return false;
        if (mode_ == Mode::periodic) [[unlikely]]
            return advance_period(now);
        running_ = false;
        deadline_ = 0;
        return true;
    }

    // --- ticks that came due while the vCPU wanted to run and another one had its CPU
    /// Before the vCPU runs again, and before advance(): notes all expiries since then but the one that
    /// advance() is about to report. `lost`: that one too, the guest had not yet taken the one before.
    void resume(bool lost);
    /// Whether the guest is owed expiries.
    [[nodiscard]] bool owes() const { return owed_ != 0; }
    /// Takes one of them, if its time has come.
    bool pay();
    /// The next one has to wait for another while: the guest has not finished with the last one.
    void postpone();
    /// One more.
    void owe() { owe(1); }

    /// As after power-up: one-shot, masked, divided by 2, stopped.
    void reset();
    /// The timer's LVT entry: mode and mask.
    void configure(std::uint32_t lvt);
    /// Starts to count, or stops (0).
    void set_initial_count(std::uint32_t count);
    [[nodiscard]] std::uint32_t initial_count() const { return initial_; }
    [[nodiscard]] std::uint32_t current_count() const;
    void set_divide(std::uint32_t value);
    [[nodiscard]] std::uint32_t divide() const { return divide_; }
    /// IA32_TSC_DEADLINE in guest TSC ticks; ignored, and 0, outside TSC-deadline mode.
    void set_deadline(std::uint64_t guest_tsc) {
        if (mode_ != Mode::tsc_deadline)
            return;
        const std::uint64_t now = clock_.now();
        if (running_ && now >= expiry_) [[unlikely]]
            client_.timer_expired();
        deadline_ = guest_tsc;
        if (guest_tsc == 0) [[unlikely]]
            stop();
        else
            place_deadline(now);
    }
    [[nodiscard]] std::uint64_t deadline() const { return deadline_; }
    /// Guest TSC = host TSC + offset.
    void set_tsc_offset(std::int64_t offset);

    void fire() override { client_.timer_due(); }

private:
    enum class Mode : std::uint8_t { one_shot, periodic, tsc_deadline, reserved };

    [[gnu::noinline]] bool advance_period(std::uint64_t now);
    /// Counts down from `count` now, then (periodic mode) from the initial count.
    void start(std::uint32_t count, std::uint64_t now);
    void stop();
    void owe(std::uint64_t expiries);
    /// How often the timer has expired since it last said so; `now` >= expiry_, periodic mode.
    [[nodiscard]] std::uint64_t expiries(std::uint64_t now) const;
    [[nodiscard]] std::uint64_t period() const { return bus_.ticks(std::uint64_t{initial_} << shift_); }
    [[nodiscard]] std::uint64_t next_event() const {
        return owed_ == 0 || pay_at_ > expiry_ ? expiry_ : pay_at_;
    }
    /// Makes the host timer agree with mask and expiry.
    void arm();
    void place_deadline(std::uint64_t now) {
        const std::uint64_t guest_now = now + static_cast<std::uint64_t>(tsc_offset_);
        running_ = true;
        if (deadline_ <= guest_now) [[unlikely]] {
            expiry_ = now;
            client_.timer_due();
            return;
        }
        expiry_ = now + (deadline_ - guest_now);
        if (expiry_ < now) [[unlikely]]
            expiry_ = std::numeric_limits<std::uint64_t>::max();
        if (masked_) [[unlikely]]
            clock_.disarm(*this);
        else
            clock_.arm(*this, expiry_);  // nothing is owed in this mode
    }

    Clock& clock_;
    Client& client_;
    ClockRatio bus_;
    std::uint64_t shortest_wakeup_;

    Mode mode_{Mode::one_shot};
    bool masked_{true};
    bool running_{false};
    std::uint8_t shift_{1};  ///< log2 of the divisor
    std::uint32_t divide_{0};
    std::uint32_t initial_{0};
    std::uint32_t first_{
        0};  ///< counts from start_ to the first expiry; further ones come after initial_ each
    std::uint64_t start_{0};     ///< host tick
    std::uint64_t expiry_{0};    ///< host tick of the next expiry, while running
    std::uint64_t deadline_{0};  ///< guest TSC, 0: none
    std::int64_t tsc_offset_{0};
    std::uint64_t owed_{0};    ///< expiries, in periodic mode
    std::uint64_t pay_at_{0};  ///< host tick of the next of them, while owed_ != 0
};

}  // namespace hv
