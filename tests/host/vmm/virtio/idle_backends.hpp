// SPDX-License-Identifier: MIT
// What devices are made with where it does not matter.
#pragma once

#include "vmm/virtio/virtio_balloon.hpp"
#include "vmm/virtio/virtio_console.hpp"
#include "vmm/virtio/virtio_rng.hpp"

#include <cstddef>
#include <span>
#include <string_view>

namespace hv::test {

class NoEntropy final : public EntropySource {
public:
    void fill(std::span<std::byte>) override {}
};

class NoTaker final : public virtio::BalloonMemory {
public:
    Release release(Gpa) override { return Release::refused; }
    bool reclaim(Gpa) override { return false; }
    void cancel() override {}
};

class NoText final : public CharSink {
public:
    void put(std::string_view) override {}
};

}  // namespace hv::test
