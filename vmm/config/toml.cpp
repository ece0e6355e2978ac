// SPDX-License-Identifier: MIT
#include "vmm/config/toml.hpp"

#include "vmm/config/toml_scanner.hpp"

namespace hv::config::toml {

const char* to_string(Kind kind) {
    switch (kind) {
    case Kind::string: return "a string";
    case Kind::integer: return "an integer";
    case Kind::boolean: return "a boolean";
    case Kind::array: return "an array";
    case Kind::table: return "a table";
    }
    return "nothing";
}

const Node* Document::find(const Node& table, std::string_view key) const {
    for (const Node* child = first(table); child != nullptr; child = next(*child))
        if (child->key == key)
            return child;
    return nullptr;
}

/// Reads one text into one document.
class Parser {
public:
    Parser(std::string_view text, Document& document, ErrorList& errors)
        : document_{document}, scanner_{text, document.text_, errors} {}

    Expected<void> run() {
        HV_TRY(add(kNone, {.origin = Origin::header, .line = 1, .column = 1}));
        scanner_.accept("\xef\xbb\xbf");  // a byte order mark, which some editors write
        while (!scanner_.at_end()) {
            const auto done = expression();
            if (done)
                continue;
            if (done.error() != Error::corrupted)
                return done;
            node(table_).broken = true;
            scanner_.recover();
        }
        return {};
    }

private:
    Node& node(NodeIndex index) { return document_.nodes_[index]; }

    /// Appends `child` to the children of `parent`.
    Expected<NodeIndex> add(NodeIndex parent, const Node& child) {
        const auto index = static_cast<NodeIndex>(document_.nodes_.size());
        if (index >= Document::kMaxNodes)
            return scanner_.fail("more than %zu values in one file", Document::kMaxNodes);
        HV_TRY(document_.nodes_.push(child));
        if (index == 0)
            return index;
        Node& owner = node(parent);
        (owner.last == kNone ? owner.first : node(owner.last).next) = index;
        owner.last = index;
        return index;
    }
    Node here(Kind kind, std::string_view key) {
        Node made;
        made.kind = kind;
        made.key = key;
        made.line = scanner_.line();
        made.column = scanner_.column();
        return made;
    }
    NodeIndex find(NodeIndex table, std::string_view key) {
        const Node* found = document_.find(node(table), key);
        return found == nullptr ? kNone : static_cast<NodeIndex>(found - document_.nodes_.begin());
    }

    /// One line: empty, a header, or a key and its value.
    Expected<void> expression() {
        scanner_.skip_blanks();
        if (scanner_.peek() == '[')
            return header();
        if (scanner_.at_end() || scanner_.peek() == '#' || scanner_.peek() == '\n' || scanner_.peek() == '\r')
            return scanner_.end_line();
        HV_TRY(key_value(table_, 0));
        return scanner_.end_line();
    }

    // [table] or [[array of tables]]. Until it is understood, what follows belongs to a table that nobody can
    // see.
    Expected<void> header() {
        table_ = HV_TRY(lost_table());
        const Node start = here(Kind::table, {});
        const bool element = scanner_.accept("[[");
        if (!element)
            scanner_.accept("[");
        NodeIndex parent = 0;
        for (;;) {
            scanner_.skip_blanks();
            const auto key = HV_TRY(scanner_.key());
            scanner_.skip_blanks();
            if (!scanner_.accept(".")) {
                if (!scanner_.accept(element ? "]]" : "]"))
                    return scanner_.fail("%s in a table's header; %s should end it", scanner_.shown().text,
                                         element ? "]]" : "]");
                const NodeIndex made =
                    HV_TRY(element ? open_element(parent, key, start) : open_table(parent, key, start));
                HV_TRY(scanner_.end_line());
                table_ = made;
                return {};
            }
            parent = HV_TRY(descend(parent, key, start));
        }
    }

    /// A table without a parent: its contents are read for their syntax alone.
    Expected<NodeIndex> lost_table() {
        if (lost_ == kNone) {
            const auto index = static_cast<NodeIndex>(document_.nodes_.size());
            HV_TRY(document_.nodes_.push({.origin = Origin::header}));
            lost_ = index;
        }
        node(lost_).first = node(lost_).last = kNone;
        return lost_;
    }

    Unexpected already(std::string_view key, NodeIndex earlier) {
        return scanner_.fail("\"%.*s\" is defined already, in line %u", static_cast<int>(key.size()),
                             key.data(), node(earlier).line);
    }

    /// From a table to the one called `key` inside, on the way to a header's last part.
    Expected<NodeIndex> descend(NodeIndex table, std::string_view key, const Node& start) {
        const NodeIndex found = find(table, key);
        if (found == kNone)
            return add(table, {.line = start.line, .column = start.column, .key = key});
        if (node(found).kind == Kind::table && node(found).origin != Origin::inline_table)
            return found;
        if (node(found).kind == Kind::array && node(found).of_tables)
            return node(found).last;
        return already(key, found);
    }

