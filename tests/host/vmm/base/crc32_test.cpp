// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/base/crc32.hpp"

#include <string_view>

using namespace hv;

TEST_CASE("CRC-32 has its published check value, in one piece or in several", "[base]") {
    constexpr std::string_view kText = "123456789";
    const auto bytes = std::as_bytes(std::span{kText});
    CHECK(Crc32{}.add(bytes).value() == 0xcbf4'3926);
    CHECK(Crc32{}.add(bytes.first(4)).add({}).add(bytes.subspan(4)).value() == 0xcbf4'3926);
    CHECK(Crc32{}.value() == 0);
}
