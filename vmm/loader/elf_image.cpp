// SPDX-License-Identifier: MIT
#include "vmm/loader/elf_image.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/loader/refuse.hpp"

#include <algorithm>
#include <string_view>

namespace hv::loader {
namespace {

struct Elf32Header {
    std::uint8_t ident[16];
    std::uint16_t type, machine;
    std::uint32_t version, entry, program_headers, section_headers, flags;
    std::uint16_t header_size, program_header_size, program_header_count;
    std::uint16_t section_header_size, section_header_count, string_section;
};
struct Elf64Header {
    std::uint8_t ident[16];
    std::uint16_t type, machine;
    std::uint32_t version;
    std::uint64_t entry, program_headers, section_headers;
    std::uint32_t flags;
    std::uint16_t header_size, program_header_size, program_header_count;
    std::uint16_t section_header_size, section_header_count, string_section;
};
struct Elf32ProgramHeader {
    std::uint32_t type, offset, virtual_address, physical_address, file_size, memory_size, flags, alignment;
};
struct Elf64ProgramHeader {
    std::uint32_t type, flags;
    std::uint64_t offset, virtual_address, physical_address, file_size, memory_size, alignment;
};
struct Elf32SectionHeader {
    std::uint32_t name, type, flags, address, offset, size, link, info, alignment, entry_size;
};
struct Elf64SectionHeader {
    std::uint32_t name, type;
    std::uint64_t flags, address, offset, size;
    std::uint32_t link, info;
    std::uint64_t alignment, entry_size;
};
struct NoteHeader {
    std::uint32_t name_size, value_size, type;
};
static_assert(sizeof(Elf32Header) == 52 && sizeof(Elf64Header) == 64);
static_assert(sizeof(Elf32SectionHeader) == 40 && sizeof(Elf64SectionHeader) == 64);
static_assert(sizeof(Elf32ProgramHeader) == 32 && sizeof(Elf64ProgramHeader) == 56 &&
              sizeof(NoteHeader) == 12);

constexpr std::size_t kIdentClass = 4;
constexpr std::size_t kIdentData = 5;
constexpr std::byte kClass32{1};
constexpr std::byte kClass64{2};
constexpr std::byte kLittleEndian{1};
constexpr std::uint16_t kExecutable = 2;
constexpr std::uint16_t kShared = 3;  // position independent; loaded where it says, as it stands
constexpr std::uint16_t kMachine386 = 3;
constexpr std::uint16_t kMachineX86_64 = 62;
constexpr std::uint32_t kLoad = 1;
constexpr std::uint32_t kNote = 4;
constexpr std::uint32_t kNoBits = 8;
constexpr std::uint16_t kMaxHeaders = 256;
constexpr std::uint16_t kMaxSections = 1024;

constexpr std::uint32_t kXenPhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY [pvh elfnote.h]
constexpr std::string_view kXen{"Xen", 4};     // with its NUL

}  // namespace

bool ElfImage::is_elf(std::span<const std::byte> bytes) {
    constexpr std::uint32_t kMagic = 0x464c'457f;  // "\x7f" "ELF"
    return load_at<std::uint32_t>(bytes, 0) == kMagic;
}

Expected<ElfImage> ElfImage::parse(const LoadRequest& request) {
    ElfImage image{request.kernel};
    const auto bytes = request.kernel;
    if (!is_elf(bytes))
        return refuse(request, Error::unsupported, "it is no ELF file");
    const auto take = [&](const auto& header) {
        image.entry_ = header.entry;
        image.headers_ = header.program_headers;
        image.header_size_ = header.program_header_size;
        image.header_count_ = header.program_header_count;
        image.sections_ = header.section_headers;
        image.section_size_ = header.section_header_size;
        image.section_count_ = header.section_header_count;
        image.string_section_ = header.string_section;
        return (header.type == kExecutable || header.type == kShared) &&
               (header.machine == kMachine386 || header.machine == kMachineX86_64);
    };
    if (bytes.size() < sizeof(Elf64Header) || bytes[kIdentData] != kLittleEndian ||
        (bytes[kIdentClass] != kClass32 && bytes[kIdentClass] != kClass64))
        return refuse(request, Error::unsupported, "it is no ELF file for x86");
    image.is_64_ = bytes[kIdentClass] == kClass64;
    if (!(image.is_64_ ? take(hv::load<Elf64Header>(bytes.data()))
                       : take(hv::load<Elf32Header>(bytes.data()))))
        return refuse(request, Error::unsupported, "it is no executable ELF file for x86");

    const std::size_t least = image.is_64_ ? sizeof(Elf64ProgramHeader) : sizeof(Elf32ProgramHeader);
    if (image.header_size_ < least || image.header_count_ == 0 || image.header_count_ > kMaxHeaders ||
        image.headers_ > bytes.size() ||
        std::uint64_t{image.header_size_} * image.header_count_ > bytes.size() - image.headers_)
        return refuse(request, Error::corrupted, "its program headers do not lie inside the file");
    for (std::size_t i = 0; i < image.header_count_; ++i) {
        const Segment each = image.segment(i);
        if (each.type != kLoad && each.type != kNote)
            continue;
        if (each.offset > bytes.size() || each.file_size > bytes.size() - each.offset ||
            (each.type == kLoad && each.memory_size < each.file_size))
            return refuse(request, Error::corrupted, "segment %zu does not lie inside the file", i);
    }
    return image;
}

ElfImage::Segment ElfImage::segment(std::size_t index) const {
    const std::byte* const at = bytes_.data() + headers_ + index * header_size_;
    const auto take = [](const auto& header) {
        return Segment{header.type,
                       header.offset,
                       header.file_size,
                       header.virtual_address,
                       header.physical_address,
                       header.memory_size,
                       header.alignment};
    };
    return is_64_ ? take(hv::load<Elf64ProgramHeader>(at)) : take(hv::load<Elf32ProgramHeader>(at));
}

Expected<void> ElfImage::load(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory) const {
    bool any = false;
    for (std::size_t i = 0; i < header_count_; ++i) {
        const Segment each = segment(i);
        if (each.type != kLoad || each.memory_size == 0)
            continue;
        if (const auto claimed = plan.claim(each.physical_address, each.memory_size); !claimed)
            return refuse(
                request, claimed.error(),
                "segment %zu (0x%lx bytes at 0x%lx) overlaps another or does not lie in the VM's memory", i,
                each.memory_size, each.physical_address);
        HV_TRY(memory.write(Gpa{each.physical_address}, bytes_.subspan(each.offset, each.file_size)));
        any = true;
    }
    if (!any)
        return refuse(request, Error::corrupted, "it has nothing to load");
    return {};
}

std::uint64_t ElfImage::physical_entry() const {
    for (std::size_t i = 0; i < header_count_; ++i) {
        const Segment each = segment(i);
        if (each.type == kLoad && entry_ >= each.virtual_address &&
            entry_ - each.virtual_address < each.memory_size)
            return entry_ - each.virtual_address + each.physical_address;
    }
    return entry_;
}

Expected<ElfImage::SectionTable> ElfImage::put_sections(MemoryPlan& plan, GuestMemory& memory) const {
    const std::size_t least = is_64_ ? sizeof(Elf64SectionHeader) : sizeof(Elf32SectionHeader);
    const std::uint64_t bytes = std::uint64_t{section_size_} * section_count_;
    if (section_count_ == 0)
        return Unexpected{Error::not_found};
    if (section_count_ > kMaxSections || section_size_ < least || sections_ > bytes_.size() ||
        bytes > bytes_.size() - sections_)
        return Unexpected{Error::corrupted};
    const Gpa table = HV_TRY(plan.put_above(bytes_.subspan(sections_, bytes)));
    for (std::uint64_t at = 0; at < bytes; at += section_size_) {
        const std::byte* const header = bytes_.data() + sections_ + at;
        if (is_64_)
            HV_TRY(put_section<Elf64SectionHeader>(header, table + at, plan, memory));
        else
            HV_TRY(put_section<Elf32SectionHeader>(header, table + at, plan, memory));
    }
    return SectionTable{table, section_count_, section_size_, string_section_};
}

/// What has an address has been loaded by its segment.
template <class Header>
Expected<void> ElfImage::put_section(const std::byte* bytes, Gpa in_table, MemoryPlan& plan,
                                     GuestMemory& memory) const {
    const auto header = hv::load<Header>(bytes);
    if (header.address != 0 || header.size == 0 || header.type == 0 || header.type == kNoBits)
        return {};
    if (header.offset > bytes_.size() || header.size > bytes_.size() - header.offset)
        return Unexpected{Error::corrupted};
    const Gpa place = HV_TRY(plan.put_above(bytes_.subspan(header.offset, header.size)));
    return memory.store(in_table + offsetof(Header, address),
                        static_cast<decltype(header.address)>(place.raw));
}

std::optional<std::uint32_t> ElfImage::pvh_entry() const {
    for (std::size_t i = 0; i < header_count_; ++i) {
        const Segment each = segment(i);
        if (each.type != kNote)
            continue;
        if (const auto entry = pvh_entry_in(each))
            return entry;
    }
    return std::nullopt;
}

// [elf gABI Note Section]: header, name, value, the latter two padded to 4 bytes, or to 8 where the segment
// says so.
std::optional<std::uint32_t> ElfImage::pvh_entry_in(const Segment& notes) const {
    const auto bytes = bytes_.subspan(notes.offset, notes.file_size);
    const std::uint64_t padding = notes.alignment == 8 ? 8 : 4;
    for (std::uint64_t at = 0;;) {
        const auto header = load_at<NoteHeader>(bytes, at);
        if (!header)
            return std::nullopt;
        const std::uint64_t name = at + sizeof(NoteHeader);
        const std::uint64_t value = at + align_up(sizeof(NoteHeader) + header->name_size, padding);
        if (value > bytes.size() || header->value_size > bytes.size() - value)
            return std::nullopt;
        const bool is_xen = header->name_size == kXen.size() &&
                            std::memcmp(bytes.data() + name, kXen.data(), kXen.size()) == 0;
        if (is_xen && header->type == kXenPhys32Entry && (header->value_size == 4 || header->value_size == 8))
            return load_at<std::uint32_t>(bytes, value);
        at = value + align_up(header->value_size, padding);
    }
}

}  // namespace hv::loader
