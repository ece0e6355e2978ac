// SPDX-License-Identifier: MIT
// A virtual Ethernet switch. Access ports have one known address each, so only what lies behind uplinks and
// trusted stations is learned; a frame to an unknown address goes to these alone. VLANs are kept apart,
// foreign source addresses refused, frames for many receivers limited. Uplinks are ways out, not neighbours:
// what comes in by one does not leave by another, so two uplinks to one network make no loop.
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
#include "vmm/base/timer.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/net/mac_table.hpp"
#include "vmm/net/switch_port.hpp"

#include <atomic>
#include <cstdint>
#include <memory>

namespace hv::net {

struct SwitchOptions {
    /// So many broadcasts, multicasts and frames to unknown addresses may each port send in a second, and at
    /// once; 0: any number.
    std::uint64_t storm_limit{1000};
};

class Switch {
public:
    /// An address behind an uplink is forgotten when it was silent for so long.
    static constexpr std::uint64_t kMaxAgeSeconds = 300;

    /// `clock` outlives the switch. Error::no_memory.
    static Expected<std::unique_ptr<Switch>> create(Clock& clock, const SwitchOptions& options = {});

    /// `station` outlives the port. Error::already_exists: another access port has this address in this VLAN;
    /// Error::invalid_argument: a VLAN above 4094, or an access port's address that is no station's;
    /// Error::no_memory.
    Expected<SwitchPort*> add_port(Station& station, const PortOptions& options);
    /// Waits until no CPU calls the port's station. The port must not be used afterwards. Not from inside a
    /// station's call.
    void remove_port(SwitchPort& port);

    /// `tap` sees all frames from now on; nullptr: nobody does. It outlives the switch: a CPU may be about to
    /// show it one more.
    void set_tap(FrameTap* tap) { tap_.store(tap, std::memory_order_release); }

    [[nodiscard]] const SwitchOptions& options() const { return options_; }
    /// The port with this index if it is in use, or nullptr. It stays readable as long as the switch lives.
    [[nodiscard]] const SwitchPort* port(std::size_t index) {
        return table_.with([&](Table& table) -> const SwitchPort* {
            return index < table.ports.size() && table.ports[index]->open_ ? table.ports[index].get()
                                                                           : nullptr;
        });
    }
    /// What the station of this port counts: nothing if the port is not in use.
    [[nodiscard]] StationCounters station_counters(std::size_t index) {
        StationCounters counters;
        if (const PortUse port = use(index); port.get() != nullptr)
            port.get()->station_->tell(counters);
        return counters;
    }
    /// Calls `visit(const MacAddress&, vlan, port, seconds)` for each address that was learned and is not
    /// forgotten: when it was seen last, so many seconds ago. Under the switch's lock.
    template <class Visit>
    void for_each_learned(Visit&& visit) {
        const std::uint64_t now = clock_.now();
        table_.with([&](Table& table) {
            table.addresses.for_each_learned(
                [&](const MacAddress& mac, std::uint16_t vlan, std::uint16_t port, std::uint64_t seen) {
                    const std::uint64_t age = now > seen ? (now - seen) / clock_.hz() : 0;
                    if (age <= kMaxAgeSeconds)
                        visit(mac, vlan, port, age);
                });
        });
    }

private:
    friend class SwitchPort;
    struct Table {
        MacTable addresses;
        Vec<std::unique_ptr<SwitchPort>> ports;  ///< by index; a closed one is used again
        bool has_trunks{false};
        unsigned trusted{0};  ///< how many ports are

        /// The access port that has this address in one of these VLANs, or nullptr.
        [[nodiscard]] SwitchPort* owner(const MacAddress& mac, const VlanSet& vlans) const;
        /// The same for a trunk's tagged VLANs, which are not among `addresses`.
        [[nodiscard]] SwitchPort* trunk_owner(const MacAddress& mac, std::uint16_t vlan) const;
        /// Where `mac` lives, or nullptr.
        [[nodiscard]] SwitchPort* find(const MacAddress& mac, std::uint16_t vlan, std::uint64_t now,
                                       std::uint64_t max_age) const;
        /// False: `mac` is an access port's.
        bool learn(const MacAddress& mac, std::uint16_t vlan, std::uint16_t port, std::uint64_t now);
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

    Switch(Clock& clock, const SwitchOptions& options)
        : clock_{clock}, options_{options}, max_age_{kMaxAgeSeconds * clock.hz()} {}
    Delivery forward(SwitchPort& from, const Frame& frame, std::uint16_t vlan, std::uint64_t& retry_at);
    /// Whether a frame from `from` may leave by `to`.
    [[nodiscard]] static bool passes(const SwitchPort& from, const SwitchPort& to) {
        return &from != &to && (!from.is_uplink() || !to.is_uplink());
    }
    /// To every port that it may go to and that takes part in `vlan`; to those alone that may have any
    /// address behind them, or to all.
    enum class Scope : std::uint8_t { learning, all };
    Delivery flood(SwitchPort& from, const Frame& frame, std::uint16_t vlan, Scope scope);
    /// A frame for one station to trusted ones as well: nobody waits for them.
    [[gnu::cold]] void copy_to_trusted(SwitchPort& from, const SwitchPort* to, const Frame& frame,
                                       std::uint16_t vlan);
    /// A frame from outside has the source address of a station here.
    [[gnu::cold]] Delivery refuse_double(SwitchPort& from, const MacAddress& source);
    [[nodiscard]] PortUse use(std::size_t index) {
        return table_.with([&](Table& table) {
            return index < table.ports.size() && table.ports[index]->open_ ? PortUse{*table.ports[index]}
                                                                           : PortUse{};
        });
    }
    /// Calls `visit(SwitchPort&)` for each port that frames from `from` may leave by, without the lock.
    template <class Visit>
    void for_each_from(const SwitchPort& from, Visit&& visit) {
        const std::size_t count = table_.with([](Table& table) { return table.ports.size(); });
        for (std::size_t index = 0; index < count; ++index) {
            const PortUse to = use(index);
            if (to.get() != nullptr && passes(from, *to.get()))
                visit(*to.get());
        }
    }

    Clock& clock_;
    const SwitchOptions options_;
    const std::uint64_t max_age_;  ///< host TSC ticks
    std::atomic<FrameTap*> tap_{nullptr};
    Guarded<Table, Rank::net_switch> table_{};
};

}  // namespace hv::net
