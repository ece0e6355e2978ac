// SPDX-License-Identifier: MIT
// The composition root: from the boot loader's information to running VMs. Names every concrete type; holds
// no logic.
#include "arch/x86_64/cpu/early_console.hpp"
#include "arch/x86_64/cpu/guest_fpu.hpp"
#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/panic.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/cpu/text_screen.hpp"
#include "arch/x86_64/cpu/tsc.hpp"
#include "arch/x86_64/irq/io_apic.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "boot/main/boot_memory.hpp"
#include "boot/main/command_line.hpp"
#include "boot/main/platform.hpp"
#include "boot/multiboot2/boot_info.hpp"
#include "boot/multiboot2/multiboot2.hpp"
#include "boot/multiboot2/pvh.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

namespace hv::boot {
namespace {

/// While the boot loader's tables are read, only the boot map of the first 4 GiB is there.
class BootMap final : public PhysicalMemory {
public:
    [[nodiscard]] std::span<const std::byte> bytes(Hpa start, std::uint64_t length) const override {
        if (start.raw >= kEnd || length > kEnd - start.raw)
            return {};
        return {machine::hva(start), length};
    }

private:
    static constexpr std::uint64_t kEnd = 4 * kGiB;
};

class EarlyLog final : public log::Sink {
public:
    void log_line(log::Level, std::string_view line) override {
        cpu::early_write("[cairn] ");
        cpu::early_write(line);
        cpu::early_write("\r\n");
    }
};

enum class LoaderProtocol : std::uint32_t { multiboot2 = 1, pvh = 2 };

/// What the second half of the start gets from the first.
struct Start {
    Options options;
    FrameAllocator* frames;
    std::uint64_t started;
};

constinit BootInfo boot_info;
constinit EarlyLog early_log;

void read_boot_info(LoaderProtocol protocol, Hpa info) {
    const BootMap memory;
    const auto parsed = protocol == LoaderProtocol::pvh ? pvh::parse(info, memory, boot_info)
                                                        : multiboot2::parse(info, memory, boot_info);
    if (!parsed)
        panic("the boot loader's information at 0x%llx cannot be read: %s",
              static_cast<unsigned long long>(info.raw), to_string(parsed.error()));
    if (boot_info.boot_services_active)
        panic("UEFI's boot services are still running: start this image by GRUB's multiboot2 command");
}

void log_memory() {
    std::uint64_t usable = 0;
    for (const MemoryRange& range : boot_info.memory)
        usable += range.type == MemoryType::usable ? range.length : 0;
    log::info(log::Topic::boot, "Cairn, by %.*s, %llu MiB of RAM, %zu modules",
              static_cast<int>(boot_info.loader_name.size()), boot_info.loader_name.data(),
              static_cast<unsigned long long>(usable / kMiB), boot_info.modules.size());
}

}  // namespace

/// entry.S comes here. `image`: where the linked address kImage lies in physical memory.
extern "C" [[noreturn]] __attribute__((no_stack_protector)) void
boot_main(std::uint32_t protocol, std::uint32_t info, std::uint32_t image) {
    const std::uint64_t started = cpu::rdtsc();
    cpu::load_early_per_cpu();
    cpu::seed_stack_guard(started);
    cpu::set_panic_output([](std::string_view text) {
        cpu::early_write(text);
        cpu::text_screen_write(text);
    });
    log::set_sink(&early_log);
    read_boot_info(static_cast<LoaderProtocol>(protocol), Hpa{info});
    const Options options = parse_command_line(boot_info.command_line);
    cpu::set_early_output(options.debug_console ? cpu::EarlyOutput::debug_port : cpu::EarlyOutput::com1);
    if (!options.unknown.empty())
        log::warning(log::Topic::boot, "unknown word on the command line: %.*s",
                     static_cast<int>(options.unknown.size()), options.unknown.data());
    log_memory();
    cpu::build_idt();
    FrameAllocator& frames = init_memory(boot_info, Hpa{image});
    if (boot_info.has_text_screen())
        cpu::init_text_screen();
    auto area = cpu::create_per_cpu(0);
    if (!area)
        panic("no memory for the boot CPU's stacks");
    cpu::load_per_cpu(**area);
    cpu::enable_fpu();
    Start start{options, &frames, started};
    // The boot stack lies in the image and has no guard page; it stays as it is, for `start` is on it.
    cpu::continue_on_stack((*area)->stack_top,
                           [](void* argument) {
                               const auto& s = *static_cast<const Start*>(argument);
                               run_platform(boot_info, s.options, *s.frames, s.started);
                           },
                           &start);
}

}  // namespace hv::boot
