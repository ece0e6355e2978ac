// SPDX-License-Identifier: MIT
// A physical NIC that does nothing but send, which is its user's to write.
#pragma once

#include "drivers/net/net_device.hpp"

namespace hv::fake {

class IdleNic : public NetDevice {
public:
    [[nodiscard]] std::string_view model() const override { return "idle"; }
    [[nodiscard]] MacAddress mac() const override { return {}; }
    [[nodiscard]] OffloadSupport offloads() const override { return support; }
    [[nodiscard]] bool link_up() const override { return true; }
    [[nodiscard]] Counters counters() const override { return counted; }
    void start(NetUser& /*user*/) override {}
    void service() override {}
    bool transmit(const Frame& /*frame*/) override { return true; }

    OffloadSupport support{};
    Counters counted{};
};

}  // namespace hv::fake
