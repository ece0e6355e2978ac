// SPDX-License-Identifier: MIT
// Where random bytes come from.
#pragma once

#include <cstddef>
#include <span>

namespace hv {

class EntropySource {
public:
    /// Fills all of `out` with bytes that nobody can foresee. Any CPU, any locks held; does not wait.
    virtual void fill(std::span<std::byte> out) = 0;

protected:
    ~EntropySource() = default;
};

}  // namespace hv
