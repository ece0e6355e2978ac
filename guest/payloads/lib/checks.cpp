// SPDX-License-Identifier: MIT
#include "lib/checks.hpp"

#include "lib/runtime.hpp"

#include <cstdarg>

namespace payload {
namespace {

struct Count {
    unsigned checks;
    unsigned failed;
};
Count all;
Count reported;

}  // namespace

void expect(bool holds, const char* format, ...) {
    ++all.checks;
    all.failed += holds ? 0 : 1;
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

void report(const char* name) {
    print("%s: %u checks, %u wrong\n", name, all.checks - reported.checks, all.failed - reported.failed);
    reported = all;
}

int verdict(const char* name) {
    if (all.failed == 0)
        print("%s: %u checks ok\n", name, all.checks);
    else
        print("%s: %u of %u checks FAILED\n", name, all.failed, all.checks);
    return all.failed == 0 ? 0 : 1;
}

}  // namespace payload
