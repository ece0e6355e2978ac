// SPDX-License-Identifier: MIT
// A TOML 1.0 document as a tree [toml1.0]. Whole but for floats, dates and times, which are recognised and
// refused: no key of ours has such a value. Syntax errors are collected; the table in which one stands is
// marked broken.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/config/error_list.hpp"

#include <cstdint>
#include <string_view>

namespace hv::config::toml {

enum class Kind : std::uint8_t { string, integer, boolean, array, table };

/// "a string", "an integer"...
const char* to_string(Kind kind);

/// Where a table came from decides what may still be added to it [toml1.0 Table].
enum class Origin : std::uint8_t { implicit, header, dotted_key, inline_table };

using NodeIndex = std::uint32_t;
inline constexpr NodeIndex kNone = 0;  ///< the root, which is nobody's child or neighbour

struct Node {
    Kind kind{Kind::table};
    Origin origin{Origin::implicit};  ///< tables
    bool of_tables{false};            ///< arrays: made by [[...]]
    bool broken{false};               ///< tables: there is a syntax error inside
    bool boolean{false};
    std::uint32_t line{0}, column{0};  ///< of the value, of a table's header; 1-based, columns in bytes
    std::int64_t integer{0};
    std::string_view key{};   ///< empty: an array's element
    std::string_view text{};  ///< strings
    NodeIndex first{kNone}, last{kNone}, next{kNone};
};

class Document {
public:
    static constexpr std::size_t kMaxText = 256 * 1024;
    static constexpr std::size_t kMaxNodes = 16384;
    static constexpr unsigned kMaxDepth = 16;  ///< of arrays and inline tables in each other

    /// Syntax errors go to `errors`, what could be read is in the document. Error::no_memory.
    static Expected<Document> parse(std::string_view text, ErrorList& errors);

    [[nodiscard]] const Node& root() const { return nodes_[0]; }
    /// The child of that name, or nullptr.
    [[nodiscard]] const Node* find(const Node& table, std::string_view key) const;
    [[nodiscard]] const Node* first(const Node& parent) const { return at(parent.first); }
    [[nodiscard]] const Node* next(const Node& node) const { return at(node.next); }
    /// Strings and keys point into it: whoever keeps them keeps it.
    Vec<char> take_text() && { return std::move(text_); }

private:
    friend class Parser;
    Document() = default;
    [[nodiscard]] const Node* at(NodeIndex index) const { return index == kNone ? nullptr : &nodes_[index]; }

    Vec<Node> nodes_;
    Vec<char> text_;
};

}  // namespace hv::config::toml
