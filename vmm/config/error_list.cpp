// SPDX-License-Identifier: MIT
#include "vmm/config/error_list.hpp"

namespace hv::config {

void ErrorList::add(std::uint32_t line, const char* format, ...) {
    ++count_;
    if (errors_.size() == ConfigResult::kMaxErrors)
        return;
    char buffer[sizeof(ConfigError::message)];
    std::va_list arguments;
    va_start(arguments, format);
    const std::string_view message = format_into(buffer, format, arguments);
    va_end(arguments);
    ConfigError error{line, {}};
    error.message.append("%.*s", static_cast<int>(message.size()), message.data());
    const auto pushed = errors_.push(error);
    HV_ASSERT(pushed);  // create() reserved the room
}

Vec<ConfigError> ErrorList::take() && {
    if (count_ > errors_.size()) {
        ConfigError& last = errors_.back();
        last.message.clear();
        last.message.append("there are more errors: %zu in all", count_);
        last.line = std::numeric_limits<std::uint32_t>::max();
    }
    // Stable, and few: what was found first about a line comes first.
    for (std::size_t i = 1; i < errors_.size(); ++i)
        for (std::size_t j = i; j > 0 && errors_[j].line < errors_[j - 1].line; --j)
            std::swap(errors_[j], errors_[j - 1]);
    if (count_ > errors_.size())
        errors_.back().line = 0;
    return std::move(errors_);
}

}  // namespace hv::config
