// SPDX-License-Identifier: MIT
// The end of the host by a bug of ours: registers, backtrace with symbols, what was running; then all CPUs
// stop.
#pragma once

#include <cstdint>
#include <string_view>

namespace hv::cpu {

struct InterruptFrame;

/// Makes the stack protector's value hard to guess, by RDRAND where there is one, else by `tsc`. From a
/// function that is itself not protected and never returns.
void seed_stack_guard(std::uint64_t tsc);
/// Where panic text goes: polled, without locks, callable at any time.
void set_panic_output(void (*write)(std::string_view text));

/// The end before it began: this machine lacks what the hypervisor needs. One plain line, and all CPUs stop.
[[noreturn]] void refuse_to_run(const char* format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void panic_on_exception(const InterruptFrame& frame);
/// An NMI came while the host ran, or ended a guest's run: stops this CPU if another one panicked, else
/// counts it.
void handle_nmi();

/// The function that holds `address`, and the offset in it; "?" if unknown.
struct Symbol {
    const char* scope;  ///< "Class::" or ""
    const char* name;
    std::uint64_t offset;
};
Symbol symbol_of(std::uint64_t address);

}  // namespace hv::cpu
