// SPDX-License-Identifier: MIT
#include "lib/checks.hpp"

#include "lib/runtime.hpp"

#include <cstdarg>

namespace payload {
namespace {

unsigned passed;
unsigned failed;

}  // namespace

void expect(bool holds, const char* format, ...) {
    ++(holds ? passed : failed);
    print(holds ? "ok " : "FAILED ");
    std::va_list arguments;
    va_start(arguments, format);
    vprint(format, arguments);
    va_end(arguments);
    print("\n");
}

void skip(const char* name, const char* why) {
    print("skip %s: %s\n", name, why);
}

int verdict(const char* name) {
    if (failed == 0)
        print("%s: %u checks ok\n", name, passed);
    else
        print("%s: %u of %u checks FAILED\n", name, failed, passed + failed);
    return failed == 0 ? 0 : 1;
}

}  // namespace payload
