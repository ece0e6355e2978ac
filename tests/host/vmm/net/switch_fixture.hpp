// SPDX-License-Identifier: MIT
// A switch with stations that keep what they get.
#pragma once

#include "fakes/board.hpp"
#include "vmm/net/frame_fixture.hpp"
#include "vmm/net/switch.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace hv::test {

using net::Delivery;
using net::PortOptions;
using net::Refusal;
using net::SwitchPort;

inline MacAddress mac(unsigned index) {
    return {0x52, 0x54, 0, 0, static_cast<std::uint8_t>(index >> 8), static_cast<std::uint8_t>(index)};
}
inline constexpr MacAddress kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

class TestStation final : public net::Station {
public:
    Delivery receive(const Frame& frame) override {
        if (takes != 0 && frame.progress != nullptr) {
            *frame.progress = takes;
            return Delivery::partly;
        }
        if (room == 0)
            return Delivery::no_room;
        if (room != ~0u)
            --room;
        frames.push_back(copy_of(frame).bytes);
        return Delivery::taken;
    }
    void resume() override { ++resumed; }
    void network_changed() override { ++changes; }
    void tell(net::StationCounters& out) const override { out.add("lies", 3); }
    std::vector<Bytes> take() { return std::exchange(frames, {}); }

    std::vector<Bytes> frames;
    unsigned room{~0u};
    std::uint32_t takes{0};  ///< bytes of each frame that can be taken in parts; 0: all of each frame
    unsigned resumed{0};
    unsigned changes{0};
};

inline Bytes frame_bytes(const MacAddress& to, const MacAddress& from, std::optional<unsigned> vlan = {},
                         std::size_t size = 60) {
    Bytes bytes(size, 0x5a);
    std::copy(to.begin(), to.end(), bytes.begin());
    std::copy(from.begin(), from.end(), bytes.begin() + 6);
    put16(bytes, 12, 0x0800);
    if (vlan) {
        const Bytes tag{0x81, 0x00, static_cast<std::uint8_t>(*vlan >> 8), static_cast<std::uint8_t>(*vlan)};
        bytes.insert(bytes.begin() + 12, tag.begin(), tag.end());
    }
    return bytes;
}

struct Network {
    explicit Network(const net::SwitchOptions& options = {.storm_limit = 0})
        : lan{std::move(net::Switch::create(clock, options)).value()} {}
    Delivery send(SwitchPort& port, const Bytes& bytes) {
        std::mt19937 random{1};
        const ScatteredFrame frame{bytes, {}, random, 3};
        return port.send(frame.frame, retry_at);
    }
    SwitchPort& access(unsigned index, std::uint16_t vlan = 0, std::uint64_t rate = 0) {
        return add({PortOptions::Kind::access, mac(index), vlan, rate});
    }
    SwitchPort& add(const PortOptions& options) {
        stations.emplace_back();
        return *lan->add_port(stations.back(), options).value();
    }
    SwitchPort& uplink() { return add({PortOptions::Kind::uplink, {}, 0, 0}); }
    fake::ManualClock clock;
    std::unique_ptr<net::Switch> lan;
    std::deque<TestStation> stations;
    std::uint64_t retry_at{0};
};

/// How many frames of a port were refused for this reason.
inline std::uint64_t refused(const SwitchPort& port, Refusal reason) {
    return port.counters().refused[static_cast<std::size_t>(reason)];
}

}  // namespace hv::test
