// SPDX-License-Identifier: MIT
// Either kind of controller with its driver, and software's way to do what it has the hardware do.
#pragma once

#include "catch.hpp"
#include "drivers/net/e1000.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/e1000_device.hpp"
#include "vmm/net/frame_fixture.hpp"
#include "vmm/net/offload.hpp"

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace hv::test {

using namespace hv::netdrv;
using fake::E1000Device;

inline constexpr OffloadSupport kNothing{};

/// What the driver delivers to.
class E1000Sink final : public NetUser {
public:
    bool transmit(const Frame& frame) override {
        frames.push_back(copy_of(frame));
        headers_right =
            headers_right &&
            std::equal(frames.back().bytes.begin(),
                       frames.back().bytes.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                                         frame.size, frame.header.size())),
                       reinterpret_cast<const std::uint8_t*>(frame.header.data()));
        if (on_frame)
            on_frame();
        return true;
    }
    void link_restored() override { ++links; }
    std::vector<Received> frames;
    unsigned links{0};
    bool headers_right{true};
    std::function<void()> on_frame;
};

struct E1000Fixture {
    explicit E1000Fixture(E1000Kind kind_) : kind{kind_} {}
    ~E1000Fixture() {
        nic.reset();
        for (const std::string& violation : device.violations)
            UNSCOPED_INFO(violation);
        CHECK(device.violations.empty());
        CHECK(frames.outstanding() == 0);
    }
    Expected<std::unique_ptr<E1000>> create(const OffloadSupport& allowed = E1000::kAllOffloads) {
        return E1000::create(device, pool, clock, "net0", kind, allowed);
    }
    void start(const OffloadSupport& allowed = E1000::kAllOffloads) {
        auto created = create(allowed);
        REQUIRE(created);
        nic = std::move(*created);
        nic->start(sink);
    }
    Bytes random_bytes(std::size_t size) {
        Bytes bytes(size);
        for (std::uint8_t& byte : bytes)
            byte = static_cast<std::uint8_t>(random());
        return bytes;
    }
    bool send(const Bytes& bytes, const FrameOffload& offload = {}, unsigned pieces = 1) {
        const ScatteredFrame frame{bytes, offload, random, pieces};
        return nic->transmit(frame.frame);
    }
    /// The frames that software makes of `bytes`.
    std::vector<Received> software(const Bytes& bytes, const FrameOffload& offload) {
        const ScatteredFrame frame{bytes, offload, random, 1};
        Recorder recorder;
        REQUIRE(net::deliver(frame.frame, kNothing, recorder) == net::Delivery::taken);
        return recorder.frames;
    }
    void check_sent(const std::vector<Received>& expected) {
        REQUIRE(device.sent.size() == expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i)
            REQUIRE(device.sent[i] == expected[i].bytes);
    }

    const E1000Kind kind;
    std::mt19937 random{1};
    fake::StepClock steps;
    fake::BusyClock clock{steps};
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    E1000Device device{kind, steps};
    E1000Sink sink;
    std::unique_ptr<E1000> nic;
};

inline E1000Kind each_kind() {
    return GENERATE(E1000Kind::i8254x, E1000Kind::i82574);
}

}  // namespace hv::test
