// SPDX-License-Identifier: MIT
#include "vmm/core/guest_map.hpp"
#include "vmm/loader/loader_fixture.hpp"
#include "vmm/loader/mp_table.hpp"

#include <map>
#include <vector>

using namespace hv;
using namespace hv::loader;

namespace {

unsigned sum(const std::vector<std::byte>& bytes) {
    unsigned total = 0;
    for (const std::byte each : bytes)
        total += std::to_integer<unsigned>(each);
    return total & 0xff;
}

struct Entries {
    explicit Entries(const MpBoard& board) : guest{2 * kMiB} {
        REQUIRE(build_mp_table(board, guest.memory));
        const std::uint64_t pointer = guest_map::kMpTable;
        REQUIRE(guest.text(pointer).starts_with("_MP_"));
        REQUIRE(sum(guest.bytes(pointer, 16)) == 0);
        CHECK(guest.get<std::uint8_t>(pointer + 8) == 1);
        CHECK(guest.get<std::uint8_t>(pointer + 9) == 4);
        CHECK(guest.get<std::uint8_t>(pointer + 11) == 0);  // a table, no default configuration
        CHECK(guest.get<std::uint8_t>(pointer + 12) == 0);  // virtual wire mode, no IMCR
        const std::uint64_t header = guest.get<std::uint32_t>(pointer + 4);
        REQUIRE(guest.text(header).starts_with("PCMP"));
        const auto length = guest.get<std::uint16_t>(header + 4);
        REQUIRE(header + length <= guest_map::kFirmwareEnd);
        REQUIRE(sum(guest.bytes(header, length)) == 0);
        CHECK(guest.get<std::uint32_t>(header + 36) == 0xfee0'0000);
        unsigned count = 0;
        unsigned last_type = 0;
        for (std::uint64_t at = header + 44; at < header + length; ++count) {
            const auto type = guest.get<std::uint8_t>(at);
            REQUIRE(type >= last_type);  // ascending, as the specification asks
            last_type = type;
            by_type[type].push_back(guest.bytes(at, type == 0 ? 20 : 8));
            at += type == 0 ? 20 : 8;
        }
        CHECK(guest.get<std::uint16_t>(header + 34) == count);
    }
    unsigned byte(unsigned type, std::size_t index, std::size_t offset) {
        return std::to_integer<unsigned>(by_type[type].at(index).at(offset));
    }

    Guest guest;
    std::map<unsigned, std::vector<std::vector<std::byte>>> by_type;
};

}  // namespace

TEST_CASE("the MP table lists the processors that an xAPIC can name", "[loader]") {
    Entries table{{.vcpus = 3, .cpu_signature = 0x0080'0f12}};
    REQUIRE(table.by_type[0].size() == 3);
    for (unsigned cpu = 0; cpu < 3; ++cpu) {
        CHECK(table.byte(0, cpu, 1) == cpu);
        CHECK(table.byte(0, cpu, 3) == (cpu == 0 ? 3 : 1));
        CHECK(load<std::uint32_t>(table.by_type[0][cpu].data() + 4) == 0x0080'0f12);
    }
    CHECK(Entries{{.vcpus = 300}}.by_type[0].size() == 255);
}

TEST_CASE("the MP table says where interrupts arrive", "[loader]") {
    Entries table{{}};
    REQUIRE(table.by_type[2].size() == 1);
    CHECK(load<std::uint32_t>(table.by_type[2][0].data() + 4) == 0xfec0'0000);
    std::map<std::pair<unsigned, unsigned>, std::pair<unsigned, unsigned>> inputs;  // bus, irq: pin, flags
    unsigned ext_int = 0;
    for (std::size_t i = 0; i < table.by_type[3].size(); ++i) {
        if (table.byte(3, i, 1) == 3) {
            ++ext_int;
            CHECK(table.byte(3, i, 7) == 0);
            continue;
        }
        CHECK(table.byte(3, i, 1) == 0);
        const std::pair key{table.byte(3, i, 4), table.byte(3, i, 5)};
        CHECK(inputs.emplace(key, std::pair{table.byte(3, i, 7), table.byte(3, i, 2)}).second);
    }
    CHECK(ext_int == 1);
    constexpr unsigned kPci = 0, kIsa = 1;
    CHECK(std::to_integer<char>(table.by_type[1][kPci][2]) == 'P');
    CHECK(std::to_integer<char>(table.by_type[1][kIsa][2]) == 'I');
    CHECK(inputs[{kIsa, 0}] == std::pair{2U, 0U});
    CHECK(inputs[{kIsa, 4}] == std::pair{4U, 0U});
    CHECK(inputs[{kIsa, 9}] == std::pair{9U, 0xdU});
    CHECK_FALSE(inputs.contains({kIsa, 2}));
    for (unsigned device = 1; device < 32; ++device)
        CHECK(inputs[{kPci, device << 2}] == std::pair{16 + device % 8, 0xfU});
    REQUIRE(table.by_type[4].size() == 2);
    CHECK(table.byte(4, 0, 1) == 3);  // the 8259s at LINT0 of the boot processor
    CHECK(table.byte(4, 0, 6) == 0);
    CHECK(table.byte(4, 0, 7) == 0);
    CHECK(table.byte(4, 1, 1) == 1);  // NMI at LINT1 of all
    CHECK(table.byte(4, 1, 6) == 0xff);
    CHECK(table.byte(4, 1, 7) == 1);
}
