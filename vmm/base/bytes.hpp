// SPDX-License-Identifier: MIT
// Little-endian values in byte buffers of any alignment, as firmware tables, images and rings hold them.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

namespace hv {

/// Reads a T at `at`; the caller guarantees sizeof(T) bytes.
template <class T>
requires std::is_trivially_copyable_v<T> T load(const void* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

template <class T>
requires std::is_trivially_copyable_v<T>
void store(void* at, const T& value) {
    std::memcpy(at, &value, sizeof value);
}

/// Reads a T at `offset` of `bytes`, or nothing if it does not lie inside.
template <class T>
requires std::is_trivially_copyable_v<T> std::optional<T> load_at(std::span<const std::byte> bytes,
                                                                  std::size_t offset) {
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T))
        return std::nullopt;
    return load<T>(bytes.data() + offset);
}

}  // namespace hv
