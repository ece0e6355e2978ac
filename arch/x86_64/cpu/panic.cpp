// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/panic.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/cpu/interrupts.hpp"
#include "arch/x86_64/cpu/per_cpu.hpp"
#include "arch/x86_64/irq/local_apic.hpp"
#include "vmm/base/assert.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"

#include <atomic>

// The table that toolchain/symbols.py makes from the linked image: addresses ascending, the two parts of
// names as offsets into the text.
extern "C" const std::uint32_t symbol_count;
extern "C" const std::uint32_t symbol_offsets[];  // from image_start
extern "C" const std::uint16_t symbol_scopes[], symbol_names[];
extern "C" const char symbol_text[];
extern "C" const char image_start[];
extern "C" const char text_end[];

extern "C" {
std::uintptr_t __stack_chk_guard = 0x5ca1'ab1e'0ddb'a11dULL;
[[noreturn]] void __stack_chk_fail() {
    hv::panic("stack smashed");
}
[[noreturn]] void __cxa_pure_virtual() {
    hv::panic("pure virtual call");
}
}

namespace std {
/// libstdc++'s checks (span, array, optional, unique_ptr) under _GLIBCXX_ASSERTIONS.
void __glibcxx_assert_fail(const char* file, int line, const char*, const char* condition) noexcept {
    hv::panic("library assertion failed: %s (%s:%d)", condition, file, line);
}
}  // namespace std

