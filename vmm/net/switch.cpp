// SPDX-License-Identifier: MIT
#include "vmm/net/switch.hpp"

#include "vmm/base/log.hpp"
#include "vmm/net/ethernet.hpp"

#include <algorithm>

namespace hv::net {
namespace {

MacAddress address_at(const Frame& frame, std::size_t offset) {
    MacAddress mac{};
    std::transform(frame.header.begin() + offset, frame.header.begin() + offset + mac.size(), mac.begin(),
                   [](std::byte octet) { return std::to_integer<std::uint8_t>(octet); });
    return mac;
}

constexpr bool is_group(const MacAddress& mac) {
    return (mac[0] & 1) != 0;
}

constinit log::RateLimit double_log;

VlanSet all_vlans(const PortOptions& options) {
    VlanSet vlans = options.vlans;
    vlans.add(options.vlan);
    return vlans;
}

}  // namespace

Expected<std::unique_ptr<Switch>> Switch::create(Clock& clock, const SwitchOptions& options) {
    std::unique_ptr<Switch> created{new (std::nothrow) Switch{clock, options}};
    if (created == nullptr)
        return Unexpected{Error::no_memory};
    return created;
}

Expected<SwitchPort*> Switch::add_port(Station& station, const PortOptions& options) {
    const bool access = options.kind != PortOptions::Kind::uplink;
    if (options.vlan > kMaxVlan || options.vlans.contains(kMaxVlan + 1) ||
        (access && (is_group(options.mac) || options.mac == MacAddress{} || options.vlans.contains(0))))
        return Unexpected{Error::invalid_argument};
    return table_.with([&](Table& table) -> Expected<SwitchPort*> {
        std::size_t index = 0;
        while (index < table.ports.size() && (table.ports[index]->open_ || table.ports[index]->users_ != 0))
            ++index;
        if (index == SwitchPort::kMaxPorts)
            return Unexpected{Error::no_memory};
        if (access && table.owner(options.mac, all_vlans(options)) != nullptr)
            return Unexpected{Error::already_exists};
        if (index == table.ports.size()) {
            auto added = HV_TRY(make<SwitchPort>(*this, static_cast<std::uint16_t>(index)));
            HV_TRY(table.ports.push(std::move(added)));
        }
        if (access)
            HV_TRY(table.addresses.fix(options.mac, options.vlan, static_cast<std::uint16_t>(index)));
        if (access && !options.vlans.empty()) {
            table.addresses.unlearn(options.mac);
            table.has_trunks = true;
        }
        table.trusted += options.kind == PortOptions::Kind::trusted ? 1 : 0;
        SwitchPort& port = *table.ports[index];
        port.open(station, options);
        return &port;
    });
}

void Switch::remove_port(SwitchPort& port) {
    table_.with([&](Table& table) {
        port.open_ = false;
        table.trusted -= port.is_trusted() ? 1 : 0;
        table.addresses.forget(port.index_);
    });
    while (port.users_.load(std::memory_order_acquire) != 0)
        machine::pause();
    // Whoever waited for this station finds it gone.
    port.room_made();
}

// --- where addresses live ----------------------------------------------------------------------------------

SwitchPort* Switch::Table::owner(const MacAddress& mac, const VlanSet& vlans) const {
    const auto found = std::find_if(ports.begin(), ports.end(),
                                    [&](const auto& port) { return port->open_ && port->owns(mac, vlans); });
    return found == ports.end() ? nullptr : found->get();
}

SwitchPort* Switch::Table::trunk_owner(const MacAddress& mac, std::uint16_t vlan) const {
    if (!has_trunks) [[likely]]
        return nullptr;
    VlanSet one;
    one.add(vlan);
    return owner(mac, one);
}

SwitchPort* Switch::Table::find(const MacAddress& mac, std::uint16_t vlan, std::uint64_t now,
                                std::uint64_t max_age) const {
    if (const auto index = addresses.lookup(mac, vlan, now, max_age))
        return ports[*index].get();
    return trunk_owner(mac, vlan);
}

bool Switch::Table::learn(const MacAddress& mac, std::uint16_t vlan, std::uint16_t port, std::uint64_t now) {
    if (const SwitchPort* owner = trunk_owner(mac, vlan)) [[unlikely]]
        return owner->index() == port;
    return addresses.learn(mac, vlan, port, now);
}

// --- the way of a frame ------------------------------------------------------------------------------------

Delivery Switch::forward(SwitchPort& from, const Frame& frame, std::uint16_t vlan, std::uint64_t& retry_at) {
    const MacAddress destination = address_at(frame, 0);
    const MacAddress source = address_at(frame, kSourceAddress);
    const std::uint64_t now = clock_.now();
    bool known = false;
    bool trusting = false;
    bool spoofed = is_group(source);
    const PortUse to = table_.with([&](Table& table) {
        if (from.learns())
            spoofed = spoofed || !table.learn(source, vlan, from.index_, now);
        if (is_group(destination))
            return PortUse{};
        SwitchPort* port = table.find(destination, vlan, now, max_age_);
        known = port != nullptr;
        trusting = table.trusted != 0;
        return known && port->open_ && passes(from, *port) ? PortUse{*port} : PortUse{};
    });
    if (spoofed)
        return is_group(source) ? from.refuse(Refusal::source) : refuse_double(from, source);
    if (is_group(destination))
        return flood(from, frame, vlan, Scope::all);
    if (!known && from.is_uplink() && !trusting)
        return Delivery::dropped;  // nobody here has this address
    if (!known)
        return flood(from, frame, vlan, Scope::learning);
    Delivery delivery = Delivery::dropped;  // it lives where it came from
    if (to.get() != nullptr)
        delivery = to.get()->deliver(frame, vlan, from.is_uplink() ? nullptr : &from, retry_at);
    if (trusting && delivery != Delivery::no_room) [[unlikely]]
        copy_to_trusted(from, to.get(), frame, vlan);
    return delivery;
}

void Switch::copy_to_trusted(SwitchPort& from, const SwitchPort* to, const Frame& frame, std::uint16_t vlan) {
    Frame once = frame;
    once.progress = nullptr;
    for_each_from(from, [&](SwitchPort& port) {
        std::uint64_t unused = 0;
        if (port.is_trusted() && &port != to && port.carries(vlan))
            port.deliver(once, vlan, nullptr, unused);
    });
}

Delivery Switch::refuse_double(SwitchPort& from, const MacAddress& source) {
    if (from.is_uplink() && double_log.admit())
        log::warning(
            log::Topic::net,
            "%02x:%02x:%02x:%02x:%02x:%02x is a VM's address here, and sends from outside as well: do two "
            "hosts have the same [host] name?",
            source[0], source[1], source[2], source[3], source[4], source[5]);
    return from.refuse(Refusal::source);
}

Delivery Switch::flood(SwitchPort& from, const Frame& frame, std::uint16_t vlan, Scope scope) {
    if (!from.may_flood(frame))
        return Delivery::dropped;
    // Nobody gets the rest later, for another may have got it now.
    Frame once = frame;
    once.progress = nullptr;
    for_each_from(from, [&](SwitchPort& to) {
        std::uint64_t unused = 0;
        if (to.carries(vlan) && (scope == Scope::all || to.learns()))
            to.deliver(once, vlan, nullptr, unused);
    });
    return Delivery::taken;
}

}  // namespace hv::net
