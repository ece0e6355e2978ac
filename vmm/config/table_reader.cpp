// SPDX-License-Identifier: MIT
#include "vmm/config/table_reader.hpp"

#include "vmm/base/address.hpp"
#include "vmm/config/values.hpp"

namespace hv::config {

using toml::Kind;

/// Of RAM and of RAM disks: beyond any machine that this program can run on.
constexpr std::uint64_t kMaxSize = 4096 * kGiB;

bool TableReader::is_kind(const Node& value, Kind kind, const char* allowed) {
    if (value.kind == kind)
        return true;
    errors_.add(value.line, "%.*s: %s is not allowed; allowed: %s", HV_TEXT(value.key), to_string(value.kind),
                allowed);
    return false;
}

std::optional<std::string_view> TableReader::string(const Node& value, const char* allowed) {
    if (!is_kind(value, Kind::string, allowed))
        return std::nullopt;
    return value.text;
}

std::optional<std::uint64_t> TableReader::integer(const Node& value, std::uint64_t least,
                                                  std::uint64_t most) {
    if (value.kind != Kind::integer)
        errors_.add(value.line, "%.*s: %s is not allowed; allowed: an integer from %lu to %lu",
                    HV_TEXT(value.key), to_string(value.kind), least, most);
    else if (value.integer < 0 || static_cast<std::uint64_t>(value.integer) < least ||
             static_cast<std::uint64_t>(value.integer) > most)
        errors_.add(value.line, "%.*s: %ld is out of range; allowed: %lu to %lu", HV_TEXT(value.key),
                    value.integer, least, most);
    else
        return static_cast<std::uint64_t>(value.integer);
    return std::nullopt;
}

std::optional<bool> TableReader::boolean(const Node& value) {
    if (!is_kind(value, Kind::boolean, "true or false"))
        return std::nullopt;
    return value.boolean;
}

// A size as a string with a unit, or as an integer number of bytes.
std::optional<std::uint64_t> TableReader::size(const Node& value, std::uint64_t unit, const char* allowed) {
    std::optional<std::uint64_t> bytes;
    if (value.kind == Kind::integer && value.integer >= 0)
        bytes = static_cast<std::uint64_t>(value.integer);
    else if (value.kind != Kind::integer && !is_kind(value, Kind::string, allowed))
        return std::nullopt;
    else if (value.kind == Kind::string)
        bytes = parse_size(value.text);
    if (bytes && *bytes != 0 && *bytes % unit == 0 && *bytes <= kMaxSize)
        return bytes;
    if (value.kind == Kind::integer)
        errors_.add(value.line, "%.*s: %ld is not possible; allowed: %s", HV_TEXT(value.key), value.integer,
                    allowed);
    else
        errors_.add(value.line, "%.*s: \"%.*s\" is not possible; allowed: %s", HV_TEXT(value.key),
                    HV_TEXT(value.text), allowed);
    return std::nullopt;
}

std::optional<std::string_view> TableReader::file(const Node& value, std::string_view path) {
    if (path.empty() || has_control(path))
        errors_.add(value.line, "%.*s: no file has this name", HV_TEXT(value.key));
    else if (limits_.files != nullptr && !limits_.files->exists(path))
        errors_.add(value.line, "%.*s: the file \"%.*s\" is missing", HV_TEXT(value.key), HV_TEXT(path));
    else
        return path;
    return std::nullopt;
}

}  // namespace hv::config
