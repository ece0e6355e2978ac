// SPDX-License-Identifier: MIT
#include "vmm/devices/debug_ports.hpp"

#include <string_view>

namespace hv {

void DebugConsole::write_byte(std::uint64_t, std::uint8_t value) {
    LockGuard guard{lock_};
    line_[length_++] = static_cast<char>(value);
    if (value == '\n' || length_ == line_.size())
        put_line();
}

void DebugConsole::flush() {
    LockGuard guard{lock_};
    if (length_ != 0)
        put_line();
}

void DebugConsole::put_line() {
    sink_.put(std::string_view{line_.data(), length_});
    length_ = 0;
}

}  // namespace hv
