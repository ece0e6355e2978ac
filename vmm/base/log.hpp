// SPDX-License-Identifier: MIT
// The hypervisor's log: lines with a level and a topic. They go to one LogSink (the console multiplexer in
// the kernel) and are kept in a ring for the monitor. Whatever a guest can trigger at will goes through a
// RateLimit.
#pragma once

#include "vmm/base/machine.hpp"

#include <atomic>
#include <cstdint>
#include <string_view>

namespace hv::log {

enum class Level : std::uint8_t { error, warning, info, debug };
enum class Topic : std::uint8_t {
    boot,
    acpi,
    mm,
    cpu,
    vmx,
    svm,
    vm,
    sched,
    device,
    virtio,
    net,
    block,
    config,
    monitor
};

const char* to_string(Topic topic);

/// Where finished lines go, without a line end. Called with any lock of a lower rank than Rank::console held.
class Sink {
public:
    virtual void log_line(Level level, std::string_view line) = 0;

protected:
    ~Sink() = default;
};

/// The sink must outlive the program; nullptr: lines are kept in the ring alone.
void set_sink(Sink* sink);
/// Lines above `level` are dropped.
void set_level(Level level);
/// Calls `line(std::string_view)` for each line in the ring, oldest first.
void for_each_kept_line(void (*line)(void* context, std::string_view text), void* context);

#define HV_LOG_FUNCTION(level)                                                                               \
    void level(Topic topic, const char* format, ...) __attribute__((format(printf, 2, 3)))
HV_LOG_FUNCTION(error);
HV_LOG_FUNCTION(warning);
HV_LOG_FUNCTION(info);
HV_LOG_FUNCTION(debug);
#undef HV_LOG_FUNCTION

/// Lets through `burst` events, and one more for each second that passes.
class RateLimit {
public:
    explicit constexpr RateLimit(std::uint32_t burst = 8) : burst_{burst} {}
    /// True if this event may be logged.
    bool admit();

private:
    std::uint32_t burst_;
    std::atomic<std::uint32_t> used_{0};
    std::atomic<std::uint64_t> last_refill_{0};
};

}  // namespace hv::log
