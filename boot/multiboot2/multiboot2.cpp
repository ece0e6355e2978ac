// SPDX-License-Identifier: MIT
#include "boot/multiboot2/multiboot2.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"

namespace hv::boot::multiboot2 {
namespace {

using log::Topic;
using Bytes = std::span<const std::byte>;

// [multiboot2 3.6 Boot information format], each tag by its section's number.
enum class Tag : std::uint32_t {
    end = 0,
    command_line = 1,
    loader_name = 2,
    module = 3,
    memory_map = 6,
    framebuffer = 8,
    efi32_system_table = 11,
    efi64_system_table = 12,
    rsdp_old = 14,
    rsdp_new = 15,
    efi_memory_map = 17,
    efi_boot_services = 18,
};

constexpr std::uint64_t kFixedPart = 8;   // total_size, reserved
constexpr std::size_t kTagHeader = 8;     // type, size
constexpr std::uint64_t kMaxSize = kMiB;  // far above what any boot loader writes

/// A string inside a tag; the tag's end ends it as well.
std::string_view string_at(Bytes tag, std::size_t offset) {
    if (offset >= tag.size())
        return {};
    const std::string_view rest{reinterpret_cast<const char*>(tag.data() + offset), tag.size() - offset};
    return rest.substr(0, rest.find('\0'));
}

std::string_view keep_text(BootInfo& out, Bytes tag, const char* what) {
    const auto kept = out.keep(string_at(tag, kTagHeader));
    if (!kept)
        log::warning(Topic::boot, "multiboot2: no room for the %s", what);
    return kept.value_or(std::string_view{});
}

bool read_module(Bytes tag, BootInfo& out) {
    struct Fields {
        std::uint32_t start, end;
    };
    const auto fields = load_at<Fields>(tag, kTagHeader);
    if (!fields || fields->end < fields->start)
        return false;
    out.add_module(Hpa{fields->start}, fields->end - fields->start,
                   string_at(tag, kTagHeader + sizeof(Fields)));
    return true;
}

/// Calls `entry(Bytes)` for each of a tag's entries, which begin at `offset` and are `entry_size` apart.
template <class Entry>
bool for_each_entry(Bytes tag, std::size_t offset, std::uint32_t entry_size, std::size_t least,
                    Entry&& entry) {
    if (entry_size < least)
        return false;
    for (; offset < tag.size() && tag.size() - offset >= entry_size; offset += entry_size)
        entry(tag.subspan(offset, entry_size));
    return true;
}

bool read_memory_map(Bytes tag, BootInfo& out) {
    struct Entry {
        std::uint64_t start, length;
        std::uint32_t type, reserved;
    };
    const auto entry_size = load_at<std::uint32_t>(tag, kTagHeader);
    constexpr std::size_t kEntries = kTagHeader + 8;  // entry_size, entry_version
    return entry_size && for_each_entry(tag, kEntries, *entry_size, sizeof(Entry), [&](Bytes bytes) {
               const auto entry = load<Entry>(bytes.data());
               out.add_memory(Hpa{entry.start}, entry.length, memory_type_of_e820(entry.type));
           });
}

// [uefi 7.2.3 EFI_BOOT_SERVICES.GetMemoryMap()]: what each type means after ExitBootServices().
MemoryType type_of_efi(std::uint32_t type) {
    switch (type) {
    case 1:  // EfiLoaderCode
    case 2:  // EfiLoaderData
    case 3:  // EfiBootServicesCode
    case 4:  // EfiBootServicesData
    case 7:  // EfiConventionalMemory
        return MemoryType::usable;
    case 8: return MemoryType::bad;               // EfiUnusableMemory
    case 9: return MemoryType::acpi_reclaimable;  // EfiACPIReclaimMemory
    case 10: return MemoryType::acpi_nvs;         // EfiACPIMemoryNVS
    default: return MemoryType::reserved;
    }
}

bool read_efi_memory_map(Bytes tag, BootInfo& out) {
    struct Descriptor {
        std::uint32_t type, padding;
        std::uint64_t start, virtual_start, pages, attribute;
    };
    const auto descriptor_size = load_at<std::uint32_t>(tag, kTagHeader);
    constexpr std::size_t kDescriptors = kTagHeader + 8;  // descriptor size, descriptor version
    return descriptor_size &&
           for_each_entry(tag, kDescriptors, *descriptor_size, sizeof(Descriptor), [&](Bytes bytes) {
               const auto descriptor = load<Descriptor>(bytes.data());
               if (descriptor.pages <= (std::uint64_t{1} << 52) - 1)
                   out.add_memory(Hpa{descriptor.start}, descriptor.pages * kPageSize,
                                  type_of_efi(descriptor.type));
           });
}

bool read_framebuffer(Bytes tag, BootInfo& out) {
    struct [[gnu::packed]] Fields {
        std::uint64_t address;
        std::uint32_t pitch, width, height;
        std::uint8_t bits_per_pixel, kind;
        std::uint16_t reserved;
    };
    struct Colours {
        Framebuffer::Channel red, green, blue;
    };
    const auto fields = load_at<Fields>(tag, kTagHeader);
    if (!fields || fields->kind > static_cast<std::uint8_t>(Framebuffer::Kind::text))
        return false;
    Framebuffer screen{};
    screen.address = Hpa{fields->address};
    screen.pitch = fields->pitch;
    screen.width = fields->width;
    screen.height = fields->height;
    screen.bits_per_pixel = fields->bits_per_pixel;
    screen.kind = static_cast<Framebuffer::Kind>(fields->kind);
    if (screen.kind == Framebuffer::Kind::rgb) {
        const auto colours = load_at<Colours>(tag, kTagHeader + sizeof(Fields));
        if (!colours)
            return false;
        screen.red = colours->red;
        screen.green = colours->green;
        screen.blue = colours->blue;
    }
    out.framebuffer = screen;
    return true;
}

/// False: the tag does not hold what its type promises.
bool read_tag(Tag type, Bytes tag, BootInfo& out) {
    switch (type) {
    case Tag::command_line: out.command_line = keep_text(out, tag, "command line"); return true;
    case Tag::loader_name: out.loader_name = keep_text(out, tag, "boot loader's name"); return true;
    case Tag::module: return read_module(tag, out);
    case Tag::memory_map: return read_memory_map(tag, out);
    case Tag::framebuffer: return read_framebuffer(tag, out);
    case Tag::rsdp_old:
    case Tag::rsdp_new: out.keep_rsdp(tag.subspan(kTagHeader)); return true;
    case Tag::efi_boot_services: out.boot_services_active = true; return true;
    case Tag::efi32_system_table:
    case Tag::efi64_system_table:
    case Tag::efi_memory_map: out.uefi = true; return true;  // the map itself is read last, if at all
    case Tag::end: return true;
    }
    return true;  // a type that says nothing to us
}

/// All tags in order. The EFI memory map counts only where there is no other: the boot loader made the other
/// from it, and knows better what it is using itself.
void read_tags(Bytes info, BootInfo& out) {
    Bytes efi_memory_map;
    std::size_t offset = kFixedPart;
    for (;;) {
        const auto type = load_at<std::uint32_t>(info, offset);
        const auto size = load_at<std::uint32_t>(info, offset + 4);
        if (!type || !size || *size < kTagHeader || *size > info.size() - offset) {
            log::warning(Topic::boot, "multiboot2: no sound tag at offset %zu, the rest is ignored", offset);
            break;
        }
        const Bytes tag = info.subspan(offset, *size);
        if (static_cast<Tag>(*type) == Tag::end)
            break;
        if (static_cast<Tag>(*type) == Tag::efi_memory_map)
            efi_memory_map = tag;
        if (!read_tag(static_cast<Tag>(*type), tag, out))
            log::warning(Topic::boot, "multiboot2: tag of type %u at offset %zu is malformed, skipped", *type,
                         offset);
        offset += align_up(*size, 8);
    }
    if (out.memory.empty() && !efi_memory_map.empty() && !read_efi_memory_map(efi_memory_map, out))
        log::warning(Topic::boot, "multiboot2: the EFI memory map is malformed, skipped");
}

}  // namespace

Expected<void> parse(Hpa info, const PhysicalMemory& memory, BootInfo& out) {
    const auto total_size = load_at<std::uint32_t>(memory.bytes(info, kFixedPart), 0);
    if (!total_size || *total_size < kFixedPart + kTagHeader || *total_size > kMaxSize)
        return Unexpected{Error::corrupted};
    const Bytes bytes = memory.bytes(info, *total_size);
    if (bytes.size() != *total_size)
        return Unexpected{Error::corrupted};
    out.protocol = BootInfo::Protocol::multiboot2;
    read_tags(bytes, out);
    return {};
}

}  // namespace hv::boot::multiboot2
