// SPDX-License-Identifier: MIT
// How tables and values of a TOML tree are read and what is said when they are wrong: the part of reading a
// configuration that knows no key.
#pragma once

#include "vmm/config/toml.hpp"

#include <algorithm>
#include <optional>

namespace hv::config {

class TableReader {
protected:
    using Node = toml::Node;

    /// A key of a table that becomes a T, and the function of Reader that reads it.
    template <class Reader, class T>
    struct Key {
        std::string_view name;
        Expected<void> (Reader::*read)(const Node& value, T& out);
        bool required{false};
    };
    template <class E>
    struct Choice {
        std::string_view name;
        E value;
    };

    TableReader(const toml::Document& document, const ConfigLimits& limits, ErrorList& errors)
        : document_{document}, limits_{limits}, errors_{errors} {}
    ~TableReader() = default;

    /// Reads the keys of one table; `what` names it in messages.
    template <class Reader, class T, std::size_t N>
    Expected<void> table(const Node& node, const char* what, const Key<Reader, T> (&keys)[N], T& out);
    /// Calls `read(const Node&)` for each table of an array of tables.
    template <class Read>
    Expected<void> each_table(const Node& array, const char* what, Read&& read);

    // Nothing: an error has been reported.
    std::optional<std::string_view> string(const Node& value, const char* allowed);
    std::optional<std::uint64_t> integer(const Node& value, std::uint64_t least, std::uint64_t most);
    std::optional<bool> boolean(const Node& value);
    /// Bytes: a string with a unit, or an integer; not 0, a multiple of `unit`.
    std::optional<std::uint64_t> size(const Node& value, std::uint64_t unit, const char* allowed);
    /// `path`, which stands in `value`, if there is such a file.
    std::optional<std::string_view> file(const Node& value, std::string_view path);
    template <class E, std::size_t N>
    std::optional<E> choice(const Node& value, const Choice<E> (&choices)[N]);
    /// False: reported.
    bool is_kind(const Node& value, toml::Kind kind, const char* allowed);

    const toml::Document& document_;
    const ConfigLimits& limits_;
    ErrorList& errors_;
    bool broken_{false};  ///< set when a table that has been read contains a syntax error
};

template <class Reader, class T, std::size_t N>
Expected<void> TableReader::table(const Node& node, const char* what, const Key<Reader, T> (&keys)[N],
                                  T& out) {
    broken_ = broken_ || node.broken;
    for (const Node* child = document_.first(node); child != nullptr; child = document_.next(*child)) {
        const auto* const key =
            std::find_if(keys, keys + N, [&](const auto& each) { return each.name == child->key; });
        if (key != keys + N) {
            HV_TRY((static_cast<Reader*>(this)->*key->read)(*child, out));
            continue;
        }
        TextBuffer<160> allowed;
        for (const auto& each : keys)
            allowed.append("%s%.*s", &each == keys ? "" : ", ", HV_TEXT(each.name));
        errors_.add(child->line, "unknown key \"%.*s\" in %s; allowed: %.*s", HV_TEXT(child->key), what,
                    static_cast<int>(allowed.view().size()), allowed.view().data());
    }
    for (const auto& each : keys)
        if (each.required && !node.broken && document_.find(node, each.name) == nullptr)
            errors_.add(node.line, "%s lacks the key %.*s", what, HV_TEXT(each.name));
    return {};
}

template <class Read>
Expected<void> TableReader::each_table(const Node& array, const char* what, Read&& read) {
    if (!is_kind(array, toml::Kind::array, what))
        return {};
    for (const Node* each = document_.first(array); each != nullptr; each = document_.next(*each)) {
        if (each->kind == toml::Kind::table)
            HV_TRY(read(*each));
        else
            errors_.add(each->line, "%.*s: %s is not allowed; allowed: %s", HV_TEXT(array.key),
                        to_string(each->kind), what);
    }
    return {};
}

template <class E, std::size_t N>
std::optional<E> TableReader::choice(const Node& value, const Choice<E> (&choices)[N]) {
    TextBuffer<120> allowed;
    for (const auto& each : choices) {
        if (value.kind == toml::Kind::string && value.text == each.name)
            return each.value;
        allowed.append("%s\"%.*s\"", &each == choices ? "" : ", ", HV_TEXT(each.name));
    }
    if (value.kind == toml::Kind::string)
        errors_.add(value.line, "%.*s: \"%.*s\" is unknown; allowed: %.*s", HV_TEXT(value.key),
                    HV_TEXT(value.text), static_cast<int>(allowed.view().size()), allowed.view().data());
    else
        errors_.add(value.line, "%.*s: %s is not allowed; allowed: %.*s", HV_TEXT(value.key),
                    to_string(value.kind), static_cast<int>(allowed.view().size()), allowed.view().data());
    return std::nullopt;
}

}  // namespace hv::config
