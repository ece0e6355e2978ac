// SPDX-License-Identifier: MIT
// The processor that runs the tests, for instructions whose effect it knows best.
#pragma once

#include <cstdint>

extern "C" {
/// Loads `registers` (16 general ones, then RFLAGS), jumps to `code`, which jumps to run_on_cpu_return, and
/// saves them.
void run_on_cpu(std::uint64_t* registers, const void* code);
void run_on_cpu_return();
}
