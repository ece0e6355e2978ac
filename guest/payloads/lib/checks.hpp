// SPDX-License-Identifier: MIT
// Checks that are counted and reported one by one, so that one that fails does not hide the others.
#pragma once

namespace payload {

/// Says "ok ..." or "FAILED ..." with the name.
void expect(bool holds, const char* format, ...) __attribute__((format(printf, 2, 3)));
/// Says that something is not checked, and why.
void skip(const char* name, const char* why);
/// "NAME: N checks, M wrong" for the checks since the last one; for a part of a payload.
void report(const char* name);
/// "NAME: N checks ok" or how many failed, of all that were made; the exit code.
int verdict(const char* name);

}  // namespace payload
