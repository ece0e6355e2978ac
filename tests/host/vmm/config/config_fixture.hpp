// SPDX-License-Identifier: MIT
// Configs that are read, and what is said of them.
#pragma once

#include "catch.hpp"
#include "vmm/config/config.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::config;

inline ConfigResult parse(std::string_view text, const ConfigLimits& limits = {}) {
    // A copy that dies at once: the result must not point into the text it was read from.
    const std::string copy{text};
    return std::move(*parse_config(copy, limits));
}

inline std::vector<std::string> errors_of(std::string_view text, const ConfigLimits& limits = {}) {
    std::vector<std::string> all;
    const ConfigResult result = parse(text, limits);
    for (const ConfigError& error : result.errors)
        all.push_back(std::to_string(error.line) + ": " + std::string{error.message.view()});
    return all;
}

/// The one error of a VM that is right but for `lines`, which start in line 5.
inline std::string vm_error(const std::string& lines, const ConfigLimits& limits = {}) {
    const auto errors =
        errors_of("[switch.lan]\n[[vm]]\nname='a'\nmemory='64M'\n" + lines + "\nkernel='k'\n", limits);
    return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
}

inline std::string device_error(const std::string& lines) {
    const auto errors = errors_of("[switch.lan]\n[[vm]]\nname='a'\nmemory='64M'\nkernel='k'\n" + lines);
    return errors.size() == 1 ? errors[0] : std::to_string(errors.size()) + " errors";
}

}  // namespace hv::test
