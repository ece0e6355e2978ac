// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/config/toml.hpp"

#include <string>
#include <vector>

using namespace hv::config;
using toml::Document;
using toml::Kind;
using toml::Node;

namespace {

struct Parsed {
    explicit Parsed(std::string_view text)
        : errors{std::move(*ErrorList::create())}, document{std::move(*Document::parse(text, errors))} {}
    [[nodiscard]] const Node* at(std::string_view path) const {
        const Node* node = &document.root();
        while (node != nullptr && !path.empty()) {
            const auto dot = path.find('.');
            node = document.find(*node, path.substr(0, dot));
            path = dot == path.npos ? std::string_view{} : path.substr(dot + 1);
        }
        return node;
    }
    [[nodiscard]] std::string text(std::string_view path) const {
        const Node* node = at(path);
        return node == nullptr              ? "(none)"
               : node->kind == Kind::string ? std::string{node->text}
                                            : "(no string)";
    }
    [[nodiscard]] std::int64_t integer(std::string_view path) const {
        const Node* node = at(path);
        return node == nullptr || node->kind != Kind::integer ? -4711 : node->integer;
    }
    std::vector<std::string> messages() {
        std::vector<std::string> all;
        for (const ConfigError& error : std::move(errors).take())
            all.push_back(std::to_string(error.line) + ": " + std::string{error.message.view()});
        return all;
    }

    ErrorList errors;
    Document document;
};

/// The first error of a text, which must have one.
std::string error_of(std::string_view text) {
    auto messages = Parsed{text}.messages();
    return messages.empty() ? "" : messages[0];
}

bool is_fine(std::string_view text) {
    return Parsed{text}.messages().empty();
}

}  // namespace

TEST_CASE("the specification's kinds of keys name values", "[config]") {
    const Parsed toml{R"(
bare_key-1 = 1   # comment
"quoted key" = 2
'literal' = 3
a.b . "c" = 4
a.d = 5
1234 = 6
)"};
    CHECK(toml.integer("bare_key-1") == 1);
    CHECK(toml.integer("quoted key") == 2);
    CHECK(toml.integer("literal") == 3);
    CHECK(toml.integer("a.b.c") == 4);
    CHECK(toml.integer("a.d") == 5);
    CHECK(toml.integer("1234") == 6);
}

TEST_CASE("strings of all four kinds hold what the specification says", "[config]") {
    const Parsed toml{"basic = \"tab\\t quote\\\" \\u00e9 \\U0001F600 \\\\\"\n"
                      "literal = 'C:\\Users\\n'\n"
                      "multi = \"\"\"\nRoses\r\nViolets\"\"\"\n"
                      "folded = \"\"\"\\\n   The quick \\\n\n   brown fox.\\\n  \"\"\"\n"
                      "quotes = \"\"\"\"two quotes\"\"\"\"\"\n"
                      "raw = '''\nfirst '' \\ line'''\n"
                      "empty = \"\"\n"};
    CHECK(toml.text("basic") == "tab\t quote\" \xc3\xa9 \xf0\x9f\x98\x80 \\");
    CHECK(toml.text("literal") == "C:\\Users\\n");
    CHECK(toml.text("multi") == "Roses\nViolets");
    CHECK(toml.text("folded") == "The quick brown fox.");
    CHECK(toml.text("quotes") == "\"two quotes\"\"");
    CHECK(toml.text("raw") == "first '' \\ line");
    CHECK(toml.text("empty").empty());
}

TEST_CASE("integers come in four bases and with underscores", "[config]") {
    const Parsed toml{"a = +99\nb = -17\nc = 0\nd = 1_000_000\ne = 0xdead_BEEF\nf = 0o755\ng = 0b1101\n"
                      "h = 9223372036854775807\ni = -9223372036854775808\nj = -0\n"};
    CHECK(toml.integer("a") == 99);
    CHECK(toml.integer("b") == -17);
    CHECK(toml.integer("d") == 1'000'000);
    CHECK(toml.integer("e") == 0xdeadbeef);
    CHECK(toml.integer("f") == 0755);
    CHECK(toml.integer("g") == 13);
    CHECK(toml.integer("h") == INT64_MAX);
    CHECK(toml.integer("i") == INT64_MIN);
    CHECK(toml.integer("j") == 0);
}

