// SPDX-License-Identifier: MIT
#include "vmm/loader/mp_table.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/loader/table_checksum.hpp"

namespace hv::loader {
namespace {

constexpr std::uint8_t kRevision = 4;  ///< 1.4

// [mp1.4 4.1 MP Floating Pointer Structure]; no feature bytes: the table below, virtual wire mode
struct [[gnu::packed]] FloatingPointer {
    char signature[4];
    std::uint32_t table;
    std::uint8_t length, revision, checksum, features[5];
};
static_assert(sizeof(FloatingPointer) == 16);

// [mp1.4 4.2 MP Configuration Table Header]
struct [[gnu::packed]] Header {
    char signature[4];
    std::uint16_t length;
    std::uint8_t revision, checksum;
    char oem_id[8];
    char product_id[12];
    std::uint32_t oem_table;
    std::uint16_t oem_table_size, entries;
    std::uint32_t local_apic;
    std::uint16_t extended_length;
    std::uint8_t extended_checksum, reserved;
};
static_assert(sizeof(Header) == 44);

// [mp1.4 4.3 Base MP Configuration Table Entries]
enum EntryType : std::uint8_t { PROCESSOR, BUS, IO_APIC, IO_INTERRUPT, LOCAL_INTERRUPT };
struct [[gnu::packed]] Processor {
    std::uint8_t type, apic_id, apic_version, flags;
    std::uint32_t signature, features;
    std::uint8_t reserved[8];
};
struct [[gnu::packed]] Bus {
    std::uint8_t type, id;
    char name[6];
};
struct [[gnu::packed]] IoApicEntry {
    std::uint8_t type, id, version, flags;
    std::uint32_t address;
};
struct [[gnu::packed]] Interrupt {
    std::uint8_t type, kind;
    std::uint16_t flags;
    std::uint8_t bus, irq, apic, pin;
};
static_assert(sizeof(Processor) == 20 && sizeof(Bus) == 8 && sizeof(IoApicEntry) == 8 &&
              sizeof(Interrupt) == 8);

constexpr std::uint8_t kEnabled = 1, kBootProcessor = 2;
constexpr std::uint8_t kLocalApicVersion = 0x14, kIoApicVersion = 0x20;
constexpr std::uint32_t kFeatures = 1 << 0 | 1 << 7 | 1 << 8 | 1 << 9;  ///< FPU, MCE, CX8, APIC
constexpr std::uint8_t kPciBus = 0, kIsaBus = 1;
constexpr std::uint8_t kIoApicId = 0, kAllLocalApics = 0xff;
constexpr std::uint32_t kXapicIds = 255;
/// Polarity and trigger mode [mp1.4 4.3.4 I/O Interrupt Assignment Entries].
constexpr std::uint16_t kConforms = 0, kLevelActiveHigh = 0xd, kLevelActiveLow = 0xf;
enum Kind : std::uint8_t { INT, NMI, SMI, EXT_INT };

class Table {
public:
    template <class T>
    Expected<void> add(const T& entry) {
        ++entries_;
        for (const std::byte each : std::as_bytes(std::span{&entry, 1}))
            HV_TRY(bytes_.push(each));
        return {};
    }
    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_.span(); }
    [[nodiscard]] std::uint16_t entries() const { return entries_; }

private:
    Vec<std::byte> bytes_;
    std::uint16_t entries_{0};
};

Expected<void> add_processors(const MpBoard& board, Table& table) {
    for (std::uint32_t id = 0; id < board.vcpus && id < kXapicIds; ++id) {
        const std::uint8_t boot = id == 0 ? kBootProcessor : 0;
        HV_TRY(table.add(Processor{PROCESSOR,
                                   static_cast<std::uint8_t>(id),
                                   kLocalApicVersion,
                                   static_cast<std::uint8_t>(kEnabled | boot),
                                   board.cpu_signature,
                                   kFeatures,
                                   {}}));
    }
    return {};
}

Expected<void> add_interrupts(Table& table) {
    constexpr std::uint8_t kIsaIrqs = 16, kDevices = 32, kPinA = 0, kCascade = 2;
    const auto isa = [&](Kind kind, std::uint16_t flags, std::uint8_t irq, unsigned pin) {
        return table.add(
            Interrupt{IO_INTERRUPT, kind, flags, kIsaBus, irq, kIoApicId, static_cast<std::uint8_t>(pin)});
    };
    HV_TRY(isa(EXT_INT, kConforms, 0, 0));
    for (std::uint8_t irq = 0; irq < kIsaIrqs; ++irq) {
        if (irq != kCascade)
            HV_TRY(isa(INT, irq == guest_map::kGsiSci ? kLevelActiveHigh : kConforms, irq,
                       irq == 0 ? guest_map::kGsiPit : irq));
    }
    for (std::uint8_t device = 1; device < kDevices; ++device)
        HV_TRY(table.add(Interrupt{IO_INTERRUPT, INT, kLevelActiveLow, kPciBus,
                                   static_cast<std::uint8_t>(device << 2 | kPinA), kIoApicId,
                                   static_cast<std::uint8_t>(guest_map::gsi_of_pci(device, kPinA))}));
    HV_TRY(table.add(Interrupt{LOCAL_INTERRUPT, EXT_INT, kConforms, kIsaBus, 0, 0, 0}));
    return table.add(Interrupt{LOCAL_INTERRUPT, NMI, kConforms, kIsaBus, 0, kAllLocalApics, 1});
}

}  // namespace

Expected<void> build_mp_table(const MpBoard& board, GuestMemory& memory) {
    Table table;
    HV_TRY(add_processors(board, table));
    HV_TRY(table.add(Bus{BUS, kPciBus, {'P', 'C', 'I', ' ', ' ', ' '}}));
    HV_TRY(table.add(Bus{BUS, kIsaBus, {'I', 'S', 'A', ' ', ' ', ' '}}));
    HV_TRY(table.add(IoApicEntry{IO_APIC, kIoApicId, kIoApicVersion, kEnabled,
                                 static_cast<std::uint32_t>(guest_map::kIoApic)}));
    HV_TRY(add_interrupts(table));

    constexpr Gpa kPointer{guest_map::kMpTable};
    constexpr Gpa kHeader{guest_map::kMpTable + sizeof(FloatingPointer)};
    // 255 processors and all interrupts are far less than 64 KiB.
    Header header{{'P', 'C', 'M', 'P'},
                  static_cast<std::uint16_t>(sizeof(Header) + table.bytes().size()),
                  kRevision,
                  0,
                  {'C', 'A', 'I', 'R', 'N', ' ', ' ', ' '},
                  {'C', 'A', 'I', 'R', 'N', ' ', 'V', 'M', ' ', ' ', ' ', ' '},
                  0,
                  0,
                  table.entries(),
                  static_cast<std::uint32_t>(guest_map::kLocalApic),
                  0,
                  0,
                  0};
    header.checksum = static_cast<std::uint8_t>(table_checksum(std::as_bytes(std::span{&header, 1})) +
                                                table_checksum(table.bytes()));
    FloatingPointer pointer{
        {'_', 'M', 'P', '_'}, static_cast<std::uint32_t>(kHeader.raw), 1, kRevision, 0, {}};
    pointer.checksum = table_checksum(std::as_bytes(std::span{&pointer, 1}));
    HV_TRY(memory.store(kPointer, pointer));
    HV_TRY(memory.store(kHeader, header));
    return memory.write(kHeader + sizeof(Header), table.bytes());
}

}  // namespace hv::loader
