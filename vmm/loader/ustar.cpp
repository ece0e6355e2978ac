// SPDX-License-Identifier: MIT
#include "vmm/loader/ustar.hpp"

#include "vmm/base/address.hpp"
#include "vmm/base/bytes.hpp"

#include <algorithm>

namespace hv::loader {
namespace {

constexpr std::size_t kBlock = 512;

struct Header {
    char name[100];
    char mode[8], owner[8], group[8];
    char size[12], time[12];
    char checksum[8];
    char type;
    char link[100];
    char magic[6];
    char version[2];
    char owner_name[32], group_name[32];
    char device_major[8], device_minor[8];
    char prefix[155];
    char padding[12];
};
static_assert(sizeof(Header) == kBlock);

template <std::size_t N>
std::string_view text(const char (&field)[N]) {
    const std::string_view all{field, N};
    return all.substr(0, all.find('\0'));
}

/// Octal digits, ended by a space or NUL.
template <std::size_t N>
std::optional<std::uint64_t> octal(const char (&field)[N]) {
    static_assert(N * 3 < 64);
    std::uint64_t value = 0;
    std::size_t i = 0;
    while (i < N && field[i] == ' ')
        ++i;
    for (; i < N && field[i] != ' ' && field[i] != '\0'; ++i) {
        if (field[i] < '0' || field[i] > '7')
            return std::nullopt;
        value = value * 8 + static_cast<std::uint64_t>(field[i] - '0');
    }
    return value;
}

/// The sum of the header's bytes, its own field counted as spaces.
std::uint64_t checksum_of(const Header& header) {
    std::uint64_t sum = sizeof header.checksum * ' ';
    const auto* const bytes = reinterpret_cast<const unsigned char*>(&header);
    for (std::size_t i = 0; i < sizeof header; ++i)
        if (i < offsetof(Header, checksum) || i >= offsetof(Header, type))
            sum += bytes[i];
    return sum;
}

}  // namespace

bool UstarReader::is_ustar(std::span<const std::byte> bytes) {
    const auto header = load_at<Header>(bytes, 0);
    return header && std::string_view{header->magic, 5} == "ustar";
}

std::optional<UstarReader::File> UstarReader::next() {
    for (;;) {
        const auto header = load_at<Header>(rest_, 0);
        if (!header) {
            broken_ = broken_ || !rest_.empty();
            return std::nullopt;
        }
        if (header->name[0] == '\0')
            return std::nullopt;  // the archive ends with blocks of zeros
        const auto size = octal(header->size);
        if (octal(header->checksum) != checksum_of(*header) || !size || *size > rest_.size() - kBlock) {
            broken_ = true;
            rest_ = {};
            return std::nullopt;
        }
        const auto bytes = rest_.subspan(kBlock, *size);
        rest_ = rest_.subspan(kBlock + std::min(align_up(*size, kBlock), rest_.size() - kBlock));
        if (header->type != '0' && header->type != '\0')
            continue;

        char* end = name_.data();
        const auto append = [&](std::string_view part) { end = std::copy(part.begin(), part.end(), end); };
        const bool has_prefix = std::string_view{header->magic, 6} == std::string_view{"ustar", 6};
        if (has_prefix && header->prefix[0] != '\0') {
            append(text(header->prefix));
            append("/");
        }
        append(text(header->name));  // 155 + 1 + 100 characters at most
        std::string_view name{name_.data(), static_cast<std::size_t>(end - name_.data())};
        if (name.starts_with("./"))
            name.remove_prefix(2);
        return File{name, bytes};
    }
}

}  // namespace hv::loader
