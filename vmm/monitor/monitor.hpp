// SPDX-License-Identifier: MIT
// The shell on the console: reads a line, finds the command, runs it. All on the boot CPU, from
// ConsoleMux::service().
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/list.hpp"
#include "vmm/monitor/console_channel.hpp"
#include "vmm/monitor/line_editor.hpp"
#include "vmm/monitor/live_output.hpp"
#include "vmm/monitor/monitor_command.hpp"
#include "vmm/monitor/output.hpp"

#include <array>
#include <memory>
#include <string_view>

namespace hv {

class Monitor final : public LiveOutput, private ConsoleInput {
public:
    /// Takes its place as the console's monitor. Error::no_memory.
    static Expected<std::unique_ptr<Monitor>> create(ConsoleMux& mux);

    /// `command` outlives the monitor; `help` lists the commands in this order.
    void add(MonitorCommand& command);
    /// Shows the first prompt.
    void start();
    /// Runs a line as if it had been typed.
    void run(std::string_view line);
    // LiveOutput
    [[nodiscard]] std::size_t room() override { return channel_.room(kLiveText); }
    void show(std::string_view lines) override;
    void rest() override { editor_.redraw(); }
    [[nodiscard]] ConsoleChannel& channel() { return channel_; }

private:
    using Buffer = std::array<char, 131072>;  ///< the longest answer is the log's, 60 KiB
    /// So much of what comes unasked waits for the line at most: what is typed meanwhile is answered soon.
    static constexpr std::size_t kLiveText = 8192;
    using Commands = List<MonitorCommand, &MonitorCommand::link>;

    /// The terminal, in the channel's form.
    class Screen final : public Output {
    public:
        explicit Screen(ConsoleChannel& channel) : channel_{channel} {}
        void write(std::string_view text) override;

    private:
        ConsoleChannel& channel_;
    };
    class HelpCommand final : public MonitorCommand {
    public:
        explicit HelpCommand(Monitor& monitor) : monitor_{monitor} {}
        [[nodiscard]] std::string_view name() const override { return "help"; }
        [[nodiscard]] std::string_view help() const override { return "what can be typed here"; }
        [[nodiscard]] std::string_view usage() const override { return "help\nhelp COMMAND\n"; }
        Result run(Arguments arguments, Output& out) override;
        void complete(Arguments arguments, Completion& completion) const override;

    private:
        Monitor& monitor_;
    };

    Monitor(ConsoleMux& mux, std::unique_ptr<Buffer> buffer);
    bool receive(char c) override;
    void redraw() override { editor_.redraw(); }
    [[nodiscard]] MonitorCommand* find(std::string_view name);
    void complete();

    std::unique_ptr<Buffer> buffer_;
    ConsoleChannel channel_;
    Screen screen_{channel_};
    LineEditor editor_;
    Commands commands_;
    HelpCommand help_{*this};
};

}  // namespace hv
