// SPDX-License-Identifier: MIT
#include "lib/smp.hpp"

#include "lib/acpi.hpp"
#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <atomic>
#include <cstddef>
#include <cstring>

extern "C" {
extern const char ap_trampoline[];
extern const char ap_trampoline_end[];
extern std::uint64_t ap_stack;
}

namespace payload {
namespace {

constexpr std::uint64_t kTrampoline = 0x8000;  // also in start.S
constexpr std::size_t kStackSize = 8192;
constexpr std::uint64_t kPatience = 4'000'000'000;  // TSC ticks

alignas(16) char stacks[kMaxCpus][kStackSize];
std::uint32_t apic_ids[kMaxCpus];
unsigned count;
void (*ap_work)(unsigned);
std::atomic<unsigned> starting;
std::atomic<bool> begun;

void read_madt() {
    constexpr std::size_t kHeader = 44;
    const std::uint64_t madt = acpi::find_table("APIC");
    CHECK(madt != 0);
    const std::uint64_t end = madt + acpi::table_length(madt);
    for (std::uint64_t at = madt + kHeader; at < end; at += read<std::uint8_t>(at + 1)) {
        const auto type = read<std::uint8_t>(at);
        const bool x2apic = type == 9;
        if (type != 0 && !x2apic)
            continue;
        if ((read<std::uint32_t>(at + (x2apic ? 8 : 4)) & 1) == 0)
            continue;
        CHECK(count < kMaxCpus);
        apic_ids[count++] = x2apic ? read<std::uint32_t>(at + 4) : read<std::uint8_t>(at + 3);
    }
    CHECK(count > 0);
}

void wait_ticks(std::uint64_t ticks) {
    for (const std::uint64_t start = rdtsc(); rdtsc() - start < ticks;)
        cpu_pause();
}

}  // namespace

unsigned cpu_count() {
    if (count == 0)
        read_madt();
    return count;
}

std::uint32_t apic_id_of(unsigned index) {
    return apic_ids[index];
}

void start_other_cpus(void (*work)(unsigned)) {
    ap_work = work;
    std::memcpy(reinterpret_cast<void*>(kTrampoline), ap_trampoline,
                static_cast<std::size_t>(ap_trampoline_end - ap_trampoline));
    for (unsigned index = 0; index < cpu_count(); ++index) {
        if (apic_ids[index] == apic::id())
            continue;
        ap_stack = reinterpret_cast<std::uint64_t>(stacks[index]) + kStackSize;
        starting = index;
        begun = false;
        apic::send_init(apic_ids[index]);
        wait_ticks(100'000);
        for (int attempt = 0; attempt < 2 && !begun; ++attempt) {
            apic::send_startup(apic_ids[index], kTrampoline >> 12);
            wait_ticks(200'000);
        }
        for (const std::uint64_t start = rdtsc(); !begun;) {
            if (rdtsc() - start > kPatience)
                fail("CPU %u, APIC ID %u, does not start", index, apic_ids[index]);
            cpu_pause();
        }
    }
}

extern "C" [[noreturn]] void runtime_start_ap() {
    load_idt();
    const unsigned index = starting;
    begun = true;
    ap_work(index);
    for (;;)
        asm volatile("cli; hlt");
}

}  // namespace payload