TEST_CASE("what is no integer is refused with the reason", "[config]") {
    CHECK(error_of("a = 01") == "1: 01: an integer has no leading zeros (column 5)");
    CHECK(error_of("a = 1__0").find("not a value") != std::string::npos);
    CHECK(error_of("a = _1").find("not a value") != std::string::npos);
    CHECK(error_of("a = 1_").find("not a value") != std::string::npos);
    CHECK(error_of("a = 0x").find("not a value") != std::string::npos);
    CHECK(error_of("a = +0x1").find("leading zeros") != std::string::npos);
    CHECK(error_of("a = 0b2").find("not a value") != std::string::npos);
    CHECK(error_of("a = -").find("not a value") != std::string::npos);
    CHECK(error_of("a = linux").find("quotes") != std::string::npos);
    CHECK(error_of("a = 9223372036854775808").find("64 bits") != std::string::npos);
    CHECK(error_of("a = 99999999999999999999999").find("64 bits") != std::string::npos);
    for (const char* real : {"a = 1.5", "a = 1e3", "a = -inf", "a = nan", "a = 6.626e-34"})
        CHECK(error_of(real).find("floating-point") != std::string::npos);
    for (const char* date : {"a = 1979-05-27T07:32:00Z", "a = 07:32:00", "a = 1979-05-27"})
        CHECK(error_of(date).find("date or time") != std::string::npos);
}

TEST_CASE("arrays may span lines and hold comments", "[config]") {
    const Parsed toml{"a = [ 1, 2, # two\n  3,\n]\nb = []\nc = [[1], [\"x\", 'y']]\n"};
    const Node* element = toml.document.first(*toml.at("a"));
    std::vector<std::int64_t> values;
    for (; element != nullptr; element = toml.document.next(*element))
        values.push_back(element->integer);
    CHECK(values == std::vector<std::int64_t>{1, 2, 3});
    CHECK(toml.document.first(*toml.at("b")) == nullptr);
    CHECK(toml.at("c") != nullptr);
}

TEST_CASE("tables and arrays of tables nest as headers say", "[config]") {
    const Parsed toml{"[[vm]]\nname='a'\n[[vm.disk]]\nsource='x'\n[[vm.disk]]\nsource='y'\n[[vm]]\nname='b'\n"
                      "[switch.lan]\n[switch.wan]\nuplink='nic0'\n[switch]\n"};
    const Node* first = toml.document.first(*toml.at("vm"));
    REQUIRE(first != nullptr);
    CHECK(first->line == 1);
    const Node* disks = toml.document.find(*first, "disk");
    REQUIRE(disks != nullptr);
    const Node* second_disk = toml.document.next(*toml.document.first(*disks));
    REQUIRE(second_disk != nullptr);
    CHECK(toml.document.find(*second_disk, "source")->text == "y");
    const Node* second = toml.document.next(*first);
    REQUIRE(second != nullptr);
    CHECK(toml.document.find(*second, "disk") == nullptr);
    CHECK(toml.text("switch.wan.uplink") == "nic0");
}

TEST_CASE("inline tables are tables that nobody can add to", "[config]") {
    const Parsed toml{"a = { b = 1, c.d = 'x' }\ne = {}\n"};
    CHECK(toml.integer("a.b") == 1);
    CHECK(toml.text("a.c.d") == "x");
    CHECK_FALSE(is_fine("a = { b = 1 }\na.c = 2\n"));
    CHECK_FALSE(is_fine("a = { b = 1 }\n[a.c]\n"));
    CHECK_FALSE(is_fine("a = { b = 1,\n c = 2 }\n"));
    CHECK_FALSE(is_fine("a = { b = 1, }\n"));
}

