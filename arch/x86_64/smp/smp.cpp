// SPDX-License-Identifier: MIT
#include "arch/x86_64/smp/smp.hpp"

#include "arch/x86_64/cpu/guest_fpu.hpp"
#include "arch/x86_64/cpu/host_memory.hpp"
#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/cpu/tsc.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/machine.hpp"

#include <atomic>
#include <cstring>

extern "C" const char trampoline_start[];
extern "C" const char trampoline_end[];
extern "C" const char trampoline_parameters[];

namespace hv::smp {
namespace {

/// The end of trampoline.S.
struct Parameters {
    std::uint64_t root;
    std::uint64_t stack;
    std::uint64_t argument;
    std::uint64_t entry;
};

struct Start {
    cpu::PerCpu* area;
    void (*main)();
    std::atomic<bool> arrived;
};

[[noreturn]] void arrive(Start* start) {
    cpu::PerCpu& area = *start->area;
    void (*const main)() = start->main;
    cpu::enter_host_memory();
    cpu::load_per_cpu(area);
    cpu::enable_fpu();
    irq::enable_local_apic();
    // The starter's `Start` may be gone from here on.
    start->arrived.store(true, std::memory_order_release);
    main();
    __builtin_unreachable();
}

bool wait_for(const std::atomic<bool>& flag, std::uint64_t microseconds) {
    const std::uint64_t end = machine::tsc() + microseconds * (machine::tsc_hz() / 1'000'000);
    while (!flag.load(std::memory_order_acquire)) {
        if (machine::tsc() > end)
            return false;
        machine::pause();
    }
    return true;
}

/// [sdm3 9.4.4.1 Typical BSP Initialization Sequence]: INIT, 10 ms, SIPI, and a second SIPI for one that
/// missed the first.
bool wake(std::uint32_t apic_id, Hpa page, const std::atomic<bool>& arrived) {
    irq::send_init(apic_id);
    cpu::delay_microseconds(10'000);
    for (unsigned attempt = 0; attempt < 2; ++attempt) {
        irq::send_startup(apic_id, page);
        if (wait_for(arrived, attempt == 0 ? 10'000 : 1'000'000))
            return true;
    }
    return false;
}

}  // namespace

void start_cpus(std::span<const std::uint32_t> apic_ids, Hpa page, void (*main)()) {
    auto root = cpu::create_trampoline_root(page);
    if (!root) {
        log::error(log::Topic::cpu, "no memory to start other CPUs with; running on one");
        return;
    }
    auto* code = machine::hva<char>(page);
    std::memcpy(code, trampoline_start, static_cast<std::size_t>(trampoline_end - trampoline_start));
    auto* parameters = reinterpret_cast<Parameters*>(code + (trampoline_parameters - trampoline_start));
    // A CPU that comes too late must not run on what its successor got: each keeps its Start for ever.
    static constinit Start starts[cpu::kMaxCpus]{};
    std::size_t attempts = 0;
    for (const std::uint32_t apic_id : apic_ids) {
        if (apic_id == cpu::this_cpu().apic_id || attempts == cpu::kMaxCpus)
            continue;
        auto area = cpu::create_per_cpu(apic_id);
        if (!area) {
            log::warning(log::Topic::cpu, "CPU with APIC ID %u left out: %s", apic_id,
                         to_string(area.error()));
            continue;
        }
        Start& start = starts[attempts++];
        start.area = *area;
        start.main = main;
        *parameters = {root->raw, (*area)->stack_top, reinterpret_cast<std::uintptr_t>(&start),
                       reinterpret_cast<std::uintptr_t>(&arrive)};
        if (!wake(apic_id, page, start.arrived)) {
            log::warning(log::Topic::cpu, "CPU with APIC ID %u does not start", apic_id);
            cpu::drop_last_cpu();
        }
    }
    std::memset(code, 0, kPageSize);
    cpu::destroy_trampoline_root(*root);
}

}  // namespace hv::smp
