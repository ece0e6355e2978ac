// SPDX-License-Identifier: MIT
// What a device model is soldered to, as recorders: interrupt wires and messages, a clock that the test
// moves.
#pragma once

#include "fakes/machine.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/core/interrupt.hpp"

#include <map>
#include <mutex>
#include <vector>

namespace hv::fake {

class RecordingLine final : public IrqLine {
public:
    void set(bool asserted) override {
        edges += asserted && !level ? 1 : 0;
        level = asserted;
    }
    bool level{false};
    unsigned edges{0};
};

class RecordingInterrupts final : public InterruptBus {
public:
    void deliver(const InterruptMessage& message) override {
        std::lock_guard guard{mutex_};
        messages.push_back(message);
    }
    void broadcast_eoi(std::uint8_t /*vector*/) override {}
    /// How often `vector` came.
    unsigned count(std::uint8_t vector) {
        std::lock_guard guard{mutex_};
        unsigned found = 0;
        for (const InterruptMessage& message : messages)
            found += message.vector == vector ? 1 : 0;
        return found;
    }
    std::vector<InterruptMessage> messages;

private:
    std::mutex mutex_;
};

/// Runs on the fake machine's TSC; run() fires what is due.
class ManualClock final : public Clock {
public:
    [[nodiscard]] std::uint64_t now() const override { return machine::tsc(); }
    [[nodiscard]] std::uint64_t hz() const override { return machine::tsc_hz(); }
    void arm(Timer& timer, std::uint64_t deadline) override {
        std::lock_guard guard{mutex_};
        armed_[&timer] = deadline;
    }
    void disarm(Timer& timer) override {
        std::lock_guard guard{mutex_};
        armed_.erase(&timer);
    }
    /// Fires each due timer once; returns how many.
    unsigned run() {
        std::vector<Timer*> due;
        {
            std::lock_guard guard{mutex_};
            for (const auto& [timer, deadline] : armed_)
                if (deadline <= now())
                    due.push_back(timer);
            for (Timer* timer : due)
                armed_.erase(timer);
        }
        for (Timer* timer : due)
            timer->fire();
        return static_cast<unsigned>(due.size());
    }
    void advance(std::uint64_t nanoseconds) {
        advance_tsc(from_nanoseconds(nanoseconds));
        run();
    }
    [[nodiscard]] std::size_t armed() const { return armed_.size(); }

private:
    std::mutex mutex_;
    std::map<Timer*, std::uint64_t> armed_;
};

}  // namespace hv::fake