TEST_CASE("nothing can be defined twice", "[config]") {
    CHECK(error_of("a = 1\na = 2\n").find("2: \"a\" is defined already, in line 1") == 0);
    for (const char* text : {"a.b = 1\na.b = 2\n", "[a]\n[a]\n", "a = 1\n[a]\n", "[a]\n[[a]]\n",
                             "[[a]]\n[a]\n", "a = []\n[[a]]\n", "a = 1\na.b = 2\n", "[a]\nb = 1\n[a.b]\n",
                             "[a.b]\n[a]\nb.c = 1\n", "[a]\nb.c = 1\n[a.b]\n"})
        CHECK_FALSE(is_fine(text));
    CHECK(is_fine("[a.b]\n[a]\nx = 1\n"));
    CHECK(is_fine("[fruit]\napple.color = 1\n[fruit.apple.texture]\nsmooth = true\n"));
}

TEST_CASE("an error names its line and column", "[config]") {
    CHECK(error_of("a = 1\n\nb = ?\n") == "3: '?' where a value should be (column 5)");
    CHECK(error_of("a 1\n") == "1: '1' after the key \"a\"; = and a value should follow (column 3)");
    CHECK(error_of("[a\n") == "1: end of line in a table's header; ] should end it (column 3)");
    CHECK(error_of("a = \"x\n") == "1: end of line inside a string (column 7)");
    CHECK(error_of("a = \"\"\"x") == "1: end of file inside a string (column 9)");
    CHECK(error_of("a = 1 b = 2") == "1: 'b' where the line should end (column 7)");
    CHECK(error_of("a = [1 2]") == "1: '2' in an array; , or ] should follow (column 8)");
}

TEST_CASE("malformed strings are refused", "[config]") {
    for (const char* text :
         {"a = \"\\x\"", "a = \"\\u12\"", "a = \"\\ud800\"", "a = \"\\U00110000\"", "a = \"\x01\"",
          "a = \"\xff\"", "a = '\xc3'", "a = \"\xed\xa0\x80\"", "# \x7f", "a = '\xc0\x80'", "= 1",
          "\"\"\"a\"\"\" = 1", "a = '''x", "a = \"\"\"\"\"\"\"\"\"", "a = \r1", "a.= 1"})
        CHECK_FALSE(is_fine(text));
    CHECK(is_fine("a = '\xc3\xa9'"));
    CHECK(is_fine("\xef\xbb\xbf"
                  "a = 1\r\n"));
}

TEST_CASE("reading goes on after an error, and the table with it is marked", "[config]") {
    Parsed toml{"[one]\na = ?\nb = 2\n[two]\nc = [\n  1,\n  oops\n  3,\n]\nd = 4\n[three]\ne = 5\n"};
    CHECK(toml.integer("one.b") == 2);
    CHECK(toml.integer("two.d") == 4);
    CHECK(toml.integer("three.e") == 5);
    CHECK(toml.at("one")->broken);
    CHECK(toml.at("two")->broken);
    CHECK_FALSE(toml.at("three")->broken);
    CHECK(toml.messages().size() == 2);
}

TEST_CASE("what follows a header that cannot be understood belongs to nobody", "[config]") {
    Parsed toml{"[one]\na = 1\n[two\nb = 2\n[three]\nc = 3\n"};
    CHECK(toml.at("one.b") == nullptr);
    CHECK(toml.at("b") == nullptr);
    CHECK(toml.integer("three.c") == 3);
    CHECK(toml.messages().size() == 1);
}

TEST_CASE("depth, size and number of errors are bounded", "[config]") {
    CHECK(error_of("a = " + std::string(1000, '[')).find("deep") != std::string::npos);
    CHECK(error_of(std::string(Document::kMaxText + 1, '#')).find("at most") != std::string::npos);
    std::string many = "a = [";
    for (std::size_t i = 0; i <= Document::kMaxNodes; ++i)
        many += "1,";
    CHECK(error_of(many + "]").find("more than") != std::string::npos);
    // The last that there may be stands before a header: the root and `a` are values too.
    many.resize(many.size() - 2 * 3);
    CHECK(error_of(many + "]\n[t]\nb = 1\n").find("more than") != std::string::npos);
    std::string wrong;
    for (int i = 0; i < 100; ++i)
        wrong += "k" + std::to_string(i) + " = ?\n";
    const auto messages = Parsed{wrong}.messages();
    REQUIRE(messages.size() == ConfigResult::kMaxErrors);
    CHECK(messages.back() == "0: there are more errors: 100 in all");
}
