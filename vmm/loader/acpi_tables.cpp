// SPDX-License-Identifier: MIT
#include "vmm/loader/acpi_tables.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/devices/hpet.hpp"
#include "vmm/loader/dsdt.hpp"
#include "vmm/loader/table_checksum.hpp"

namespace hv::loader {
namespace {

using Bytes = std::span<const std::byte>;

// [acpi 5.2.6 System Description Table Header]
struct [[gnu::packed]] TableHeader {
    char signature[4];
    std::uint32_t length;
    std::uint8_t revision, checksum;
    char oem_id[6];
    char oem_table_id[8];
    std::uint32_t oem_revision;
    char creator_id[4];
    std::uint32_t creator_revision;
};
static_assert(sizeof(TableHeader) == 36);

// [acpi 5.2.5.3 Root System Description Pointer (RSDP) Structure]
struct [[gnu::packed]] Rsdp {
    char signature[8];
    std::uint8_t checksum;
    char oem_id[6];
    std::uint8_t revision;
    std::uint32_t rsdt, length;
    std::uint64_t xsdt;
    std::uint8_t extended_checksum, reserved[3];
};
static_assert(sizeof(Rsdp) == 36);

// [acpi 5.2.3.2 Generic Address Structure]
struct [[gnu::packed]] GenericAddress {
    std::uint8_t space, bit_width, bit_offset, access_size;
    std::uint64_t address;
};
static_assert(sizeof(GenericAddress) == 12);
constexpr std::uint8_t kMemorySpace = 0, kIoSpace = 1;
constexpr GenericAddress io_register(std::uint16_t port, std::uint8_t bytes) {
    // The access size 1 is a byte, 2 a word, 3 a dword.
    return {kIoSpace, static_cast<std::uint8_t>(bytes * 8), 0,
            static_cast<std::uint8_t>(bytes == 1   ? 1
                                      : bytes == 2 ? 2
                                                   : 3),
            port};
}

// [acpi 5.2.9 Fixed ACPI Description Table (FADT)], revision 6
struct [[gnu::packed]] Fadt {
    TableHeader header;
    std::uint32_t facs, dsdt;
    std::uint8_t reserved1, preferred_profile;
    std::uint16_t sci;
    std::uint32_t smi_command;
    std::uint8_t acpi_enable, acpi_disable, s4bios_request, pstate_control;
    std::uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    std::uint8_t pm1_event_length, pm1_control_length, pm2_control_length, pm_timer_length;
    std::uint8_t gpe0_length, gpe1_length, gpe1_base, cst_control;
    std::uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    std::uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    std::uint16_t boot_flags;
    std::uint8_t reserved2;
    std::uint32_t flags;
    GenericAddress reset_register;
    std::uint8_t reset_value;
    std::uint16_t arm_boot_flags;
    std::uint8_t minor_revision;
    std::uint64_t x_facs, x_dsdt;
    GenericAddress x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control, x_pm_timer;
    GenericAddress x_gpe0, x_gpe1, sleep_control, sleep_status;
    std::uint64_t hypervisor_vendor;
};
static_assert(sizeof(Fadt) == 276);
enum FadtFlag : std::uint32_t {  // [acpi 5.2.9 table "Fixed ACPI Description Table Fixed Feature Flags"]
    WBINVD = 1 << 0,
    PROC_C1 = 1 << 2,
    SLP_BUTTON = 1 << 5,  // there is no fixed one
    FIX_RTC = 1 << 6,     // the RTC cannot wake by the fixed registers
    TMR_VAL_EXT = 1 << 8,
    RESET_REG_SUP = 1 << 10,
};
enum BootFlag : std::uint16_t {  // [acpi 5.2.9.3 IA-PC Boot Architecture Flags]
    LEGACY_DEVICES = 1 << 0,
    VGA_NOT_PRESENT = 1 << 2,
    PCIE_ASPM_CONTROLS = 1 << 4,  // the OS must leave ASPM alone
};
constexpr std::uint16_t kNoLatency = 0xffff;  // beyond what C2 and C3 may have: they do not exist
constexpr std::uint8_t kCenturyRegister = 0x32;

// [acpi 5.2.10 Firmware ACPI Control Structure (FACS)]
struct [[gnu::packed]] Facs {
    char signature[4];
    std::uint32_t length, hardware_signature, waking_vector, global_lock, flags;
    std::uint64_t x_waking_vector;
    std::uint8_t version, reserved[31];
};
static_assert(sizeof(Facs) == 64);

// [acpi 5.2.12 Multiple APIC Description Table (MADT)] and the structures in it.
struct [[gnu::packed]] MadtStart {
    std::uint32_t local_apic, flags;
};
constexpr std::uint32_t kPcatCompat = 1;  // there is a pair of 8259s to be masked
struct [[gnu::packed]] LocalApic {
    std::uint8_t type, length, uid, id;
    std::uint32_t flags;
};
struct [[gnu::packed]] LocalX2Apic {
    std::uint8_t type, length;
    std::uint16_t reserved;
    std::uint32_t id, flags, uid;
};
constexpr std::uint32_t kEnabled = 1;
struct [[gnu::packed]] IoApicEntry {
    std::uint8_t type, length, id, reserved;
    std::uint32_t address, gsi_base;
};
struct [[gnu::packed]] SourceOverride {
    std::uint8_t type, length, bus, source;
    std::uint32_t gsi;
    std::uint16_t flags;
};
constexpr std::uint16_t kConforms = 0;  // to the bus: ISA is edge triggered, active high
constexpr std::uint16_t kLevelActiveHigh = 0x000d;
struct [[gnu::packed]] LocalApicNmi {
    std::uint8_t type, length, uid;
    std::uint16_t flags;
    std::uint8_t lint;
};
struct [[gnu::packed]] LocalX2ApicNmi {
    std::uint8_t type, length;
    std::uint16_t flags;
    std::uint32_t uid;
    std::uint8_t lint, reserved[3];
};
static_assert(sizeof(LocalApic) == 8 && sizeof(LocalX2Apic) == 16 && sizeof(IoApicEntry) == 12);
static_assert(sizeof(SourceOverride) == 10 && sizeof(LocalApicNmi) == 6 && sizeof(LocalX2ApicNmi) == 12);
constexpr std::uint32_t kFirstX2Id = 255;  // IDs from here on do not fit an xAPIC

// [pcifw3.3 4.1.2 MCFG Table Description]
struct [[gnu::packed]] Mcfg {
    std::uint64_t reserved, base;
    std::uint16_t segment;
    std::uint8_t first_bus, last_bus;
    std::uint32_t reserved2;
};
static_assert(sizeof(Mcfg) == 24);

// [hpet1.0a 3.2.4 The ACPI 2.0 HPET Description Table (HPET)]
struct [[gnu::packed]] HpetTable {
    std::uint32_t block_id;
    GenericAddress address;
    std::uint8_t number;
    std::uint16_t least_ticks;
    std::uint8_t page_protection;
};
static_assert(sizeof(HpetTable) == 20);

template <class T>
Bytes bytes_of(const T& value) {
    return std::as_bytes(std::span{&value, 1});
}

TableHeader header(const char (&signature)[5], std::uint8_t revision, std::size_t length) {
    TableHeader made{{},
                     static_cast<std::uint32_t>(length),
                     revision,
                     0,
                     {'C', 'A', 'I', 'R', 'N', ' '},
                     {'C', 'A', 'I', 'R', 'N', ' ', 'V', 'M'},
                     1,
                     {'C', 'R', 'N', ' '},
                     1};
    std::memcpy(made.signature, signature, sizeof made.signature);
    return made;
}

/// Puts tables one after another into the guest's firmware memory.
class TableArea {
public:
    explicit TableArea(GuestMemory& memory) : memory_{memory} {}

