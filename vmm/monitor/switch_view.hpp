// SPDX-License-Identifier: MIT
// The NetDirectory of the real switches. Whose a port is, the configuration tells: no two NICs have one
// address.
#pragma once

#include "vmm/config/config.hpp"
#include "vmm/monitor/capture_stream.hpp"
#include "vmm/monitor/net_directory.hpp"
#include "vmm/net/switch.hpp"

#include <memory>
#include <span>

namespace hv {

class SwitchView final : public NetDirectory {
public:
    using Switches = std::span<const std::unique_ptr<net::Switch>>;

    /// `switches` in the order of the configuration. All outlive the view.
    SwitchView(const config::Config& config, Switches switches, CaptureStream& captures)
        : config_{config}, switches_{switches}, captures_{captures} {}

    [[nodiscard]] std::size_t size() const override { return switches_.size(); }
    [[nodiscard]] const config::SwitchConfig& config(std::size_t index) const override {
        return config_.switches[index];
    }
    [[nodiscard]] std::optional<Port> port(std::size_t index, std::uint16_t number) const override;
    [[nodiscard]] std::size_t learned(std::size_t index, std::span<Learned> out) const override;
    Expected<void> start_capture(std::size_t index, const net::Capture::Choice& choice) override {
        return captures_.start(*switches_[index], choice);
    }
    Expected<void> stop_capture() override { return captures_.stop(); }

private:
    const config::Config& config_;
    Switches switches_;
    CaptureStream& captures_;
};

}  // namespace hv
