// SPDX-License-Identifier: MIT
// COM1 and the debug port 0xe9, polled: for the first log lines and for panics, when nothing else can be
// relied on.
#pragma once

#include <string_view>

namespace hv::cpu {

enum class EarlyOutput : unsigned char { com1, debug_port };

/// Chooses where early_write() goes.
void set_early_output(EarlyOutput output);
void early_write(std::string_view text);

}  // namespace hv::cpu
