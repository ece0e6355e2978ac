// SPDX-License-Identifier: MIT
#include "fakes/machine.hpp"

#include "vmm/base/assert.hpp"
#include "vmm/base/machine.hpp"

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <thread>
#include <utility>

namespace hv {
namespace {

thread_local std::uint32_t current_cpu = 0;
std::atomic<std::uint64_t> current_tsc{1'000'000};
std::array<std::atomic<std::uint32_t>, 64> kick_counts{};

std::uintptr_t map_arena() {
    void* arena = mmap(nullptr, fake::kPhysicalMemory, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        std::abort();
    return reinterpret_cast<std::uintptr_t>(arena);
}

}  // namespace

void panic(const char* format, ...) {
    std::va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    std::fputc('\n', stderr);
    va_end(arguments);
    std::abort();
}

void assertion_failed(const char* expression, const char* file, int line) {
    panic("assertion failed: %s (%s:%d)", expression, file, line);
}

namespace machine {

std::uint32_t cpu_index() {
    return current_cpu;
}
void let_interrupts_in() {}
void set_running(const char*) {}
void synchronize() {}
void sleep_until_interrupt() {}
void pause() {
    std::this_thread::yield();
}
std::uint64_t tsc() {
    return current_tsc.load();
}
std::uint64_t tsc_hz() {
    return 1'000'000'000;
}
std::uintptr_t direct_map_base() {
    static const std::uintptr_t base = map_arena();
    return base;
}
void kick_cpu(std::uint32_t cpu) {
    ++kick_counts.at(cpu);
}

}  // namespace machine

namespace fake {

void set_cpu(std::uint32_t index) {
    current_cpu = index;
}
void set_tsc(std::uint64_t ticks) {
    current_tsc = ticks;
}
void advance_tsc(std::uint64_t ticks) {
    current_tsc += ticks;
}
std::uint32_t kicks(std::uint32_t cpu) {
    return kick_counts.at(cpu);
}

}  // namespace fake
}  // namespace hv
