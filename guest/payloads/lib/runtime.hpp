// SPDX-License-Identifier: MIT
// What carries a payload: its main, its end, its command line, its console, memory above 4 GiB.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <string_view>

/// Each payload defines it. Interrupts are disabled, memory below 4 GiB is mapped one to one. The result is
/// the exit code.
int payload_main();

namespace payload {

/// To the debug console (port 0xe9), or to COM1 where there is none. %d %u %x %s %c %p %%, l and ll, width
/// and 0.
void print(const char* format, ...) __attribute__((format(printf, 1, 2)));
void vprint(const char* format, std::va_list& arguments);

/// Ends the VM through the debug exit port: 0 is success.
[[noreturn]] void finish(int code);
/// Says what is wrong and ends with code 1.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            ::payload::fail("%s:%d: not true: %s", __FILE_NAME__, __LINE__, #condition);                     \
    } while (false)

/// The number that follows NAME= on the command line, or `otherwise`.
std::uint64_t argument(std::string_view name, std::uint64_t otherwise);

/// Maps the GiB around a physical address in [4 GiB, 512 GiB) one to one, in place of the one mapped before.
void map_high(std::uint64_t address);

/// PVH's start info of this boot: [PVH boot ABI, struct hvm_start_info].
struct StartInfo {
    std::uint32_t magic, version, flags, module_count;
    std::uint64_t modules, command_line, rsdp, memory_map;
    std::uint32_t memory_map_entries, reserved;
};
const StartInfo& start_info();

}  // namespace payload
