// SPDX-License-Identifier: MIT
#include "vmm/monitor/monitor.hpp"

#include "vmm/base/vec.hpp"
#include "vmm/monitor/console_mux.hpp"
#include "vmm/monitor/words.hpp"

namespace hv {
namespace {

constexpr std::string_view kPrompt = "cairn> ";

/// Each line of a command's usage, behind a blank margin.
void print_usage(const MonitorCommand& command, Output& out) {
    std::string_view rest = command.usage();
    while (!rest.empty()) {
        const std::size_t end = rest.find('\n');
        out.print("  %.*s\n", HV_VIEW(rest.substr(0, end)));
        rest.remove_prefix(end + 1);
    }
}

}  // namespace

Expected<std::unique_ptr<Monitor>> Monitor::create(ConsoleMux& mux) {
    auto buffer = HV_TRY(make<Buffer>());
    std::unique_ptr<Monitor> monitor{new (std::nothrow) Monitor{mux, std::move(buffer)}};
    if (monitor == nullptr)
        return Unexpected{Error::no_memory};
    mux.set_monitor(monitor->channel_);
    return monitor;
}

Monitor::Monitor(ConsoleMux& mux, std::unique_ptr<Buffer> buffer)
    : buffer_{std::move(buffer)}, channel_{mux, "monitor", this, *buffer_}, editor_{kPrompt, screen_} {
    add(help_);
}

void Monitor::add(MonitorCommand& command) {
    commands_.push_back(command);
}

void Monitor::start() {
    editor_.begin();
}

bool Monitor::receive(char c) {
    switch (editor_.key(c)) {
    case LineEditor::Event::none: break;
    case LineEditor::Event::complete: complete(); break;
    case LineEditor::Event::line: run(editor_.line()); [[fallthrough]];
    case LineEditor::Event::cancelled: editor_.begin(); break;
    }
    return true;
}

void Monitor::run(std::string_view line) {
    const Words words{line};
    if (words.empty())
        return;
    MonitorCommand* command = find(words.all()[0]);
    if (command == nullptr) {
        screen_.print("There is no command \"%.*s\"; \"help\" lists them.\n", HV_VIEW(words.all()[0]));
        return;
    }
    if (words.too_many() ||
        command->run(words.all().subspan(1), screen_) == MonitorCommand::Result::wrong_arguments) {
        screen_.write("Allowed:\n");
        print_usage(*command, screen_);
    }
}

void Monitor::show(std::string_view lines) {
    channel_.write("\r\x1b[K");
    screen_.write(lines);
}

MonitorCommand* Monitor::find(std::string_view name) {
    for (MonitorCommand& command : commands_) {
        if (command.name() == name)
            return &command;
    }
    return nullptr;
}

/// Goes on with what all possible words have in common; if that is nothing, lists them.
void Monitor::complete() {
    const std::string_view typed = editor_.before_cursor();
    const Words words{typed};
    if (words.too_many())
        return;
    const bool new_word = words.empty() || typed.back() == ' ';
    const auto before = new_word ? words.all() : words.all().first(words.all().size() - 1);
    Completion completion{new_word ? std::string_view{} : words.all().back()};
    if (before.empty()) {
        for (MonitorCommand& command : commands_)
            completion.add(command.name());
    } else if (MonitorCommand* command = find(before[0])) {
        command->complete(before.subspan(1), completion);
    }
    if (completion.count() == 0) {
        editor_.bell();
    } else if (!completion.rest().empty() || completion.count() == 1) {
        editor_.insert(completion.rest());
        if (completion.count() == 1)
            editor_.insert(" ");
    } else {
        screen_.write("\n");
        for (const std::string_view word : completion.words())
            screen_.print("%.*s  ", HV_VIEW(word));
        screen_.write("\n");
        editor_.redraw();
    }
}

/// "\n" alone would leave the terminal's cursor in its column.
void Monitor::Screen::write(std::string_view text) {
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        channel_.write(text.substr(0, end));
        if (end == std::string_view::npos)
            return;
        channel_.write("\r\n");
        text.remove_prefix(end + 1);
    }
}

MonitorCommand::Result Monitor::HelpCommand::run(Arguments arguments, Output& out) {
    if (arguments.empty()) {
        for (const MonitorCommand& command : monitor_.commands_)
            out.print("  %-10.*s %.*s\n", HV_VIEW(command.name()), HV_VIEW(command.help()));
        out.write(
            "\"help COMMAND\" tells how it is used; Tab completes; Ctrl-A ? lists the console's keys.\n");
        return Result::done;
    }
    if (arguments.size() > 1)
        return Result::wrong_arguments;
    const MonitorCommand* command = monitor_.find(arguments[0]);
    if (command == nullptr) {
        out.print("There is no command \"%.*s\"; \"help\" lists them.\n", HV_VIEW(arguments[0]));
        return Result::done;
    }
    out.print("%.*s: %.*s\n", HV_VIEW(command->name()), HV_VIEW(command->help()));
    print_usage(*command, out);
    return Result::done;
}

void Monitor::HelpCommand::complete(Arguments arguments, Completion& completion) const {
    if (!arguments.empty())
        return;
    for (const MonitorCommand& command : monitor_.commands_)
        completion.add(command.name());
}

}  // namespace hv
