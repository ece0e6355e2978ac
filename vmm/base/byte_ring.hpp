// SPDX-License-Identifier: MIT
// A bounded queue of bytes. Needs its user's lock.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <span>

namespace hv {

template <std::size_t N>
class ByteRing {
public:
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::size_t room() const { return N - size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }

    /// Appends what fits of `in`; returns how much that was.
    std::size_t put(std::span<const std::byte> in) {
        in = in.first(std::min(in.size(), room()));
        if (in.empty())
            return 0;
        const std::size_t at = (first_ + size_) % N;
        const std::size_t part = std::min(in.size(), N - at);
        std::memcpy(bytes_.data() + at, in.data(), part);
        std::memcpy(bytes_.data(), in.data() + part, in.size() - part);
        size_ += in.size();
        return in.size();
    }
    /// Takes up to `out.size()` bytes off the front into `out`; returns how many there were.
    std::size_t take(std::span<std::byte> out) {
        out = out.first(std::min(out.size(), size_));
        if (out.empty())
            return 0;
        const std::size_t part = std::min(out.size(), N - first_);
        std::memcpy(out.data(), bytes_.data() + first_, part);
        std::memcpy(out.data() + part, bytes_.data(), out.size() - part);
        first_ = (first_ + out.size()) % N;
        size_ -= out.size();
        return out.size();
    }
    void clear() { first_ = size_ = 0; }

private:
    std::array<std::byte, N> bytes_{};
    std::size_t first_{0};
    std::size_t size_{0};
};

}  // namespace hv
