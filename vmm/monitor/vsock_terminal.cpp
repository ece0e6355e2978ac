// SPDX-License-Identifier: MIT
#include "vmm/monitor/vsock_terminal.hpp"

#include "vmm/monitor/console_mux.hpp"
#include "vmm/virtio/virtio_vsock.hpp"

#include <algorithm>
#include <span>

namespace hv {
namespace {

using virtio::VsockConnection;
using virtio::VsockEnd;

const char* to_string(VsockEnd end) {
    switch (end) {
    case VsockEnd::refused: return "was refused by the guest";
    case VsockEnd::unanswered: return "was not answered by the guest";
    case VsockEnd::over: return "ended";
    case VsockEnd::gone: return "ended: the guest's driver is gone";
    }
    return "?";
}

}  // namespace

Expected<void> VsockTerminal::connect(std::string_view vm, virtio::VirtioVsock& device, std::uint32_t port) {
    if (channel_)
        leave();
    name_.clear();
    name_.append("%.*s:%u", width(vm), vm.data(), port);
    ConsoleInput* const input = this;
    channel_.emplace(mux_, name_.view(), input, buffer_);
    device_ = &device;
    if (const auto begun = device.connect(port, *this); !begun) {
        channel_.reset();
        return begun;
    }
    mux_.focus(*channel_);
    return {};
}

void VsockTerminal::service() {
    if (!channel_)
        return;
    if (!channel_->is_shown()) {
        leave();
    } else if (end()) {
        // Either all has been shown then, or the console is serviced again.
        mux_.flush();
        if (channel_->room(kShown) == kShown)
            channel_.reset();
    } else {
        device_->serve(*this);
    }
}

bool VsockTerminal::accept(VsockConnection& connection) {
    state_.with([&](State& state) { state = {{}, &connection, false, std::nullopt}; });
    return true;
}

void VsockTerminal::ready(VsockConnection& connection) {
    if (!has_line(connection))
        return;
    show(connection, kShown);
    const bool leaves = state_.with([&](State& state) {
        std::array<std::byte, kTyped> bytes;
        const std::size_t size =
            state.typed.take(std::span{bytes}.first(std::min(bytes.size(), connection.room())));
        connection.write(std::span{bytes}.first(size));
        if (state.leaving)
            state.connection = nullptr;
        return state.leaving;
    });
    if (leaves || connection.ended())
        connection.close();
}

void VsockTerminal::closed(VsockConnection& connection, VsockEnd end) {
    if (!has_line(connection))
        return;
    show(connection, sizeof buffer_);
    TextBuffer<128> line;
    line.append("-- connection to %.*s %s --\n", width(name_.view()), name_.view().data(), to_string(end));
    channel_->write_lines(line.view());
    state_.with([&](State& state) {
        state.connection = nullptr;
        state.end = end;
    });
    mux_.request_service();
}

bool VsockTerminal::receive(char c) {
    return state_.with([&](State& state) {
        return state.connection != nullptr && state.typed.put(std::as_bytes(std::span{&c, 1})) != 0;
    });
}

bool VsockTerminal::has_line(const VsockConnection& connection) const {
    return state_.with([&](const State& state) { return state.connection == &connection; });
}

void VsockTerminal::show(VsockConnection& connection, std::size_t most) {
    std::array<char, 512> text;
    for (;;) {
        const auto room = std::span{text}.first(std::min(text.size(), channel_->room(most)));
        const std::size_t size = connection.read(std::as_writable_bytes(room));
        if (size == 0)
            return;
        channel_->write({text.data(), size});
    }
}

std::optional<VsockEnd> VsockTerminal::end() const {
    return state_.with([](const State& state) { return state.end; });
}

void VsockTerminal::leave() {
    state_.with([](State& state) { state.leaving = true; });
    if (!end())
        device_->serve(*this);
    TextBuffer<128> line;
    line.append("connection to %.*s %s", width(name_.view()), name_.view().data(),
                to_string(end().value_or(VsockEnd::over)));
    mux_.announce(line.view());
    channel_.reset();
}

}  // namespace hv