    /// A structure that is no table.
    Expected<Gpa> put(Bytes bytes, std::uint64_t alignment) {
        const std::uint64_t at = align_up(next_, alignment);
        if (at > guest_map::kMpTable || bytes.size() > guest_map::kMpTable - at)
            return Unexpected{Error::out_of_range};
        HV_TRY(memory_.write(Gpa{at}, bytes));
        next_ = at + bytes.size();
        return Gpa{at};
    }
    /// A table with this body: header and checksum are made here.
    Expected<Gpa> put_table(const char (&signature)[5], std::uint8_t revision, Bytes body) {
        TableHeader start = header(signature, revision, sizeof(TableHeader) + body.size());
        start.checksum = static_cast<std::uint8_t>(table_checksum(bytes_of(start)) + table_checksum(body));
        const Gpa table = HV_TRY(put(bytes_of(start), 16));
        HV_TRY(put(body, 1));
        return table;
    }

private:
    GuestMemory& memory_;
    std::uint64_t next_{guest_map::kFirmwareStart};
};

/// A table's body of structures with different sizes.
class Body {
public:
    template <class T>
    Expected<void> add(const T& value) {
        for (const std::byte each : bytes_of(value))
            HV_TRY(bytes_.push(each));
        return {};
    }
    [[nodiscard]] Bytes bytes() const { return bytes_.span(); }

private:
    Vec<std::byte> bytes_;
};

std::uint32_t low(Gpa address) {
    return static_cast<std::uint32_t>(address.raw);
}

Expected<Gpa> put_dsdt(const AcpiBoard& board, TableArea& area) {
    AmlWriter aml;
    write_dsdt(board, aml);
    const Vec<std::byte> body = HV_TRY(std::move(aml).take());
    return area.put_table("DSDT", 2, body.span());  // revision 2: integers have 64 bits
}

Expected<Gpa> put_fadt(Gpa facs, Gpa dsdt, TableArea& area) {
    Fadt fadt{};
    fadt.facs = low(facs);
    fadt.dsdt = low(dsdt);
    fadt.x_dsdt = dsdt.raw;
    fadt.sci = guest_map::kGsiSci;
    fadt.pm1a_event = guest_map::kPm1aEvent;
    fadt.pm1a_control = guest_map::kPm1aControl;
    fadt.pm_timer = guest_map::kPmTimer;
    fadt.pm1_event_length = 4;
    fadt.pm1_control_length = 2;
    fadt.pm_timer_length = 4;
    fadt.x_pm1a_event = io_register(guest_map::kPm1aEvent, 4);
    fadt.x_pm1a_event.access_size = 2;  // status and enable are words
    fadt.x_pm1a_control = io_register(guest_map::kPm1aControl, 2);
    fadt.x_pm_timer = io_register(guest_map::kPmTimer, 4);
    fadt.c2_latency = kNoLatency;
    fadt.c3_latency = kNoLatency;
    fadt.century = kCenturyRegister;
    fadt.boot_flags = LEGACY_DEVICES | VGA_NOT_PRESENT | PCIE_ASPM_CONTROLS;
    fadt.flags = WBINVD | PROC_C1 | SLP_BUTTON | FIX_RTC | TMR_VAL_EXT | RESET_REG_SUP;
    fadt.reset_register = io_register(guest_map::kReset, 1);
    fadt.reset_value = guest_map::kResetValue;
    return area.put_table("FACP", 6, bytes_of(fadt).subspan(sizeof(TableHeader)));
}

Expected<Gpa> put_madt(const AcpiBoard& board, TableArea& area) {
    Body body;
    HV_TRY(body.add(MadtStart{static_cast<std::uint32_t>(guest_map::kLocalApic), kPcatCompat}));
    for (std::uint32_t id = 0; id < board.vcpus; ++id) {
        const auto byte_id = static_cast<std::uint8_t>(id);
        if (id < kFirstX2Id)
            HV_TRY(body.add(LocalApic{0, sizeof(LocalApic), byte_id, byte_id, kEnabled}));
        else
            HV_TRY(body.add(LocalX2Apic{9, sizeof(LocalX2Apic), 0, id, kEnabled, id}));
    }
    HV_TRY(body.add(
        IoApicEntry{1, sizeof(IoApicEntry), 0, 0, static_cast<std::uint32_t>(guest_map::kIoApic), 0}));
    HV_TRY(body.add(SourceOverride{2, sizeof(SourceOverride), 0, 0, guest_map::kGsiPit, kConforms}));
    HV_TRY(body.add(SourceOverride{2, sizeof(SourceOverride), 0, guest_map::kGsiSci, guest_map::kGsiSci,
                                   kLevelActiveHigh}));
    HV_TRY(body.add(LocalApicNmi{4, sizeof(LocalApicNmi), 0xff, kConforms, 1}));  // LINT1 of all processors
    if (board.vcpus > kFirstX2Id)
        HV_TRY(body.add(LocalX2ApicNmi{10, sizeof(LocalX2ApicNmi), kConforms, 0xffff'ffff, 1, {}}));
    return area.put_table("APIC", 5, body.bytes());
}

Expected<Gpa> put_mcfg(TableArea& area) {
    const Mcfg mcfg{0, guest_map::kEcam, 0, 0, 0, 0};  // bus 0 alone
    static_assert(guest_map::kEcamSize == kMiB);
    return area.put_table("MCFG", 1, bytes_of(mcfg));
}

Expected<Gpa> put_hpet(TableArea& area) {
    constexpr std::uint32_t kLegacyCapable = 1 << 15, kCounter64 = 1 << 13;
    const HpetTable hpet{Hpet::kHardwareId, {kMemorySpace, 64, 0, 0, guest_map::kHpet}, 0, 128, 0};
    static_assert((Hpet::kHardwareId & 0xffff) ==
                  (kLegacyCapable | kCounter64 | (Hpet::kComparators - 1) << 8 | 1));
    return area.put_table("HPET", 1, bytes_of(hpet));
}

Rsdp make_rsdp(Gpa rsdt, Gpa xsdt) {
    Rsdp rsdp{{'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
              0,
              {'C', 'A', 'I', 'R', 'N', ' '},
              2,
              low(rsdt),
              sizeof(Rsdp),
              xsdt.raw,
              0,
              {}};
    rsdp.checksum = table_checksum(bytes_of(rsdp).first(20));
    rsdp.extended_checksum = table_checksum(bytes_of(rsdp));
    return rsdp;
}

}  // namespace

Expected<Gpa> build_acpi_tables(const AcpiBoard& board, GuestMemory& memory) {
    TableArea area{memory};
    // The RSDP comes first, where kernels look for it that are not told [acpi 5.2.5.1 Finding the RSDP on
    // IA-PC Systems].
    const Gpa rsdp_at = HV_TRY(area.put(bytes_of(Rsdp{}), 16));
    const Facs facs{{'F', 'A', 'C', 'S'}, sizeof(Facs), 0, 0, 0, 0, 0, 2, {}};
    const Gpa facs_at = HV_TRY(area.put(bytes_of(facs), 64));
    const Gpa dsdt = HV_TRY(put_dsdt(board, area));

    Vec<Gpa> tables;
    HV_TRY(tables.reserve(4));
    const auto list = [&](Expected<Gpa> table) -> Expected<void> {
        return tables.push(HV_TRY(std::move(table)));
    };
    HV_TRY(list(put_fadt(facs_at, dsdt, area)));
    HV_TRY(list(put_madt(board, area)));
    HV_TRY(list(put_mcfg(area)));
    if (board.hpet)
        HV_TRY(list(put_hpet(area)));

    Body rsdt, xsdt;
    for (const Gpa table : tables) {
        HV_TRY(rsdt.add(low(table)));
        HV_TRY(xsdt.add(table.raw));
    }
    const Gpa rsdt_at = HV_TRY(area.put_table("RSDT", 1, rsdt.bytes()));
    const Gpa xsdt_at = HV_TRY(area.put_table("XSDT", 1, xsdt.bytes()));
    HV_TRY(memory.store(rsdp_at, make_rsdp(rsdt_at, xsdt_at)));
    return rsdp_at;
}

}  // namespace hv::loader
