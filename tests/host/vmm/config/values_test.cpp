// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/config/values.hpp"

#include <set>
#include <string>

using namespace hv;
using namespace hv::config;

TEST_CASE("sizes count in powers of 1024", "[config]") {
    CHECK(parse_size("4096") == 4096);
    CHECK(parse_size("16K") == 16384);
    CHECK(parse_size("256M") == 256ULL << 20);
    CHECK(parse_size("1G") == 1ULL << 30);
    CHECK(parse_size("16777215T") == 16777215ULL << 40);
    for (const char* wrong :
         {"", "M", "1m", "1 M", "-1M", "1MB", "1.5G", "0x10", "16777216T", "99999999999999999999"})
        CHECK_FALSE(parse_size(wrong));
}

TEST_CASE("rates count in powers of 1000", "[config]") {
    CHECK(parse_rate("100Mbit") == 100'000'000);
    CHECK(parse_rate("500kbit") == 500'000);
    CHECK(parse_rate("10Gbit") == 10'000'000'000);
    for (const char* wrong : {"", "100", "100M", "100mbit", "100Mbit/s", "Mbit"})
        CHECK_FALSE(parse_rate(wrong));
}

TEST_CASE("MAC addresses are six pairs of digits", "[config]") {
    CHECK(parse_mac("52:54:00:aB:0:01") == std::nullopt);
    CHECK(parse_mac("52:54:00:aB:00:01") == MacAddress{0x52, 0x54, 0, 0xab, 0, 1});
    for (const char* wrong :
         {"", "52-54-00-00-00-01", "52:54:00:00:00", "52:54:00:00:00:0g", "52:54:00:00:00:01:"})
        CHECK_FALSE(parse_mac(wrong));
    CHECK_FALSE(is_station_address({0x53, 0x54, 0, 0, 0, 1}));
    CHECK_FALSE(is_station_address({}));
    CHECK(is_station_address({0x52, 0x54, 0, 0, 0, 1}));
}

TEST_CASE("derived addresses are local, of one station, and differ", "[config]") {
    std::set<MacAddress> seen;
    for (const char* vm : {"alpha", "beta", "alpha0"})
        for (std::size_t index = 0; index < 8; ++index)
            for (unsigned attempt = 0; attempt < 3; ++attempt) {
                const MacAddress mac = derive_mac(vm, index, attempt);
                CHECK((mac[0] & 3) == 2);
                CHECK(is_station_address(mac));
                CHECK(seen.insert(mac).second);
            }
    CHECK(derive_mac("alpha", 0, 0) == derive_mac("alpha", 0, 0));
}

TEST_CASE("names are short and plain", "[config]") {
    CHECK(is_name("web-1.a_B"));
    CHECK(is_name(std::string(32, 'a')));
    for (const auto& wrong :
         {std::string{}, std::string{"-a"}, std::string{"a b"}, std::string{"a/b"}, std::string(33, 'a')})
        CHECK_FALSE(is_name(wrong));
}
