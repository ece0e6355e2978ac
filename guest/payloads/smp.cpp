// SPDX-License-Identifier: MIT
// Every vCPU of the MADT starts, knows its APIC ID, takes an IPI from the first and answers with one; then
// takes one that goes to all, and in x2APIC mode one that goes to its cluster.
#include "lib/smp.hpp"

#include "lib/cpu.hpp"
#include "lib/interrupts.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"

#include <atomic>

using namespace payload;

namespace {

constexpr std::uint8_t kPing = 0x40;
constexpr std::uint8_t kPong = 0x41;
constexpr std::uint8_t kCount = 0x42;
constexpr std::uint64_t kRounds = 100;
constexpr std::uint64_t kPatience = 20'000'000'000;  // TSC ticks

std::atomic<unsigned> ready;
std::atomic<unsigned> pongs;
std::atomic<unsigned> counted;
std::atomic<unsigned> counts[kMaxCpus];  ///< by APIC ID, which are below
std::uint32_t first_cpu;
bool x2apic;

void on_ping(Frame&) {
    apic::end_of_interrupt();
    apic::send_ipi(first_cpu, kPong);
}

void on_pong(Frame&) {
    pongs.fetch_add(1);
    apic::end_of_interrupt();
}

void on_count(Frame&) {
    counts[apic::id()].fetch_add(1);
    counted.fetch_add(1);
    apic::end_of_interrupt();
}

void work(unsigned index) {
    apic::enable(x2apic);
    if (apic::id() != apic_id_of(index))
        fail("CPU %u has APIC ID %u, the MADT says %u", index, apic::id(), apic_id_of(index));
    ready.fetch_add(1);
    for (;;)
        wait_for_interrupt();
}

[[noreturn]] void give_up(unsigned value, unsigned wanted, const char* what) {
    for (unsigned id = 0; id < cpu_count(); ++id)
        print("CPU %u counts %u\n", id, counts[id].load());
    fail("%u of %u %s", value, wanted, what);
}

void wait_until(std::atomic<unsigned>& value, unsigned wanted, const char* what) {
    enable_interrupts();
    for (const std::uint64_t start = rdtsc(); value.load() != wanted;) {
        if (rdtsc() - start > kPatience)
            give_up(value.load(), wanted, what);
        cpu_pause();
    }
    disable_interrupts();
}

/// [sdm3 11.6.2 Determining IPI Destination], [sdm3 11.12.10 IPI Destination in x2APIC Mode]
void check_groups(unsigned cpus) {
    constexpr unsigned kCluster = 16;
    apic::send_ipi_to_others(kCount);
    wait_until(counted, cpus - 1, "others take an IPI to all others");
    apic::send_ipi_to_all(kCount);
    wait_until(counted, 2 * cpus - 1, "CPUs take an IPI to all");
    if (!x2apic)
        return;
    unsigned wanted = counted.load();
    for (unsigned first = 0; first < cpus; first += kCluster) {
        wanted += cpus - first < kCluster ? cpus - first : kCluster;
        apic::send_logical_ipi(first / kCluster << 16 | 0xffff, kCount);
        wait_until(counted, wanted, "CPUs take an IPI to their cluster");
    }
}

}  // namespace

int payload_main() {
    x2apic = apic::x2apic_offered() && argument("xapic", 0) == 0;
    apic::enable(x2apic);
    first_cpu = apic::id();
    set_handler(kPing, on_ping);
    set_handler(kPong, on_pong);
    set_handler(kCount, on_count);
    const std::uint64_t rounds = argument("rounds", kRounds);
    const unsigned cpus = cpu_count();
    start_other_cpus(work);
    wait_until(ready, cpus - 1, "CPUs are ready");
    // One at a time: two answers at once would be one interrupt.
    unsigned wanted = 0;
    for (std::uint64_t round = 0; round < rounds; ++round)
        for (unsigned index = 0; index < cpus; ++index)
            if (apic_id_of(index) != first_cpu) {
                apic::send_ipi(apic_id_of(index), kPing);
                wait_until(pongs, ++wanted, "IPIs are answered");
            }
    check_groups(cpus);
    print("smp: %u CPUs run, %u IPIs answered, %s\n", cpus, pongs.load(), x2apic ? "x2APIC" : "xAPIC");
    return 0;
}
