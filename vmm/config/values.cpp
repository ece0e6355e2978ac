// SPDX-License-Identifier: MIT
#include "vmm/config/values.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>

namespace hv::config {
namespace {

constexpr std::size_t kMaxName = 32;

constexpr bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

struct Unit {
    std::string_view suffix;
    std::uint64_t factor;
};

/// A decimal number and one of `units`.
template <std::size_t N>
std::optional<std::uint64_t> parse_quantity(std::string_view text, const Unit (&units)[N]) {
    constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t value = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && is_digit(text[digits]); ++digits) {
        const auto digit = static_cast<std::uint64_t>(text[digits] - '0');
        if (value > (kMax - digit) / 10)
            return std::nullopt;
        value = value * 10 + digit;
    }
    if (digits == 0)
        return std::nullopt;
    for (const Unit& unit : units)
        if (text.substr(digits) == unit.suffix)
            return value <= kMax / unit.factor ? std::optional{value * unit.factor} : std::nullopt;
    return std::nullopt;
}

constexpr int hex_digit(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/// A number of at most `most`, of decimal digits without a leading zero.
std::optional<unsigned> parse_small(std::string_view text, unsigned most) {
    if (text.empty() || text.size() > 3 || (text.size() > 1 && text[0] == '0'))
        return std::nullopt;
    unsigned value = 0;
    for (const char c : text) {
        if (!is_digit(c))
            return std::nullopt;
        value = value * 10 + static_cast<unsigned>(c - '0');
    }
    return value <= most ? std::optional{value} : std::nullopt;
}

bool parse_ipv4(std::string_view text, net::IpPrefix& out) {
    for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t end = text.find('.');
        const auto octet = parse_small(text.substr(0, end), 255);
        if (!octet || (end == std::string_view::npos) != (i == 3))
            return false;
        out.address[i] = static_cast<std::uint8_t>(*octet);
        text.remove_prefix(i == 3 ? 0 : end + 1);
    }
    return true;
}

/// Groups of up to four hexadecimal digits between colons to `out`; how many, or nothing.
std::optional<std::size_t> parse_groups(std::string_view text, std::span<std::uint8_t> out) {
    if (text.empty())
        return 0;
    for (std::size_t count = 0; (count + 1) * 2 <= out.size(); ++count) {
        const std::size_t end = text.find(':');
        const std::string_view group = text.substr(0, end);
        if (group.empty() || group.size() > 4)
            return std::nullopt;
        unsigned value = 0;
        for (const char c : group) {
            if (hex_digit(c) < 0)
                return std::nullopt;
            value = value * 16 + static_cast<unsigned>(hex_digit(c));
        }
        out[2 * count] = static_cast<std::uint8_t>(value >> 8);
        out[2 * count + 1] = static_cast<std::uint8_t>(value);
        if (end == std::string_view::npos)
            return count + 1;
        text.remove_prefix(end + 1);
    }
    return std::nullopt;
}

bool parse_ipv6(std::string_view text, net::IpPrefix& out) {
    const std::size_t gap = text.find("::");
    if (gap == std::string_view::npos)
        return parse_groups(text, out.address) == 8;
    std::array<std::uint8_t, 14> behind{};
    const auto before = parse_groups(text.substr(0, gap), std::span{out.address}.first(14));
    const auto after = parse_groups(text.substr(gap + 2), behind);
    if (!before || !after || *before + *after > 7)
        return false;
    std::copy_n(behind.begin(), *after * 2, out.address.end() - static_cast<std::ptrdiff_t>(*after * 2));
    return true;
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
    static constexpr Unit kUnits[] = {
        {"", 1}, {"K", 1ULL << 10}, {"M", 1ULL << 20}, {"G", 1ULL << 30}, {"T", 1ULL << 40}};
    return parse_quantity(text, kUnits);
}

std::optional<std::uint64_t> parse_rate(std::string_view text) {
    static constexpr Unit kUnits[] = {{"kbit", 1'000}, {"Mbit", 1'000'000}, {"Gbit", 1'000'000'000}};
    return parse_quantity(text, kUnits);
}

std::optional<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac{};
    if (text.size() != 3 * mac.size() - 1)
        return std::nullopt;
    for (std::size_t i = 0; i < mac.size(); ++i) {
        const int high = hex_digit(text[3 * i]);
        const int low = hex_digit(text[3 * i + 1]);
        if (high < 0 || low < 0 || (i + 1 < mac.size() && text[3 * i + 2] != ':'))
            return std::nullopt;
        mac[i] = static_cast<std::uint8_t>(high * 16 + low);
    }
    return mac;
}

std::optional<net::IpPrefix> parse_prefix(std::string_view text) {
    const std::size_t slash = text.find('/');
    const std::string_view address = text.substr(0, slash);
    net::IpPrefix prefix;
    const bool ipv6 = address.find(':') != std::string_view::npos;
    prefix.family = ipv6 ? net::IpPrefix::Family::ipv6 : net::IpPrefix::Family::ipv4;
    const auto most = static_cast<unsigned>(prefix.size() * 8);
    const auto bits =
        slash == std::string_view::npos ? std::optional{most} : parse_small(text.substr(slash + 1), most);
    if (!bits || !(ipv6 ? parse_ipv6(address, prefix) : parse_ipv4(address, prefix)))
        return std::nullopt;
    prefix.bits = static_cast<std::uint8_t>(*bits);
    return prefix;
}

MacAddress derive_mac(std::string_view host, std::string_view vm, std::size_t index, unsigned attempt) {
    std::uint32_t hash = 0x811c'9dc5;  // FNV-1a, 32 bits
    const auto mix = [&](std::uint64_t byte) {
        hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x0100'0193;
    };
    const auto mix_name = [&](std::string_view name) {
        for (const char c : name)
            mix(static_cast<std::uint8_t>(c));
        mix(0);  // no name contains it
    };
    if (!host.empty())
        mix_name(host);
    mix_name(vm);
    mix(index);
    for (unsigned shift = 0; shift < 32; shift += 8)
        mix(attempt >> shift);
    return {0x52,
            0x54,
            static_cast<std::uint8_t>(hash >> 24),
            static_cast<std::uint8_t>(hash >> 16),
            static_cast<std::uint8_t>(hash >> 8),
            static_cast<std::uint8_t>(hash)};
}

bool is_name(std::string_view text) {
    const auto plain = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    return !text.empty() && text.size() <= kMaxName && plain(text[0]) &&
           std::all_of(text.begin(), text.end(),
                       [&](char c) { return plain(c) || c == '-' || c == '_' || c == '.'; });
}

bool has_control(std::string_view text) {
    return std::any_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace hv::config
