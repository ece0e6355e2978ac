// SPDX-License-Identifier: MIT
// Port 0xe9, by which emulators let a guest print: each character is one instruction. Output alone.
#pragma once

#include "drivers/serial/uart16550.hpp"

namespace hv::serial {

template <PortIo Io>
class DebugConsole final : public Console {
public:
    explicit DebugConsole(Io io) : io_{io} {}

    /// Whether an emulator answers there: the port reads as its own number.
    bool present() { return io_.in8(kPort) == kPort; }

    std::size_t write_some(std::string_view text) override {
        for (const char c : text)
            io_.out8(kPort, static_cast<std::uint8_t>(c));
        return text.size();
    }
    std::optional<char> read() override { return std::nullopt; }
    bool take_input_lost() override { return false; }
    void want_write_interrupt(bool) override {}
    [[nodiscard]] bool all_sent() override { return true; }

private:
    static constexpr std::uint16_t kPort = 0xe9;

    [[no_unique_address]] Io io_;
};

}  // namespace hv::serial
