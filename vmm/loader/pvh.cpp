// SPDX-License-Identifier: MIT
// Starting a kernel by PVH [pvh].
#include "vmm/loader/elf_image.hpp"
#include "vmm/loader/entry_state.hpp"
#include "vmm/loader/protocols.hpp"
#include "vmm/loader/refuse.hpp"

namespace hv::loader {
namespace {

// [pvh hvm_start_info]
struct StartInfo {
    std::uint32_t magic, version, flags, module_count;
    std::uint64_t modules, command_line, rsdp, memory_map;
    std::uint32_t memory_map_entries, reserved;
};
struct ModuleEntry {
    std::uint64_t start, size, command_line, reserved;
};
struct MapEntry {
    std::uint64_t start, size;
    std::uint32_t type, reserved;
};
static_assert(sizeof(StartInfo) == 56 && sizeof(ModuleEntry) == 32 && sizeof(MapEntry) == 24);

constexpr std::uint32_t kMagic = 0x336e'c578;
constexpr std::uint64_t kReachable = 4 * kGiB;  // by a kernel in 32-bit mode

Expected<ModuleEntry> put_module(const BootModule& module, MemoryPlan& plan) {
    ModuleEntry entry{};
    entry.start = HV_TRY(plan.put_high(module.bytes, kReachable)).raw;
    entry.size = module.bytes.size();
    if (!module.command_line.empty())
        entry.command_line = HV_TRY(plan.put_string(module.command_line)).raw;
    return entry;
}

/// The initrd, if there is one, then the modules, and their list.
Expected<void> put_modules(const LoadRequest& request, MemoryPlan& plan, StartInfo& info) {
    Vec<ModuleEntry> list;
    const auto add = [&](const BootModule& module) -> Expected<void> {
        const ModuleEntry entry = HV_TRY(put_module(module, plan));
        return list.push(entry);
    };
    if (!request.initrd.empty())
        HV_TRY(add({request.initrd, {}}));
    for (const BootModule& module : request.modules)
        HV_TRY(add(module));
    if (list.empty())
        return {};
    info.module_count = static_cast<std::uint32_t>(list.size());
    info.modules = HV_TRY(plan.put(std::as_bytes(list.span()))).raw;
    return {};
}

Expected<void> put_memory_map(const GuestMemory& memory, MemoryPlan& plan, StartInfo& info) {
    const MemoryMap map{memory};
    Vec<MapEntry> list;
    for (const MemoryMapEntry& entry : map.entries())
        HV_TRY(list.push({entry.start, entry.size, static_cast<std::uint32_t>(entry.type), 0}));
    info.memory_map_entries = static_cast<std::uint32_t>(list.size());
    info.memory_map = HV_TRY(plan.put(std::as_bytes(list.span()))).raw;
    return {};
}

}  // namespace

Expected<EntryState> load_pvh(const LoadRequest& request, MemoryPlan& plan, GuestMemory& memory) {
    const ElfImage image = HV_TRY(ElfImage::parse(request));
    const auto entry = image.pvh_entry();
    if (!entry)
        return refuse(request, Error::unsupported, "it has no PVH entry point (ELF note 18 of Xen)");
    HV_TRY(image.load(request, plan, memory));

    StartInfo info{};
    info.magic = kMagic;
    info.version = 1;
    info.rsdp = request.rsdp.raw;
    info.command_line = HV_TRY(plan.put_string(request.command_line)).raw;
    HV_TRY(put_memory_map(memory, plan, info));
    if (const auto put = put_modules(request, plan, info); !put)
        return refuse(request, put.error(), "there is no room for its initrd or modules beside it");
    const Gpa info_at = HV_TRY(plan.put(std::as_bytes(std::span{&info, 1})));

    EntryState state = HV_TRY(protected_mode_entry(*entry, plan));
    state.regs.gpr[RBX] = info_at.raw;
    return state;
}

}  // namespace hv::loader
