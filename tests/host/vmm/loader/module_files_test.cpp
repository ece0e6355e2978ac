// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/bytes_builder.hpp"
#include "vmm/loader/module_files.hpp"
#include "vmm/loader/ustar.hpp"

#include <cstdio>
#include <string>
#include <vector>

using namespace hv;
using namespace hv::loader;

namespace {

class TarBuilder {
public:
    TarBuilder& add(const std::string& name, std::string_view contents, char type = '0',
                    const std::string& prefix = "") {
        std::vector<char> header(512, '\0');
        const auto put = [&](std::size_t at, const std::string& text) {
            std::copy(text.begin(), text.end(), header.begin() + static_cast<std::ptrdiff_t>(at));
        };
        char size[12];
        std::snprintf(size, sizeof size, "%011zo", contents.size());
        put(0, name);
        put(100, "0000644");
        put(124, size);
        put(156, std::string(1, type));
        put(257, std::string{"ustar\0"
                             "00",
                             8});
        put(345, prefix);
        put(148, std::string(8, ' '));
        unsigned sum = 0;
        for (const char c : header)
            sum += static_cast<unsigned char>(c);
        char checksum[8];
        std::snprintf(checksum, sizeof checksum, "%06o", sum);
        put(148, std::string{checksum, 7});
        bytes_.append(std::as_bytes(std::span{header})).text(contents).align(512);
        return *this;
    }
    std::vector<std::byte> build() {
        bytes_.fill_to(bytes_.size() + 1024);
        return bytes_.bytes();
    }

private:
    fake::BytesBuilder bytes_;
};

std::string contents(const ModuleFiles::File* file) {
    return file == nullptr
               ? "(none)"
               : std::string{reinterpret_cast<const char*>(file->bytes.data()), file->bytes.size()};
}

}  // namespace

TEST_CASE("a tar module becomes its files", "[loader]") {
    const auto archive = TarBuilder{}
                             .add("config.toml", "[host]")
                             .add("dir/", "", '5')
                             .add("./dir/vmlinux", std::string(1000, 'k'))
                             .add("link", "", '2')
                             .add(std::string(100, 'n'), "long", '0', "some/prefix")
                             .add("empty", "")
                             .build();
    ModuleFiles files;
    REQUIRE(files.add("all.tar", archive));
    CHECK(files.files().size() == 4);
    CHECK(contents(files.find("config.toml")) == "[host]");
    CHECK(contents(files.find("dir/vmlinux")) == std::string(1000, 'k'));
    CHECK(contents(files.find("some/prefix/" + std::string(100, 'n'))) == "long");
    CHECK(contents(files.find("empty")).empty());
    CHECK(files.find("link") == nullptr);
}

TEST_CASE("a module without a name is looked into, one with another name is not", "[loader]") {
    const auto archive = TarBuilder{}.add("inside", "x").build();
    ModuleFiles unnamed;
    REQUIRE(unnamed.add("", archive));
    CHECK(unnamed.find("inside") != nullptr);
    ModuleFiles disk;
    REQUIRE(disk.add("disk.img", archive));
    CHECK(disk.find("inside") == nullptr);
    CHECK(disk.find("disk.img")->bytes.size() == archive.size());
    const auto no_archive = std::vector<std::byte>(100);
    REQUIRE(disk.add("odd.tar", no_archive));
    CHECK(disk.find("odd.tar") != nullptr);
}

TEST_CASE("a path finds its file by its whole name first, then by its last part", "[loader]") {
    const std::vector<std::byte> a(1);
    const std::vector<std::byte> b(2);
    ModuleFiles files;
    REQUIRE(files.add("x/vmlinux", a));
    REQUIRE(files.add("vmlinux", b));
    CHECK(files.find("x/vmlinux")->bytes.size() == 1);
    CHECK(files.find("../y/vmlinux")->bytes.size() == 2);
    CHECK(files.find("vmlinux")->bytes.size() == 2);
    CHECK(files.find("x") == nullptr);
    REQUIRE(files.add("vmlinux", a));  // a second one of the name changes nothing
    CHECK(files.find("vmlinux")->bytes.size() == 2);
}

TEST_CASE("what is left of a damaged archive is read", "[loader]") {
    const auto archive = TarBuilder{}.add("one", "1").add("two", "2").build();
    const auto names = [](std::vector<std::byte> bytes) {
        UstarReader reader{bytes};
        std::string all;
        while (const auto file = reader.next())
            all += file->name;
        return all + (reader.broken() ? "!" : "");
    };
    CHECK(names(archive) == "onetwo");
    auto changed = archive;
    changed[1024] = std::byte{'x'};
    CHECK(names(changed) == "one!");
    for (const std::size_t size : {1025U, 1024U + 512U})
        CHECK(names({archive.begin(), archive.begin() + size}) == "one!");
    CHECK(names({archive.begin(), archive.begin() + 2048}) == "onetwo");
    CHECK(names({archive.begin(), archive.begin() + 1024 + 513}) == "onetwo");
    auto size_lies = TarBuilder{}.add("one", "1").build();
    size_lies[124] = std::byte{'7'};
    CHECK(names(size_lies) == "!");
}
