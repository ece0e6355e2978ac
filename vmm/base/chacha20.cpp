// SPDX-License-Identifier: MIT
#include "vmm/base/chacha20.hpp"

#include "vmm/base/bytes.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hv {
namespace {

using State = std::array<std::uint32_t, 16>;

/// "expand 32-byte k" [rfc8439 2.3 The ChaCha20 Block Function].
constexpr std::array<std::uint32_t, 4> kConstants{0x6170'7865, 0x3320'646e, 0x7962'2d32, 0x6b20'6574};

/// [rfc8439 2.1 The ChaCha Quarter Round]
void quarter_round(State& state, unsigned a, unsigned b, unsigned c, unsigned d) {
    const auto mix = [&](unsigned sum, unsigned addend, unsigned target, int distance) {
        state[sum] += state[addend];
        state[target] = std::rotl(state[target] ^ state[sum], distance);
    };
    mix(a, b, d, 16);
    mix(c, d, b, 12);
    mix(a, b, d, 8);
    mix(c, d, b, 7);
}

// What separates the generator's uses of one key.
constexpr ChaChaNonce kForOutput{};
constexpr ChaChaNonce kForNextKey{std::byte{1}};
constexpr ChaChaNonce kForSeed{std::byte{2}};

/// Clears a secret that nobody reads any more, which a compiler would leave undone.
template <class T>
void wipe(T& secret) {
    volatile std::byte* bytes = secret.data();
    for (std::size_t i = 0; i < secret.size(); ++i)
        bytes[i] = std::byte{0};
}

/// Replaces `key`; gives the second half of the block that was made for it.
ChaChaKey advance(ChaChaKey& key, const ChaChaNonce& nonce) {
    ChaChaBlock block;
    chacha20_block(key, 0, nonce, block);
    ChaChaKey other;
    std::copy_n(block.begin(), key.size(), key.begin());
    std::copy_n(block.begin() + key.size(), other.size(), other.begin());
    wipe(block);
    return other;
}

}  // namespace

void chacha20_block(const ChaChaKey& key, std::uint32_t counter, const ChaChaNonce& nonce, ChaChaBlock& out) {
    State start{};
    std::copy(kConstants.begin(), kConstants.end(), start.begin());
    std::memcpy(&start[4], key.data(), key.size());
    start[12] = counter;
    std::memcpy(&start[13], nonce.data(), nonce.size());
    State state = start;
    for (unsigned round = 0; round < 20; round += 2) {
        for (unsigned column = 0; column < 4; ++column)
            quarter_round(state, column, column + 4, column + 8, column + 12);
        for (unsigned column = 0; column < 4; ++column)
            quarter_round(state, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4);
    }
    for (unsigned i = 0; i < state.size(); ++i)
        store(out.data() + sizeof(std::uint32_t) * i, state[i] + start[i]);
}

ChaChaGenerator::~ChaChaGenerator() {
    key_.with([](ChaChaKey& key) { wipe(key); });
}

void ChaChaGenerator::add_seed(std::span<const std::byte> seed) {
    key_.with([&](ChaChaKey& key) {
        while (!seed.empty()) {
            const std::size_t size = std::min(seed.size(), key.size());
            for (std::size_t i = 0; i < size; ++i)
                key[i] ^= seed[i];
            seed = seed.subspan(size);
            ChaChaKey unused = advance(key, kForSeed);
            wipe(unused);
        }
    });
}

void ChaChaGenerator::fill(std::span<std::byte> out) {
    ChaChaKey key = key_.with([](ChaChaKey& next) { return advance(next, kForNextKey); });
    ChaChaBlock block;
    for (std::uint32_t counter = 0; !out.empty(); ++counter) {
        chacha20_block(key, counter, kForOutput, block);
        const std::size_t size = std::min(out.size(), block.size());
        std::memcpy(out.data(), block.data(), size);
        out = out.subspan(size);
    }
    wipe(block);
    wipe(key);
}

}  // namespace hv
