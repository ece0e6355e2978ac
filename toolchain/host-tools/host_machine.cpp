// SPDX-License-Identifier: MIT
// What vmm/base expects of the machine, for a program with one thread that has no clock to keep.
#include "vmm/base/assert.hpp"
#include "vmm/base/machine.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace hv {

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
    return 0;
}
void pause() {}
std::uint64_t tsc() {
    return 0;
}
std::uint64_t tsc_hz() {
    return 1;
}

}  // namespace machine
}  // namespace hv
