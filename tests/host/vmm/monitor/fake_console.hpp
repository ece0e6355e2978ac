// SPDX-License-Identifier: MIT
// A serial line that the test reads and types on, and that takes as much at once as the test lets it.
#pragma once

#include "drivers/serial/console.hpp"
#include "vmm/monitor/console_channel.hpp"

#include <array>
#include <atomic>
#include <deque>
#include <limits>
#include <string>

namespace hv::fake {

class FakeConsole final : public Console {
public:
    std::size_t write_some(std::string_view more) override {
        const std::size_t count = std::min(more.size(), room);
        room -= count;
        text += more.substr(0, count);
        ++writes;
        largest = std::max(largest, more.size());
        return count;
    }
    std::optional<char> read() override {
        if (typed.empty())
            return endless ? std::optional{'z'} : std::nullopt;
        const char c = typed.front();
        typed.pop_front();
        return c;
    }
    bool take_input_lost() override { return std::exchange(input_lost, false); }
    void want_write_interrupt(bool wanted) override { write_interrupt = wanted; }
    [[nodiscard]] bool all_sent() override { return sent; }

    void type(std::string_view more) { typed.insert(typed.end(), more.begin(), more.end()); }
    /// What was shown since the last call.
    std::string take() { return std::exchange(text, {}); }

    static constexpr std::size_t kEndless = std::numeric_limits<std::size_t>::max();
    std::size_t room{kEndless};  ///< what the line takes before it needs a pause
    std::string text;
    std::deque<char> typed;
    bool endless{false};
    bool input_lost{false};
    bool write_interrupt{false};
    bool sent{true};  ///< nothing is in the transmitter
    unsigned writes{0};
    std::size_t largest{0};  ///< that was offered at once
};

class FakeInput final : public ConsoleInput {
public:
    bool receive(char c) override {
        if (got.size() == room)
            return false;
        got += c;
        return true;
    }
    void redraw() override { ++redraws; }
    std::string got;
    std::size_t room{1000};
    unsigned redraws{0};
};

/// A channel with a ring of its own.
template <std::size_t Size = 16384>
struct FakeChannel {
    explicit FakeChannel(ConsoleMux& mux, std::string_view name) : channel{mux, name, &input, buffer} {}
    void write(std::string_view text) { channel.write(text); }
    FakeInput input;
    std::array<char, Size> buffer{};
    ConsoleChannel channel;
};

}  // namespace hv::fake
