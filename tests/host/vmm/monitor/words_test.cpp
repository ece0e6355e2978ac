// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/monitor/completion.hpp"
#include "vmm/monitor/printed_units.hpp"
#include "vmm/monitor/words.hpp"

#include <string>
#include <vector>

using namespace hv;

namespace {

std::vector<std::string> words_of(std::string_view line) {
    const Words words{line};
    return {words.all().begin(), words.all().end()};
}

}  // namespace

TEST_CASE("blanks separate words", "[monitor]") {
    CHECK(words_of("").empty());
    CHECK(words_of(" \t ").empty());
    CHECK(words_of("vm") == std::vector<std::string>{"vm"});
    CHECK(words_of("  vm  show\tweb ") == std::vector<std::string>{"vm", "show", "web"});
}

TEST_CASE("more words than fit are noticed", "[monitor]") {
    std::string line;
    for (std::size_t i = 0; i < Words::kMax; ++i)
        line += "w ";
    CHECK_FALSE(Words{line}.too_many());
    CHECK(Words{line}.all().size() == Words::kMax);
    line += "x";
    CHECK(Words{line}.too_many());
    CHECK(Words{line}.all().size() == Words::kMax);
}

TEST_CASE("a completion goes on with what all words have in common", "[monitor]") {
    Completion stop{"st"};
    for (const char* word : {"list", "start", "stop", "reset"})
        stop.add(word);
    CHECK(stop.count() == 2);
    CHECK(stop.rest().empty());
    Completion sto{"sto"};
    for (const char* word : {"list", "start", "stop", "reset"})
        sto.add(word);
    CHECK(sto.count() == 1);
    CHECK(sto.rest() == "p");
    Completion any{""};
    any.add("web1");
    any.add("web22");
    CHECK(any.rest() == "web");
    any.add("we");
    CHECK(any.rest() == "we");
    CHECK(Completion{"x"}.rest().empty());
}

TEST_CASE("a completion of very many words lists the first", "[monitor]") {
    Completion completion{"v"};
    for (unsigned i = 0; i < 1000; ++i)
        completion.add("vm");
    CHECK(completion.count() == 1000);
    CHECK(completion.words().size() == Completion::kMaxListed);
    CHECK(completion.rest() == "m");
}

TEST_CASE("sizes and times are printed for people", "[monitor]") {
    CHECK(printed_size(0).view() == "0 B");
    CHECK(printed_size(1023).view() == "1023 B");
    CHECK(printed_size(1024).view() == "1 KiB");
    CHECK(printed_size(1536).view() == "1.5 KiB");
    CHECK(printed_size(256 * kMiB).view() == "256 MiB");
    CHECK(printed_size(kGiB - 1).view() == "1023.9 MiB");
    CHECK(printed_size(3 * kGiB / 2).view() == "1.5 GiB");
    CHECK(printed_size(5000 * kGiB).view() == "4.8 TiB");
    CHECK(printed_size(~std::uint64_t{0}).view() == "16777215.9 TiB");
    CHECK(printed_time(0).view() == "0.000 s");
    CHECK(printed_time(1'234'567'890).view() == "1.234 s");
    CHECK(printed_time(3'599'999'999'999).view() == "3599.999 s");
    CHECK(printed_time(3'661'000'000'000).view() == "1 h 1 min 1 s");
}
