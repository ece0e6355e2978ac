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

TEST_CASE("IP addresses are read, with a prefix's length or without", "[config]") {
    using Family = hv::net::IpPrefix::Family;
    const auto ipv6 = [](std::uint8_t bits, std::array<std::uint8_t, 16> address) {
        return hv::net::IpPrefix{Family::ipv6, bits, address};
    };
    CHECK(parse_prefix("10.0.0.255") == hv::net::IpPrefix{Family::ipv4, 32, {10, 0, 0, 255}});
    CHECK(parse_prefix("10.0.0.0/8") == hv::net::IpPrefix{Family::ipv4, 8, {10}});
    CHECK(parse_prefix("0.0.0.0/0") == hv::net::IpPrefix{Family::ipv4, 0, {}});
    CHECK(parse_prefix("1:2:3:4:5:6:7:abCD") ==
          ipv6(128, {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0xab, 0xcd}));
    CHECK(parse_prefix("::") == ipv6(128, {}));
    CHECK(parse_prefix("fe80::/10") == ipv6(10, {0xfe, 0x80}));
    CHECK(parse_prefix("2001:db8::5:6") ==
          ipv6(128, {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 6}));
    CHECK(parse_prefix("::2:3:4:5:6:7:8") == ipv6(128, {0, 0, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8}));
    CHECK(parse_prefix("1:2:3:4:5:6:7::") == ipv6(128, {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7}));
    for (const char* wrong : {"",
                              "10",
                              "10.0.0",
                              "10.0.0.",
                              "10.0.0.1.",
                              "10.0.0.0.1",
                              "10.0.0.256",
                              "10.0.0.01",
                              "10.0.0.-1",
                              "10.0.0.1/",
                              "10.0.0.1/33",
                              "10.0.0.1/x",
                              "/8",
                              ":",
                              ":::",
                              "1::2::3",
                              "1:2:3:4:5:6:7",
                              "12345::",
                              "1:2:3:4:5:6:7:8:9",
                              "1::2:3:4:5:6:7:8",
                              "::g",
                              "::/129",
                              "::1.2.3.4",
                              "1:2:3:4:5:6:7:8:"})
        CHECK_FALSE(parse_prefix(wrong));
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
    for (const char* host : {"", "alpha", "beta"})
        for (const char* vm : {"alpha", "beta", "alpha0"})
            for (std::size_t index = 0; index < 8; ++index)
                for (unsigned attempt = 0; attempt < 3; ++attempt) {
                    const MacAddress mac = derive_mac(host, vm, index, attempt);
                    CHECK((mac[0] & 3) == 2);
                    CHECK(is_station_address(mac));
                    CHECK(seen.insert(mac).second);
                }
    CHECK(derive_mac("", "alpha", 0, 0) == derive_mac("", "alpha", 0, 0));
}

TEST_CASE("names are short and plain", "[config]") {
    CHECK(is_name("web-1.a_B"));
    CHECK(is_name(std::string(32, 'a')));
    for (const auto& wrong :
         {std::string{}, std::string{"-a"}, std::string{"a b"}, std::string{"a/b"}, std::string(33, 'a')})
        CHECK_FALSE(is_name(wrong));
}
