// SPDX-License-Identifier: MIT
#include "vmm/config/config.hpp"

#include "vmm/config/config_reader.hpp"
#include "vmm/config/error_list.hpp"
#include "vmm/config/toml.hpp"

namespace hv::config {

Expected<ConfigResult> parse_config(std::string_view text, const ConfigLimits& limits) {
    ErrorList errors = HV_TRY(ErrorList::create());
    toml::Document document = HV_TRY(toml::Document::parse(text, errors));
    ConfigResult result;
    HV_TRY(ConfigReader(document, limits, errors, result.config).run());
    result.config.text = std::move(document).take_text();
    result.errors = std::move(errors).take();
    return result;
}

}  // namespace hv::config
