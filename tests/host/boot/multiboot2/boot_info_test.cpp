// SPDX-License-Identifier: MIT
#include "boot/multiboot2/boot_info.hpp"
#include "catch.hpp"

#include <array>
#include <memory>
#include <random>
#include <string>

using namespace hv;
using namespace hv::boot;

namespace {

void check_well_formed(const BootInfo& info) {
    for (std::size_t i = 0; i < info.memory.size(); ++i) {
        REQUIRE(info.memory[i].length > 0);
        if (i > 0) {
            REQUIRE(info.memory[i - 1].end() <= info.memory[i].start);
            const bool neighbours = info.memory[i - 1].end() == info.memory[i].start;
            REQUIRE_FALSE((neighbours && info.memory[i - 1].type == info.memory[i].type));
        }
    }
}

}  // namespace

TEST_CASE("a module's name is the file name of its command line's first word", "[multiboot2]") {
    const auto name = [](std::string_view text) { return std::string{Module{Hpa{0}, 1, text}.name()}; };
    CHECK(name("/boot/guest/vmlinux console=/dev/ttyS0") == "vmlinux");
    CHECK(name("cairn.tar") == "cairn.tar");
    CHECK(name("") == "");
    CHECK(name("dir/ x") == "");
}

TEST_CASE("overlapping memory ranges keep the more restrictive type", "[multiboot2]") {
    auto info = std::make_unique<BootInfo>();
    info->add_memory(Hpa{0x1000}, 0x9000, MemoryType::usable);
    info->add_memory(Hpa{0x3000}, 0x2000, MemoryType::reserved);
    info->add_memory(Hpa{0x0}, 0x20000, MemoryType::usable);
    info->add_memory(Hpa{0x4000}, 0x2000, MemoryType::acpi_nvs);
    REQUIRE(info->memory.size() == 4);
    CHECK(info->memory[0].start == Hpa{0});
    CHECK(info->memory[0].end() == Hpa{0x3000});
    CHECK(info->memory[1].type == MemoryType::reserved);
    CHECK(info->memory[1].end() == Hpa{0x5000});
    CHECK(info->memory[2].type == MemoryType::acpi_nvs);
    CHECK(info->memory[2].end() == Hpa{0x6000});
    CHECK(info->memory[3].end() == Hpa{0x20000});
}

TEST_CASE("memory ranges behave as a map from address to type", "[multiboot2]") {
    constexpr unsigned kSize = 64;
    std::mt19937 random{1};
    for (unsigned round = 0; round < 500; ++round) {
        auto info = std::make_unique<BootInfo>();
        std::array<int, kSize> model{};
        model.fill(-1);
        for (unsigned i = 0; i < 12; ++i) {
            const unsigned start = random() % kSize;
            const unsigned length = random() % (kSize - start + 1);
            const int type = static_cast<int>(random() % 5);
            info->add_memory(Hpa{start}, length, static_cast<MemoryType>(type));
            for (unsigned a = start; a < start + length; ++a)
                model[a] = std::max(model[a], type);
            check_well_formed(*info);
        }
        std::array<int, kSize> seen{};
        seen.fill(-1);
        for (const MemoryRange& range : info->memory)
            for (std::uint64_t a = range.start.raw; a < range.end().raw; ++a)
                seen.at(a) = static_cast<int>(range.type);
        REQUIRE(seen == model);
    }
}

TEST_CASE("when the list of ranges is full, memory is lost rather than misused", "[multiboot2]") {
    auto info = std::make_unique<BootInfo>();
    for (std::uint64_t i = 0; i < 300; ++i)
        info->add_memory(Hpa{i * 0x10000}, 0x8000, MemoryType::usable);
    CHECK(info->memory.size() == info->memory.kCapacity);
    info->add_memory(Hpa{0x2000}, 0x1000, MemoryType::reserved);
    CHECK(info->memory[0].type == MemoryType::reserved);
    check_well_formed(*info);
}

TEST_CASE("ranges that wrap around are dropped", "[multiboot2]") {
    auto info = std::make_unique<BootInfo>();
    info->add_memory(Hpa{~std::uint64_t{0} - 0xfff}, 0x2000, MemoryType::usable);
    info->add_module(Hpa{~std::uint64_t{0}}, 2, "m");
    info->add_module(Hpa{0x1000}, 0, "empty");
    CHECK(info->memory.empty());
    CHECK(info->modules.empty());
}

TEST_CASE("text beyond the room for it is left out", "[multiboot2]") {
    auto info = std::make_unique<BootInfo>();
    const std::string half(2048, 'a');
    CHECK(info->keep(half) == half);
    CHECK(info->keep(half) == half);
    CHECK_FALSE(info->keep("x"));
    info->add_module(Hpa{0x1000}, 1, "name");
    REQUIRE(info->modules.size() == 1);
    CHECK(info->modules[0].name().empty());
}
