// SPDX-License-Identifier: MIT
// One serial line for the hypervisor's log, the monitor and every VM's console. Headless, each line bears its
// source in front (`[web] ...`), and the channels take turns, a line each. Interactive, one channel has the
// line to itself; Ctrl-A and a key switch, and what the others said meanwhile is shown when one switches to
// them. docs/monitor.md is the user's view.
//
// Whoever writes leaves the text in his channel's own ring, under a lock that no other channel's writer
// takes, and never waits for the line. If the line takes more at once, he hands over a burst; the rest goes
// out by the line's interrupts and by service(), on the boot CPU. A channel that floods loses its own text
// only, and says how much.
#pragma once

#include "drivers/serial/console.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/list.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/turn.hpp"
#include "vmm/monitor/console_channel.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv {

class ConsoleMux final : public log::Sink {
public:
    enum class Mode : std::uint8_t { headless, interactive };

    /// On the boot CPU, as all that is not said to be callable elsewhere. `console` is not used by anyone
    /// else: its read() is called on the boot CPU, the rest on any CPU, one at a time.
    ConsoleMux(Console& console, Mode mode);
    ~ConsoleMux() = default;
    ConsoleMux(const ConsoleMux&) = delete;
    ConsoleMux& operator=(const ConsoleMux&) = delete;

    [[nodiscard]] Mode mode() const { return mode_; }
    /// Any CPU. Interactive, with a monitor: goes to the monitor's channel; errors and warnings are shown
    /// everywhere.
    void log_line(log::Level level, std::string_view line) override;
    /// Shows `[cairn] line`, whatever has the line. Any CPU, with locks of ranks below console.
    void announce(std::string_view line);
    /// Gives `channel` the line. Interactive alone.
    void focus(ConsoleChannel& channel);
    /// The monitor's channel shows the log, and takes over when the one in focus goes away.
    void set_monitor(ConsoleChannel& monitor);
    /// Called by Ctrl-A x, on the boot CPU without a lock.
    void set_power_off(void (*function)(void* context), void* context);

    /// Moves characters both ways, a bounded number at a time. To be called when the line raised an
    /// interrupt, when has_work(), and from time to time where the line has no interrupts. Without a lock.
    void service();
    /// Any CPU. Once it becomes true, the boot CPU is kicked.
    [[nodiscard]] bool has_work() const { return work_.load(std::memory_order_acquire); }
    /// Has service() called, and what the boot CPU calls with it. Any CPU.
    void request_service();
    /// Writes what can be written without waiting, up to a burst. True once nothing is left to write and all
    /// has left the machine. Any CPU.
    bool flush();

private:
    friend class ConsoleChannel;
    using Channels = List<ConsoleChannel, &ConsoleChannel::link_>;

    /// What is on its way to the line: a line with its prefix, or a piece of a stream.
    struct Staged {
        std::array<char, 2048> text{};
        std::size_t size{0};
        std::size_t sent{0};
        [[nodiscard]] bool empty() const { return sent == size; }
        [[nodiscard]] std::size_t room() const { return text.size() - size; }
        void put(std::string_view more) { size += more.copy(text.data() + size, room()); }
    };
    struct State {
        Staged staged;
        bool at_line_start{true};  ///< of the terminal's cursor, after what is staged
        Channels channels;
        std::uint64_t turns{0};
        ConsoleChannel* focus{nullptr};
        ConsoleChannel* monitor{nullptr};
        bool redraw{false};  ///< the monitor's prompt has been disturbed
        LineBuilder log;
    };
    enum class Pumped : std::uint8_t {
        all,      ///< nothing is left to write
        blocked,  ///< the line raises an interrupt once it takes more
        burst,    ///< the line may take more; service() is requested
    };

    // For the channels.
    void attach(ConsoleChannel& channel);
    void detach(ConsoleChannel& channel);
    /// A channel has something to show. Does not wait for others.
    void show();

    Pumped pump(State& state);
    bool stage(State& state);
    ConsoleChannel* next_waiting(State& state);
    void stage_line(State& state, ConsoleChannel& channel);
    void stage_stream(State& state, ConsoleChannel& channel);
    void stage_prefix(State& state, std::string_view name);
    void say(std::string_view line);
    void switch_to(State& state, ConsoleChannel& channel);
    [[nodiscard]] bool is_vm(const State& state, const ConsoleChannel& channel) const {
        return &channel != &host_ && &channel != state.monitor;
    }

    void typed(char c);
    void type(char c);
    void command(char c);
    void switch_to_next(State& state);
    void switch_to_vm(State& state, unsigned number);
    void help(State& state);

    Console& console_;
    const Mode mode_;
    const std::uint32_t boot_cpu_;
    void (*power_off_)(void*){nullptr};
    void* power_off_context_{nullptr};
    bool escape_{false};  ///< Ctrl-A was typed
    log::RateLimit lost_input_{1};
    std::atomic<bool> work_{false};
    /// More will be written by service(): writers need not try.
    std::atomic<bool> draining_{false};
    Turn turn_{Turn::Initially::open};  ///< of those who write
    Guarded<State, Rank::console> state_;
    std::array<char, 16384> host_buffer_{};
    ConsoleChannel host_;  ///< the hypervisor's own lines
};

}  // namespace hv
