// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/base/chacha20.hpp"

#include <set>
#include <string>
#include <vector>

namespace {

using namespace hv;

std::string hex(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes)
        for (const unsigned digit :
             {std::to_integer<unsigned>(byte) >> 4, std::to_integer<unsigned>(byte) & 15})
            text += "0123456789abcdef"[digit];
    return text;
}

std::vector<std::byte> take(ChaChaGenerator& generator, std::size_t size) {
    std::vector<std::byte> bytes(size);
    generator.fill(bytes);
    return bytes;
}

constexpr std::array<std::byte, 3> kSeed{std::byte{1}, std::byte{2}, std::byte{3}};

}  // namespace

TEST_CASE("the ChaCha20 block function gives the blocks of RFC 8439", "[base]") {
    ChaChaBlock block;
    ChaChaKey key{};
    // [rfc8439 A.1 The ChaCha20 Block Functions], test vectors 1 and 2.
    chacha20_block(key, 0, {}, block);
    CHECK(hex(block) == "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
                        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586");
    chacha20_block(key, 1, {}, block);
    CHECK(hex(block) == "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
                        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f");
    // [rfc8439 2.3.2 Test Vector for the ChaCha20 Block Function]
    for (unsigned i = 0; i < key.size(); ++i)
        key[i] = static_cast<std::byte>(i);
    chacha20_block(key, 1, {{{}, {}, {}, std::byte{9}, {}, {}, {}, std::byte{0x4a}}}, block);
    CHECK(hex(block) == "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
                        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e");
}

TEST_CASE("a generator repeats itself for the same seed only", "[base]") {
    ChaChaGenerator one{kSeed};
    ChaChaGenerator same{kSeed};
    ChaChaGenerator shorter{std::span{kSeed}.first(2)};
    const auto bytes = take(one, 1000);
    CHECK(take(same, 1000) == bytes);
    CHECK(take(shorter, 1000) != bytes);
    const std::byte more{7};
    one.add_seed({&more, 1});
    CHECK(take(one, 32) != take(same, 32));
}

TEST_CASE("every byte of a long seed counts", "[base]") {
    std::set<std::string> outputs;
    std::vector<std::byte> seed(100);
    for (std::size_t i = 0; i < seed.size(); ++i) {
        seed[i] = std::byte{1};
        ChaChaGenerator generator{seed};
        outputs.insert(hex(take(generator, 16)));
        seed[i] = std::byte{0};
    }
    CHECK(outputs.size() == seed.size());
}

TEST_CASE("no two requests get the same bytes, and none gets the generator's key", "[base]") {
    ChaChaGenerator generator{kSeed};
    std::set<std::string> blocks;
    for (const std::size_t size : {64u, 640u, 31u, 64u, 1u, 64u}) {
        const auto bytes = take(generator, size);
        for (std::size_t at = 0; at + 16 <= size; at += 16)
            CHECK(blocks.insert(hex(std::span{bytes}.subspan(at, 16))).second);
    }
    std::byte untouched{0x55};
    generator.fill({&untouched, 0});
    CHECK(untouched == std::byte{0x55});
}
