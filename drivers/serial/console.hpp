// SPDX-License-Identifier: MIT
// A character device for the hypervisor's own console.
#pragma once

#include <optional>
#include <string_view>

namespace hv {

class Console {
public:
    virtual ~Console() = default;
    /// Sends what the hardware takes without waiting; returns how many characters that were.
    virtual std::size_t write_some(std::string_view text) = 0;
    /// The next character received, if any.
    virtual std::optional<char> read() = 0;
    /// Whether characters that were received got lost since the last call, as nobody read them in time.
    virtual bool take_input_lost() = 0;
    /// Whether an interrupt shall be raised once more can be written.
    virtual void want_write_interrupt(bool wanted) = 0;
    /// Whether all that was written has left the machine.
    [[nodiscard]] virtual bool all_sent() = 0;
};

}  // namespace hv
