// SPDX-License-Identifier: MIT
// Builds the byte images that parsers are tested with: little-endian values one after another, patched
// afterwards.
#pragma once

#include "vmm/base/bytes.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hv::fake {

class BytesBuilder {
public:
    template <class T>
    BytesBuilder& add(T value) {
        const auto at = bytes_.size();
        bytes_.resize(at + sizeof value);
        store(bytes_.data() + at, value);
        return *this;
    }
    BytesBuilder& u8(std::uint64_t v) { return add(static_cast<std::uint8_t>(v)); }
    BytesBuilder& u16(std::uint64_t v) { return add(static_cast<std::uint16_t>(v)); }
    BytesBuilder& u32(std::uint64_t v) { return add(static_cast<std::uint32_t>(v)); }
    BytesBuilder& u64(std::uint64_t v) { return add(v); }
    /// Without a terminator.
    BytesBuilder& text(std::string_view s) {
        for (const char c : s)
            add(c);
        return *this;
    }
    BytesBuilder& append(std::span<const std::byte> more) {
        bytes_.insert(bytes_.end(), more.begin(), more.end());
        return *this;
    }
    BytesBuilder& fill_to(std::size_t size, std::byte value = std::byte{0}) {
        bytes_.resize(size < bytes_.size() ? bytes_.size() : size, value);
        return *this;
    }
    BytesBuilder& align(std::size_t alignment) {
        return fill_to((bytes_.size() + alignment - 1) / alignment * alignment);
    }
    template <class T>
    BytesBuilder& patch(std::size_t offset, T value) {
        if (bytes_.size() < offset + sizeof value)
            bytes_.resize(offset + sizeof value);
        store(bytes_.data() + offset, value);
        return *this;
    }
    [[nodiscard]] std::size_t size() const { return bytes_.size(); }
    [[nodiscard]] std::span<const std::byte> span() const { return bytes_; }
    [[nodiscard]] std::vector<std::byte>& bytes() { return bytes_; }

private:
    std::vector<std::byte> bytes_;
};

}  // namespace hv::fake