namespace hv {
namespace cpu {
namespace {

constexpr std::uint32_t kNobody = 0xffff'ffff;
constinit std::atomic<std::uint32_t> panicking_cpu{kNobody};
using Output = void (*)(std::string_view);
constinit Output output = nullptr;

bool text_address(std::uint64_t address) {
    return address >= reinterpret_cast<std::uintptr_t>(image_start) &&
           address < reinterpret_cast<std::uintptr_t>(text_end);
}

void print(const char* format, ...) __attribute__((format(printf, 1, 2)));
void print(const char* format, ...) {
    char line[256];
    std::va_list arguments;
    va_start(arguments, format);
    const auto text = format_into(line, format, arguments);
    va_end(arguments);
    if (output != nullptr) {
        output("[cairn] ");
        output(text);
        output("\r\n");
    }
}

void print_reason(const char* what, const char* format, std::va_list arguments) {
    char line[200];
    const auto text = format_into(line, format, arguments);
    print("%s: %.*s", what, static_cast<int>(text.size()), text.data());
}

void print_backtrace(std::uint64_t rip, std::uint64_t rbp) {
    constexpr unsigned kMaxFrames = 24;
    for (unsigned depth = 0; depth < kMaxFrames; ++depth) {
        const Symbol symbol = symbol_of(rip);
        print("  #%u 0x%016llx %s%s+0x%llx", depth, static_cast<unsigned long long>(rip), symbol.scope,
              symbol.name, static_cast<unsigned long long>(symbol.offset));
        // Frame pointers lie on host stacks: kernel half, aligned. The chain ends with a null one.
        if (rbp < 0xffff'8000'0000'0000 || (rbp & 7) != 0)
            return;
        const auto* frame = reinterpret_cast<const std::uint64_t*>(rbp);
        rip = frame[1];
        rbp = frame[0];
        if (!text_address(rip))
            return;
    }
}

/// Stops everything else; false: this CPU is already panicking (a fault inside the panic).
bool begin_panic() {
    cli();
    std::uint32_t expected = kNobody;
    const std::uint32_t me = this_cpu().index;
    if (!panicking_cpu.compare_exchange_strong(expected, me)) {
        if (expected == me)
            return false;
        for (;;)
            hlt();
    }
    irq::send_nmi_to_others();
    return true;
}

void print_cpu() {
    const PerCpu& cpu = this_cpu();
    print("cpu %u (APIC ID %u), running %s", cpu.index, cpu.apic_id,
          cpu.running != nullptr ? cpu.running : "no vCPU");
}

[[noreturn]] void stop() {
    for (;;)
        hlt();
}

const char* exception_name(std::uint64_t vector) {
    static constexpr const char* kNames[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM",
                                             "#DF", "CSO", "#TS", "#NP", "#SS", "#GP", "#PF", "15",
                                             "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};
    return vector < std::size(kNames) ? kNames[vector] : "exception";
}

}  // namespace

__attribute__((no_stack_protector)) void seed_stack_guard(std::uint64_t tsc) {
    std::uint64_t value = 0;
    if ((cpuid(1).ecx & (1U << 30)) != 0)
        asm volatile("rdrand %0" : "+r"(value)::"cc");  // without success it stays 0
    // The low byte stays 0: it ends strings that run over.
    __stack_chk_guard = (value ^ tsc * 0x9e37'79b9'7f4a'7c15ULL ^ __stack_chk_guard) & ~std::uint64_t{0xff};
}

void set_panic_output(void (*write)(std::string_view)) {
    output = write;
}

Symbol symbol_of(std::uint64_t address) {
    constexpr Symbol kUnknown{"", "?", 0};
    if (!text_address(address) || symbol_count == 0)
        return kUnknown;
    const auto offset = static_cast<std::uint32_t>(address - reinterpret_cast<std::uintptr_t>(image_start));
    std::uint32_t low = 0, high = symbol_count;
    while (high - low > 1) {
        const std::uint32_t middle = low + (high - low) / 2;
        (symbol_offsets[middle] <= offset ? low : high) = middle;
    }
    if (symbol_offsets[low] > offset)
        return kUnknown;
    return {symbol_text + symbol_scopes[low], symbol_text + symbol_names[low], offset - symbol_offsets[low]};
}

void refuse_to_run(const char* format, ...) {
    if (!begin_panic())
        stop();
    std::va_list arguments;
    va_start(arguments, format);
    print_reason("cannot run", format, arguments);
    va_end(arguments);
    stop();
}

void panic_on_exception(const InterruptFrame& f) {
    if (!begin_panic())
        stop();
    const auto u = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    print("panic: %s in the hypervisor, error code 0x%llx", exception_name(f.vector), u(f.error_code));
    print_cpu();
    print("rip %016llx cs %04llx rflags %08llx cr2 %016llx cr3 %016llx", u(f.rip), u(f.cs), u(f.rflags),
          u(read_cr2()), u(read_cr3()));
    print("rax %016llx rbx %016llx rcx %016llx rdx %016llx", u(f.rax), u(f.rbx), u(f.rcx), u(f.rdx));
    print("rsi %016llx rdi %016llx rbp %016llx rsp %016llx", u(f.rsi), u(f.rdi), u(f.rbp), u(f.rsp));
    print("r8  %016llx r9  %016llx r10 %016llx r11 %016llx", u(f.r8), u(f.r9), u(f.r10), u(f.r11));
    print("r12 %016llx r13 %016llx r14 %016llx r15 %016llx", u(f.r12), u(f.r13), u(f.r14), u(f.r15));
    print_backtrace(f.rip, f.rbp);
    stop();
}

void handle_nmi() {
    const std::uint32_t who = panicking_cpu.load();
    if (who != kNobody && who != this_cpu().index)
        stop();
    this_cpu().nmis.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace cpu

void panic(const char* format, ...) {
    using namespace cpu;
    if (!begin_panic())
        stop();
    std::va_list arguments;
    va_start(arguments, format);
    print_reason("panic", format, arguments);
    va_end(arguments);
    print_cpu();
    print_backtrace(reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)),
                    *static_cast<const std::uint64_t*>(__builtin_frame_address(0)));
    stop();
}

void assertion_failed(const char* expression, const char* file, int line) {
    panic("assertion failed: %s (%s:%d)", expression, file, line);
}

}  // namespace hv
