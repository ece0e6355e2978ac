// SPDX-License-Identifier: MIT
// A port of a virtual switch, as its station sees it.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/token_bucket.hpp"
#include "vmm/net/frame_tap.hpp"
#include "vmm/net/ip_prefix.hpp"
#include "vmm/net/station.hpp"
#include "vmm/net/vlan_set.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace hv::net {

class Switch;

struct PortOptions {
    enum class Kind : std::uint8_t {
        access,   ///< one station with one address
        trusted,  ///< a station with an address, and any others behind it; it gets all frames of its VLANs
        uplink,   ///< a network: any address
    };
    Kind kind{Kind::access};
    MacAddress mac{};       ///< access: the only address that the station may send from; trusted: its own
    std::uint16_t vlan{0};  ///< access: of untagged frames, 1 to 4094, 0: none
    std::uint64_t bits_per_second{0};          ///< what the station may send; 0: any amount
    std::uint64_t receive_bits_per_second{0};  ///< what it gets; 0: any amount
    /// Access: further VLANs, whose frames bear a tag (a trunk). Uplink: the VLANs that pass, tagged, and 0,
    /// untagged; none: all.
    VlanSet vlans{};
    IpPrefixList addresses{};  ///< access: those that the station may speak for; none: any
};

/// Why a frame from the station was refused.
enum class Refusal : std::uint8_t {
    vlan,    ///< a tag of a VLAN that is not the port's, a second tag, or none where it must have one
    source,  ///< a foreign source address, or a group's
    sender,  ///< ARP, IP or Neighbor Discovery in another's name
};
inline constexpr std::size_t kRefusals = 3;

struct PortCounters {
    using Counter = std::atomic<std::uint64_t>;
    Counter frames_in{0}, bytes_in{0};         ///< from the station, passed on
    Counter frames_out{0}, bytes_out{0};       ///< to the station
    std::array<Counter, kRefusals> refused{};  ///< from the station, by Refusal
    Counter storm{0};       ///< from the station, for many receivers: beyond the switch's limit
    Counter lost{0};        ///< to the station: it had no room
    Counter over_rate{0};   ///< to the station: beyond what it may get
    Counter waits{0};       ///< from the station: had to wait for its receiver
    Counter rate_waits{0};  ///< from the station: had to wait for its own rate; of an uplink: was lost

    void clear() {
        for (Counter* each :
             {&frames_in, &bytes_in, &frames_out, &bytes_out, &storm, &lost, &over_rate, &waits, &rate_waits})
            each->store(0, std::memory_order_relaxed);
        for (Counter& each : refused)
            each.store(0, std::memory_order_relaxed);
    }
};

class SwitchPort {
public:
    static constexpr unsigned kMaxPorts = 256;

    SwitchPort(Switch& owner, std::uint16_t index) : switch_{owner}, index_{index} {}
    SwitchPort(const SwitchPort&) = delete;
    SwitchPort& operator=(const SwitchPort&) = delete;

    /// Passes a frame on. no_room: the receiver has no room, or the port's rate is used up; nothing happened,
    /// the station keeps the frame and sends it again when Station::resume() is called, or at `retry_at`
    /// (host TSC) at the latest. Uplinks never get no_room. Any CPU, while no lock of rank net_switch or
    /// above is held.
    Delivery send(const Frame& frame, std::uint64_t& retry_at);
    /// The station has room again for what it answered with no_room. Any CPU, no lock held.
    void room_made();
    /// The network behind this uplink may have forgotten who is here: tells the stations that it can reach.
    /// Any CPU, no lock held.
    [[gnu::cold]] void network_changed();

    [[nodiscard]] std::uint16_t index() const { return index_; }
    [[nodiscard]] const PortCounters& counters() const { return counters_; }
    [[nodiscard]] const PortOptions& options() const { return options_; }

private:
    friend class Switch;
    /// For this long at most frames wait for a station; each frame that it takes earns it so much of that.
    static constexpr std::uint64_t kPatienceNs = 10'000'000;
    static constexpr std::uint64_t kEarnedPatienceNs = 100'000;
    static constexpr std::uint64_t kMinBurst = 128 * 1024;

    void open(Station& station, const PortOptions& options);
    [[nodiscard]] bool is_uplink() const { return options_.kind == PortOptions::Kind::uplink; }
    /// Whether frames of `vlan` pass through this port.
    [[nodiscard]] bool carries(std::uint16_t vlan) const { return vlans_.contains(vlan); }
    /// Whether any address may be behind it.
    [[nodiscard]] bool learns() const { return options_.kind != PortOptions::Kind::access; }
    [[nodiscard]] bool is_trusted() const { return options_.kind == PortOptions::Kind::trusted; }
    /// Whether the station has this address, in some VLAN of `vlans`.
    [[nodiscard]] bool owns(const MacAddress& mac, const VlanSet& vlans) const {
        return !is_uplink() && options_.mac == mac && vlans_.meets(vlans);
    }
    /// Why the station's frame may not enter the switch, if so; `vlan` is the frame's.
    [[nodiscard]] std::optional<Refusal> refusal(const Frame& frame, bool tagged, std::uint16_t vlan) const;
    Delivery refuse(Refusal reason);
    /// Whether the rate of what the station sends lets a frame pass; if not, it may at `ready_at`.
    [[nodiscard]] bool may_send(std::uint64_t& ready_at);
    /// Whether this frame for many receivers may come from here. An unsegmented one counts as all that it
    /// becomes on a wire.
    [[nodiscard]] bool may_flood(const Frame& frame);
    void tap(FrameTap::Direction direction, const Frame& frame);
    /// Gives the station a frame of `vlan` from another port. Only a patient sender gets no_room.
    Delivery deliver(const Frame& frame, std::uint16_t vlan, SwitchPort* patient_sender,
                     std::uint64_t& retry_at);
    /// `ready_at` is set if the station's rate does not let the frame pass before.
    Delivery offer(const Frame& frame, std::uint16_t vlan, std::uint64_t& ready_at);
    Delivery give(const Frame& frame);
    /// The station took something: ends its time without room, and earns it some.
    void earn_patience();
    /// The station has no room: until when a frame may wait for it, if at all.
    [[nodiscard]] std::uint64_t waits_until(std::uint64_t now);

    Switch& switch_;
    const std::uint16_t index_;
    // Set while nobody uses the port:
    Station* station_{nullptr};
    PortOptions options_{};
    VlanSet vlans_{};                   ///< all that take part
    std::uint64_t most_patience_{0};    ///< kPatienceNs in host TSC ticks,
    std::uint64_t earned_patience_{0};  ///< and kEarnedPatienceNs
    // Under the switch's lock:
    bool open_{false};
    std::atomic<std::uint32_t> users_{
        0};  ///< CPUs that call the station; raised under the switch's lock while open
    std::atomic<std::uint64_t> full_since_{
        0};  ///< when the station first had no room, 0: it took the last frame
    std::atomic<std::uint64_t> patience_{0};  ///< host TSC ticks that frames may wait for it
    std::array<std::atomic<std::uint64_t>, kMaxPorts / 64>
        waiters_{};  ///< ports whose frames wait for this one's room
    std::atomic<bool> has_waiters_{false};
    Guarded<TokenBucket, Rank::leaf> sent_{0u, 0u};
    Guarded<TokenBucket, Rank::leaf> received_{0u, 0u};
    Guarded<TokenBucket, Rank::leaf> flooded_{0u, 0u};  ///< counts frames
    PortCounters counters_;
};

}  // namespace hv::net
