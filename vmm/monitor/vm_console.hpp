// SPDX-License-Identifier: MIT
// A VM's side of the console: its serial port, its debug port and its virtio console share a channel. The
// channel stays when the VM ends, so that its last words can be read, and serves the VM again when it starts
// anew.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/devices/char_sink.hpp"
#include "vmm/monitor/console_channel.hpp"

#include <array>
#include <memory>
#include <string_view>

namespace hv {

class Uart16550;

namespace virtio {
class VirtioConsole;
}

class VmConsole final : private ConsoleInput {
public:
    /// 115,200 baud take 2.8 s for it; a Linux kernel that says everything as it boots has half of that to
    /// say.
    static constexpr std::size_t kBufferSize = 32768;

    /// Boot CPU, as all but the sinks. `name` outlives the console. Error::no_memory.
    static Expected<std::unique_ptr<VmConsole>> create(ConsoleMux& mux, std::string_view name);

    [[nodiscard]] CharSink& serial() { return serial_; }
    /// Shown line by line.
    [[nodiscard]] CharSink& debug() { return debug_; }
    [[nodiscard]] ConsoleChannel& channel() { return channel_; }
    /// What is typed goes to `console`, if there is one that its driver uses, else to `uart`, until
    /// disconnect().
    void connect(Uart16550& uart, virtio::VirtioConsole* console) {
        uart_ = &uart;
        virtio_ = console;
    }
    /// The VM is off.
    void disconnect();

private:
    using Buffer = std::array<char, kBufferSize>;
    struct SerialSink final : CharSink {
        explicit SerialSink(ConsoleChannel& c) : channel{c} {}
        void put(std::string_view text) override { channel.write(text); }
        ConsoleChannel& channel;
    };
    struct DebugSink final : CharSink {
        explicit DebugSink(ConsoleChannel& c) : channel{c} {}
        void put(std::string_view text) override { channel.write_lines(text); }
        ConsoleChannel& channel;
    };

    VmConsole(ConsoleMux& mux, std::string_view name, std::unique_ptr<Buffer> buffer);
    bool receive(char c) override;

    ConsoleMux& mux_;
    std::unique_ptr<Buffer> buffer_;
    ConsoleChannel channel_;
    SerialSink serial_{channel_};
    DebugSink debug_{channel_};
    Uart16550* uart_{nullptr};
    virtio::VirtioConsole* virtio_{nullptr};
};

}  // namespace hv
