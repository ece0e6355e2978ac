// SPDX-License-Identifier: MIT
// The words that a boot loader's configuration gives the hypervisor.
#pragma once

#include <cstdint>
#include <string_view>

namespace hv::boot {

struct Options {
    bool headless{false};       ///< `headless`: prefixed lines, no input
    bool debug_console{false};  ///< `console=e9`: the emulators' debug port; else `console=com1`
    enum class Apicv : std::uint8_t { off, tpr, automatic, on };
    /// `apicv=off`, `apicv=tpr`, `apicv=on`: of what VT-x offers for local APICs nothing is used, its TPR
    /// shadow alone, all; else vmx::ApicUse::automatic.
    Apicv apicv{Apicv::automatic};
    std::string_view config{"cairn.toml"};  ///< `config=NAME`: which file is the configuration
    std::string_view unknown;               ///< the first word that is none of these
};

/// Words are separated by spaces.
Options parse_command_line(std::string_view text);

}  // namespace hv::boot
