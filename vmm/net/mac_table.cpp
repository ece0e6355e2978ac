// SPDX-License-Identifier: MIT
#include "vmm/net/mac_table.hpp"

#include <algorithm>

namespace hv::net {

template <class AnyEntry>
AnyEntry* MacTable::find(std::span<AnyEntry> entries, std::uint64_t key) {
    const auto found =
        std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.key == key; });
    return found == entries.end() ? nullptr : &*found;
}

MacTable::Entry* MacTable::find(std::uint64_t key) {
    Entry* const entry = find(std::span<Entry>{sets_[index_of(key)]}, key);
    return entry != nullptr || more_.empty() ? entry : find(more_.span(), key);
}

MacTable::Entry* MacTable::victim(Set& set) {
    Entry* oldest = nullptr;
    for (Entry& entry : set) {
        if (entry.key == 0)
            return &entry;
        if (!entry.fixed && (oldest == nullptr || entry.seen < oldest->seen))
            oldest = &entry;
    }
    return oldest;
}

Expected<void> MacTable::fix(const MacAddress& mac, std::uint16_t vlan, std::uint16_t port) {
    const std::uint64_t key = key_of(mac, vlan);
    Entry* entry = find(key);
    if (entry != nullptr && entry->fixed)
        return Unexpected{Error::already_exists};
    if (entry == nullptr)
        entry = victim(sets_[index_of(key)]);
    if (entry == nullptr)
        return more_.push({key, 0, port, true});
    *entry = {key, 0, port, true};
    return {};
}

bool MacTable::learn(const MacAddress& mac, std::uint16_t vlan, std::uint16_t port, std::uint64_t now) {
    const std::uint64_t key = key_of(mac, vlan);
    Entry* entry = find(key);
    if (entry != nullptr && entry->fixed)
        return entry->port == port;
    if (entry == nullptr)
        entry = victim(sets_[index_of(key)]);
    if (entry != nullptr && key != 0)
        *entry = {key, now, port, false};
    return true;
}

std::optional<std::uint16_t> MacTable::lookup_more(std::uint64_t key) const {
    const Entry* entry = find(more_.span(), key);
    return entry != nullptr ? std::optional{entry->port} : std::nullopt;
}

void MacTable::forget(std::uint16_t port) {
    for (Set& set : sets_)
        for (Entry& entry : set)
            if (entry.key != 0 && entry.port == port)
                entry = Entry{};
    for (std::size_t i = 0; i < more_.size();) {
        if (more_[i].port != port) {
            ++i;
            continue;
        }
        more_[i] = more_.back();
        more_.pop_back();
    }
}

void MacTable::unlearn(const MacAddress& mac) {
    for (Set& set : sets_)
        for (Entry& entry : set)
            if (entry.key != 0 && !entry.fixed && mac_of(entry.key) == mac)
                entry = Entry{};
}

}  // namespace hv::net
