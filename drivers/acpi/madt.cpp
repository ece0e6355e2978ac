// SPDX-License-Identifier: MIT
#include "drivers/acpi/madt.hpp"

#include "vmm/base/log.hpp"

#include <algorithm>

namespace hv::acpi {
namespace {

/// [acpi6.5 Table 5.21: Interrupt Controller Structure Types]
enum class Type : std::uint8_t {
    local_apic = 0,
    io_apic = 1,
    interrupt_override = 2,
    nmi_source = 3,
    local_nmi = 4,
    local_apic_address = 5,
    local_x2apic = 9,
    local_x2apic_nmi = 10,
};

constexpr std::size_t kFirstStructure = 44;

Polarity polarity(std::uint16_t flags) {
    return static_cast<Polarity>(flags & 3);
}
Trigger trigger(std::uint16_t flags) {
    return static_cast<Trigger>((flags >> 2) & 3);
}

/// One structure; the fields beyond its end read as 0, and its length has been checked against size_of().
struct Structure {
    std::span<const std::byte> bytes;
    template <class T>
    [[nodiscard]] T at(std::size_t offset) const {
        return load_at<T>(bytes, offset).value_or(T{});
    }
    [[nodiscard]] Type type() const { return static_cast<Type>(at<std::uint8_t>(0)); }
};

/// The size that the specification gives a structure; 0: of no interest.
constexpr std::size_t size_of(Type type) {
    switch (type) {
    case Type::local_apic: return 8;
    case Type::io_apic: return 12;
    case Type::interrupt_override: return 10;
    case Type::nmi_source: return 8;
    case Type::local_nmi: return 6;
    case Type::local_apic_address: return 12;
    case Type::local_x2apic: return 16;
    case Type::local_x2apic_nmi: return 12;
    }
    return 0;
}

Expected<void> add_local_apic(InterruptControllers& result, std::uint32_t id, std::uint32_t uid,
                              std::uint32_t flags) {
    constexpr std::uint32_t kEnabled = 1;
    constexpr std::uint32_t kOnlineCapable = 2;
    if ((flags & (kEnabled | kOnlineCapable)) == 0)
        return {};
    const auto same = [&](const LocalApic& other) { return other.apic_id == id; };
    if (std::any_of(result.local_apics.begin(), result.local_apics.end(), same))
        return {};  // listed as local APIC and as local x2APIC
    return result.local_apics.push({id, uid, (flags & kEnabled) != 0});
}

Expected<void> add(InterruptControllers& result, const Structure& s) {
    switch (s.type()) {
    case Type::local_apic:
        if (s.at<std::uint8_t>(3) == 0xff)
            return {};  // the broadcast ID: firmware's way to leave an entry out
        return add_local_apic(result, s.at<std::uint8_t>(3), s.at<std::uint8_t>(2), s.at<std::uint32_t>(4));
    case Type::local_x2apic:
        if (s.at<std::uint32_t>(4) == 0xffff'ffff)
            return {};
        return add_local_apic(result, s.at<std::uint32_t>(4), s.at<std::uint32_t>(12),
                              s.at<std::uint32_t>(8));
    case Type::io_apic:
        return result.io_apics.push(
            {Hpa{s.at<std::uint32_t>(4)}, s.at<std::uint32_t>(8), s.at<std::uint8_t>(2)});
    case Type::interrupt_override: {
        const auto flags = s.at<std::uint16_t>(8);
        return result.overrides.push(
            {s.at<std::uint32_t>(4), s.at<std::uint8_t>(3), polarity(flags), trigger(flags)});
    }
    case Type::nmi_source: {
        const auto flags = s.at<std::uint16_t>(2);
        return result.nmi_sources.push({s.at<std::uint32_t>(4), polarity(flags), trigger(flags)});
    }
    case Type::local_nmi: {
        const auto flags = s.at<std::uint16_t>(3);
        const auto uid = s.at<std::uint8_t>(2);
        return result.local_nmis.push({uid == 0xff ? LocalNmi::kAllProcessors : uid, s.at<std::uint8_t>(5),
                                       polarity(flags), trigger(flags)});
    }
    case Type::local_x2apic_nmi: {
        const auto flags = s.at<std::uint16_t>(2);
        return result.local_nmis.push(
            {s.at<std::uint32_t>(4), s.at<std::uint8_t>(8), polarity(flags), trigger(flags)});
    }
    case Type::local_apic_address: result.local_apic = Hpa{s.at<std::uint64_t>(4)}; return {};
    }
    return {};
}

}  // namespace

Expected<InterruptControllers> parse_madt(const Table& madt) {
    InterruptControllers result;
    if (const auto address = madt.field<std::uint32_t>(36); address != 0)
        result.local_apic = Hpa{address};
    result.has_8259 = (madt.field<std::uint32_t>(40) & 1) != 0;  // PCAT_COMPAT
    for (std::size_t offset = kFirstStructure; offset < madt.bytes.size();) {
        const auto rest = madt.bytes.subspan(offset);
        const std::size_t length = rest.size() < 2 ? 0 : static_cast<std::size_t>(rest[1]);
        if (length < 2 || length > rest.size()) {
            log::warning(log::Topic::acpi, "MADT: structure at offset %zu has no valid length, rest skipped",
                         offset);
            break;
        }
        const Structure structure{rest.first(length)};
        if (length < size_of(structure.type()))
            log::warning(log::Topic::acpi, "MADT: structure at offset %zu is too short, skipped", offset);
        else
            HV_TRY(add(result, structure));
        offset += length;
    }
    return result;
}

}  // namespace hv::acpi
