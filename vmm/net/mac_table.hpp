// SPDX-License-Identifier: MIT
// Which port a MAC address lives behind, per VLAN. Bounded: what no longer fits replaces what was seen
// longest ago, so a flood of addresses costs forgotten ones, never memory. Needs its user's lock.
#pragma once

#include "drivers/net/net_device.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace hv::net {

class MacTable {
public:
    static constexpr std::size_t kSets = 128;
    static constexpr std::size_t kWays = 8;

    /// An entry that stays until its port is forgotten. Error::already_exists: the address is fixed already
    /// in this VLAN; Error::no_memory.
    Expected<void> fix(const MacAddress& mac, std::uint16_t vlan, std::uint16_t port);
    /// Notes that `mac` sent from `port` at `now` (any unit that lookup() shares). False: the address is
    /// fixed elsewhere.
    bool learn(const MacAddress& mac, std::uint16_t vlan, std::uint16_t port, std::uint64_t now);
    /// The port; nothing if it is unknown or was not seen in the `max_age` before `now`.
    [[nodiscard]] std::optional<std::uint16_t> lookup(const MacAddress& mac, std::uint16_t vlan,
                                                      std::uint64_t now, std::uint64_t max_age) const {
        const std::uint64_t key = key_of(mac, vlan);
        for (const Entry& entry : sets_[index_of(key)]) {
            if (entry.key != key || key == 0)
                continue;
            // Another CPU may have learned it later than `now`.
            const bool valid = entry.fixed || entry.seen >= now || now - entry.seen <= max_age;
            return valid ? std::optional{entry.port} : std::nullopt;
        }
        return more_.empty() ? std::nullopt : lookup_more(key);
    }
    void forget(std::uint16_t port);
    /// Forgets where this address was learned to be, in all VLANs.
    void unlearn(const MacAddress& mac);

    /// Calls `visit(const MacAddress&, vlan, port, seen)` for each entry that was learned.
    template <class Visit>
    void for_each_learned(Visit&& visit) const {
        for (const Set& set : sets_)
            for (const Entry& entry : set)
                if (entry.key != 0 && !entry.fixed)
                    visit(mac_of(entry.key), static_cast<std::uint16_t>(entry.key >> 48), entry.port,
                          entry.seen);
    }

private:
    /// `key` is the address in bits 47:0 and the VLAN above; no station's address is 0.
    struct Entry {
        std::uint64_t key{0};
        std::uint64_t seen{0};
        std::uint16_t port{0};
        bool fixed{false};
    };
    using Set = std::array<Entry, kWays>;

    static std::uint64_t key_of(const MacAddress& mac, std::uint16_t vlan) {
        std::uint64_t key = 0;
        std::memcpy(&key, mac.data(), mac.size());
        return key | std::uint64_t{vlan} << 48;
    }
    static MacAddress mac_of(std::uint64_t key) {
        MacAddress mac{};
        std::memcpy(mac.data(), &key, mac.size());
        return mac;
    }
    /// Multiplicative hashing: the constant is 2^64 divided by the golden ratio.
    static std::size_t index_of(std::uint64_t key) {
        return static_cast<std::size_t>(key * 0x9e37'79b9'7f4a'7c15 >> 57) % kSets;
    }
    template <class AnyEntry>
    static AnyEntry* find(std::span<AnyEntry> entries, std::uint64_t key);
    /// The entry in its set, or among `more_`.
    Entry* find(std::uint64_t key);
    [[nodiscard, gnu::cold]] std::optional<std::uint16_t> lookup_more(std::uint64_t key) const;
    /// The entry to replace: an empty one, or the oldest that is not fixed; nullptr: all are fixed.
    static Entry* victim(Set& set);

    std::array<Set, kSets> sets_{};
    Vec<Entry> more_;  ///< fixed ones whose sets were full of such
};

}  // namespace hv::net
