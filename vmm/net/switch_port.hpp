// SPDX-License-Identifier: MIT
// A port of a virtual switch, as its station sees it.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/token_bucket.hpp"
#include "vmm/net/station.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace hv::net {

class Switch;

struct PortOptions {
    enum class Kind : std::uint8_t {
        access,  ///< one station with one address in one VLAN; it sends and gets untagged frames
        uplink,  ///< a network: any address; frames of VLAN 0 are untagged, others tagged
    };
    Kind kind{Kind::access};
    MacAddress mac{};                  ///< access: the only address that the station may send from
    std::uint16_t vlan{0};             ///< access: 1 to 4094, 0: none
    std::uint64_t bits_per_second{0};  ///< what the station may send; 0: any amount
};

struct PortCounters {
    std::atomic<std::uint64_t> frames_in{0}, bytes_in{0};    ///< from the station, passed on
    std::atomic<std::uint64_t> frames_out{0}, bytes_out{0};  ///< to the station
    std::atomic<std::uint64_t> refused{0};  ///< from the station: foreign source address, VLAN tag
    std::atomic<std::uint64_t> lost{0};     ///< to the station: it had no room
    std::atomic<std::uint64_t> waits{0};    ///< from the station: had to wait for room or for the rate
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

    [[nodiscard]] const PortCounters& counters() const { return counters_; }
    [[nodiscard]] const PortOptions& options() const { return options_; }

private:
    friend class Switch;
    /// For this long at most frames wait for a station; each frame that it takes earns it so much of that.
    static constexpr std::uint64_t kPatienceNs = 10'000'000;
    static constexpr std::uint64_t kEarnedPatienceNs = 100'000;
    static constexpr std::uint64_t kMinBurst = 128 * 1024;

    void open(Station& station, const PortOptions& options);
    /// Whether the station's frame may enter the switch, and its VLAN.
    [[nodiscard]] bool admits(const Frame& frame, std::uint16_t& vlan) const;
    /// Gives the station a frame of `vlan` from another port. Only a patient sender gets no_room.
    Delivery deliver(const Frame& frame, std::uint16_t vlan, SwitchPort* patient_sender,
                     std::uint64_t& retry_at);
    Delivery offer(const Frame& frame, std::uint16_t vlan);
    /// The station took a frame.
    void note_taken(std::uint32_t size);
    /// The station has no room: until when a frame may wait for it, if at all.
    [[nodiscard]] std::uint64_t waits_until(std::uint64_t now);

    Switch& switch_;
    const std::uint16_t index_;
    // Set while nobody uses the port:
    Station* station_{nullptr};
    PortOptions options_{};
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
    Guarded<TokenBucket, Rank::leaf> bucket_{0u, 0u};
    PortCounters counters_;
};

}  // namespace hv::net
