// SPDX-License-Identifier: MIT
// Starting a kernel by Multiboot 1 [multiboot1].
#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"
#include "vmm/core/guest_map.hpp"
#include "vmm/loader/elf_image.hpp"
#include "vmm/loader/entry_state.hpp"
#include "vmm/loader/protocols.hpp"
#include "vmm/loader/refuse.hpp"

#include <algorithm>

namespace hv::loader {
namespace {

// [multiboot1 3.1 OS image format]
constexpr std::uint32_t kHeaderMagic = 0x1bad'b002;
constexpr std::size_t kHeaderSearch = 8192;
constexpr std::uint32_t kWantsVideo = 1 << 2;
constexpr std::uint32_t kKnownDemands = 0x7;  // page-aligned modules, memory information, video mode
constexpr std::uint32_t kDemands = 0xffff;    // bits that a boot loader must understand
constexpr std::uint32_t kHasAddresses = 1 << 16;

struct Header {
    std::uint32_t magic, flags, checksum;
};
struct Addresses {  // follow the header where kHasAddresses says so
    std::uint32_t header, load, load_end, bss_end, entry;
};

// [multiboot1 3.3 Boot information format]
constexpr std::uint32_t kEntryMagic = 0x2bad'b002;
enum InfoFlag : std::uint32_t {
    kMemory = 1 << 0,
    kCommandLine = 1 << 2,
    kModules = 1 << 3,
    kSectionHeaders = 1 << 5,
    kMemoryMap = 1 << 6,
    kLoaderName = 1 << 9
};
struct Info {
    std::uint32_t flags, memory_lower, memory_upper, boot_device, command_line, module_count, modules;
    std::uint32_t section_count, section_size, sections, string_section;
    std::uint32_t map_length, map, drives_length, drives, config_table, loader_name, apm_table;
    std::uint32_t vbe[4];
    std::uint32_t framebuffer[7];
};
static_assert(sizeof(Info) == 116);
struct [[gnu::packed]] MapEntry {
    std::uint32_t size;  ///< of what follows
    std::uint64_t start, length;
    std::uint32_t type;
};
static_assert(sizeof(MapEntry) == 24);
struct ModuleEntry {
    std::uint32_t start, end, command_line, reserved;
};

struct FoundHeader {
    std::size_t offset;
    std::uint32_t flags;
};

std::optional<FoundHeader> find_header(std::span<const std::byte> image) {
    const auto searched = image.first(std::min(image.size(), kHeaderSearch));
    for (std::size_t offset = 0; offset + sizeof(Header) <= searched.size(); offset += 4) {
        const auto header = hv::load<Header>(searched.data() + offset);
        if (header.magic == kHeaderMagic && header.magic + header.flags + header.checksum == 0)
            return FoundHeader{offset, header.flags};
    }
    return std::nullopt;
}

std::uint32_t low(Gpa address) {
    return static_cast<std::uint32_t>(address.raw);
}

/// An image of any format, whose header says what goes where; returns the entry point.
Expected<std::uint64_t> load_by_addresses(const LoadRequest& request, std::size_t header_offset,
                                          MemoryPlan& plan, GuestMemory& memory) {
    const auto read = load_at<Addresses>(request.kernel, header_offset + sizeof(Header));
    if (!read || read->header < read->load || read->header - read->load > header_offset)
        return refuse(request, Error::corrupted, "its Multiboot header's addresses contradict each other");
    const std::size_t start = header_offset - (read->header - read->load);
    const std::size_t rest = request.kernel.size() - start;
    const std::uint64_t size = read->load_end == 0 ? rest : std::uint64_t{read->load_end} - read->load;
    if ((read->load_end != 0 && read->load_end < read->load) || size > rest)
        return refuse(request, Error::corrupted, "its Multiboot header promises more than the file has");
    const std::uint64_t end = std::max<std::uint64_t>(read->load + size, read->bss_end);
    if (const auto claimed = plan.claim(read->load, end - read->load); !claimed)
        return refuse(request, claimed.error(),
                      "its 0x%lx bytes at 0x%x do not lie in the VM's memory from 1 MiB on or below 640 KiB",
                      end - read->load, read->load);
    if (read->entry < read->load || read->entry >= end)
        return refuse(request, Error::corrupted, "its entry point 0x%x lies outside of what it loads",
                      read->entry);
    HV_TRY(memory.write(Gpa{read->load}, request.kernel.subspan(start, size)));
    return std::uint64_t{read->entry};
}

/// A kernel can do without its symbols.
void put_sections(const LoadRequest& request, const ElfImage& image, MemoryPlan& plan, GuestMemory& memory,
                  Info& info) {
    const auto table = image.put_sections(plan, memory);
    if (!table && table.error() != Error::not_found)
        log::warning(log::Topic::vm, "%.*s: the kernel starts without its symbols: %s",
                     static_cast<int>(request.vm_name.size()), request.vm_name.data(),
                     to_string(table.error()));
    if (!table)
        return;
    info.flags |= kSectionHeaders;
    info.section_count = table->count;
    info.section_size = table->entry_size;
    info.sections = low(table->at);
    info.string_section = table->string_section;
}

Expected<std::uint64_t> load_elf(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory,
                                 Info& info) {
    const ElfImage image = HV_TRY(ElfImage::parse(request));
    HV_TRY(image.load(request, plan, memory));
    put_sections(request, image, plan, memory, info);
    const std::uint64_t entry = image.physical_entry();
    if (entry >= 4 * kGiB)
        return refuse(request, Error::unsupported, "its entry point 0x%lx lies above 4 GiB", entry);
    return entry;
}

Expected<void> put_modules(const LoadRequest& request, MemoryPlan& plan, Info& info) {
    Vec<ModuleEntry> list;
    const auto add = [&](const BootModule& module) -> Expected<void> {
        const Gpa start = HV_TRY(plan.put_above(module.bytes));
        const Gpa text = HV_TRY(plan.put_string(module.command_line));
        return list.push({low(start), low(start + module.bytes.size()), low(text), 0});
    };
    if (!request.initrd.empty())
        HV_TRY(add({request.initrd, request.initrd_name}));
    for (const BootModule& module : request.modules)
        HV_TRY(add(module));
    info.flags |= kModules;
    info.module_count = static_cast<std::uint32_t>(list.size());
    if (!list.empty())
        info.modules = low(HV_TRY(plan.put(std::as_bytes(list.span()))));
    return {};
}

Expected<void> put_memory_map(const GuestMemory& memory, MemoryPlan& plan, Info& info) {
    const MemoryMap map{memory};
    Vec<MapEntry> list;
    for (const MemoryMapEntry& entry : map.entries())
        HV_TRY(list.push({sizeof(MapEntry) - sizeof(MapEntry::size), entry.start, entry.size,
                          static_cast<std::uint32_t>(entry.type)}));
    info.flags |= kMemory | kMemoryMap;
    info.memory_lower = static_cast<std::uint32_t>(guest_map::kEbda / kKiB);
    info.memory_upper = static_cast<std::uint32_t>((memory.low_size() - kMiB) / kKiB);
    info.map_length = static_cast<std::uint32_t>(list.span().size_bytes());
    info.map = low(HV_TRY(plan.put(std::as_bytes(list.span()))));
    return {};
}

}  // namespace

Expected<EntryState> load_multiboot(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory) {
    const auto header = find_header(request.kernel);
    if (!header)
        return refuse(request, Error::unsupported, "it has no Multiboot header in its first 8 KiB");
    if ((header->flags & kDemands & ~kKnownDemands) != 0)
        return refuse(request, Error::unsupported,
                      "its Multiboot header demands what is not known: flags 0x%x; allowed: 0 to 2, 16 to 31",
                      header->flags);
    if ((header->flags & kWantsVideo) != 0)
        log::warning(log::Topic::vm, "%.*s: the kernel asks for a video mode; the VM has no screen",
                     static_cast<int>(request.vm_name.size()), request.vm_name.data());
    Info info{};
    info.flags = kCommandLine | kLoaderName;
    const std::uint64_t entry =
        HV_TRY((header->flags & kHasAddresses) != 0 ? load_by_addresses(request, header->offset, plan, memory)
                                                    : load_elf(request, plan, memory, info));
    info.command_line = low(HV_TRY(plan.put_string(request.command_line)));
    info.loader_name = low(HV_TRY(plan.put_string("Cairn")));
    HV_TRY(put_memory_map(memory, plan, info));
    if (const auto put = put_modules(request, plan, info); !put)
        return refuse(request, put.error(), "there is no room for its modules beside it");
    const Gpa info_at = HV_TRY(plan.put(std::as_bytes(std::span{&info, 1})));

    EntryState state = HV_TRY(protected_mode_entry(entry, plan));
    state.regs.gpr[RAX] = kEntryMagic;
    state.regs.gpr[RBX] = info_at.raw;
    return state;
}

}  // namespace hv::loader
