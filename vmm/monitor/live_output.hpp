// SPDX-License-Identifier: MIT
// Where a command's work that goes on after the command shows its lines.
#pragma once

#include <cstddef>
#include <string_view>

namespace hv {

class LiveOutput {
public:
    /// How many characters may be shown now; 0 also while nobody looks. When there is more room, the console
    /// is serviced.
    [[nodiscard]] virtual std::size_t room() = 0;
    /// Whole lines, above what is being typed. Boot CPU.
    virtual void show(std::string_view lines) = 0;
    /// Behind the last show() for a while: what is being typed is shown again.
    virtual void rest() = 0;

protected:
    ~LiveOutput() = default;
};

}  // namespace hv