    Expected<NodeIndex> open_table(NodeIndex parent, std::string_view key, const Node& start) {
        const NodeIndex found = find(parent, key);
        if (found == kNone)
            return add(parent,
                       {.origin = Origin::header, .line = start.line, .column = start.column, .key = key});
        Node& table = node(found);
        if (table.kind != Kind::table || table.origin != Origin::implicit)
            return already(key, found);
        table.origin = Origin::header;
        table.line = start.line;
        table.column = start.column;
        return found;
    }

    Expected<NodeIndex> open_element(NodeIndex parent, std::string_view key, const Node& start) {
        NodeIndex array = find(parent, key);
        if (array == kNone)
            array = HV_TRY(add(parent, {.kind = Kind::array,
                                        .of_tables = true,
                                        .line = start.line,
                                        .column = start.column,
                                        .key = key}));
        if (!node(array).of_tables)
            return already(key, array);
        return add(array, {.origin = Origin::header, .line = start.line, .column = start.column});
    }

    // key = value; a dotted key makes the tables that it names.
    Expected<void> key_value(NodeIndex table, unsigned depth) {
        for (;;) {
            const auto key = HV_TRY(scanner_.key());
            scanner_.skip_blanks();
            const NodeIndex found = find(table, key);
            if (scanner_.accept(".")) {
                if (found == kNone) {
                    Node made = here(Kind::table, key);
                    made.origin = Origin::dotted_key;
                    table = HV_TRY(add(table, made));
                } else if (node(found).kind == Kind::table && node(found).origin == Origin::dotted_key) {
                    table = found;
                } else {
                    return already(key, found);
                }
                scanner_.skip_blanks();
                continue;
            }
            if (!scanner_.accept("="))
                return scanner_.fail("%s after the key \"%.*s\"; = and a value should follow",
                                     scanner_.shown().text, static_cast<int>(key.size()), key.data());
            if (found != kNone)
                return already(key, found);
            scanner_.skip_blanks();
            return value(table, key, depth);
        }
    }

    Expected<void> value(NodeIndex parent, std::string_view key, unsigned depth) {
        const char next = scanner_.peek();
        if (depth > Document::kMaxDepth)
            return scanner_.fail("values nested more than %u deep", Document::kMaxDepth);
        if (next == '[')
            return array(parent, key, depth);
        if (next == '{')
            return inline_table(parent, key, depth);
        Node made = here(Kind::string, key);
        if (next == '"' || next == '\'') {
            made.text = HV_TRY(scanner_.string());
        } else if (const auto word = scanner_.word(); word.empty()) {
            return scanner_.fail("%s where a value should be", scanner_.shown().text);
        } else if (word == "true" || word == "false") {
            made.kind = Kind::boolean;
            made.boolean = word == "true";
            scanner_.accept(word);
        } else {
            made.kind = Kind::integer;
            made.integer = HV_TRY(scanner_.integer(word));
            scanner_.accept(word);
        }
        HV_TRY(add(parent, made));
        return {};
    }

    Expected<void> array(NodeIndex parent, std::string_view key, unsigned depth) {
        const NodeIndex made = HV_TRY(add(parent, here(Kind::array, key)));
        scanner_.accept("[");
        for (;;) {
            HV_TRY(scanner_.skip_lines());
            if (scanner_.accept("]"))
                return {};
            HV_TRY(value(made, {}, depth + 1));
            HV_TRY(scanner_.skip_lines());
            if (!scanner_.accept(",") && scanner_.peek() != ']')
                return scanner_.fail("%s in an array; , or ] should follow", scanner_.shown().text);
        }
    }

    Expected<void> inline_table(NodeIndex parent, std::string_view key, unsigned depth) {
        Node start = here(Kind::table, key);
        start.origin = Origin::inline_table;
        const NodeIndex made = HV_TRY(add(parent, start));
        scanner_.accept("{");
        scanner_.skip_blanks();
        if (scanner_.accept("}"))
            return {};
        for (;;) {
            scanner_.skip_blanks();
            HV_TRY(key_value(made, depth + 1));
            scanner_.skip_blanks();
            if (scanner_.accept("}"))
                return {};
            if (!scanner_.accept(","))
                return scanner_.fail("%s in an inline table; , or } should follow", scanner_.shown().text);
        }
    }

    Document& document_;
    Scanner scanner_;
    NodeIndex table_{0};
    NodeIndex lost_{kNone};
};

Expected<Document> Document::parse(std::string_view text, ErrorList& errors) {
    Document document;
    if (text.size() > kMaxText) {
        errors.add(0, "the file has %zu bytes; allowed: at most %zu", text.size(), kMaxText);
        text = {};
    }
    HV_TRY(document.text_.reserve(text.size()));
    HV_TRY(Parser(text, document, errors).run());
    return document;
}

}  // namespace hv::config::toml
