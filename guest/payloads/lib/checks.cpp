// SPDX-License-Identifier: MIT
#include "lib/checks.hpp"

#include "lib/runtime.hpp"

namespace payload {
namespace {

unsigned checks;
unsigned failed;
unsigned failed_before;

}  // namespace

void expect(bool right, const char* what) {
    ++checks;
    if (right)
        return;
    ++failed;
    print("FAILED: %s\n", what);
}

void report(const char* name) {
    print("%s: %u checks, %u wrong\n", name, checks, failed);
    failed_before += failed;
    checks = failed = 0;
}

unsigned failures() {
    return failed_before;
}

}  // namespace payload
