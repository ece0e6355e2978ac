// SPDX-License-Identifier: MIT
// The ChaCha20 block function, and a generator of random bytes made of it. What the generator hands out tells
// nothing about what it handed out before, even to somebody who later sees all of its state: each request is
// served under a key of its own, and the key that this came from is replaced first.
#pragma once

#include "vmm/base/entropy.hpp"
#include "vmm/base/guarded.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {

using ChaChaKey = std::array<std::byte, 32>;
using ChaChaBlock = std::array<std::byte, 64>;
using ChaChaNonce = std::array<std::byte, 12>;

/// [rfc8439 2.3 The ChaCha20 Block Function]
void chacha20_block(const ChaChaKey& key, std::uint32_t counter, const ChaChaNonce& nonce, ChaChaBlock& out);

class ChaChaGenerator final : public EntropySource {
public:
    explicit ChaChaGenerator(std::span<const std::byte> seed) { add_seed(seed); }
    ~ChaChaGenerator();

    /// Mixes in what may make the generator harder to foresee, and never makes it easier.
    void add_seed(std::span<const std::byte> seed);
    /// 256 GiB at most, for the blocks are numbered with 32 bits.
    void fill(std::span<std::byte> out) override;

private:
    Guarded<ChaChaKey, Rank::leaf> key_{};
};

}  // namespace hv
