// SPDX-License-Identifier: MIT
// A topic of the monitor: one small class each, beside what it shows.
#pragma once

#include "vmm/base/list.hpp"
#include "vmm/monitor/completion.hpp"
#include "vmm/monitor/output.hpp"

#include <cstdint>
#include <span>
#include <string_view>

namespace hv {

/// The words behind a command's name.
using Arguments = std::span<const std::string_view>;

class MonitorCommand {
public:
    enum class Result : std::uint8_t {
        done,             ///< also if it failed and said why
        wrong_arguments,  ///< the monitor shows the usage
    };

    MonitorCommand(const MonitorCommand&) = delete;
    MonitorCommand& operator=(const MonitorCommand&) = delete;

    [[nodiscard]] virtual std::string_view name() const = 0;
    /// What it is for, in one line.
    [[nodiscard]] virtual std::string_view help() const = 0;
    /// One line for each form, with the name, "\n" behind each.
    [[nodiscard]] virtual std::string_view usage() const = 0;
    /// On the boot CPU, without a lock; does not wait for anything.
    virtual Result run(Arguments arguments, Output& out) = 0;
    /// Adds what may stand behind `arguments`.
    virtual void complete(Arguments arguments, Completion& completion) const;

    ListLink link;  ///< for the monitor

protected:
    MonitorCommand() = default;
    ~MonitorCommand() = default;
};

inline void MonitorCommand::complete(Arguments, Completion&) const {}

}  // namespace hv
