// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

namespace hv {

/// Takes what a guest prints. Any CPU, with locks up to Rank::board held; does not wait.
class CharSink {
public:
    virtual void put(std::string_view text) = 0;

protected:
    ~CharSink() = default;
};

}  // namespace hv
