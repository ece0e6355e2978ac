// SPDX-License-Identifier: MIT
// The PC's text screen, 80 x 25 at 0xb8000, as BIOS machines have it: a second place for panics and for what
// keeps the hypervisor from running, where nobody watches the serial line. UEFI machines have none; there
// this does nothing.
#pragma once

#include <string_view>

namespace hv::cpu {

/// Maps and clears the screen. To be called where firmware left a text mode on.
void init_text_screen();
/// "\r\n" ends a line; what goes beyond the last one scrolls. Nothing before init_text_screen().
void text_screen_write(std::string_view text);

}  // namespace hv::cpu
