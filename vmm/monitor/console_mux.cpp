// SPDX-License-Identifier: MIT
#include "vmm/monitor/console_mux.hpp"

#include "vmm/base/text.hpp"

#include <algorithm>

namespace hv {
namespace {

constexpr std::string_view kHypervisor = "cairn";
constexpr std::string_view kDefaultColours = "\x1b[m";
constexpr std::string_view kEraseLine = "\r\x1b[K";

/// What one call hands over to the line at most: a real one takes 16 characters at once, an emulated one
/// everything.
constexpr std::size_t kBurst = 2048;
/// How often a writer looks after others who came while he wrote.
constexpr unsigned kRounds = 4;
/// How much of a stream is prepared at once: filtering keeps the boot CPU from reading what is typed.
constexpr std::size_t kPiece = 512;

}  // namespace

ConsoleMux::ConsoleMux(Console& console, Mode mode)
    : console_{console},
      mode_{mode},
      boot_cpu_{machine::cpu_index()},
      host_{*this, kHypervisor, nullptr, host_buffer_, ConsoleChannel::Shape::lines} {}

void ConsoleMux::log_line(log::Level level, std::string_view line) {
    state_.with([&](State& state) {
        if (mode_ == Mode::headless || state.monitor == nullptr) {
            say(line);
            return;
        }
        // In place of the prompt, which comes again below.
        const auto add = [&](std::string_view harmless) {
            state.monitor->add(kEraseLine);
            state.monitor->add(harmless);
            state.monitor->add("\r\n");
        };
        state.log.add(line, add);
        state.log.add("\n", add);
        state.redraw = true;
        request_service();
        if (state.focus != state.monitor && level <= log::Level::warning)
            say(line);
    });
    show();
}

void ConsoleMux::announce(std::string_view line) {
    state_.with([&](State&) { say(line); });
    show();
}

void ConsoleMux::focus(ConsoleChannel& channel) {
    if (mode_ == Mode::headless)
        return;
    state_.with([&](State& state) { switch_to(state, channel); });
    show();
}

void ConsoleMux::set_monitor(ConsoleChannel& monitor) {
    state_.with([&](State& state) {
        state.monitor = &monitor;
        if (mode_ == Mode::interactive && state.focus == nullptr) {
            state.focus = &monitor;
            monitor.watch(true);
        }
    });
    show();
}

void ConsoleMux::set_power_off(void (*function)(void*), void* context) {
    power_off_ = function;
    power_off_context_ = context;
}

void ConsoleMux::attach(ConsoleChannel& channel) {
    state_.with([&](State& state) { state.channels.push_back(channel); });
}

void ConsoleMux::detach(ConsoleChannel& channel) {
    if (&channel == &host_)
        return;
    state_.with([&](State& state) {
        state.channels.remove(channel);
        const std::uint64_t lost =
            channel.text_.with([](auto& text) { return text.ring.take_lost() + text.ring.waiting(); });
        if (lost > 0) {
            TextBuffer<128> note;
            note.append("%.*s: %llu characters of output lost", static_cast<int>(channel.name_.size()),
                        channel.name_.data(), static_cast<unsigned long long>(lost));
            say(note.view());
        }
        if (state.monitor == &channel)
            state.monitor = nullptr;
        if (state.focus != &channel)
            return;
        state.focus = nullptr;
        if (state.monitor != nullptr)
            switch_to(state, *state.monitor);
    });
    show();
}

// --- output ------------------------------------------------------------------------------------------------

void ConsoleMux::request_service() {
    work_.store(true, std::memory_order_seq_cst);
    machine::kick_cpu(boot_cpu_);
}

void ConsoleMux::show() {
    if (draining_.load(std::memory_order_seq_cst) || !turn_.enter())
        return;
    for (unsigned round = 0; round < kRounds; ++round) {
        if (state_.with([&](State& state) { return pump(state); }) != Pumped::all) {
            turn_.abandon();  // service() goes on
            return;
        }
        if (!turn_.leave())
            return;
    }
    turn_.abandon();
    request_service();
}

bool ConsoleMux::flush() {
    return state_.with([&](State& state) { return pump(state) == Pumped::all && console_.all_sent(); });
}

ConsoleMux::Pumped ConsoleMux::pump(State& state) {
    Staged& staged = state.staged;
    std::size_t budget = kBurst;
    for (;;) {
        if (staged.empty() && !stage(state)) {
            console_.want_write_interrupt(false);
            // A writer who still saw it set has made his channel wait before.
            draining_.store(false, std::memory_order_seq_cst);
            if (!stage(state))
                return Pumped::all;
        }
        if (budget == 0) {
            draining_.store(true, std::memory_order_seq_cst);
            request_service();
            return Pumped::burst;
        }
        const std::size_t size = std::min(staged.size - staged.sent, budget);
        const std::size_t written = console_.write_some({staged.text.data() + staged.sent, size});
        if (written == 0) {
            draining_.store(true, std::memory_order_seq_cst);
            console_.want_write_interrupt(true);
            return Pumped::blocked;
        }
        staged.sent += written;
        budget -= written;
    }
}

/// Fetches what is to be written next. False: there is nothing.
bool ConsoleMux::stage(State& state) {
    state.staged.size = state.staged.sent = 0;
    while (ConsoleChannel* channel = next_waiting(state)) {
        channel->turn_ = ++state.turns;
        if (channel->shape_ == ConsoleChannel::Shape::lines)
            stage_line(state, *channel);
        else
            stage_stream(state, *channel);
        if (state.staged.size == 0)  // part of a sequence that is not shown again
            continue;
        state.at_line_start = state.staged.text[state.staged.size - 1] == '\n';
        return true;
    }
    return false;
}

ConsoleChannel* ConsoleMux::next_waiting(State& state) {
    const auto waits = [](const ConsoleChannel& channel) {
        return channel.waiting_.load(std::memory_order_seq_cst);
    };
    if (mode_ == Mode::interactive) {
        if (waits(host_))
            return &host_;
        return state.focus != nullptr && waits(*state.focus) ? state.focus : nullptr;
    }
    ConsoleChannel* next = nullptr;
    for (ConsoleChannel& channel : state.channels) {
        if (waits(channel) && (next == nullptr || channel.turn_ < next->turn_))
            next = &channel;
    }
    return next;
}

/// What every line of the hypervisor and, headless, every line begins with.
void ConsoleMux::stage_prefix(State& state, std::string_view name) {
    Staged& staged = state.staged;
    if (mode_ == Mode::interactive && state.focus != nullptr) {
        const bool prompt = state.focus == state.monitor;
        if (!prompt)
            staged.put(kDefaultColours);
        if (!state.at_line_start)
            staged.put(prompt ? kEraseLine : "\r\n");
        if (prompt) {
            state.redraw = true;
            request_service();
        }
    }
    staged.put("[");
    staged.put(name);
    staged.put("] ");
}

void ConsoleMux::stage_line(State& state, ConsoleChannel& channel) {
    Staged& staged = state.staged;
    channel.text_.with([&](ConsoleChannel::Text& text) {
        if (const std::uint64_t lost = text.ring.take_lost(); lost > 0) {
            TextBuffer<128> note;
            note.append("%.*s: %llu characters of output lost\r\n", static_cast<int>(channel.name_.size()),
                        channel.name_.data(), static_cast<unsigned long long>(lost));
            stage_prefix(state, kHypervisor);
            staged.put(note.view());
            return;
        }
        stage_prefix(state, channel.name_);
        for (char c{}; text.ring.waiting() > 0 && (c = text.ring.take()) != '\n';)
            staged.text[staged.size++] = c;
        staged.put("\r\n");
        channel.waiting_.store(text.ring.waiting() > 0, std::memory_order_seq_cst);
    });
}

void ConsoleMux::stage_stream(State& state, ConsoleChannel& channel) {
    Staged& staged = state.staged;
    static_assert(kPiece + TextFilter::kMaxPiece <= std::tuple_size_v<decltype(Staged::text)>);
    channel.text_.with([&](ConsoleChannel::Text& text) {
        if (const std::uint64_t lost = text.ring.take_lost(); lost > 0) {
            TextBuffer<128> note;
            note.append("%llu characters of output lost\r\n", static_cast<unsigned long long>(lost));
            stage_prefix(state, kHypervisor);
            staged.put(note.view());
            return;
        }
        for (std::size_t taken = 0; text.ring.waiting() > 0 && taken < kPiece; ++taken) {
            const bool again = text.ring.shown() < text.replay_end || !text.replay.idle();
            const char c = text.ring.take();
            staged.put(again ? text.replay.feed(c) : std::string_view{&c, 1});
        }
        channel.waiting_.store(text.ring.waiting() > 0, std::memory_order_seq_cst);
    });
}

// --- the hypervisor's own words, and who has the line ------------------------------------------------------

/// Under state_'s lock, so that lines of several CPUs stay apart.
void ConsoleMux::say(std::string_view line) {
    host_.add(line);
    host_.add("\n");
}

void ConsoleMux::switch_to(State& state, ConsoleChannel& channel) {
    if (state.focus == &channel)
        return;
    if (state.focus != nullptr)
        state.focus->watch(false);
    state.focus = &channel;
    TextBuffer<128> text;
    text.append("console of %.*s (Ctrl-A ? for help)", static_cast<int>(channel.name_.size()),
                channel.name_.data());
    say(text.view());
    channel.watch(true);
}

}  // namespace hv
