// SPDX-License-Identifier: MIT
// The errors found in a configuration so far, a bounded number of them.
#pragma once

#include "vmm/config/config.hpp"

#include <algorithm>
#include <cstdarg>

/// A string_view as the two arguments of %.*s, clipped to what a message has room for.
#define HV_TEXT(view) static_cast<int>(std::min<std::size_t>((view).size(), 120)), (view).data()

namespace hv::config {

class ErrorList {
public:
    static Expected<ErrorList> create() {
        ErrorList list;
        HV_TRY(list.errors_.reserve(ConfigResult::kMaxErrors));
        return list;
    }

    void add(std::uint32_t line, const char* format, ...) __attribute__((format(printf, 3, 4)));
    /// Ever added, also those that found no room.
    [[nodiscard]] std::size_t count() const { return count_; }
    /// The errors by line; the last one says so if there were more.
    Vec<ConfigError> take() &&;

private:
    ErrorList() = default;

    Vec<ConfigError> errors_;
    std::size_t count_{0};
};

}  // namespace hv::config
