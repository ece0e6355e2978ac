// SPDX-License-Identifier: MIT
// One serial line for the hypervisor's log, the monitor and every VM's console. Headless, each line bears its source in
// front (`[web] ...`). Interactive, one channel has the line to itself; Ctrl-A and a key switch, and what the others said
// meanwhile is shown when one switches to them.
#pragma once

#include "drivers/serial/console.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/list.hpp"
#include "vmm/base/log.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hv {

/// Where typed characters go. Called without a lock, on the boot CPU.
class ConsoleInput {
public:
    /// False: no room, the character is lost.
    virtual bool receive(char c) = 0;

protected:
    ~ConsoleInput() = default;
};

class ConsoleMux;

/// One party on the line. Lives as long as it is attached.
class ConsoleChannel {
public:
    /// `name` outlives the channel; at most kNameSize characters are shown. `input` nullptr: typing goes nowhere.
    ConsoleChannel(ConsoleMux& mux, std::string_view name, ConsoleInput* input);
    ~ConsoleChannel();
    ConsoleChannel(const ConsoleChannel&) = delete;
    ConsoleChannel& operator=(const ConsoleChannel&) = delete;

    /// Any CPU, with locks of ranks below console.
    void write(std::string_view text);
    [[nodiscard]] std::string_view name() const { return name_; }

    static constexpr std::size_t kNameSize = 32;

private:
    friend class ConsoleMux;
    /// The latest text, for the switch to this channel.
    struct Scrollback {
        static constexpr std::size_t kSize = 8192;
        std::array<char, kSize> text{};
        std::size_t end{0};
        void add(char c) { text[end++ % kSize] = c; }
    };
    struct Line {
        static constexpr std::size_t kSize = 512;
        std::array<char, kSize> text{};
        std::size_t size{0};
    };

    ConsoleMux& mux_;
    std::string_view name_;
    ConsoleInput* input_;
    Scrollback scrollback_;
    Line line_;  ///< headless: what came since the last line end
    ListLink link_;
};

class ConsoleMux final : public log::Sink {
public:
    enum class Mode : std::uint8_t { headless, interactive };

    ConsoleMux(Console& console, Mode mode);

    [[nodiscard]] Mode mode() const { return mode_; }
    void log_line(log::Level level, std::string_view line) override;
    /// Gives `channel` the line. Interactive alone.
    void focus(ConsoleChannel& channel);
    /// The monitor's channel takes over when the one in focus goes away, and shows the log.
    void set_monitor(ConsoleChannel& monitor);
    /// Called by Ctrl-A x, on the boot CPU without a lock.
    void set_power_off(void (*function)(void* context), void* context);

    /// The hardware raised an interrupt, or may have: moves characters both ways. Boot CPU, without a lock.
    void service();
    /// Writes what can be written without waiting. True once nothing is left to write.
    bool flush();

private:
    friend class ConsoleChannel;
    using Channels = List<ConsoleChannel, &ConsoleChannel::link_>;

    struct Ring {
        static constexpr std::size_t kSize = std::size_t{256} * 1024;
        std::array<char, kSize> text{};
        std::size_t begin{0}, end{0};
        std::size_t lost{0};
        [[nodiscard]] bool empty() const { return begin == end; }
    };
    struct State {
        Ring ring;
        Channels channels;
        ConsoleChannel* focus{nullptr};
        ConsoleChannel* monitor{nullptr};
        bool escape{false};  ///< Ctrl-A was typed
    };
    /// What a typed character asks for, to be done without the lock.
    struct Action {
        enum class Kind : std::uint8_t { none, type, power_off } kind{Kind::none};
        ConsoleInput* input{nullptr};
        char character{};
    };

    void put(State& state, char c);
    void put(State& state, std::string_view text);
    void put_prefixed(State& state, std::string_view name, std::string_view line);
    void say(State& state, std::string_view text);
    void write(State& state, ConsoleChannel& channel, std::string_view text);
    void write_headless(State& state, ConsoleChannel& channel, char c);
    void end_line(State& state, ConsoleChannel& channel);
    void switch_to(State& state, ConsoleChannel& channel);
    void pump(State& state);
    Action typed(State& state, char c);
    Action escaped(State& state, char c);

    Console& console_;
    Mode mode_;
    void (*power_off_)(void*){nullptr};
    void* power_off_context_{nullptr};
    Guarded<State, Rank::console> state_;
};

}  // namespace hv
