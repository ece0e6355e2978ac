// SPDX-License-Identifier: MIT
// A guest whose sockets reach the echo and a service that tests play.
#pragma once

#include "catch.hpp"
#include "fakes/vsock_guest.hpp"
#include "vmm/virtio/virtio_vsock.hpp"
#include "vmm/virtio/vsock_echo.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace hv::test {

using namespace hv::virtio;

using fake::VsockGuest;

inline constexpr std::uint64_t kRing = VsockGuest::kRing;
inline constexpr std::uint64_t kCid = VsockGuest::kCid;
inline constexpr std::uint32_t kHeader = VsockGuest::kHeader;
inline constexpr std::uint32_t kBuffer = VsockConnection::kBufferSize;
inline constexpr std::uint32_t kLocal = VsockGuest::kLocal;
inline constexpr std::uint32_t kTestPort = 99;

/// Does nothing by itself; tests act in its place.
class TestService final : public VsockService {
public:
    bool accept(VsockConnection& connection) override {
        last = &connection;
        return willing;
    }
    void ready(VsockConnection&) override { ++readies; }
    void closed(VsockConnection&, VsockEnd end) override {
        ++closes;
        ended = end;
    }
    VsockConnection* last{nullptr};
    unsigned readies{0}, closes{0};
    std::optional<VsockEnd> ended;
    bool willing{true};
};

struct Services {
    VsockEcho echo;
    TestService test;
    std::array<VsockPort, 2> services{{{VsockEcho::kPort, &echo}, {kTestPort, &test}}};
};
struct SocketGuest : Services, VsockGuest {
    explicit SocketGuest(std::uint64_t features = kRing, unsigned count = 32)
        : VsockGuest{services, features, count} {}
};

}  // namespace hv::test
