// SPDX-License-Identifier: MIT
// Starting a Linux bzImage by its 64-bit or 32-bit boot protocol [linux-boot].
#include "vmm/base/bytes.hpp"
#include "vmm/loader/entry_state.hpp"
#include "vmm/loader/protocols.hpp"
#include "vmm/loader/refuse.hpp"

#include <algorithm>

namespace hv::loader {
namespace {

// Offsets of the setup header's fields, in the image and in the zero page alike [linux-boot 1.2 The Real-Mode
// Kernel Header].
constexpr std::size_t kSetupSectors = 0x1f1;
constexpr std::size_t kBootFlag = 0x1fe;
constexpr std::size_t kJump = 0x200;  // EB and the distance from 0x202 to the header's end
constexpr std::size_t kHeader = 0x202;
constexpr std::size_t kVersion = 0x206;
constexpr std::size_t kTypeOfLoader = 0x210;
constexpr std::size_t kLoadFlags = 0x211;
constexpr std::size_t kCode32Start = 0x214;
constexpr std::size_t kRamdiskImage = 0x218;
constexpr std::size_t kRamdiskSize = 0x21c;
constexpr std::size_t kCommandLine = 0x228;
constexpr std::size_t kInitrdMax = 0x22c;
constexpr std::size_t kAlignment = 0x230;
constexpr std::size_t kRelocatable = 0x234;
constexpr std::size_t kXloadFlags = 0x236;
constexpr std::size_t kCommandLineSize = 0x238;
constexpr std::size_t kSetupData = 0x250;
constexpr std::size_t kPreferredAddress = 0x258;
constexpr std::size_t kInitSize = 0x260;
// Of the zero page alone [linux-boot zero-page].
constexpr std::size_t kRsdp = 0x070;
constexpr std::size_t kMapCount = 0x1e8;
constexpr std::size_t kMap = 0x2d0;

constexpr std::uint32_t kHeaderMagic = 0x5372'6448;  // "HdrS"
constexpr std::uint16_t kBootFlagMagic = 0xaa55;
constexpr std::uint16_t kLeastVersion = 0x206;  // the first that tells how long the command line may be
constexpr std::uint8_t kLoadedHigh = 1 << 0;
constexpr std::uint16_t kKernel64 = 1 << 0;  // XLF_KERNEL_64
constexpr std::uint8_t kUnknownLoader = 0xff;
constexpr std::uint64_t kEntry64 = 0x200;
constexpr std::size_t kSector = 512;
constexpr std::size_t kZeroPageHeaderEnd = 0x290;  // where the zero page goes on with something else
constexpr std::uint64_t kLoadAddress = kMiB;

struct SetupHeader {
    std::uint16_t version;
    bool kernel_64, relocatable;
    std::uint64_t initrd_end;  ///< the initrd ends at or below
    std::uint64_t alignment;
    std::uint64_t command_line_size;  ///< without the NUL
    std::uint64_t preferred_address;
    std::uint64_t init_size;  ///< what the kernel needs from its load address on before it has a memory map
    std::span<const std::byte> setup;   ///< what goes into the zero page, at kSetupSectors
    std::span<const std::byte> kernel;  ///< the protected-mode part
};

template <class T>
T field(std::span<const std::byte> image, std::size_t offset) {
    return hv::load<T>(image.data() + offset);
}

Expected<SetupHeader> read_header(const LoadRequest& request) {
    const auto image = request.kernel;
    SetupHeader header{};
    header.version = field<std::uint16_t>(image, kVersion);
    if (header.version < kLeastVersion)
        return refuse(request, Error::unsupported, "its boot protocol %u.%02u is older than 2.06",
                      header.version >> 8U, header.version & 0xffU);
    if ((field<std::uint8_t>(image, kLoadFlags) & kLoadedHigh) == 0)
        return refuse(request, Error::unsupported, "it is a zImage; a bzImage is needed");

    const std::size_t header_end = kHeader + field<std::uint8_t>(image, kJump + 1);
    const std::size_t sectors = field<std::uint8_t>(image, kSetupSectors);
    const std::size_t setup_size = ((sectors == 0 ? 4 : sectors) + 1) * kSector;
    if (setup_size >= image.size() || header_end > setup_size || header_end < kCommandLineSize + 4)
        return refuse(request, Error::corrupted, "its setup header contradicts its size");
    header.setup = image.subspan(kSetupSectors, std::min(header_end, kZeroPageHeaderEnd) - kSetupSectors);
    header.kernel = image.subspan(setup_size);

    const bool has = header.version >= 0x20a && header_end >= kInitSize + 4;  // preferred address, init size
    header.kernel_64 =
        header.version >= 0x20c && has && (field<std::uint16_t>(image, kXloadFlags) & kKernel64) != 0;
    header.relocatable = field<std::uint8_t>(image, kRelocatable) != 0;
    header.initrd_end = std::uint64_t{field<std::uint32_t>(image, kInitrdMax)} + 1;
    header.alignment = std::max<std::uint64_t>(field<std::uint32_t>(image, kAlignment), kPageSize);
    header.command_line_size = field<std::uint32_t>(image, kCommandLineSize);
    header.preferred_address = has ? field<std::uint64_t>(image, kPreferredAddress) : kLoadAddress;
    header.init_size =
        std::max<std::uint64_t>(has ? field<std::uint32_t>(image, kInitSize) : 0, header.kernel.size());
    if ((header.alignment & (header.alignment - 1)) != 0)
        return refuse(request, Error::corrupted, "its alignment is no power of two");
    return header;
}

/// At its preferred address, or, if it can run elsewhere, above that: below it the kernel moves itself up
/// [linux-boot 1.3 Details of Header Fields, pref_address].
Expected<Gpa> place_kernel(const LoadRequest& request, const SetupHeader& header, MemoryPlan& plan) {
    if (plan.claim(header.preferred_address, header.init_size))
        return Gpa{header.preferred_address};
    if (header.relocatable)
        if (const auto place =
                plan.place_low(header.init_size, header.alignment,
                               std::max<std::uint64_t>(header.preferred_address, kLoadAddress)))
            return *place;
    return refuse(request, Error::out_of_range,
                  "it needs %lu KiB from 0x%lx on, which the VM's memory does not have",
                  header.init_size / kKiB, header.preferred_address);
}

/// The kernel's "zero page": its own setup header back, and what the boot loader adds.
class ZeroPage {
public:
    explicit ZeroPage(std::span<const std::byte> setup) {
        std::copy(setup.begin(), setup.end(), page_.begin() + kSetupSectors);
    }
    template <class T>
    void set(std::size_t offset, T value) {
        hv::store(page_.data() + offset, value);
    }
    void set_map(const MemoryMap& map) {
        std::size_t at = kMap;
        for (const MemoryMapEntry& entry : map.entries()) {
            set(at, entry.start);
            set(at + 8, entry.size);
            set(at + 16, static_cast<std::uint32_t>(entry.type));
            at += 20;
        }
        set(kMapCount, static_cast<std::uint8_t>(map.entries().size()));
    }
    [[nodiscard]] std::span<const std::byte> bytes() const { return page_; }

private:
    std::array<std::byte, kPageSize> page_{};
};

}  // namespace

bool is_bzimage(std::span<const std::byte> kernel) {
    return kernel.size() >= 2 * kSector && load_at<std::uint16_t>(kernel, kBootFlag) == kBootFlagMagic &&
           load_at<std::uint32_t>(kernel, kHeader) == kHeaderMagic;
}

Expected<EntryState> load_bzimage(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory) {
    const SetupHeader header = HV_TRY(read_header(request));
    if (!request.modules.empty())
        return refuse(request, Error::invalid_argument,
                      "it is a bzImage, which takes an initrd and no modules");
    if (request.command_line.size() > header.command_line_size)
        return refuse(request, Error::invalid_argument, "its command line has %zu bytes; it takes %lu",
                      request.command_line.size(), header.command_line_size);
    const Gpa kernel = HV_TRY(place_kernel(request, header, plan));
    HV_TRY(memory.write(kernel, header.kernel));

    // On the heap: a page is much for a stack.
    const auto page = HV_TRY(make<ZeroPage>(header.setup));
    ZeroPage& zero_page = *page;
    zero_page.set(kTypeOfLoader, kUnknownLoader);
    zero_page.set(kCode32Start, static_cast<std::uint32_t>(kernel.raw));
    zero_page.set(kRsdp, request.rsdp.raw);
    zero_page.set_map(MemoryMap{memory});
    zero_page.set(kCommandLine,
                  static_cast<std::uint32_t>(HV_TRY(plan.put_string(request.command_line)).raw));
    zero_page.set(kSetupData, std::uint64_t{0});  // there is none
    zero_page.set(kRamdiskImage, std::uint32_t{0});
    zero_page.set(kRamdiskSize, std::uint32_t{0});
    if (!request.initrd.empty()) {
        const auto initrd = plan.put_high(request.initrd, header.initrd_end);
        if (!initrd)
            return refuse(request, initrd.error(), "there is no room for its initrd of %zu KiB beside it",
                          request.initrd.size() / kKiB);
        zero_page.set(kRamdiskImage, static_cast<std::uint32_t>(initrd->raw));
        zero_page.set(kRamdiskSize, static_cast<std::uint32_t>(request.initrd.size()));
    }
    const Gpa zero_page_at = HV_TRY(plan.put(zero_page.bytes(), kPageSize));

    EntryState state = HV_TRY(header.kernel_64 ? long_mode_entry(kernel.raw + kEntry64, plan, memory)
                                               : protected_mode_entry(kernel.raw, plan));
    state.regs.gpr[RSI] = zero_page_at.raw;
    return state;
}

}  // namespace hv::loader
