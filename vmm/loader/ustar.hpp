// SPDX-License-Identifier: MIT
// The files of a ustar archive, one after another [posix pax, ustar Interchange Format]. Folders and links
// are passed over; so are extended headers, which the archives that Cairn packs do not have.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hv::loader {

class UstarReader {
public:
    struct File {
        std::string_view name;  ///< valid until the next next()
        std::span<const std::byte> bytes;
    };

    static bool is_ustar(std::span<const std::byte> bytes);
    /// `archive` must outlive this and what it returns.
    explicit UstarReader(std::span<const std::byte> archive) : rest_{archive} {}

    /// The next regular file; nothing at the end, or where the archive is broken.
    std::optional<File> next();
    /// Whether the end was no end: a header with a wrong checksum, or a file cut off.
    [[nodiscard]] bool broken() const { return broken_; }

private:
    std::span<const std::byte> rest_;
    std::array<char, 256> name_{};
    bool broken_{false};
};

}  // namespace hv::loader
