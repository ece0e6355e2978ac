// SPDX-License-Identifier: MIT
#include "vmm/monitor/console_channel.hpp"

#include "vmm/monitor/console_mux.hpp"

namespace hv {
namespace {

/// How much is shown again by a switch to a channel: some screens; 0.7 s at 115,200 baud.
constexpr std::size_t kReplaySize = 8192;

}  // namespace

static_assert(TextRing::kLongestLine == LineBuilder::kSize + 1);

ConsoleChannel::ConsoleChannel(ConsoleMux& mux, std::string_view name, ConsoleInput* input,
                               std::span<char> buffer)
    : ConsoleChannel{mux, name, input, buffer,
                     mux.mode() == ConsoleMux::Mode::headless ? Shape::lines : Shape::stream} {}

ConsoleChannel::ConsoleChannel(ConsoleMux& mux, std::string_view name, ConsoleInput* input,
                               std::span<char> buffer, Shape shape)
    : mux_{mux}, name_{name.substr(0, kNameSize)}, input_{input}, shape_{shape}, text_{buffer} {
    if (shape_ == Shape::lines)
        watch(true);
    mux_.attach(*this);
}

ConsoleChannel::~ConsoleChannel() {
    finish_lines();
    mux_.detach(*this);
}

void ConsoleChannel::write(std::string_view text) {
    if (add(text))
        mux_.show();
}

void ConsoleChannel::write_lines(std::string_view text) {
    if (add_lines(text))
        mux_.show();
}

void ConsoleChannel::finish_lines() {
    if (add_unfinished())
        mux_.show();
}

std::size_t ConsoleChannel::room(std::size_t most) const {
    return text_.with([&](const Text& text) {
        return text.ring.watched() && text.ring.waiting() < most ? most - text.ring.waiting() : 0;
    });
}

bool ConsoleChannel::is_shown() const {
    return text_.with([](const Text& text) { return text.ring.watched(); });
}

template <class Function>
bool ConsoleChannel::change(Function&& function) {
    return text_.with([&](Text& text) {
        const std::uint64_t before = text.ring.end();
        function(text);
        if (text.ring.end() == before || !text.ring.watched())
            return false;
        waiting_.store(true, std::memory_order_seq_cst);
        return true;
    });
}

bool ConsoleChannel::add(std::string_view text) {
    return change([&](Text& t) {
        if (shape_ == Shape::stream)
            t.ring.append(text);
        else
            t.serial.add(text, [&](std::string_view line) { t.add_line(line, shape_); });
    });
}

bool ConsoleChannel::add_lines(std::string_view text) {
    return change(
        [&](Text& t) { t.lines.add(text, [&](std::string_view line) { t.add_line(line, shape_); }); });
}

bool ConsoleChannel::add_unfinished() {
    return change([&](Text& t) {
        const auto add_line = [&](std::string_view line) { t.add_line(line, shape_); };
        t.serial.finish(add_line);
        t.lines.finish(add_line);
    });
}

void ConsoleChannel::Text::add_line(std::string_view line, Shape shape) {
    if (shape == Shape::lines) {
        ring.append(line);
        ring.append('\n');
        return;
    }
    if (ring.last() != '\n')
        ring.append("\r\n");
    ring.append(line);
    ring.append("\r\n");
}

void ConsoleChannel::watch(bool watched) {
    text_.with([&](Text& text) {
        text.ring.watch(watched);
        if (watched)
            text.ring.rewind(kReplaySize);
        text.replay_end = text.ring.end();
        waiting_.store(text.ring.waiting() > 0, std::memory_order_seq_cst);
    });
}

}  // namespace hv
