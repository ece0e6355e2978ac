// SPDX-License-Identifier: MIT
#include "vmm/monitor/console_mux.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/text.hpp"

#include <algorithm>

namespace hv {
namespace {

constexpr char kEscape = 'A' - 0x40;  // Ctrl-A
constexpr std::string_view kHypervisor = "cairn";
constexpr std::string_view kHelp = "Ctrl-A ?  this help\r\n"
                                   "Ctrl-A m  the monitor\r\n"
                                   "Ctrl-A n  the next console\r\n"
                                   "Ctrl-A 1  the first VM's console (2: the second, to 9)\r\n"
                                   "Ctrl-A a  sends Ctrl-A\r\n"
                                   "Ctrl-A x  powers the host off\r\n";

}  // namespace

ConsoleChannel::ConsoleChannel(ConsoleMux& mux, std::string_view name, ConsoleInput* input)
    : mux_{mux}, name_{name.substr(0, kNameSize)}, input_{input} {
    mux_.state_.with([&](ConsoleMux::State& state) { state.channels.push_back(*this); });
}

ConsoleChannel::~ConsoleChannel() {
    mux_.state_.with([&](ConsoleMux::State& state) {
        if (line_.size > 0)
            mux_.end_line(state, *this);
        state.channels.remove(*this);
        if (state.monitor == this)
            state.monitor = nullptr;
        if (state.focus == this) {
            state.focus = nullptr;
            if (state.monitor != nullptr)
                mux_.switch_to(state, *state.monitor);
        }
        mux_.pump(state);
    });
}

void ConsoleChannel::write(std::string_view text) {
    mux_.state_.with([&](ConsoleMux::State& state) {
        mux_.write(state, *this, text);
        mux_.pump(state);
    });
}

ConsoleMux::ConsoleMux(Console& console, Mode mode) : console_{console}, mode_{mode} {}

void ConsoleMux::log_line(log::Level level, std::string_view line) {
    state_.with([&](State& state) {
        if (mode_ == Mode::headless || state.monitor == nullptr) {
            put_prefixed(state, kHypervisor, line);
        } else {
            write(state, *state.monitor, line);
            write(state, *state.monitor, "\r\n");
            if (state.focus != state.monitor && level <= log::Level::warning)
                say(state, line);
        }
        pump(state);
    });
}

void ConsoleMux::focus(ConsoleChannel& channel) {
    if (mode_ == Mode::headless)
        return;
    state_.with([&](State& state) {
        switch_to(state, channel);
        pump(state);
    });
}

void ConsoleMux::set_monitor(ConsoleChannel& monitor) {
    state_.with([&](State& state) {
        state.monitor = &monitor;
        if (state.focus == nullptr)
            state.focus = &monitor;
    });
}

void ConsoleMux::set_power_off(void (*function)(void*), void* context) {
    power_off_ = function;
    power_off_context_ = context;
}

void ConsoleMux::service() {
    flush();
    while (const auto c = console_.read()) {
        if (mode_ == Mode::headless)
            continue;
        const Action action = state_.with([&](State& state) {
            const Action result = typed(state, *c);
            pump(state);
            return result;
        });
        if (action.kind == Action::Kind::type && action.input != nullptr)
            action.input->receive(action.character);
        else if (action.kind == Action::Kind::power_off && power_off_ != nullptr)
            power_off_(power_off_context_);
    }
}

bool ConsoleMux::flush() {
    return state_.with([&](State& state) {
        pump(state);
        return state.ring.empty();
    });
}

void ConsoleMux::put(State& state, char c) {
    Ring& ring = state.ring;
    if (ring.end - ring.begin == Ring::kSize) {
        ++ring.lost;
        return;
    }
    if (ring.lost > 0) {
        TextBuffer<64> note;
        note.append("\r\n[%s] %zu characters of output lost\r\n", kHypervisor.data(), ring.lost);
        if (Ring::kSize - (ring.end - ring.begin) <= note.view().size())
            return;
        ring.lost = 0;
        put(state, note.view());
    }
    ring.text[ring.end++ % Ring::kSize] = c;
}

void ConsoleMux::put(State& state, std::string_view text) {
    for (const char c : text)
        put(state, c);
}

void ConsoleMux::put_prefixed(State& state, std::string_view name, std::string_view line) {
    put(state, "[");
    put(state, name);
    put(state, "] ");
    put(state, line);
    put(state, "\r\n");
}

void ConsoleMux::say(State& state, std::string_view text) {
    put(state, "\r\n");
    put_prefixed(state, kHypervisor, text);
}

void ConsoleMux::write(State& state, ConsoleChannel& channel, std::string_view text) {
    for (const char c : text) {
        if (mode_ == Mode::headless) {
            write_headless(state, channel, c);
            continue;
        }
        channel.scrollback_.add(c);
        if (state.focus == &channel)
            put(state, c);
    }
}

void ConsoleMux::write_headless(State& state, ConsoleChannel& channel, char c) {
    if (c == '\r')
        return;
    if (c == '\n') {
        end_line(state, channel);
        return;
    }
    channel.line_.text[channel.line_.size++] = c;
    if (channel.line_.size == ConsoleChannel::Line::kSize)
        end_line(state, channel);
}

void ConsoleMux::end_line(State& state, ConsoleChannel& channel) {
    put_prefixed(state, channel.name_, {channel.line_.text.data(), channel.line_.size});
    channel.line_.size = 0;
}

void ConsoleMux::switch_to(State& state, ConsoleChannel& channel) {
    if (state.focus == &channel)
        return;
    state.focus = &channel;
    TextBuffer<128> text;
    text.append("console of %.*s (Ctrl-A ? for help)", static_cast<int>(channel.name_.size()), channel.name_.data());
    say(state, text.view());
    const auto& scrollback = channel.scrollback_;
    constexpr std::size_t kSize = ConsoleChannel::Scrollback::kSize;
    for (std::size_t at = scrollback.end - std::min(scrollback.end, kSize); at < scrollback.end; ++at)
        put(state, scrollback.text[at % kSize]);
}

void ConsoleMux::pump(State& state) {
    Ring& ring = state.ring;
    while (!ring.empty()) {
        const std::size_t start = ring.begin % Ring::kSize;
        const std::size_t size = std::min(ring.end - ring.begin, Ring::kSize - start);
        const std::size_t written = console_.write_some({ring.text.data() + start, size});
        ring.begin += written;
        if (written < size)
            break;
    }
    console_.want_write_interrupt(!ring.empty());
}

ConsoleMux::Action ConsoleMux::typed(State& state, char c) {
    if (state.escape) {
        state.escape = false;
        return escaped(state, c);
    }
    if (c == kEscape) {
        state.escape = true;
        return {};
    }
    return {Action::Kind::type, state.focus != nullptr ? state.focus->input_ : nullptr, c};
}

ConsoleMux::Action ConsoleMux::escaped(State& state, char c) {
    if (c == 'a' || c == kEscape)
        return {Action::Kind::type, state.focus != nullptr ? state.focus->input_ : nullptr, kEscape};
    if (c == 'x')
        return {Action::Kind::power_off, nullptr, {}};
    if (c == 'm' && state.monitor != nullptr) {
        switch_to(state, *state.monitor);
    } else if (c == 'n') {
        ConsoleChannel* next = nullptr;
        bool found = false;
        for (ConsoleChannel& channel : state.channels) {
            if (found) {
                next = &channel;
                break;
            }
            found = &channel == state.focus;
        }
        if (next == nullptr)
            next = state.channels.front();
        if (next != nullptr)
            switch_to(state, *next);
    } else if (c >= '1' && c <= '9') {
        int index = c - '0';
        for (ConsoleChannel& channel : state.channels) {
            if (&channel == state.monitor || --index > 0)
                continue;
            switch_to(state, channel);
            return {};
        }
        say(state, "there is no such VM");
    } else {
        put(state, "\r\n");
        put(state, kHelp);
    }
    return {};
}

}  // namespace hv
