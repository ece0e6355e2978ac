// SPDX-License-Identifier: MIT
// The keys' side of the multiplexer.
#include "vmm/base/text.hpp"
#include "vmm/monitor/console_mux.hpp"

#include <optional>
#include <utility>

namespace hv {
namespace {

constexpr char kCtrlA = 'A' - 0x40;
/// What service() reads at most: a broken line may never run dry.
constexpr unsigned kMaxTyped = 256;

}  // namespace

void ConsoleMux::service() {
    work_.store(false, std::memory_order_seq_cst);
    unsigned count = 0;
    for (std::optional<char> c; count < kMaxTyped && (c = console_.read()); ++count) {
        if (mode_ == Mode::interactive)
            typed(*c);
    }
    if (count == kMaxTyped)
        request_service();
    if (console_.take_input_lost() && mode_ == Mode::interactive && lost_input_.admit())
        announce("some of what was typed got lost: it came faster than it was read");
    // After reading, which may have taken back the line's interrupt.
    ConsoleInput* disturbed = state_.with([&](State& state) {
        pump(state);
        return std::exchange(state.redraw, false) && state.monitor != nullptr ? state.monitor->input_
                                                                              : nullptr;
    });
    if (disturbed != nullptr)
        disturbed->redraw();
}

void ConsoleMux::typed(char c) {
    if (std::exchange(escape_, false))
        command(c);
    else if (c == kCtrlA)
        escape_ = true;
    else
        type(c);
}

void ConsoleMux::type(char c) {
    ConsoleChannel* channel = state_.with([](State& state) { return state.focus; });
    if (channel != nullptr && (channel->input_ == nullptr || !channel->input_->receive(c)))
        channel->write("\a");
}

void ConsoleMux::command(char c) {
    if (c == 'a' || c == kCtrlA) {
        type(kCtrlA);
        return;
    }
    if (c == 'x') {
        if (power_off_ != nullptr)
            power_off_(power_off_context_);
        return;
    }
    state_.with([&](State& state) {
        if (c == '?')
            help(state);
        else if (c == 'm' && state.monitor != nullptr)
            switch_to(state, *state.monitor);
        else if (c == 'n')
            switch_to_next(state);
        else if (c >= '1' && c <= '9')
            switch_to_vm(state, static_cast<unsigned>(c - '0'));
        else
            say("there is no such key; Ctrl-A ? shows them");
    });
    show();
}

void ConsoleMux::switch_to_next(State& state) {
    ConsoleChannel* first = nullptr;
    bool passed = false;
    for (ConsoleChannel& channel : state.channels) {
        if (&channel == &host_)
            continue;
        if (passed) {
            switch_to(state, channel);
            return;
        }
        first = first == nullptr ? &channel : first;
        passed = &channel == state.focus;
    }
    if (first != nullptr)
        switch_to(state, *first);
}

void ConsoleMux::switch_to_vm(State& state, unsigned number) {
    for (ConsoleChannel& channel : state.channels) {
        if (!is_vm(state, channel) || --number > 0)
            continue;
        switch_to(state, channel);
        return;
    }
    say("there is no such console");
}

void ConsoleMux::help(State& state) {
    say("Ctrl-A ?  this help");
    say("Ctrl-A m  the monitor");
    say("Ctrl-A n  the next console");
    say("Ctrl-A a  sends Ctrl-A");
    say("Ctrl-A x  powers the host off");
    unsigned number = 0;
    for (ConsoleChannel& channel : state.channels) {
        if (!is_vm(state, channel) || ++number > 9)
            continue;
        TextBuffer<64> line;
        line.append("Ctrl-A %u  %.*s%s", number, static_cast<int>(channel.name_.size()), channel.name_.data(),
                    &channel == state.focus ? " (here)" : "");
        say(line.view());
    }
}

}  // namespace hv
