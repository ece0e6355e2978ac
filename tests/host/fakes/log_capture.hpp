// SPDX-License-Identifier: MIT
// What is logged while a test looks.
#pragma once

#include "vmm/base/log.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace hv::fake {

class LogCapture final : public log::Sink {
public:
    LogCapture() { log::set_sink(this); }
    ~LogCapture() { log::set_sink(nullptr); }
    LogCapture(const LogCapture&) = delete;
    LogCapture& operator=(const LogCapture&) = delete;
    void log_line(log::Level, std::string_view line) override { lines.emplace_back(line); }
    [[nodiscard]] bool mentions(std::string_view text) const {
        for (const std::string& line : lines) {
            if (line.find(text) != std::string::npos)
                return true;
        }
        return false;
    }
    std::vector<std::string> lines;
};

}  // namespace hv::fake
