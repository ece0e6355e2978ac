// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/loader/aml.hpp"

#include <initializer_list>
#include <vector>

using namespace hv;
using hv::loader::AmlWriter;

namespace {

template <class Write>
std::vector<unsigned> written(Write&& write) {
    AmlWriter aml;
    write(aml);
    const Vec<std::byte> bytes = std::move(*std::move(aml).take());
    std::vector<unsigned> out;
    for (const std::byte each : bytes)
        out.push_back(std::to_integer<unsigned>(each));
    return out;
}

using Bytes = std::vector<unsigned>;

}  // namespace

TEST_CASE("integers take their shortest form", "[loader]") {
    const auto integer = [](std::uint64_t value) {
        return written([&](AmlWriter& aml) { aml.integer(value); });
    };
    CHECK(integer(0) == Bytes{0x00});
    CHECK(integer(1) == Bytes{0x01});
    CHECK(integer(2) == Bytes{0x0a, 0x02});
    CHECK(integer(0xff) == Bytes{0x0a, 0xff});
    CHECK(integer(0x100) == Bytes{0x0b, 0x00, 0x01});
    CHECK(integer(0x1'0000) == Bytes{0x0c, 0x00, 0x00, 0x01, 0x00});
    CHECK(integer(0x1'0000'0000) == Bytes{0x0e, 0, 0, 0, 0, 1, 0, 0, 0});
}

TEST_CASE("names are filled up to four characters", "[loader]") {
    CHECK(written([](AmlWriter& aml) { aml.name("_UID", 0); }) == Bytes{0x08, '_', 'U', 'I', 'D', 0x00});
    CHECK(written([](AmlWriter& aml) { aml.scope("\\_SB", [] {}); }) ==
          Bytes{0x10, 0x06, '\\', '_', 'S', 'B', '_'});
    CHECK(written([](AmlWriter& aml) { aml.device("RTC", [] {}); }) ==
          Bytes{0x5b, 0x82, 0x05, 'R', 'T', 'C', '_'});
}

TEST_CASE("EISA IDs are packed as iasl packs them", "[loader]") {
    CHECK(written([](AmlWriter& aml) { aml.name_eisa_id("_HID", "PNP0A08"); }) ==
          Bytes{0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0a, 0x08});
    CHECK(written([](AmlWriter& aml) { aml.name_eisa_id("_HID", "PNP0C0F"); }) ==
          Bytes{0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0c, 0x0f});
}

TEST_CASE("lengths take as many bytes as they need, and count them", "[loader]") {
    // Scope(X) with a body of `size` bytes: what is its PkgLength, and does it reach the end?
    const auto check = [](std::size_t size, const Bytes& length) {
        const Bytes bytes = written([&](AmlWriter& aml) {
            aml.scope("ABCD", [&] {
                for (std::size_t i = 4; i < size; ++i)
                    aml.integer(0);
            });
        });
        CAPTURE(size);
        CHECK(Bytes{bytes.begin() + 1, bytes.begin() + 1 + static_cast<std::ptrdiff_t>(length.size())} ==
              length);
        CHECK(bytes.size() == 1 + length.size() + size);
        CHECK(bytes[1 + length.size()] == 'A');
    };
    check(4, {0x05});
    check(62, {0x3f});
    check(63, {0x41, 0x04});  // 65 = 0x041
    check(0xfff - 2, {0x4f, 0xff});
    check(0xfff - 1, {0x81, 0x00, 0x01});  // 0x1001
    check(0x1'0000, {0x83, 0x00, 0x10});   // 0x10003
}

TEST_CASE("blocks nest", "[loader]") {
    CHECK(written([](AmlWriter& aml) {
              aml.name_package("_PRT", 1, [&] {
                  aml.package(2, [&] {
                      aml.integer(0x1ffff);
                      aml.integer(1);
                  });
              });
          }) == Bytes{0x08, '_', 'P', 'R', 'T', 0x12, 0x0b, 0x01, 0x12, 0x08, 0x02, 0x0c, 0xff, 0xff, 0x01,
                      0x00, 0x01});
}

TEST_CASE("resource templates end with their tag and know their size", "[loader]") {
    CHECK(written([](AmlWriter& aml) {
              aml.current_resources([&] {
                  aml.io_ports(0x3f8, 8);
                  aml.irq(4);
              });
          }) == Bytes{0x08, '_',  'C',  'R',  'S',  0x11, 0x11, 0x0b, 13,   0,    0x47, 0x01,
                      0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00});
    const Bytes window = written(
        [](AmlWriter& aml) { aml.current_resources([&] { aml.memory_window(0xc000'0000, 0xdfff'ffff); }); });
    CHECK(Bytes{window.begin() + 10, window.end()} == Bytes{0x87, 0x17, 0, 0,    0x0c, 1,    0,    0,    0, 0,
                                                            0,    0,    0, 0xc0, 0xff, 0xff, 0xff, 0xdf, 0, 0,
                                                            0,    0,    0, 0,    0,    0x20, 0x79, 0});
}

TEST_CASE("methods store their argument and choose what to return", "[loader]") {
    CHECK(written([](AmlWriter& aml) { aml.method("_PIC", 1, [&] { aml.store_argument("PICM"); }); }) ==
          Bytes{0x14, 12, '_', 'P', 'I', 'C', 1, 0x70, 0x68, 'P', 'I', 'C', 'M'});
    CHECK(written([](AmlWriter& aml) {
              aml.method("_PRT", 0, [&] {
                  aml.if_set("PICM", [&] { aml.return_object("PRTA"); });
                  aml.return_object("PRTP");
              });
          }) == Bytes{0x14, 22,   '_', 'P', 'R', 'T', 0,    0xa0, 10,  'P', 'I', 'C',
                      'M',  0xa4, 'P', 'R', 'T', 'A', 0xa4, 'P',  'R', 'T', 'P'});
}
