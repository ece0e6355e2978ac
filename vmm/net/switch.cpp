// SPDX-License-Identifier: MIT
#include "vmm/net/switch.hpp"

#include <algorithm>

namespace hv::net {
namespace {

constexpr std::uint16_t kMaxVlan = 4094;

MacAddress address_at(const Frame& frame, std::size_t offset) {
    MacAddress mac{};
    std::transform(frame.header.begin() + offset, frame.header.begin() + offset + mac.size(), mac.begin(),
                   [](std::byte octet) { return std::to_integer<std::uint8_t>(octet); });
    return mac;
}

constexpr bool is_group(const MacAddress& mac) {
    return (mac[0] & 1) != 0;
}

}  // namespace

Expected<std::unique_ptr<Switch>> Switch::create(Clock& clock) {
    std::unique_ptr<Switch> created{new (std::nothrow) Switch{clock}};
    if (created == nullptr)
        return Unexpected{Error::no_memory};
    return created;
}

Expected<SwitchPort*> Switch::add_port(Station& station, const PortOptions& options) {
    const bool access = options.kind == PortOptions::Kind::access;
    if (options.vlan > kMaxVlan || (access && (is_group(options.mac) || options.mac == MacAddress{})))
        return Unexpected{Error::invalid_argument};
    return table_.with([&](Table& table) -> Expected<SwitchPort*> {
        std::size_t index = 0;
        while (index < table.ports.size() && (table.ports[index]->open_ || table.ports[index]->users_ != 0))
            ++index;
        if (index == SwitchPort::kMaxPorts)
            return Unexpected{Error::no_memory};
        if (index == table.ports.size()) {
            auto added = HV_TRY(make<SwitchPort>(*this, static_cast<std::uint16_t>(index)));
            HV_TRY(table.ports.push(std::move(added)));
        }
        if (access)
            HV_TRY(table.addresses.fix(options.mac, options.vlan, static_cast<std::uint16_t>(index)));
        SwitchPort& port = *table.ports[index];
        port.open(station, options);
        return &port;
    });
}

void Switch::remove_port(SwitchPort& port) {
    table_.with([&](Table& table) {
        port.open_ = false;
        table.addresses.forget(port.index_);
    });
    while (port.users_.load(std::memory_order_acquire) != 0)
        machine::pause();
    // Whoever waited for this station finds it gone.
    port.room_made();
}

Switch::PortUse Switch::use(std::size_t index) {
    return table_.with([&](Table& table) {
        return index < table.ports.size() && table.ports[index]->open_ ? PortUse{*table.ports[index]}
                                                                       : PortUse{};
    });
}

Delivery Switch::forward(SwitchPort& from, const Frame& frame, std::uint16_t vlan, std::uint64_t& retry_at) {
    const MacAddress destination = address_at(frame, 0);
    const MacAddress source = address_at(frame, 6);
    const std::uint64_t now = clock_.now();
    bool known = false;
    bool spoofed = is_group(source);
    const PortUse to = table_.with([&](Table& table) {
        if (from.options_.kind == PortOptions::Kind::uplink)
            spoofed = spoofed || !table.addresses.learn(source, vlan, from.index_, now);
        const auto port = table.addresses.lookup(destination, vlan, now, kMaxAgeSeconds * clock_.hz());
        known = port.has_value();
        if (!known || *port == from.index_ || !table.ports[*port]->open_)
            return PortUse{};
        return PortUse{*table.ports[*port]};
    });
    if (spoofed) {
        from.counters_.refused.fetch_add(1, std::memory_order_relaxed);
        return Delivery::dropped;
    }
    if (is_group(destination))
        return flood(from, frame, vlan, Scope::all);
    if (!known)
        return flood(from, frame, vlan, Scope::uplinks);
    if (to.get() == nullptr)
        return Delivery::dropped;  // it lives where it came from
    SwitchPort* patient = from.options_.kind == PortOptions::Kind::access ? &from : nullptr;
    return to.get()->deliver(frame, vlan, patient, retry_at);
}

Delivery Switch::flood(SwitchPort& from, const Frame& frame, std::uint16_t vlan, Scope scope) {
    const std::size_t count = table_.with([](Table& table) { return table.ports.size(); });
    for (std::size_t index = 0; index < count; ++index) {
        const PortUse to = use(index);
        if (to.get() == nullptr || to.get() == &from)
            continue;
        const PortOptions& options = to.get()->options_;
        const bool uplink = options.kind == PortOptions::Kind::uplink;
        if (uplink || (scope == Scope::all && options.vlan == vlan)) {
            std::uint64_t unused = 0;
            to.get()->deliver(frame, vlan, nullptr, unused);
        }
    }
    return Delivery::taken;
}

}  // namespace hv::net
