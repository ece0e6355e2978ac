// SPDX-License-Identifier: MIT
// A virtual Ethernet switch. Access ports have one known address each, so only what lies behind uplinks is
// learned; a frame to an unknown address goes to the uplinks alone. VLANs are kept apart, foreign source
// addresses refused.
//
// Flow control: a frame whose receiver has no room stays with its sender, which is told when there is room.
// So TCP between stations loses nothing. It is bounded: frames wait for a receiver for
// SwitchPort::kPatienceNs in all, of which each frame that it takes earns it some back; then its frames are
// lost until it takes one. So a dead receiver holds a sender up once, and one that takes a frame now and then
// no longer than it earns. Broadcasts and frames from uplinks never wait.
//
// Several CPUs send at once; the table's lock is not held while a station copies a frame.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/net/mac_table.hpp"
#include "vmm/net/switch_port.hpp"

#include <cstdint>
#include <memory>

namespace hv::net {

class Switch {
public:
    /// An address behind an uplink is forgotten when it was silent for so long.
    static constexpr std::uint64_t kMaxAgeSeconds = 300;

    /// `clock` outlives the switch. Error::no_memory.
    static Expected<std::unique_ptr<Switch>> create(Clock& clock);

    /// `station` outlives the port. Error::already_exists: another access port has this address in this VLAN;
    /// Error::invalid_argument: a VLAN above 4094, or an access port's address that is no station's;
    /// Error::no_memory.
    Expected<SwitchPort*> add_port(Station& station, const PortOptions& options);
    /// Waits until no CPU calls the port's station. The port must not be used afterwards. Not from inside a
    /// station's call.
    void remove_port(SwitchPort& port);

    /// Calls `visit(const SwitchPort&)` for the ports in use. Under the switch's lock.
    template <class Visit>
    void for_each_port(Visit&& visit) {
        table_.with([&](Table& table) {
            for (const auto& port : table.ports)
                if (port->open_)
                    visit(std::as_const(*port));
        });
    }

private:
    friend class SwitchPort;
    struct Table {
        MacTable addresses;
        Vec<std::unique_ptr<SwitchPort>> ports;  ///< by index; a closed one is used again
    };

    /// Keeps a port's station from going away.
    class PortUse {
    public:
        PortUse() = default;
        explicit PortUse(SwitchPort& port) : port_{&port} {
            port.users_.fetch_add(1, std::memory_order_relaxed);
        }
        PortUse(PortUse&& other) noexcept : port_{std::exchange(other.port_, nullptr)} {}
        PortUse& operator=(PortUse&&) = delete;
        ~PortUse() {
            if (port_ != nullptr)
                port_->users_.fetch_sub(1, std::memory_order_release);
        }
        SwitchPort* get() const { return port_; }

    private:
        SwitchPort* port_{nullptr};
    };

    explicit Switch(Clock& clock) : clock_{clock} {}
    Delivery forward(SwitchPort& from, const Frame& frame, std::uint16_t vlan, std::uint64_t& retry_at);
    /// To every port but `from` that takes part in `vlan`; to uplinks only, or to all.
    enum class Scope : std::uint8_t { uplinks, all };
    Delivery flood(SwitchPort& from, const Frame& frame, std::uint16_t vlan, Scope scope);
    [[nodiscard]] PortUse use(std::size_t index);

    Clock& clock_;
    Guarded<Table, Rank::net_switch> table_{};
};

}  // namespace hv::net
